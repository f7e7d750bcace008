//! A change reaches both nodes quickly and costs no request: other weights, and no VirtualService any more.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use umbra_testkit::{CEILING, wait_for};

use crate::cluster_api::Api;
use crate::cluster_system::{Example, Second, with_example};
use crate::cluster_users::{Client, Connections, User, Users};

/// Enough for a 90th percentile that means something; each takes about a second.
const ROUNDS: usize = 20;
/// Resolution of the measurement: far below the aim of 15 ms.
const TIGHT: Duration = Duration::from_millis(2);

#[test]
fn weights_change_on_both_nodes_and_no_request_fails() {
    with_example("weights", Second::Right, |example| {
        example.route()?;
        let api = Api::start(example.cluster())?;
        let load = Users::start(example, Duration::from_millis(20))?;
        let mut probes = Vec::new();
        for pod in example.clients()? {
            probes.push(User::start(example, &pod, Connections::Kept, TIGHT)?);
        }
        let mut delays = Vec::new();
        for round in 0..ROUNDS {
            delays.extend(change(example, &api, &probes, round)?);
        }
        print_delays("a change of weights, API server's answer to first request", &mut delays);
        for probe in probes {
            let (node, log) = (probe.node.clone(), probe.finish());
            println!("{node}: {} requests, by version {:?}", log.requests, log.versions);
            ensure!(log.failed == 0, "{node}: {} failed: {:#?}", log.failed, log.failures);
        }
        let log = load.finish_unharmed()?;
        println!("under load: {} requests, by version {:?}", log.requests, log.versions);
        let shadows = example.settled_shadows()?;
        println!("shadows: {shadows:?}");
        ensure!(shadows.eligible > 0, "{shadows:?}");
        Ok(())
    });
}

/// All users from one version to the other; gives each node's delay.
fn change(example: &Example, api: &Api, probes: &[User], round: usize) -> Result<Vec<Duration>> {
    let to = if round.is_multiple_of(2) { "v2" } else { "v1" };
    for probe in probes {
        // The first round must not find what an earlier route left behind.
        wait_for("the user has been answered", CEILING, || {
            let log = probe.log();
            ensure!(log.changes.last().is_some_and(|(_, version)| version != to), "{log:?}");
            Ok(())
        })?;
    }
    let seen: Vec<usize> = probes.iter().map(|probe| probe.log().changes.len()).collect();
    let answered = api.patch_virtual_service(example.name(), "sa-logic", &weights(to))?;
    let mut delays = Vec::new();
    for (probe, seen) in probes.iter().zip(seen) {
        // A request may have been under way when the API server answered.
        delays.push(probe.wait_for_change(seen, to)?.saturating_duration_since(answered));
    }
    example.wait_programmed()?;
    Ok(delays)
}

/// Everything to one of two destinations; the mirror is the other's copy.
fn weights(to: &str) -> Value {
    let destination = |subset: &str| json!({"destination": {"host": "sa-logic", "subset": subset}, "weight": if subset == to { 100 } else { 0 }});
    json!({"http": [{
        "route": [destination("v1"), destination("v2")],
        "mirror": {"host": "sa-logic", "subset": "v2"},
    }]})
}

fn print_delays(what: &str, delays: &mut [Duration]) {
    delays.sort_unstable();
    let rank = |percent: usize| {
        let rank = (delays.len() * percent).div_ceil(100).max(1);
        delays.get(rank - 1).map_or(f64::NAN, |delay| delay.as_secs_f64() * 1000.0)
    };
    println!(
        "measured: {what}: p50 {:.1} ms, p99 {:.1} ms of {} (aim: 15/100)",
        rank(50),
        rank(99),
        delays.len()
    );
}

#[test]
fn a_deleted_virtual_service_ends_mirroring_and_fails_no_request() {
    with_example("deleted", Second::Right, |example| {
        example.route()?;
        let users = Users::start(example, Duration::from_millis(10))?;
        users.wait_for_more(20)?;
        // Connections that are open and silent while the VirtualService goes.
        let mut silent = Vec::new();
        for pod in example.clients()? {
            let mut client = Client::new(example, &pod)?;
            let answer = client.ask(&format!("before-{}", pod.node), Connections::Kept)?;
            ensure!(answer.version == "v1" && client.is_connected(), "{}: {answer:?}", pod.node);
            silent.push((pod.node, client));
        }
        example.kubectl(&["delete", "vs", "sa-logic"])?;
        served_by_the_service(&users)?;
        let before = example.shadows()?;
        for (node, client) in &mut silent {
            let answer = client.ask(&format!("after-{node}"), Connections::Kept)?;
            ensure!(answer.version == "v1", "{node}: an open connection keeps its route: {answer:?}");
            ensure!(answer.closes, "{node}: the connection is told to end: {answer:?}");
        }
        users.wait_for_more(50)?;
        let after = example.settled_shadows()?;
        ensure!(after.eligible == before.eligible, "mirroring went on: {before:?}, then {after:?}");
        no_copies_of(example, "after-")?;
        let log = users.finish_unharmed()?;
        println!("under load: {} requests, by version {:?}; {after:?}", log.requests, log.versions);
        Ok(())
    });
}

/// On every node a new connection was answered by v2, as only the Service's own endpoints do.
fn served_by_the_service(users: &Users) -> Result<()> {
    for user in users.each().filter(|user| user.connections == Connections::Fresh) {
        user.wait_for_change(0, "v2")?;
    }
    Ok(())
}

/// v2 was sent no request whose id starts so.
fn no_copies_of(example: &Example, prefix: &str) -> Result<()> {
    for pod in example.v2()? {
        let stats = example.stats(&pod)?.to_string();
        ensure!(stats.contains("x-request-id"), "{} recorded nothing", pod.name);
        ensure!(!stats.contains(&format!("\"{prefix}")), "{} was sent a copy of {prefix}...", pod.name);
    }
    Ok(())
}
