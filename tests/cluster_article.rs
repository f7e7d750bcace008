//! The article on two nodes: users are answered by v1, v2 gets a copy of everything and fails 64 % of it, nobody notices.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Child, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use umbra_testkit::{CEILING, Shadows, skip, wait_for};

use crate::cluster_prometheus::Prometheus;
use crate::cluster_system::{Example, ExamplePod, Second, UMBRA, proxy_metrics, with_example};

/// The same number through the sa-web-app of each of two or three nodes.
const REQUESTS: usize = 1002;
const RATE: usize = 50;
/// The article's bug: 33 + 32 of 101 cases.
const FAILING: f64 = 65.0 / 101.0;

#[test]
fn users_see_v1_and_v2_fails_unseen() {
    with_example("article", Second::Buggy, |example| {
        on_every_node(example)?;
        example.route()?;
        without_a_mirror(example)?;
        let before = example.settled_shadows()?;
        let load = load(example, "mirrored", REQUESTS)?;
        println!("measured: users beside a mirror that fails: {}", latencies(&load));
        let shadows = example.settled_shadows()?;
        println!("shadows: {shadows:?}");
        ensure!(
            shadows.eligible - before.eligible == REQUESTS as u64,
            "before {before:?}, after {shadows:?}"
        );
        compare_copies(example, &shadows)?;
        ask_prometheus(example, &shadows)?;
        show(example)
    });
}

/// Clients, v1 and v2 have a pod on each node.
fn on_every_node(example: &Example) -> Result<()> {
    let nodes: BTreeSet<_> = example.cluster().nodes().iter().map(|node| node.name.clone()).collect();
    ensure!(nodes.len() >= 2, "the article wants two nodes: {nodes:?}");
    for (what, pods) in [("sa-web-app", example.clients()?), ("v1", example.v1()?), ("v2", example.v2()?)] {
        let on: BTreeSet<_> = pods.iter().map(|pod| pod.node.clone()).collect();
        ensure!(on == nodes, "{what} runs on {on:?} instead of {nodes:?}");
    }
    Ok(())
}

/// The same load, same route, no mirror: what the mirror's cost is measured against.
fn without_a_mirror(example: &Example) -> Result<()> {
    let spec = example.get("vs/sa-logic")?["spec"].clone();
    let mut bare = spec.clone();
    bare["http"][0].as_object_mut().context("a rule is an object")?.remove("mirror");
    put_spec(example, &bare)?;
    let load = load(example, "alone", REQUESTS)?;
    println!("measured: users without a mirror: {}", latencies(&load));
    let shadows = example.shadows()?;
    ensure!(shadows == Shadows::default(), "shadows without a mirror: {shadows:?}");
    put_spec(example, &spec)
}

fn put_spec(example: &Example, spec: &Value) -> Result<()> {
    let patch = json!([{"op": "replace", "path": "/spec", "value": spec}]).to_string();
    example.kubectl(&["patch", "vs", "sa-logic", "--type=json", "-p", &patch])?;
    example.wait_programmed()
}

/// From each client's pod to itself: half of the requests at half of the rate, all of which must be answered by v1.
/// Gives the reports, by node.
fn load(example: &Example, prefix: &str, requests: usize) -> Result<Vec<(String, Value)>> {
    let clients = example.clients()?;
    let (requests, rate) = (requests / clients.len(), RATE as f64 / clients.len() as f64);
    let running = clients
        .iter()
        .map(|pod| start_load(example, pod, prefix, requests, rate))
        .collect::<Result<Vec<_>>>()?;
    let mut reports = Vec::new();
    for (pod, child) in clients.iter().zip(running) {
        let done = child.wait_with_output()?;
        let said = String::from_utf8_lossy(&done.stdout);
        ensure!(
            done.status.success(),
            "users on {}: {said}{}",
            pod.node,
            String::from_utf8_lossy(&done.stderr)
        );
        let report: Value = serde_json::from_str(&said).with_context(|| said.to_string())?;
        ensure!(report["requests"] == requests && report["failed"] == 0, "users on {}: {report}", pod.node);
        reports.push((pod.node.clone(), report));
    }
    Ok(reports)
}

fn start_load(
    example: &Example,
    pod: &ExamplePod,
    prefix: &str,
    requests: usize,
    rate: f64,
) -> Result<Child> {
    let load = [
        format!("--requests={requests}"),
        format!("--rate={rate}"),
        "--expect-version=v1".to_owned(),
        // Its own web app, not the Service: each half is to come from the node it is named after.
        format!("--address={}:8080", pod.address),
        format!("--request-id-prefix={prefix}-{}", pod.node),
    ];
    let exec = ["exec", "-n", example.name(), &pod.name, "--", "/sa-web-app", "load"];
    let mut command = example.cluster().kubectl().command(&exec);
    Ok(command.args(load).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?)
}

fn latencies(load: &[(String, Value)]) -> String {
    let of = |(node, report): &(String, Value)| {
        let ms = |name: &str| report[name].as_f64().unwrap_or(f64::NAN);
        format!("{node}: p50 {:.1} ms, p99 {:.1} ms, max {:.1} ms", ms("p50_ms"), ms("p99_ms"), ms("max_ms"))
    };
    load.iter().map(of).collect::<Vec<_>>().join("; ")
}

/// A request as a pod of sa-logic recorded it, and the pod's node.
type Seen = BTreeMap<String, (String, Value)>;

