//! The nft table `inet umbra-fallback`, kept by a real proxy in a network namespace and read back with `nft`.
//!
//! Needs root, `ip`, `nft`, `curl`, `setpriv` and `kill`; says so and skips without them, and fails when `CI` is set.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that cannot go on fails; measurements are printed"
)]

mod fallback_many;
mod fallback_node;
mod namespaces;

use std::time::{Duration, Instant};

use fallback_node::{Node, TIMEOUT, node, put, service};
use serde_json::json;

/// A beat lasts so long.
const ALIVE_FOR: Duration = Duration::from_secs(3);
const VIPS: [&str; 2] = ["10.96.0.50", "fd00:96::50"];
const V1: [&str; 2] = ["10.244.1.21:8080", "[fd00:244:1::21]:8080"];

/// One service, both families, one endpoint of each.
fn one() -> serde_json::Value {
    put(&[service("a", &VIPS, &V1)], json!({ "podCidrs": ["10.244.1.0/24", "fd00:244:1::/64"] }))
}

/// The sixteen slots of each ClusterIP are there and lead to these.
fn leads_to(node: &Node, endpoints: [&str; 2]) -> bool {
    ["eps4", "eps6"].iter().zip(VIPS).zip(endpoints).all(|((map, vip), endpoint)| {
        let expected: Vec<_> =
            (0..16).map(|slot| (format!("{vip}.80.{slot}"), endpoint.to_owned())).collect();
        node.elements(map).into_iter().map(|element| (element.key, element.data)).eq(expected)
    })
}

#[test]
fn the_table_is_what_the_specification_says_and_stays_when_its_keeper_goes() {
    let Some(mut node) = node("fb-golden") else { return };
    node.start("300s");
    node.push("PUT", &one());
    let golden = include_str!("fallback.golden").trim_end();
    assert_eq!(node.table(), golden);
    assert!(leads_to(&node, V1));
    let keys = |set: &str| node.elements(set).into_iter().map(|element| element.key).collect::<Vec<_>>();
    assert_eq!(
        (keys("known4"), keys("known6")),
        (vec!["10.96.0.50.80".into()], vec!["fd00:96::50.80".into()])
    );
    assert_eq!(keys("self4"), ["10.244.1.21.10.244.1.21"]);
    assert_eq!(keys("self6"), ["fd00:244:1::21.fd00:244:1::21"]);
    let sources = node.run("nft", &["list", "set", "inet", "umbra-fallback", "src6"]);
    assert!(sources.contains("elements = { fd00:244:1::/64 }"), "{sources}");
    node.kill();
    assert_eq!(node.table(), golden);
    assert!(leads_to(&node, V1));
}

#[test]
fn a_node_without_pod_ranges_goes_by_the_interface_of_its_address() {
    let Some(mut node) = node("fb-ranges") else { return };
    node.start("300s");
    node.push("PUT", &put(&[service("a", &VIPS, &V1)], json!({})));
    let table = node.table();
    let by_interface = |line: &&str| line.contains("iifname != \"lo\"");
    // Forgetting resets, counting, leading, counting what passed by; for each family.
    assert_eq!(table.lines().filter(by_interface).count(), 8, "{table}");
    // Then the ranges come.
    node.push("PUT", &one());
    assert_eq!(node.table(), include_str!("fallback.golden").trim_end());
    assert!(leads_to(&node, V1));
}

#[test]
fn entries_are_renewed_past_two_timeouts_and_follow_an_endpoint() {
    let Some(mut node) = node("fb-renew") else { return };
    node.start(TIMEOUT);
    let reply = node.push("PUT", &one());
    node.past_two_timeouts();
    node.until("all slots lead to v1", |node| leads_to(node, V1));

    let moved = ["10.244.1.99:8080", "[fd00:244:1::99]:8080"];
    let (key, _) = fallback_node::set("a", &V1);
    let change = json!({
        "base": reply["digest"],
        "patch": { key: { "add": moved.map(fallback_node::endpoint), "remove": V1 } }
    });
    node.push("PATCH", &change);
    assert!(leads_to(&node, moved), "as soon as the push is answered");
    assert_eq!(node.elements("self4")[0].key, "10.244.1.99.10.244.1.99");
    node.past_two_timeouts();
    node.until("all slots lead to the new one", |node| leads_to(node, moved));
    assert_eq!(node.metric("umbra_fallback_rebuilt_total"), 0, "nothing failed");
}

