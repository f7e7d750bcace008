//! The controller or a proxy dies: traffic goes on as it was told, and what one of them missed is repaired.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use umbra_testkit::{Netns, Node, Pod, Process, http, objects, program, wait_for};

use crate::push_system::{CEILING, PushProxy, System, epoch, with_system};

/// sa-logic v1 in a pod, the only endpoint of the service.
struct Backend {
    // In the order in which they are dropped.
    process: Process,
    pod: Pod,
    _node: Node,
}

#[test]
fn who_dies_finds_what_it_left_and_gets_what_it_missed() -> Result<()> {
    if Netns::available() { with_system(&["n1", "n2"], test) } else { Ok(()) }
}

fn test(system: &mut System) -> Result<()> {
    let mut backend = Backend::start(system)?;
    system.start_all()?;
    system.apply(&article(&backend))?;
    system.wait_condition(&["vs", "sa-logic"], "ResolvedRefs", "True")?;
    system.wait_condition(&["vs", "sa-logic"], "Programmed", "True")?;
    served(system, "after the first push")?;

    let before = states(system)?;
    system.kill_controller()?;
    served(system, "without a controller")?;
    a_new_controller_changes_nothing(system, &before)?;
    a_proxy_that_starts_anew_is_repaired(system)?;
    a_proxy_that_started_meanwhile_is_repaired(system)?;
    backend.process.alive()
}

fn a_new_controller_changes_nothing(system: &mut System, before: &[Value]) -> Result<()> {
    system.start_controller()?;
    // It has asked both nodes, and found them as they should be.
    wait_for("the new controller has asked both nodes", CEILING, || {
        for node in ["n1", "n2"] {
            let asked = pushes(system, node, "state")?;
            ensure!(asked >= 1.0, "{node} was asked {asked} times");
        }
        Ok(())
    })?;
    system.wait_condition(&["vs", "sa-logic"], "Programmed", "True")?;
    for (proxy, before) in system.proxies.iter().zip(before) {
        let now = proxy.state()?;
        for field in ["bootId", "digest", "armed", "version"] {
            ensure!(now[field] == before[field], "{}: {field} changed from {before} to {now}", proxy.node);
        }
        // Its question alone shuts the old one out.
        ensure!(epoch(&now)? > epoch(before)?, "{}: the epoch of {before} is that of {now}", proxy.node);
        for kind in ["put", "patch"] {
            let sent = pushes(system, &proxy.node, kind)?;
            ensure!(sent < 0.5, "{}: {sent} {kind} of a controller that had nothing to tell", proxy.node);
        }
    }
    served(system, "after the controller's restart")
}

/// The controller runs: it notices that the connection closed, and asks.
fn a_proxy_that_starts_anew_is_repaired(system: &mut System) -> Result<()> {
    let before = system.proxies[0].state()?;
    system.proxies[0].kill()?;
    let began = Instant::now();
    system.proxies[0].start()?;
    let started = began.elapsed();
    let now = repaired(system, 0, &before)?;
    println!(
        "measured: a proxy started anew serves its table after {} ms, {} of them its own start",
        began.elapsed().as_millis(),
        started.as_millis()
    );
    ensure!(now["bootId"] != before["bootId"], "the same process: {now}");
    // It is counted when the answer is there.
    wait_for("the repair is counted", CEILING, || {
        ensure!(pushes(system, "n1", "put")? > 0.5, "no PUT yet");
        Ok(())
    })?;
    let sent = pushes(system, "n1", "put")?;
    ensure!((sent - 1.0).abs() < 0.5, "{sent} PUTs");
    let other = pushes(system, "n2", "put")?;
    ensure!(other < 0.5, "n2 got {other} PUTs");
    served(system, "after a proxy's restart")
}

/// The controller was dead when the proxy started.
fn a_proxy_that_started_meanwhile_is_repaired(system: &mut System) -> Result<()> {
    let before = system.proxies[1].state()?;
    system.kill_controller()?;
    system.proxies[1].kill()?;
    system.proxies[1].start()?;
    let empty = system.proxies[1].state()?;
    ensure!(empty["armed"] == serde_json::json!([]), "a fresh proxy without a controller: {empty}");
    let refused = system.proxies[1].ask("sa-logic", "/analyse/sentiment")?;
    ensure!(refused.status == 404, "nothing is governed yet: {}", refused.head);
    served_by(system, 0, "its neighbour")?;
    system.start_controller()?;
    repaired(system, 1, &before)?;
    let neighbour = pushes(system, "n1", "put")?;
    ensure!(neighbour < 0.5, "n1, which missed nothing, got {neighbour} PUTs");
    served(system, "after the repair")
}

/// The node's configuration is again what it was; gives its state.
fn repaired(system: &System, index: usize, before: &Value) -> Result<Value> {
    let proxy = &system.proxies[index];
    wait_for(&format!("{} has what it had", proxy.node), CEILING, || {
        let now = proxy.state()?;
        ensure!(now["digest"] == before["digest"] && now["armed"] == before["armed"], "{now}");
        Ok(now)
    })
}

fn states(system: &System) -> Result<Vec<Value>> {
    system.proxies.iter().map(PushProxy::state).collect()
}

fn pushes(system: &System, node: &str, kind: &str) -> Result<f64> {
    let samples = system.controller_samples()?;
    let labels = [("node", node), ("kind", kind), ("result", "ok")];
    Ok(samples.sum("umbra_controller_pushes_total", &labels))
}

fn served(system: &System, when: &str) -> Result<()> {
    (0..system.proxies.len()).try_for_each(|index| served_by(system, index, when))
}

fn served_by(system: &System, index: usize, when: &str) -> Result<()> {
    let proxy = &system.proxies[index];
    let answer = proxy.ask("sa-logic", "/analyse/sentiment").with_context(|| when.to_owned())?;
    let right = answer.status == 200 && answer.body.contains("\"version\":\"v1\"");
    ensure!(right, "{when}: {}: {}\n{}", proxy.node, answer.head, answer.body);
    Ok(())
}

impl Backend {
    fn start(system: &System) -> Result<Self> {
        // Not on loopback: the API server refuses such endpoints.
        let node = Node::new()?;
        let pod = node.pod()?;
        let mut command = pod.netns().command(program("sa-logic")?);
        command.args(["--version", "v1", "--listen", "[::]:5000"]);
        let mut process = Process::start("sa-logic", &command, &system.server.dir().join("sa-logic.log"))?;
        wait_for("sa-logic answers", CEILING, || {
            if let Err(dead) = process.alive() {
                return Ok(Err(dead));
            }
            http::get((pod.ipv4, 5000).into(), "/healthz").map(|_| Ok(()))
        })??;
        Ok(Self { process, pod, _node: node })
    }
}

/// The article with this pod of v1; v2 has none.
fn article(backend: &Backend) -> String {
    let address = backend.pod.address();
    objects::list([
        objects::service("sa-logic", &[]),
        objects::pod("sa-logic", "v1", "v1-0", "n1", &[address]),
        objects::endpoint_slice("sa-logic", "sa-logic-0", &[("v1-0", address)]),
        objects::destination_rule("sa-logic"),
        objects::virtual_service("sa-logic"),
    ])
}
