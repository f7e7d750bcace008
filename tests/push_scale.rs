//! A thousand governed services: one endpoint's change costs one service's work and one small delta per node.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use umbra_testkit::{Kubectl, Samples, objects, wait_for};

use crate::push_system::{CEILING, PushProxy, System, resident_mb, with_system};

const SERVICES: u16 = 1000;
/// kubectl spares the API server: 50 requests a second each. More of them share the work.
const WRITERS: usize = 8;
/// Of one change to each node: the most that the delta may be.
const SMALL: f64 = 2048.0;

#[test]
fn one_endpoint_of_a_thousand_services() -> Result<()> {
    with_system(&["n1", "n2"], test)
}

fn test(system: &mut System) -> Result<()> {
    let began = Instant::now();
    create_services(system.server.kubectl())?;
    println!("measured: {SERVICES} services written in {} s", began.elapsed().as_secs());
    let began = Instant::now();
    system.start_all()?;
    for proxy in &system.proxies {
        proxy.wait_armed(usize::from(SERVICES))?;
    }
    println!("measured: {SERVICES} services from nothing to armed on both nodes: {} ms", ms(began));
    let quiet = wait_programmed(system)?;
    let size = bytes(&quiet, "n1", "put");
    println!("measured: the full push of {SERVICES} services: {:.0} KB", size / 1024.0);

    one_change(system)?;
    propagation(system)?;
    let controller = system.controller.as_ref().context("runs")?;
    let proxy = system.proxies[0].process.as_ref().context("runs")?;
    println!(
        "measured: resident with {SERVICES} services (a debug build's programs): controller {:.0} MB, proxy {:.0} MB",
        resident_mb(controller)?,
        resident_mb(proxy)?
    );
    Ok(())
}

/// One more endpoint, and the counters before and after.
fn one_change(system: &System) -> Result<()> {
    let before = system.controller_samples()?;
    let states = system.proxies.iter().map(|proxy| proxy.state()).collect::<Result<Vec<_>>>()?;
    write_endpoint(system, 7, 201)?;
    let after = wait_for("both nodes have the change", CEILING, || {
        for (proxy, before) in system.proxies.iter().zip(&states) {
            ensure!(proxy.state()?["digest"] != before["digest"], "{} has what it had", proxy.node);
        }
        let now = system.controller_samples()?;
        for node in ["n1", "n2"] {
            let sent = pushes(&now, node, "patch") - pushes(&before, node, "patch");
            ensure!(sent > 0.5, "{node}: not acknowledged yet");
        }
        Ok(now)
    })?;
    let more = |name: &str| after.sum(name, &[]) - before.sum(name, &[]);
    is("services compiled", more("umbra_controller_services_compiled_total"), 1.0)?;
    is("snapshots", more("umbra_controller_snapshots_total"), 1.0)?;
    for node in ["n1", "n2"] {
        is(
            &format!("PATCHes to {node}"),
            pushes(&after, node, "patch") - pushes(&before, node, "patch"),
            1.0,
        )?;
        is(&format!("PUTs to {node}"), pushes(&after, node, "put") - pushes(&before, node, "put"), 0.0)?;
        let sent = bytes(&after, node, "patch") - bytes(&before, node, "patch");
        println!("measured: one endpoint's change to {node}: {sent:.0} bytes of body (aim: under {SMALL})");
        ensure!(sent > 0.0 && sent < SMALL, "{node}: {sent} bytes");
    }
    is("refusals", more("umbra_controller_push_refusals_total"), 0.0)?;
    agree(system)
}

/// Both nodes hold the same, and it is what the controller would send: it goes on with deltas, and a digest that
/// differs would be counted and end in a PUT.
fn agree(system: &System) -> Result<()> {
    // The last change may be on its way to one of them, or its answer to the controller.
    wait_for("both nodes hold the same", CEILING, || same(system))?;
    let samples = system.controller_samples()?;
    is(
        "digests that differed",
        samples.sum("umbra_controller_push_refusals_total", &[("reason", "digest")]),
        0.0,
    )
}

/// At this moment, and the controller knows.
fn same(system: &System) -> Result<()> {
    let [one, two] = system.proxies.as_slice() else { anyhow::bail!("two proxies") };
    let (one, two) = (one.config()?, two.config()?);
    for (key, value) in one.as_object().context("resources by key")? {
        // The node's own pods and settings differ.
        let shared = key.starts_with("service/") || key.starts_with("backends/");
        ensure!(!shared || two[key] == *value, "{key}: {value} on n1, {} on n2", two[key]);
    }
    let samples = system.controller_samples()?;
    for proxy in &system.proxies {
        let held: f64 = proxy.state()?["version"].as_str().context("version")?.parse()?;
        let acked = samples.sum("umbra_controller_node_acked_version", &[("node", &proxy.node)]);
        is(&format!("version that {} has acknowledged", proxy.node), acked, held)?;
    }
    Ok(())
}

