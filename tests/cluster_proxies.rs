//! The proxies of the cluster one by one: found, killed, stopped, asked, and the DaemonSet as a whole.

use std::net::SocketAddr;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use umbra_testkit::{CEILING, ClusterNode, Samples, Signal, wait_for};

use crate::cluster_load::{Fault, Load};
use crate::cluster_system::{Example, UMBRA, proxy_metrics};

/// Labels of umbra's pods.
pub(crate) const PROXY: &str = "app.kubernetes.io/component=proxy";
pub(crate) const CONTROLLER: &str = "app.kubernetes.io/component=controller";

/// The name of umbra's pod on a node.
pub(crate) fn pod_on(example: &Example, selector: &str, node: &str) -> Result<String> {
    let pods = example.cluster().pods(UMBRA, selector)?;
    let here =
        |pod: &&Value| pod["spec"]["nodeName"] == node && pod["metadata"]["deletionTimestamp"].is_null();
    let name = pods.iter().find(here).and_then(|pod| pod["metadata"]["name"].as_str());
    name.map(str::to_owned).with_context(|| format!("no pod {selector} on {node}"))
}

/// Kills a pod's program as the kernel would, and returns when it is gone.
pub(crate) fn kill(example: &Example, pod: &str) -> Result<()> {
    let cluster = example.cluster();
    let processes = cluster.pod_processes(UMBRA, pod)?;
    cluster.signal_container(UMBRA, pod, Signal::SIGKILL)?;
    wait_for(&format!("{pod} is dead"), CEILING, || {
        let alive = |process: &&i32| !has_ended(**process);
        let left: Vec<_> = processes.iter().filter(alive).collect();
        ensure!(left.is_empty(), "alive: {left:?}");
        Ok(())
    })
}

/// A process that is gone, or a zombie without another thread: its sockets are closed.
fn has_ended(process: i32) -> bool {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{process}/task")) else { return true };
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let zombie = stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with(['Z', 'X']));
    stat.is_empty() || (zombie && threads.count() <= 1)
}

/// `kill -9` of a node's proxy; what was in flight there meanwhile may be lost.
pub(crate) fn kill_proxy(example: &Example, node: &str) -> Result<Fault> {
    let pod = pod_on(example, PROXY, node)?;
    let from = Instant::now();
    kill(example, &pod)?;
    Ok(Fault { node: node.to_owned(), from, to: Instant::now() })
}

/// A node of the cluster.
pub(crate) fn node_named<'a>(example: &'a Example, name: &str) -> Result<&'a ClusterNode> {
    let found = example.cluster().nodes().iter().find(|one| one.name == name);
    found.with_context(|| format!("no node {name}"))
}

/// Where the proxy of a node serves its metrics and health.
pub(crate) fn metrics_on(example: &Example, node: &str) -> Result<SocketAddr> {
    proxy_metrics(&node_named(example, node)?.address)
}

/// Waits until the proxy of a node has taken the example's service over.
pub(crate) fn wait_armed(example: &Example, node: &str) -> Result<()> {
    wait_for(&format!("{node} has armed sa-logic"), CEILING, || {
        let state = state(example, node)?;
        let key = format!("service/{}/sa-logic", example.name());
        let armed = state["armed"].as_array().is_some_and(|armed| armed.iter().any(|one| *one == key));
        ensure!(armed, "{state}");
        Ok(())
    })
}

/// Why the proxy of a node has not taken the example's service over; empty when it has.
pub(crate) fn not_armed_because(example: &Example, node: &str) -> Result<String> {
    let state = state(example, node)?;
    let key = format!("service/{}/sa-logic", example.name());
    let refused = state["refused"].as_array().into_iter().flatten().find(|one| one["key"] == key);
    Ok(refused.and_then(|one| one["reason"].as_str()).unwrap_or_default().to_owned())
}

/// What the proxy of a node has, from its admin port.
pub(crate) fn state(example: &Example, node: &str) -> Result<Value> {
    let node = node_named(example, node)?;
    let done =
        node.command("curl").args(["-sf", "--max-time", "5", "http://127.0.0.1:15000/state"]).output()?;
    ensure!(done.status.success(), "the admin port of {} does not answer", node.name);
    Ok(serde_json::from_slice(&done.stdout)?)
}

