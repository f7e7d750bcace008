//! The article on one node: users see v1 alone, v2 sees a copy of everything, and the sums add up.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use umbra_testkit::{Samples, wait_for};

use crate::node_system::{CEILING, System, cluster_ips, who, with_system};

/// Of each IP family.
const REQUESTS: u16 = 100;

#[test]
fn users_see_v1_and_v2_sees_a_copy_of_everything() -> Result<()> {
    with_system(|system| {
        users_see_v1(system)?;
        ensure!(system.intercepted()? == u64::from(REQUESTS) * 2, "{} intercepted", system.intercepted()?);
        let samples = settled(system)?;
        v2_saw_the_copies(system, &samples)?;
        the_metrics_tell_it(&samples)?;
        who_was_not_intercepted_is_refused(system)?;
        system.v1.alive().and_then(|()| system.v2.alive())
    })
}

fn users_see_v1(system: &System) -> Result<()> {
    for (family, ip) in ["four", "six"].into_iter().zip(cluster_ips()) {
        let mut took = Vec::new();
        for index in 0..REQUESTS {
            let began = Instant::now();
            let answer = system.ask(ip, &format!("{family}-{index}"))?;
            took.push(began.elapsed().as_micros());
            ensure!(answer.status == 200 && who(&answer)? == "v1", "{}\n{}", answer.head, answer.body);
        }
        took.sort_unstable();
        let (p50, p99) = (took[took.len() / 2], took[took.len() * 99 / 100]);
        println!("measured: a user's request on a new connection, IPv {family}: p50 {p50} us, p99 {p99} us");
    }
    Ok(())
}

/// Counters at rest: eligible = sent + dropped, sent = answered + timed_out + failed.
fn settled(system: &System) -> Result<Samples> {
    wait_for("the shadows' sums add up", CEILING, || {
        let samples = system.samples()?;
        let sum =
            |name: &str, labels: &[(&str, &str)]| samples.sum(&format!("umbra_shadow_{name}_total"), labels);
        let (eligible, sent, dropped) = (sum("eligible", &[]), sum("sent", &[]), sum("dropped", &[]));
        let ended = sum("result", &[]);
        let is = |one: f64, other: f64| (one - other).abs() < 0.5;
        ensure!(is(eligible, f64::from(REQUESTS) * 2.0), "{eligible} eligible");
        ensure!(
            is(eligible, sent + dropped) && is(sent, ended),
            "{sent} sent, {dropped} dropped, {ended} ended"
        );
        Ok(samples)
    })
}

fn v2_saw_the_copies(system: &System, samples: &Samples) -> Result<()> {
    let (originals, copies) = (seen(&system.v1.stats()?)?, seen(&system.v2.stats()?)?);
    ensure!(originals.len() == usize::from(REQUESTS) * 2, "v1 saw {}", originals.len());
    for (id, copy) in &copies {
        let original = originals.get(id).with_context(|| format!("{id} is nobody's copy"))?;
        ensure!(original == copy, "not the same: {original} is {copy}");
    }
    let sent = samples.sum("umbra_shadow_sent_total", &[]);
    ensure!((copies.len() as f64 - sent).abs() < 0.5, "{sent} sent, {} seen", copies.len());
    let dropped = samples.sum("umbra_shadow_dropped_total", &[]);
    ensure!(dropped <= f64::from(REQUESTS) * 0.02, "{dropped} dropped");
    println!("measured: {} copies seen by v2, {dropped} dropped", copies.len());
    Ok(())
}

/// Each request as it was recorded, by its id; method, path, headers in order, body.
fn seen(stats: &Value) -> Result<BTreeMap<String, Value>> {
    let recorded = stats["recorded"].as_array().context("recorded")?;
    let mut by_id = BTreeMap::new();
    for request in recorded {
        let headers = request["headers"].as_array().context("headers")?;
        let id = headers.iter().find(|header| header[0] == "x-request-id").context("x-request-id")?;
        let id = id[1].as_str().context("text")?.to_owned();
        ensure!(by_id.insert(id.clone(), request.clone()).is_none(), "{id} came twice");
    }
    Ok(by_id)
}

fn the_metrics_tell_it(samples: &Samples) -> Result<()> {
    let all = f64::from(REQUESTS) * 2.0;
    for (labels, wanted) in [
        (&[("request_role", "primary"), ("reporter", "source"), ("destination_version", "v1")], all),
        (&[("request_role", "primary"), ("reporter", "destination"), ("response_code", "200")], all),
        (&[("request_role", "shadow"), ("reporter", "destination"), ("destination_version", "v2")], all),
        (&[("request_role", "primary"), ("source_workload", "sa-web-app-1"), ("reporter", "source")], all),
        (&[("request_role", "shadow"), ("reporter", "source"), ("destination_version", "v2")], 0.0),
    ] {
        let found = samples.sum("istio_requests_total", labels);
        ensure!((found - wanted).abs() < 0.5, "{labels:?}: {found}, not {wanted}\n{}", samples.text());
    }
    let failed = samples.sum("istio_requests_total", &[("request_role", "shadow"), ("response_code", "500")]);
    println!("measured: {:.0} % of v2's answers failed (the article's bug: 64 %)", failed / all * 100.0);
    ensure!(failed > 0.0, "the bug was not seen");
    Ok(())
}

/// The listener is no open door: neither for a pod of the node nor for others.
fn who_was_not_intercepted_is_refused(system: &System) -> Result<()> {
    for ip in [IpAddr::from(system.node.ipv4()), system.node.ipv6().into()] {
        let listener = SocketAddr::from((ip, 15001));
        for (from, connected) in [
            ("a pod", system.connect(listener)?),
            ("outside", std::net::TcpStream::connect_timeout(&listener, CEILING)),
        ] {
            let refused = connected.as_ref().is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused);
            ensure!(refused, "{from} to {listener}: {connected:?}");
        }
    }
    Ok(())
}