/// From the API server's answer to what the node holds, twenty times.
fn propagation(system: &System) -> Result<()> {
    let mut delays = Vec::new();
    for last in 0..20_u8 {
        let before = system.proxies[0].state()?["digest"].clone();
        let delay = std::thread::scope(|scope| {
            let changed = scope.spawn(|| changed_at(&system.proxies[0], &before));
            let answered = write_endpoint(system, 8, 100 + last);
            let changed = changed.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            Ok::<_, anyhow::Error>(changed.saturating_duration_since(answered?))
        })?;
        delays.push(delay.as_millis());
    }
    delays.sort_unstable();
    println!(
        "measured: an endpoint's change among {SERVICES} services, from the API server's answer to the node: \
         p50 {} ms, max {} ms (aim: 15/100; a debug build's programs)",
        delays[delays.len() / 2],
        delays[delays.len() - 1]
    );
    agree(system)
}

/// When the node held something else. Asks again and again: a pause would be measured, too.
fn changed_at(proxy: &PushProxy, before: &Value) -> Result<Instant> {
    let began = Instant::now();
    while proxy.state()?["digest"] == *before {
        ensure!(began.elapsed() < CEILING, "{} holds what it held", proxy.node);
    }
    Ok(Instant::now())
}

/// Replaces the slice with curl, which ends as soon as the API server has answered; gives that time.
fn write_endpoint(system: &System, number: u16, last: u8) -> Result<Instant> {
    let (server, slice) = (&system.server, slice_with(number, last));
    let path =
        format!("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/{}", service_name(number));
    let mut curl = Command::new("curl");
    curl.args(["-sSk", "--fail-with-body", "-X", "PUT", "-H", "content-type: application/json"]);
    curl.args(["-H", &format!("authorization: Bearer {}", server.token()), "-d", &slice.to_string()]);
    let done = curl.arg(format!("{}{path}", server.url())).output()?;
    let answered = Instant::now();
    ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stdout));
    Ok(answered)
}

/// Status is written for all objects, and nothing more comes of it: the counters rest.
fn wait_programmed(system: &System) -> Result<Samples> {
    wait_for("every VirtualService is programmed", CEILING * 3, || {
        let list = system.server.kubectl().get(&["vs"])?;
        let all = list["items"].as_array().context("items")?;
        let programmed = |vs: &&Value| crate::push_system::condition(vs, "Programmed")["status"] == "True";
        let count = all.iter().filter(programmed).count();
        ensure!(count == usize::from(SERVICES), "{count} are");
        Ok(())
    })?;
    system.controller_samples()
}

/// The slice of a service with one more address of its first subset.
fn slice_with(number: u16, last: u8) -> Value {
    let name = service_name(number);
    let pods = [(pod_name(number, "v1"), address(number, 1)), (pod_name(number, "v2"), address(number, 2))];
    let mut named: Vec<(&str, IpAddr)> = pods.iter().map(|(pod, ip)| (pod.as_str(), *ip)).collect();
    named.push((&pods[0].0, address(number, last)));
    objects::endpoint_slice(&name, &name, &named)
}

fn create_services(kubectl: &Kubectl) -> Result<()> {
    let numbers: Vec<u16> = (0..SERVICES).collect();
    let parts = numbers.chunks(usize::from(SERVICES).div_ceil(WRITERS));
    std::thread::scope(|scope| {
        let writers: Vec<_> = parts.map(|part| scope.spawn(move || create(kubectl, part))).collect();
        writers
            .into_iter()
            .try_for_each(|writer| writer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

fn create(kubectl: &Kubectl, numbers: &[u16]) -> Result<()> {
    let mut text = String::new();
    for object in numbers.iter().flat_map(|number| service(*number)) {
        writeln!(text, "---\n{object}")?;
    }
    kubectl.create(&text)
}

/// The article's shape: a pod for each of two subsets.
fn service(number: u16) -> [Value; 6] {
    let name = service_name(number);
    let (v1, v2) = (pod_name(number, "v1"), pod_name(number, "v2"));
    let endpoints = [(v1.as_str(), address(number, 1)), (v2.as_str(), address(number, 2))];
    [
        objects::service(&name, &[]),
        objects::pod(&name, "v1", &v1, "n1", &[]),
        objects::pod(&name, "v2", &v2, "n2", &[]),
        objects::endpoint_slice(&name, &name, &endpoints),
        objects::destination_rule(&name),
        objects::virtual_service(&name),
    ]
}

fn service_name(number: u16) -> String {
    format!("shop-{number}")
}

fn pod_name(number: u16, version: &str) -> String {
    format!("shop-{number}-{version}")
}

/// 10.128.0.0 and on: 256 addresses for each service.
fn address(number: u16, last: u8) -> IpAddr {
    let [high, low] = number.to_be_bytes();
    Ipv4Addr::new(10, 128 + high, low, last).into()
}

fn pushes(samples: &Samples, node: &str, kind: &str) -> f64 {
    samples.sum("umbra_controller_pushes_total", &[("node", node), ("kind", kind)])
}

fn bytes(samples: &Samples, node: &str, kind: &str) -> f64 {
    samples.sum("umbra_controller_push_bytes_total", &[("node", node), ("kind", kind)])
}

fn is(what: &str, found: f64, wanted: f64) -> Result<()> {
    ensure!((found - wanted).abs() < 0.5, "{what}: {found}, not {wanted}");
    Ok(())
}

fn ms(since: Instant) -> u128 {
    since.elapsed().as_millis()
}
