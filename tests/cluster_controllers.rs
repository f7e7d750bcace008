//! What may happen to controllers: users and copies notice nothing, and what changed meanwhile arrives afterwards.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use umbra_testkit::{CEILING, Signal, wait_for};

use crate::cluster_firewall::Rules;
use crate::cluster_load::{Load, adds_up, paths};
use crate::cluster_proxies::{CONTROLLER, client_nodes, eligible_on, kill, state, wait_mirrored_everywhere};
use crate::cluster_status::{patch, wait_condition, wait_for_copies};
use crate::cluster_system::{Example, Second, UMBRA, with_example};

/// How long controllers are cut off from the API server: the promise says 10 min (600); the suite has less time.
const CUT_SECONDS: &str = "UMBRA_TEST_CUT_SECONDS";
const CUT: u64 = 45;
/// How long the leader is frozen.
const PAUSE: Duration = Duration::from_secs(60);

/// The name of the controller's pod that leads, as the Lease says.
fn leader(example: &Example) -> Result<String> {
    let lease = example.cluster().kubectl().get(&["lease/umbra-controller", "-n", UMBRA])?;
    let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned();
    let pods = example.cluster().pods(UMBRA, CONTROLLER)?;
    let names = pods.iter().filter_map(|pod| pod["metadata"]["name"].as_str());
    let found = names.into_iter().find(|name| holder.starts_with(*name));
    found.map(str::to_owned).with_context(|| format!("the Lease is held by {holder:?}"))
}

/// Another pod leads than `before`.
fn wait_for_another(example: &Example, before: &str) -> Result<String> {
    wait_for("another controller leads", CEILING, || {
        let now = leader(example)?;
        ensure!(now != before, "{now} still leads");
        Ok(now)
    })
}

fn epoch(example: &Example, node: &str) -> Result<u128> {
    let state = state(example, node)?;
    state["epoch"].as_str().and_then(|epoch| epoch.parse().ok()).with_context(|| format!("{state}"))
}

/// Under load: `fault`, and then nobody has noticed, and a change reaches every node.
fn unnoticed(name: &str, fault: impl FnOnce(&Example, &Load) -> Result<()>) {
    with_example(name, Second::Right, |example| {
        example.route()?;
        let before = paths(example)?;
        let load = Load::start(example)?;
        wait_for_copies(example)?;
        fault(example, &load)?;
        let healed = Instant::now();
        changed_everywhere(example)?;
        println!(
            "measured: fault: {name}: a change is in force everywhere {:.1?} after it healed",
            healed.elapsed()
        );
        wait_mirrored_everywhere(example, &load)?;
        let seen = load.finish();
        println!("measured: fault: {name}: {seen}; copies {:?}", example.settled_shadows()?);
        seen.unharmed()?;
        let since = adds_up(example, &before, &seen)?;
        println!("measured: fault: {name}: connections {since:?}");
        Ok(())
    });
}