#[test]
fn expired_entries_and_those_that_somebody_took_are_there_again() {
    let Some(mut node) = node("fb-repair") else { return };
    node.start(TIMEOUT);
    node.push("PUT", &one());
    let elements = |node: &Node, map: &str| node.elements(map).len();

    // Hung for so long that everything ended.
    node.signal("STOP");
    node.until("all entries have ended", |node| elements(node, "eps4") + elements(node, "eps6") == 0);
    node.signal("CONT");
    node.until("they are there again", |node| leads_to(node, V1));
    let rebuilt = node.metric("umbra_fallback_rebuilt_total");
    assert!(rebuilt > 0, "a batch with an element that has ended fails");

    node.nft("delete element inet umbra-fallback eps6 { fd00:96::50 . 80 . 0x00000003 }");
    node.until("it is there again", |node| leads_to(node, V1));
    assert!(node.metric("umbra_fallback_rebuilt_total") > rebuilt);

    for set in ["src4", "known4", "known6", "self6"] {
        node.nft(&format!("flush set inet umbra-fallback {set}"));
        node.until("its elements are there again", |node| elements(node, set) > 0);
    }
    assert!(leads_to(&node, V1));
}

#[test]
fn a_table_that_root_changes_is_made_anew_with_its_entries() {
    let Some(mut node) = node("fb-flush") else { return };
    node.start("300s");
    node.push("PUT", &one());
    let golden = include_str!("fallback.golden").trim_end();
    for change in [
        "flush ruleset",
        "delete table inet umbra-fallback",
        "flush chain inet umbra-fallback nat",
        "flush chain inet umbra-fallback post; delete chain inet umbra-fallback post",
        "add rule inet umbra-fallback nat tcp dport 80 accept",
        "add table inet umbra-fallback { flags dormant; }",
    ] {
        let before = node.metric("umbra_fallback_rebuilt_total");
        node.nft(change);
        node.until("it was made anew", |node| node.metric("umbra_fallback_rebuilt_total") > before);
        assert_eq!(node.table(), golden, "{change}");
        assert!(leads_to(&node, V1), "{change}");
    }
}

#[test]
fn a_new_proxy_adopts_what_a_killed_one_left_and_its_first_push_removes_what_is_governed_no_longer() {
    let Some(mut node) = node("fb-adopt") else { return };
    node.start(TIMEOUT);
    let b = service("b", &["10.96.0.60"], &["10.244.1.31:8080"]);
    let ranges = json!({ "podCidrs": ["10.244.1.0/24", "fd00:244:1::/64"] });
    node.push("PUT", &put(&[service("a", &VIPS, &V1), b.clone()], ranges.clone()));
    node.kill();
    let both = |node: &Node| node.elements("eps4").len() == 32 && node.elements("eps6").len() == 16;
    assert!(both(&node));
    node.start(TIMEOUT);
    // Nobody pushes.
    node.past_two_timeouts();
    node.until("both services are led", both);
    // Without a push it can be made anew, too.
    node.nft("delete table inet umbra-fallback");
    node.until("it is there again", both);
    assert_eq!(node.table(), include_str!("fallback.golden").trim_end());
    let sources = node.run("nft", &["list", "set", "inet", "umbra-fallback", "src4"]);
    assert!(sources.contains("elements = { 10.244.1.0/24 }"), "{sources}");

    node.push("PUT", &put(&[b], ranges));
    let left: Vec<_> = node.elements("eps4").into_iter().map(|element| element.key).collect();
    assert_eq!(left, (0..16).map(|slot| format!("10.96.0.60.80.{slot}")).collect::<Vec<_>>());
    assert_eq!(node.elements("eps6").len(), 0);
    assert_eq!(node.elements("known4").len(), 1);
}

