//! The nft table, made in a network namespace and read back with `nft`.
//!
//! Needs root, `ip` and `nft`; says so and skips without them, and fails when `CI` is set.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that cannot go on fails; children talk by standard output"
)]

mod namespaces;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Stdio};

use namespaces::{Namespace, available};
use umbra_proxy::intercept::{Adopt, Interception, Interceptor, Setup, Sources};
use umbra_proxy::metrics::Metrics;

/// This test program again, inside a namespace, as the holder of the table.
struct Holder(Child);

impl Holder {
    fn start(namespace: &Namespace, scene: &str) -> Self {
        let myself = std::env::current_exe().unwrap();
        let mut child = namespace
            .command(myself.to_str().unwrap())
            .args(["--ignored", "--exact", "inside_a_namespace", "--nocapture"])
            .env("UMBRA_TEST_SCENE", scene)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let ready = lines.map_while(Result::ok).any(|line| line.contains("table is there"));
        assert!(ready, "the holder ended: its messages are above");
        Self(child)
    }

    fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn targets(all: &[&str]) -> BTreeSet<std::net::SocketAddr> {
    all.iter().map(|target| target.parse().unwrap()).collect()
}

#[test]
#[ignore = "run by the other tests, inside a namespace"]
fn inside_a_namespace() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let scene = std::env::var("UMBRA_TEST_SCENE").unwrap_or_default();
    let setup = Setup {
        listeners: vec!["192.0.2.1:15001".parse().unwrap(), "[2001:db8::1]:15001".parse().unwrap()],
        adopt: if scene == "reset" { Adopt::Reset } else { Adopt::Leave },
        canary: None,
        alive: Box::new(|| true),
        metrics: Metrics::new(),
    };
    let (interceptor, _thread) = Interceptor::start(setup).unwrap();
    let pods =
        Sources { v4: vec![(0x0af4_0100, 0x0af4_01ff)], v6: vec![(0xfd00 << 112, (0xfd00 << 112) + 0xffff)] };
    let first =
        Interception { targets: targets(&["10.96.0.50:80", "[fd00:96::50]:80"]), sources: pods.clone() };
    runtime.block_on(interceptor.set(first)).unwrap();
    if scene == "changed" {
        let pod = Sources { v4: vec![(0x0af4_0105, 0x0af4_0105), (0xffff_ff00, u32::MAX)], v6: Vec::new() };
        let second = Interception { targets: targets(&["10.96.0.51:8080"]), sources: pod };
        runtime.block_on(interceptor.set(second)).unwrap();
    }
    if scene == "many" {
        let both = |n: u32| {
            [format!("10.{}.{}.{}:80", n >> 16, (n >> 8) & 255, n & 255), format!("[fd00::{n:x}]:80")]
        };
        let many = (0..10_000).flat_map(both).map(|target| target.parse().unwrap()).collect();
        runtime.block_on(interceptor.set(Interception { targets: many, sources: pods })).unwrap();
    }
    assert_eq!(runtime.block_on(interceptor.intercepted()).unwrap(), 0);
    eprintln!("holding");
    println!("the table is there");
    let mut nothing = Vec::new();
    std::io::stdin().read_to_end(&mut nothing).unwrap();
}

/// As `nft` prints it, less what changes from run to run.
fn ruleset(namespace: &Namespace) -> String {
    let text = namespace.run("nft", &["-s", "list", "ruleset"]);
    let known = |line: &str| {
        let line = line.split(" expires ").next().unwrap_or(line);
        line.split(" # progname").next().unwrap_or(line).replace('\t', "  ").trim_end().to_owned()
    };
    text.lines().map(known).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_table_is_what_the_specification_says_and_dies_with_its_owner() {
    let Some(()) = available(&["nft"]) else { return };
    let node = Namespace::new("golden");
    let holder = Holder::start(&node, "first");
    assert_eq!(ruleset(&node), include_str!("ruleset.golden").trim_end());
    holder.kill();
    assert_eq!(ruleset(&node), "");
}

#[test]
fn nobody_else_changes_the_table() {
    let Some(()) = available(&["nft"]) else { return };
    let node = Namespace::new("foreign");
    let holder = Holder::start(&node, "first");
    let before = ruleset(&node);
    for change in [
        "add element inet umbra v4 { 10.0.0.1 . 80 }",
        "delete element inet umbra v4 { 10.96.0.50 . 80 }",
        "flush set inet umbra src4",
        "flush chain inet umbra nat",
        "add rule inet umbra guard accept",
        "delete table inet umbra",
    ] {
        let out = node.command("nft").arg(change).output().unwrap();
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(!out.status.success() && said.contains("Operation not permitted"), "{change}: {said}");
    }
    node.run("nft", &["add table inet theirs"]);
    node.run("nft", &["flush ruleset"]);
    assert_eq!(ruleset(&node), before, "theirs is gone, and ours is as it was");
    holder.kill();
}

#[test]
fn connections_opened_before_can_be_reset() {
    let Some(()) = available(&["nft"]) else { return };
    let node = Namespace::new("reset");
    let holder = Holder::start(&node, "reset");
    let text = ruleset(&node);
    for line in [
        "meta l4proto tcp ct status dnat ct direction original ct original ip saddr @src4 ct original ip daddr . ct original proto-dst @v4 goto past",
        "add @seen { ct id } counter name \"unseen\" goto reset",
        "tcp flags psh meta l4proto @adopt reject with tcp reset",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    holder.kill();
}

#[test]
fn a_change_replaces_targets_and_sources() {
    let Some(()) = available(&["nft"]) else { return };
    let node = Namespace::new("changed");
    let holder = Holder::start(&node, "changed");
    let text = ruleset(&node);
    assert!(text.contains("elements = { 10.96.0.51 . 8080 }"), "{text}");
    assert!(text.contains("elements = { 10.244.1.5, 255.255.255.0/24 }"), "{text}");
    assert!(!text.contains("fd00"), "{text}");
    holder.kill();
}

#[test]
fn ten_thousand_services_fit() {
    let Some(()) = available(&["nft"]) else { return };
    let node = Namespace::new("many");
    let holder = Holder::start(&node, "many");
    let text = ruleset(&node);
    assert_eq!(text.matches(" . 80").count(), 20_000);
    holder.kill();
}
