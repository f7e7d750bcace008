//! A VirtualService that is invalid keeps the rules it had, whoever restarts: the controller finds them on nodes.
//!
//! In this world `sa-logic` has pods, two of v1 and one of v2; `other` has none, and changes while no controller runs.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use umbra_testkit::{Netns, Node, Pod, Process, http, objects, wait_for};

use crate::push_system::{CEILING, PushProxy, System, condition, with_system};

/// One pod that answers, in the order in which its parts are dropped.
struct Backend {
    process: Process,
    pod: Pod,
}

struct Backends {
    old: Backend,
    new: Backend,
    v2: Backend,
    _node: Node,
}

#[test]
fn an_invalid_object_keeps_its_rules_whoever_restarts() -> Result<()> {
    if Netns::available() { with_system(&["n1", "n2"], test) } else { Ok(()) }
}

fn test(system: &mut System) -> Result<()> {
    let mut backends = Backends::start(system)?;
    system.start_all()?;
    system.apply(&backends.objects())?;
    for name in ["sa-logic", "other"] {
        system.wait_condition(&["vs", name], "ResolvedRefs", "True")?;
        system.wait_condition(&["vs", name], "Programmed", "True")?;
        invalidate(system, name)?;
    }
    served(system, "v1", "held")?;
    endpoints_are_followed_after_a_restart(system, &backends)?;
    a_younger_one_does_not_take_over(system)?;
    a_mirror_that_is_no_longer_named_stops(system, &backends)?;
    what_happened_without_a_controller_is_done(system)?;
    a_proxy_that_starts_anew_gets_the_held_table(system)?;
    mending_brings_the_new_rules(system)?;
    deletion_ends_it(system)?;
    nobody_knows_the_rules_of_what_nobody_had(system)?;
    [&mut backends.old, &mut backends.new, &mut backends.v2]
        .into_iter()
        .try_for_each(|one| one.process.alive())
}

fn endpoints_are_followed_after_a_restart(system: &mut System, backends: &Backends) -> Result<()> {
    restart_controller(system)?;
    served(system, "v1", "after the restart")?;
    let before = backends.old.requests()?;
    ensure!(before > 0 && backends.new.requests()? == 0, "the old pod of v1 has answered until now");
    system.apply(&objects::list([backends.slice(&backends.new)]))?;
    for index in 0..system.proxies.len() {
        let reached = backends.new.requests()?;
        wait_for("requests reach the new pod of v1", CEILING, || {
            served_by(system, index, "v1", "while v1 moves")?;
            ensure!(backends.new.requests()? > reached, "{} uses the old one", system.proxies[index].node);
            Ok(())
        })?;
    }
    let told = system.wait_condition(&["vs", "sa-logic"], "Programmed", "False")?;
    let message = told["message"].as_str().unwrap_or_default();
    ensure!(
        told["reason"] == "Held" && message.starts_with("default/sa-logic keeps the rules it had"),
        "{told}"
    );
    Ok(())
}

fn a_younger_one_does_not_take_over(system: &System) -> Result<()> {
    let to_v2 = json!({"hosts": ["sa-logic"],
        "http": [{"route": [{"destination": {"host": "sa-logic", "subset": "v2"}}]}]});
    system.apply(&objects::virtual_service_with("younger", &to_v2).to_string())?;
    let told = system.wait_condition(&["vs", "younger"], "Accepted", "False")?;
    ensure!(told["reason"] == "Conflicted", "{told}");
    served(system, "v1", "beside a younger one")
}

/// In an edit that is otherwise as invalid as before; a second restart does not bring it back.
fn a_mirror_that_is_no_longer_named_stops(system: &mut System, backends: &Backends) -> Result<()> {
    let copied = backends.v2.requests()?;
    wait_for("v2 gets copies", CEILING, || {
        served(system, "v1", "with a mirror")?;
        ensure!(backends.v2.requests()? > copied, "still {copied}");
        Ok(())
    })?;
    patch(system, "sa-logic", &json!([{"op": "remove", "path": "/spec/http/0/mirror"}]))?;
    wait_mirrors(system, "sa-logic", 0)?;
    let eligible = eligible(system)?;
    served(system, "v1", "without a mirror")?;
    restart_controller(system)?;
    wait_mirrors(system, "sa-logic", 0)?;
    served(system, "v1", "without a mirror, after a restart")?;
    let now = self::eligible(system)?;
    ensure!((now - eligible).abs() < 0.5, "{now} eligible for a copy, after {eligible}");
    Ok(())
}