/// A command in a node's network, which must succeed.
pub(crate) fn on_node(example: &Example, node: &str, program: &str, arguments: &[&str]) -> Result<String> {
    let done = node_named(example, node)?.command(program).args(arguments).output()?;
    let said = String::from_utf8_lossy(&done.stderr);
    ensure!(done.status.success(), "{program} {arguments:?} on {node}: {}: {said}", done.status);
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

/// Requests to sa-logic that this node's proxy wanted copied since it started.
pub(crate) fn eligible_on(example: &Example, node: &str) -> Result<u64> {
    let samples = Samples::of(metrics_on(example, node)?)?;
    // Counters of some thousand requests: whole numbers far below 2^53.
    Ok(samples.sum("umbra_shadow_eligible_total", &[("service", &example.host())]) as u64)
}

/// Waits until requests on the node are copied again: umbra is back.
pub(crate) fn wait_mirrored(example: &Example, node: &str) -> Result<()> {
    wait_armed(example, node)?;
    let before = eligible_on(example, node)?;
    wait_for(&format!("requests on {node} are copied"), CEILING, || {
        let now = eligible_on(example, node)?;
        ensure!(now > before, "{now} eligible, {before} before");
        Ok(())
    })
}

/// The same on every node that users are on.
pub(crate) fn wait_mirrored_everywhere(example: &Example, load: &Load) -> Result<()> {
    for node in client_nodes(example)? {
        wait_mirrored(example, &node)?;
        load.wait_for_node(&node, 20)?;
    }
    Ok(())
}

/// The nodes that users are on.
pub(crate) fn client_nodes(example: &Example) -> Result<Vec<String>> {
    let mut nodes: Vec<_> = example.clients()?.into_iter().map(|pod| pod.node).collect();
    nodes.dedup();
    Ok(nodes)
}

/// The DaemonSet has been rolled out.
pub(crate) fn wait_rolled_out(example: &Example) -> Result<()> {
    let ceiling = format!("--timeout={}s", CEILING.as_secs());
    let command = ["-n", UMBRA, "rollout", "status", "ds/umbra-proxy", &ceiling];
    example.cluster().kubectl().run(&command).map(drop)
}

/// Takes all proxies away until dropped: the DaemonSet wants nodes that there are not.
pub(crate) struct NoProxies<'a>(&'a Example);

impl<'a> NoProxies<'a> {
    /// Returns when the last one has ended.
    pub(crate) fn new(example: &'a Example) -> Result<Self> {
        let guard = Self(example);
        guard.select(r#"{"umbra.dev/nowhere":"true"}"#)?;
        wait_for("no proxy is left", CEILING, || {
            let pods = example.cluster().pods(UMBRA, PROXY)?;
            ensure!(pods.is_empty(), "{} pods", pods.len());
            Ok(())
        })?;
        Ok(guard)
    }

    /// Brings them back, and waits until they have armed.
    pub(crate) fn end(self) -> Result<()> {
        let example = self.0;
        drop(self);
        wait_rolled_out(example)
    }

    fn select(&self, extra: &str) -> Result<()> {
        let patch = format!(r#"{{"spec":{{"template":{{"spec":{{"nodeSelector":{extra}}}}}}}}}"#);
        let command = ["-n", UMBRA, "patch", "ds/umbra-proxy", "-p", &patch];
        self.0.cluster().kubectl().run(&command).map(drop)
    }
}

impl Drop for NoProxies<'_> {
    fn drop(&mut self) {
        // A strategic merge: null takes the entry out.
        if let Err(error) = self.select(r#"{"umbra.dev/nowhere":null}"#) {
            eprintln!("the proxies stay away: {error:#}");
        }
    }
}

/// A setting of the proxies, until dropped; they are replaced node by node both times.
pub(crate) struct Setting<'a> {
    example: &'a Example,
    name: &'static str,
}

impl<'a> Setting<'a> {
    /// `UMBRA_NAME=value` in the DaemonSet.
    pub(crate) fn new(example: &'a Example, name: &'static str, value: &str) -> Result<Self> {
        set_env(example, &format!("{name}={value}"))?;
        let setting = Self { example, name };
        wait_rolled_out(example)?;
        Ok(setting)
    }
}

impl Drop for Setting<'_> {
    fn drop(&mut self) {
        let back =
            set_env(self.example, &format!("{}-", self.name)).and_then(|()| wait_rolled_out(self.example));
        if let Err(error) = back {
            eprintln!("{} stays set: {error:#}", self.name);
        }
    }
}

fn set_env(example: &Example, assignment: &str) -> Result<()> {
    example.cluster().kubectl().run(&["-n", UMBRA, "set", "env", "ds/umbra-proxy", assignment]).map(drop)
}