#[test]
fn a_new_proxy_knows_for_how_long_nobody_held_the_node() {
    let Some(mut node) = node("fb-beat") else { return };
    let said = node.start("300s");
    assert!(!said.contains("adopted"), "{said}");
    node.push("PUT", &one());
    node.kill();
    let began = Instant::now();
    node.until("two seconds have gone", |_| began.elapsed().as_secs() >= 2);
    let said = node.start("300s");
    let adopted = said.lines().find(|line| line.contains("adopted the fallback")).unwrap();
    let seconds = adopted.split("unheld=Some(").nth(1).and_then(|rest| rest.split("s)").next()).unwrap();
    let seconds: f64 = seconds.parse().unwrap();
    assert!((2.0..3600.0).contains(&seconds), "{adopted}");
}

#[test]
fn a_service_that_is_governed_no_longer_is_left() {
    let Some(mut node) = node("fb-leave") else { return };
    node.start("300s");
    let reply = node.push("PUT", &one());
    node.push("PATCH", &json!({ "base": reply["digest"], "remove": ["service/default/a"] }));
    for set in ["eps4", "eps6", "known4", "known6", "self4", "self6"] {
        assert_eq!(node.elements(set).len(), 0, "{set}");
    }
    // A service that is left alone keeps its way.
    let mut alone = service("a", &VIPS, &V1);
    alone.table["leaveAlone"] = "a NetworkPolicy".into();
    let reply = node.push("PUT", &put(&[alone], json!({ "podCidrs": ["10.244.1.0/24"] })));
    assert_eq!(reply["armed"], json!([]));
    assert!(leads_to(&node, V1));
}

#[test]
fn without_endpoints_slots_lead_to_the_proxy_itself() {
    let Some(mut node) = node("fb-nowhere") else { return };
    node.start("300s");
    node.push("PUT", &put(&[service("a", &VIPS, &[])], json!({ "podCidrs": ["10.244.1.0/24"] })));
    assert!(leads_to(&node, ["172.31.99.1:15001", "[fd00:31::1]:15001"]));
}

#[test]
fn sigterm_gives_entries_their_full_time() {
    let Some(mut node) = node("fb-term") else { return };
    node.start("300s");
    node.push("PUT", &one());
    let least = |node: &Node| node.elements("eps4").iter().map(|element| element.expires).min().unwrap();
    node.until("some time has gone", |node| least(node) < 290);
    node.signal("TERM");
    node.wait();
    // All but what its end and this listing take.
    assert!(least(&node) >= 292, "{} s are left", least(&node));
}

#[test]
fn cleanup_deletes_both_tables_and_refuses_while_a_proxy_runs() {
    let Some(mut node) = node("fb-cleanup") else { return };
    node.start("300s");
    node.push("PUT", &one());
    let refused = node.cleanup();
    assert!(!refused.status.success(), "a proxy runs");
    node.kill();
    // As one that was left by a kernel that does not know owners.
    node.nft("add table inet umbra");
    assert!(node.cleanup().status.success());
    assert_eq!(node.run("nft", &["list", "tables"]), "");
    assert!(node.cleanup().status.success(), "also when there is nothing");
    let mut cleaner = node.cleaner();
    node.signal_to(&cleaner, "TERM");
    assert!(cleaner.wait().unwrap().success());
}

/// Every change of the ruleset starts others' listings anew: a proxy that lives and has nothing to change makes none, and
/// still beats.
#[test]
fn a_proxy_at_rest_changes_nothing() {
    let Some(mut node) = node("fb-rest") else { return };
    node.start("300s");
    node.push("PUT", &one());
    let mut generations = node.generations();
    let before = generations.next();
    let began = Instant::now();
    node.until("the dead-man's element would have ended twice", |_| began.elapsed() > 2 * ALIVE_FOR);
    assert_eq!(generations.next(), before + 1, "only the test has changed something");
    let alive = node.run("nft", &["list", "set", "inet", "umbra", "alive"]);
    assert!(alive.contains("tcp"), "and it has beaten: {alive}");
}