/// `other` loses its mirror, and then its VirtualService, while no controller runs.
fn what_happened_without_a_controller_is_done(system: &mut System) -> Result<()> {
    wait_mirrors(system, "other", 1)?;
    system.kill_controller()?;
    patch(system, "other", &json!([{"op": "remove", "path": "/spec/http/0/mirror"}]))?;
    wait_mirrors(system, "other", 1)?;
    start_controller(system)?;
    wait_mirrors(system, "other", 0)?;
    for proxy in &system.proxies {
        proxy.wait_armed(2)?;
    }
    system.kill_controller()?;
    system.server.kubectl().run(&["delete", "vs", "other"])?;
    start_controller(system)?;
    for proxy in &system.proxies {
        let state = proxy.wait_armed(1)?;
        ensure!(state["armed"] == json!(["service/default/sa-logic"]), "{state}");
    }
    served(system, "v1", "beside one that was deleted")
}

fn a_proxy_that_starts_anew_gets_the_held_table(system: &mut System) -> Result<()> {
    let before = system.proxies[1].state()?;
    system.proxies[1].kill()?;
    system.proxies[1].start()?;
    wait_for("the new proxy has what the old one had", CEILING, || {
        let now = system.proxies[1].state()?;
        ensure!(
            now["digest"] == before["digest"] && now["armed"] == before["armed"],
            "{now}, before {before}"
        );
        Ok(())
    })?;
    served(system, "v1", "by a new proxy")
}

fn mending_brings_the_new_rules(system: &mut System) -> Result<()> {
    let subset = "/spec/http/0/route/0/destination/subset";
    let mend = json!([
        {"op": "remove", "path": "/spec/http/0/rewrite"},
        {"op": "replace", "path": subset, "value": "v2"},
    ]);
    patch(system, "sa-logic", &mend)?;
    system.wait_condition(&["vs", "sa-logic"], "Programmed", "True")?;
    served(system, "v2", "mended")?;
    // And these are the ones that are held next.
    patch(system, "sa-logic", &json!([{"op": "replace", "path": subset, "value": "v1"}, rewrite()]))?;
    is_held(system, "sa-logic")?;
    restart_controller(system)?;
    served(system, "v2", "held again")
}

fn deletion_ends_it(system: &mut System) -> Result<()> {
    let kubectl = system.server.kubectl();
    kubectl.run(&["delete", "vs", "younger"])?;
    kubectl.run(&["delete", "vs", "sa-logic"])?;
    for proxy in &system.proxies {
        let state = proxy.wait_armed(0)?;
        ensure!(state["held"].is_null(), "{state}");
    }
    Ok(())
}

/// Controller and proxies start anew: there is nothing to keep, nothing is taken over, and the author is told.
fn nobody_knows_the_rules_of_what_nobody_had(system: &mut System) -> Result<()> {
    system.apply(&objects::virtual_service("sa-logic").to_string())?;
    system.wait_condition(&["vs", "sa-logic"], "Programmed", "True")?;
    invalidate(system, "sa-logic")?;
    system.kill_controller()?;
    system.proxies.iter_mut().try_for_each(PushProxy::kill)?;
    system.start_all()?;
    wait_for("the author is told that nothing is kept", CEILING, || {
        let told = condition(&system.server.kubectl().get(&["vs", "sa-logic"])?, "Programmed");
        let message = told["message"].as_str().unwrap_or_default();
        ensure!(
            told["reason"] == "Invalid" && message.contains("no rules of an earlier generation"),
            "{told}"
        );
        Ok(())
    })?;
    for proxy in &system.proxies {
        proxy.wait_armed(0)?;
    }
    Ok(())
}

/// One that changes nothing makes no sense.
fn rewrite() -> Value {
    json!({"op": "add", "path": "/spec/http/0/rewrite", "value": {}})
}

fn invalidate(system: &System, name: &str) -> Result<()> {
    patch(system, name, &json!([rewrite()]))?;
    is_held(system, name)
}

fn is_held(system: &System, name: &str) -> Result<()> {
    let told = system.wait_condition(&["vs", name], "Accepted", "False")?;
    ensure!(told["reason"] == "Invalid", "{told}");
    let told = system.wait_condition(&["vs", name], "Programmed", "False")?;
    ensure!(told["reason"] == "Held", "{told}");
    Ok(())
}

fn patch(system: &System, name: &str, patch: &Value) -> Result<()> {
    system.server.kubectl().run(&["patch", "vs", name, "--type=json", "-p", &patch.to_string()]).map(drop)
}

