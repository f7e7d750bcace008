//! `Programmed` says that every live node serves the object, not before, and whom it waits for.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use umbra_testkit::{CEILING, ClusterNode, wait_for};

use crate::cluster_system::{Example, Second, with_example};
use crate::cluster_users::{Client, Connections, User};

/// The table that closes a node's push port, in that node's network only.
const TABLE: &str = "umbra-test-blocked";

#[test]
fn is_true_when_every_node_serves_it_and_not_before() {
    with_example("programmed", Second::Right, |example| {
        example.route()?;
        let nodes = example.cluster().nodes();
        let (open, closed) = (&nodes[0], nodes.last().context("a cluster has nodes")?);
        let blocked = Blocked::new(closed)?;
        route_to(example, "v2")?;
        wait_for_answer(example, &open.name, "v2")?;
        let condition = wait_for("the condition names the node", CEILING, || {
            let condition = condition(example)?;
            let message = condition["message"].as_str().unwrap_or_default();
            ensure!(condition["status"] != "True" && message.contains(&closed.name), "{condition}");
            Ok(condition)
        })?;
        println!("while {} cannot be reached: {condition}", closed.name);
        let reason = condition["reason"].as_str().unwrap_or_default();
        ensure!(!reason.is_empty() && reason != "Programmed", "{condition}");
        let waited = example.kubectl(&["wait", "--for=condition=Programmed", "--timeout=2s", "vs/sa-logic"]);
        ensure!(waited.is_err(), "kubectl wait returned while {} does not serve it", closed.name);
        ensure!(ask_from(example, &closed.name)? == "v1", "{} serves what it cannot have got", closed.name);
        drop(blocked);
        example.wait_programmed()?;
        // At once, not after a while: that is what the condition says.
        for node in nodes {
            let version = ask_from(example, &node.name)?;
            ensure!(version == "v2", "Programmed, but {} is answered by {version}", node.name);
        }
        Ok(())
    });
}

/// Users of the first rule go to this subset; the mirror stays.
fn route_to(example: &Example, subset: &str) -> Result<()> {
    let path = "/spec/http/0/route/0/destination/subset";
    let patch = json!([{"op": "replace", "path": path, "value": subset}]).to_string();
    example.kubectl(&["patch", "vs", "sa-logic", "--type=json", "-p", &patch]).map(drop)
}

/// The condition, once it speaks of the newest spec.
fn condition(example: &Example) -> Result<Value> {
    let object = example.get("vs/sa-logic")?;
    let conditions = object["status"]["conditions"].as_array().context("conditions")?;
    let found =
        conditions.iter().find(|one| one["type"] == "Programmed").context("Programmed is not there")?;
    let generation = &object["metadata"]["generation"];
    ensure!(found["observedGeneration"] == *generation, "the spec is of generation {generation}: {found}");
    Ok(found.clone())
}

/// The version that answers one new connection from the client's pod on this node.
fn ask_from(example: &Example, node: &str) -> Result<String> {
    let clients = example.clients()?;
    let pod = clients.iter().find(|pod| pod.node == node).with_context(|| format!("no client on {node}"))?;
    let answer = Client::new(example, pod)?.ask("programmed", Connections::Fresh)?;
    ensure!(answer.status == 200, "{answer:?}");
    Ok(answer.version)
}

fn wait_for_answer(example: &Example, node: &str, version: &str) -> Result<()> {
    let clients = example.clients()?;
    let pod = clients.iter().find(|pod| pod.node == node).with_context(|| format!("no client on {node}"))?;
    let user = User::start(example, pod, Connections::Kept, Duration::from_millis(20))?;
    user.wait_for_change(0, version)?;
    let log = user.finish();
    ensure!(log.failed == 0, "{:?}", log.failures);
    Ok(())
}

/// The push port of a node drops everything until this is dropped.
struct Blocked<'a>(&'a ClusterNode);

impl<'a> Blocked<'a> {
    fn new(node: &'a ClusterNode) -> Result<Self> {
        let chain = "chain input {\ntype filter hook input priority -10\ntcp dport 15002 drop\n}";
        let rules =
            format!("add table inet {TABLE}\ndelete table inet {TABLE}\ntable inet {TABLE} {{\n{chain}\n}}");
        run(node.command("nft").arg(rules))?;
        Ok(Self(node))
    }
}

impl Drop for Blocked<'_> {
    fn drop(&mut self) {
        let opened = run(self.0.command("nft").arg(format!("delete table inet {TABLE}")));
        if let Err(error) = opened {
            eprintln!("the push port of {} stays closed: {error:#}", self.0.name);
        }
    }
}

fn run(command: &mut Command) -> Result<()> {
    let done = command.output()?;
    ensure!(done.status.success(), "{command:?}: {}", String::from_utf8_lossy(&done.stderr));
    Ok(())
}
