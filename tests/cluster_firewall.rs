//! What others do to a node's packets: a firewall, a flushed ruleset, another kube-proxy. Users stay on v1.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use umbra_testkit::{CEILING, repository, wait_for};

use crate::cluster_load::{Fault, Load};
use crate::cluster_proxies::{
    client_nodes, kill_proxy, not_armed_because, on_node, wait_armed, wait_mirrored, wait_mirrored_everywhere,
};
use crate::cluster_status::{wait_condition, wait_for_copies};
use crate::cluster_system::{Example, Second, with_example};

/// The table of the test's own rules, in one node's network.
const TABLE: &str = "umbra-test";

/// Rules on a node, until dropped.
pub(crate) struct Rules<'a> {
    example: &'a Example,
    node: String,
}

impl<'a> Rules<'a> {
    /// `chains`: what stands inside `table inet umbra-test { ... }`.
    pub(crate) fn new(example: &'a Example, node: &str, chains: &str) -> Result<Self> {
        let rules = Self { example, node: node.to_owned() };
        on_node(example, node, "nft", &[&format!("table inet {TABLE} {{ {chains}\n}}")])?;
        Ok(rules)
    }
}

impl Drop for Rules<'_> {
    fn drop(&mut self) {
        if let Err(error) = on_node(self.example, &self.node, "nft", &["delete", "table", "inet", TABLE]) {
            eprintln!("the rules stay: {error:#}");
        }
    }
}

#[test]
fn a_firewall_in_front_of_the_proxy_disarms_it_until_it_is_gone() {
    with_example("firewall", Second::Right, |example| {
        example.route()?;
        let node = client_nodes(example)?.first().cloned().context("a node with users")?;
        let load = Load::start(example)?;
        wait_for_copies(example)?;
        let from = Instant::now();
        let drop_all = "chain input { type filter hook input priority 0; tcp dport 15001 drop; };";
        let firewall = Rules::new(example, &node, drop_all)?;
        let reason = wait_for("the proxy has disarmed", CEILING, || {
            let reason = not_armed_because(example, &node)?;
            ensure!(reason.contains("blocked"), "{reason:?}");
            Ok(reason)
        })?;
        let disarmed = Instant::now();
        let to = load.wait_served(&node, disarmed)?;
        println!(
            "measured: fault: firewall: disarmed after {:.1?}, served after {:.1?}",
            disarmed - from,
            to - from
        );
        let (word, message) = wait_condition(example, "vs/sa-logic", "Programmed", "False")?;
        println!(
            "measured: fault: firewall: Programmed=False {word}: {message} (after {:.1?})",
            from.elapsed()
        );
        ensure!(message.contains("15001") && message.contains(&node), "{message}: {reason}");
        load.wait_for_node(&node, 200)?;
        drop(firewall);
        let gone = Instant::now();
        wait_mirrored(example, &node)?;
        println!("measured: fault: firewall: armed again {:.1?} after it was gone", gone.elapsed());
        wait_mirrored_everywhere(example, &load)?;
        let seen = load.finish();
        println!("measured: fault: firewall: {seen}");
        // What had a connection through the closed port, or was about to get one, when it closed.
        seen.harmed_only_by(&[Fault { node, from, to }])?;
        example.wait_programmed()
    });
}

#[test]
fn a_flushed_ruleset_recovers() {
    with_example("flushed", Second::Right, |example| {
        example.route()?;
        let node = client_nodes(example)?.first().cloned().context("a node with users")?;
        let load = Load::start(example)?;
        wait_for_copies(example)?;
        on_node(example, &node, "nft", &["flush", "ruleset"])?;
        let flushed = Instant::now();
        let address = example.sa_logic()?.ip().to_string();
        wait_for("the fallback is back", CEILING, || {
            let text = on_node(example, &node, "nft", &["list", "map", "inet", "umbra-fallback", "eps4"])?;
            ensure!(text.matches(&address).count() == 16, "{text}");
            Ok(())
        })?;
        println!("measured: fault: nft flush ruleset: the fallback is back after {:.1?}", flushed.elapsed());
        // And it works: the proxy dies, and v1 goes on answering.
        let fault = kill_proxy(example, &node)?;
        load.wait_for_node(&node, 50)?;
        wait_mirrored_everywhere(example, &load)?;
        let seen = load.finish();
        println!("measured: fault: nft flush ruleset, then killed: {seen}");
        seen.harmed_only_by(&[fault])
    });
}

#[test]
fn kube_proxy_restarted_and_switched_between_modes_fails_no_request() {
    with_example("kube-proxy", Second::Right, |example| {
        example.route()?;
        let now = std::env::var("KUBE_PROXY").unwrap_or_else(|_| "nftables".into());
        let other = if now == "nftables" { "iptables" } else { "nftables" };
        let load = Load::start(example)?;
        wait_for_copies(example)?;
        for mode in [now.as_str(), other, now.as_str()] {
            kube_proxy("1", mode)?;
            load.wait_for_more(200)?;
        }
        wait_mirrored_everywhere(example, &load)?;
        let seen = load.finish();
        println!("measured: fault: kube-proxy restarted, then {other}, then {now}: {seen}");
        seen.unharmed()?;
        wait_armed(example, &example.cluster().nodes().first().context("a node")?.name)
    });
}

/// `tests/cluster/kube-proxy.sh`.
fn kube_proxy(node: &str, mode: &str) -> Result<()> {
    let done = Command::new(repository().join("tests/cluster/kube-proxy.sh")).args([node, mode]).output()?;
    ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    Ok(())
}