/// `kill -9` and a new one.
fn restart_controller(system: &mut System) -> Result<()> {
    system.kill_controller()?;
    start_controller(system)
}

/// Returns when no node holds anything that the new one does not have.
fn start_controller(system: &mut System) -> Result<()> {
    system.start_controller()?;
    for (index, proxy) in system.proxies.iter().enumerate() {
        wait_for("the new controller has found the rules", CEILING, || {
            served_by(system, index, "v", "while the controller restarts")?;
            let labels = [("node", proxy.node.as_str())];
            let acked = system.controller_samples()?.sum("umbra_controller_node_acked_version", &labels);
            let state = proxy.state()?;
            let armed = state["armed"].as_array().is_some_and(|armed| !armed.is_empty());
            ensure!(acked > 0.5 && state["held"].is_null() && armed, "version {acked}: {state}");
            Ok(())
        })?;
    }
    Ok(())
}

/// Every node has that many mirrors in the service's table.
fn wait_mirrors(system: &System, name: &str, count: usize) -> Result<()> {
    for proxy in &system.proxies {
        wait_for(&format!("{} has {count} mirrors for {name}", proxy.node), CEILING, || {
            let config = proxy.config()?;
            let rule = &config[format!("service/default/{name}")]["ports"][0]["variants"][0]["rules"][0];
            ensure!(rule.is_object(), "not in force any more: {config}");
            let mirrors = rule["mirrors"].as_array().map_or(0, Vec::len);
            ensure!(mirrors == count, "{rule}");
            Ok(())
        })?;
    }
    Ok(())
}

fn eligible(system: &System) -> Result<f64> {
    let all = system.proxies.iter().map(PushProxy::samples).collect::<Result<Vec<_>>>()?;
    Ok(all.iter().map(|samples| samples.sum("umbra_shadow_eligible_total", &[])).sum())
}

fn served(system: &System, version: &str, when: &str) -> Result<()> {
    (0..system.proxies.len()).try_for_each(|index| served_by(system, index, version, when))
}

fn served_by(system: &System, index: usize, version: &str, when: &str) -> Result<()> {
    let proxy = &system.proxies[index];
    let answer = proxy.ask("sa-logic", "/analyse/sentiment").with_context(|| when.to_owned())?;
    let right = answer.status == 200 && answer.body.contains(&format!("\"version\":\"{version}"));
    ensure!(right, "{when}: {}: {}\n{}", proxy.node, answer.head, answer.body);
    Ok(())
}

impl Backend {
    fn start(node: &Node, system: &System, name: &str, version: &str) -> Result<Self> {
        let pod = node.pod()?;
        let process = pod.serve(name, ("sa-logic", &["--version", version]), system.server.dir(), CEILING)?;
        Ok(Self { process, pod })
    }

    /// Sentences it has been asked about.
    fn requests(&self) -> Result<u64> {
        let stats: Value = serde_json::from_str(&http::get((self.pod.ipv4, 5000).into(), "/stats")?)?;
        Ok(stats["requests"]["/analyse/sentiment"].as_u64().unwrap_or(0))
    }
}

impl Backends {
    fn start(system: &System) -> Result<Self> {
        // Not on loopback: the API server refuses such endpoints.
        let node = Node::new()?;
        let start = |name, version| Backend::start(&node, system, name, version);
        let (old, new, v2) = (start("v1-old", "v1")?, start("v1-new", "v1")?, start("v2", "v2")?);
        Ok(Self { old, new, v2, _node: node })
    }

    /// This pod of v1, and v2.
    fn slice(&self, v1: &Backend) -> Value {
        let name = if std::ptr::eq(v1, &self.old) { "v1-old" } else { "v1-new" };
        let pods = [(name, v1.pod.address()), ("v2", self.v2.pod.address())];
        objects::endpoint_slice("sa-logic", "sa-logic-0", &pods)
    }

    fn objects(&self) -> String {
        let pod = |name, version, backend: &Backend| {
            objects::pod("sa-logic", version, name, "n1", &[backend.pod.address()])
        };
        objects::list([
            objects::service("sa-logic", &[]),
            objects::service("other", &[]),
            pod("v1-old", "v1", &self.old),
            pod("v1-new", "v1", &self.new),
            pod("v2", "v2", &self.v2),
            self.slice(&self.old),
            objects::destination_rule("sa-logic"),
            objects::destination_rule("other"),
            objects::virtual_service("sa-logic"),
            objects::virtual_service("other"),
        ])
    }
}