/// The mirror goes and comes back: each time every node says that it serves that.
fn changed_everywhere(example: &Example) -> Result<()> {
    let to = json!([{"destination": {"host": "sa-logic", "subset": "v1"}}]);
    let mirror = json!({"host": "sa-logic", "subset": "v2"});
    patch(example, "vs/sa-logic", &json!({"http": [{"route": to}]}))?;
    wait_condition(example, "vs/sa-logic", "Programmed", "True")?;
    let nodes = client_nodes(example)?;
    let before: Vec<u64> = nodes.iter().map(|node| eligible_on(example, node)).collect::<Result<_>>()?;
    patch(example, "vs/sa-logic", &json!({"http": [{"route": to, "mirror": mirror}]}))?;
    wait_condition(example, "vs/sa-logic", "Programmed", "True")?;
    for (node, before) in nodes.iter().zip(before) {
        wait_for(&format!("copies on {node}"), CEILING, || {
            let now = eligible_on(example, node)?;
            ensure!(now > before, "{now} eligible, {before} before");
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn a_killed_leader_is_followed() {
    unnoticed("leader-killed", |example, load| {
        let before = leader(example)?;
        kill(example, &before)?;
        let killed = Instant::now();
        // The killed one may start again and win: whoever leads then, it is a later term.
        let lease = || example.cluster().kubectl().get(&["lease/umbra-controller", "-n", UMBRA]);
        let held = lease()?["spec"]["holderIdentity"].clone();
        wait_for("a new term", CEILING, || {
            let now = lease()?["spec"]["holderIdentity"].clone();
            ensure!(now != held && now.as_str().is_some_and(|now| !now.is_empty()), "{now}");
            Ok(())
        })?;
        println!(
            "measured: leader killed: a new term after {:.1?} (aim: the lease's 15 s)",
            killed.elapsed()
        );
        load.wait_for_more(200)
    });
}

#[test]
fn a_frozen_leader_is_followed_and_its_old_word_does_not_count() {
    unnoticed("leader-frozen", |example, load| {
        let node = example.cluster().nodes().first().context("a node")?.name.clone();
        let old = leader(example)?;
        let before = epoch(example, &node)?;
        example.cluster().signal_container(UMBRA, &old, Signal::SIGSTOP)?;
        let frozen = Instant::now();
        let new = wait_for_another(example, &old);
        let paused = wait_for("it has been frozen for 60 s", CEILING, || {
            ensure!(frozen.elapsed() >= PAUSE);
            Ok(())
        });
        let later = epoch(example, &node);
        example.cluster().signal_container(UMBRA, &old, Signal::SIGCONT)?;
        let new = new?;
        paused?;
        ensure!(later? > before, "the new leader has raised no epoch");
        load.wait_for_more(400)?;
        ensure!(leader(example)? == new, "the one that was frozen took over");
        ensure!(epoch(example, &node)? > before);
        Ok(())
    });
}

/// Rules on every node that drop what controllers send to this destination.
fn cut<'a>(example: &'a Example, to: &str) -> Result<Vec<Rules<'a>>> {
    let pods = example.cluster().pods(UMBRA, CONTROLLER)?;
    let addresses: Vec<_> = pods.iter().filter_map(|pod| pod["status"]["podIP"].as_str()).collect();
    let from = format!("ip saddr {{ {} }}", addresses.join(", "));
    // In both places: a node's own proxy is behind its input, another's and the API server behind its forward chain.
    let chains = format!(
        "chain forward {{ type filter hook forward priority -10; {from} {to} drop; }}\n \
         chain input {{ type filter hook input priority -10; {from} {to} drop; }}"
    );
    example.cluster().nodes().iter().map(|node| Rules::new(example, &node.name, &chains)).collect()
}

#[test]
fn controllers_cut_off_from_the_api_server_change_nothing() {
    unnoticed("api-cut", |example, load| {
        let seconds = std::env::var(CUT_SECONDS).ok().and_then(|text| text.parse().ok()).unwrap_or(CUT);
        let from = Instant::now();
        let rules = cut(example, "tcp dport 6443")?;
        wait_for("the time is over", Duration::from_secs(seconds) + CEILING, || {
            ensure!(from.elapsed() >= Duration::from_secs(seconds));
            Ok(())
        })?;
        load.wait_for_more(200)?;
        println!("measured: fault: api-cut: for {:.0?}", from.elapsed());
        drop(rules);
        // Controllers that gave up may have been started anew: whoever leads now.
        wait_for("a controller leads", CEILING, || leader(example)).map(drop)
    });
}

#[test]
fn a_controller_cut_off_from_one_node_serves_the_others() {
    unnoticed("node-cut", |example, load| {
        let nodes = example.cluster().nodes();
        let far = nodes.last().context("a node")?;
        let rules = cut(example, &format!("ip daddr {} tcp dport 15002", far.address))?;
        let to = json!([{"destination": {"host": "sa-logic", "subset": "v1"}}]);
        let before = state(example, &far.name)?["version"].clone();
        patch(example, "vs/sa-logic", &json!({"http": [{"route": to}]}))?;
        let (word, message) = wait_condition(example, "vs/sa-logic", "Programmed", "False")?;
        wait_for("the message names the node", CEILING, || {
            let (_, message) = wait_condition(example, "vs/sa-logic", "Programmed", "False")?;
            ensure!(message.contains(&far.name), "{message}");
            Ok(())
        })?;
        println!("measured: fault: node-cut: Programmed=False {word}: {message}");
        ensure!(state(example, &far.name)?["version"] == before, "the node was reached all the same");
        load.wait_for_more(200)?;
        drop(rules);
        Ok(())
    });
}

#[test]
fn two_controllers_on_empty_secrets_agree() {
    with_example("secrets", Second::Right, |example| {
        let kubectl = example.cluster().kubectl();
        let replicas = example.controllers("status.readyReplicas")?;
        ensure!(replicas == "2", "{replicas} controllers are ready");
        let secrets = ["umbra-ca", "umbra-controller-tls", "umbra-proxy-tls"];
        let contents: Vec<Value> = secrets
            .iter()
            .map(|name| Ok(kubectl.get(&["secret", name, "-n", UMBRA])?["data"]["ca.crt"].clone()))
            .collect::<Result<_>>()?;
        // Not with the values in the message: they stand beside keys.
        ensure!(contents.iter().all(|ca| ca.is_string() && *ca == contents[0]), "the CAs differ");
        Ok(())
    });
}