fn compare_copies(example: &Example, shadows: &Shadows) -> Result<()> {
    let (originals, copies) = (seen(example, &example.v1()?)?, seen(example, &example.v2()?)?);
    ensure!(originals.len() == REQUESTS, "v1 saw {} of {REQUESTS} requests", originals.len());
    for (id, (_, copy)) in &copies {
        let (_, original) = originals.get(id).with_context(|| format!("v2 saw {id}, v1 did not"))?;
        ensure!(copy == original, "{id} was\n{original}\nand its copy\n{copy}");
    }
    let missing = (originals.len() - copies.len()) as u64;
    println!("copies: v2 saw {} of {REQUESTS}, dropped {}", copies.len(), shadows.dropped);
    ensure!(missing <= shadows.dropped, "{missing} copies are missing, {shadows:?}");
    ensure!(shadows.dropped as usize * 100 <= REQUESTS, "more than 1 % was dropped: {shadows:?}");
    for (what, seen) in [("v1", &originals), ("v2", &copies)] {
        pairs(example, what, seen)?;
    }
    Ok(())
}

/// The mirrored load's requests, by id; each was seen once.
fn seen(example: &Example, pods: &[ExamplePod]) -> Result<Seen> {
    let mut seen = Seen::new();
    for pod in pods {
        for request in example.stats(pod)?["recorded"].as_array().into_iter().flatten() {
            let headers = request["headers"].as_array().context("headers")?;
            let id = headers.iter().find(|header| header[0] == "x-request-id");
            let id = id.and_then(|header| header[1].as_str()).unwrap_or_default();
            if id.starts_with("mirrored-") {
                let twice = seen.insert(id.to_owned(), (pod.node.clone(), request.clone()));
                ensure!(twice.is_none(), "{id} was seen twice, the second time by {}", pod.name);
            }
        }
    }
    Ok(seen)
}

/// Same node and across nodes, each of which must have happened.
fn pairs(example: &Example, what: &str, seen: &Seen) -> Result<()> {
    for client in example.cluster().nodes() {
        for server in example.cluster().nodes() {
            let from = format!("mirrored-{}-", client.name);
            let count =
                seen.iter().filter(|(id, (on, _))| id.starts_with(&from) && *on == server.name).count();
            let kind = if client.name == server.name { "same node" } else { "cross node" };
            println!("pairs: {kind}: {} -> {what} on {}: {count}", client.name, server.name);
            ensure!(count > 0, "no request went from {} to {what} on {}", client.name, server.name);
        }
    }
    Ok(())
}

fn ask_prometheus(example: &Example, shadows: &Shadows) -> Result<()> {
    if !Prometheus::is_installed() {
        skip("Prometheus is not installed: apt-get install prometheus");
        return Ok(());
    }
    let targets: Result<Vec<_>> =
        example.cluster().nodes().iter().map(|node| proxy_metrics(&node.address)).collect();
    let prometheus = Prometheus::start(&targets?)?;
    let requests = |version: &str, more: &str| {
        let service = example.host();
        format!(
            "sum(istio_requests_total{{reporter=\"destination\",destination_service=\"{service}\",\
             destination_version=\"{version}\"{more}}})"
        )
    };
    let ask = |query: &str| -> Result<f64> {
        let value = prometheus.query(query)?.with_context(|| format!("{query} gives nothing"))?;
        println!("prometheus: {query} = {value:.4}");
        Ok(value)
    };
    let sent = shadows.sent as f64;
    wait_for("Prometheus has every copy", CEILING, || {
        let all = prometheus.query(&requests("v2", ""))?;
        ensure!(all == Some(sent), "{all:?} of {sent}");
        Ok(())
    })?;
    let failing = |version: &str| {
        let failed = requests(version, ",response_code=~\"5..\"");
        format!("({failed} or vector(0)) / {}", requests(version, ""))
    };
    let (v1, v2) = (ask(&failing("v1"))?, ask(&failing("v2"))?);
    let timed_out = ask(&requests("v2", ",response_code=\"504\",response_flags=\"UT\""))?;
    // Four sigma: by chance alone one run in 16,000 lies outside, and a test that fails by chance is worth nothing.
    let spread = 4.0 * (FAILING * (1.0 - FAILING) / sent).sqrt();
    ensure!(v1 == 0.0, "{v1} of the users' requests failed");
    ensure!((v2 - FAILING).abs() <= spread, "{v2:.4} of the copies failed: not {FAILING:.4} ± {spread:.4}");
    ensure!(timed_out == shadows.timed_out as f64, "{timed_out} are 504 UT: {shadows:?}");
    Ok(())
}

/// What a person looks at: the columns, the conditions, the programs' memory.
fn show(example: &Example) -> Result<()> {
    println!("{}", example.kubectl(&["get", "vs,dr", "-o", "wide"])?);
    println!("{}", example.kubectl(&["describe", "vs", "sa-logic"])?);
    for pod in example.cluster().pods(UMBRA, "app.kubernetes.io/name=umbra")? {
        let name = pod["metadata"]["name"].as_str().context("a pod has a name")?;
        let (now, most) = example.cluster().pod_memory(UMBRA, name)?;
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        println!("measured: memory of {name}: {:.1} MiB resident, at most {:.1} MiB", mib(now), mib(most));
    }
    Ok(())
}
