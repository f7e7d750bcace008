//! 5,000 services on one node: what loading, renewing and changing them costs.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use serde_json::json;

use super::fallback_node::{self, Node, Service, node, put, service};

const SERVICES: usize = 5_000;
/// Of these, with an IPv6 address too: more than one batch.
const DUAL: usize = 100;
/// Ten times shorter than the default: an interval, in which everything is renewed once, is 10 s long.
const TIMEOUT: &str = "30s";
const INTERVAL: Duration = Duration::from_secs(10);
/// Batches of somebody else, whose time is measured.
const FOREIGN_BATCHES: usize = 60;

fn many() -> Vec<Service> {
    let one = |number: usize| {
        let (high, low) = (number / 250, number % 250 + 1);
        let endpoint = |last: usize| format!("10.244.{high}.{last}:8080");
        let endpoints = [endpoint(low), endpoint((low + 7) % 250 + 1)];
        let mut endpoints = endpoints.each_ref().map(String::as_str).to_vec();
        let mut addresses = vec![format!("10.97.{high}.{low}")];
        if number < DUAL {
            addresses.push(format!("fd00:97::{number:x}"));
            endpoints.push("[fd00:244::1]:8080");
        }
        service(&format!("s{number}"), &addresses.iter().map(String::as_str).collect::<Vec<_>>(), &endpoints)
    };
    (0..SERVICES).map(one).collect()
}

/// What the thread has run for, in the process and in the kernel.
fn thread_time(node: &Node) -> Duration {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", node.id())).unwrap();
    let task = tasks
        .map(|task| task.unwrap().path())
        .find(|task| std::fs::read_to_string(task.join("comm")).unwrap().trim() == "umbra-fallback");
    let times = std::fs::read_to_string(task.unwrap().join("schedstat")).unwrap();
    Duration::from_nanos(times.split(' ').next().unwrap().parse().unwrap())
}

/// Kernel memory in use, in KiB. Others' use is in it.
fn slab() -> i64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("Slab:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Median and longest time of a batch that another program sends, as kube-proxy does: 100 elements.
fn foreign_batches(node: &Node) -> [Duration; 2] {
    let mut batch = String::from("flush set ip kube-proxy-like s\nadd element ip kube-proxy-like s { ");
    (0..100).for_each(|number| write!(batch, "10.1.1.{number}, ").unwrap());
    batch += "}";
    node.run("nft", &["add table ip kube-proxy-like { set s { type ipv4_addr; }; }"]);
    let time = |_| {
        let began = Instant::now();
        node.run("nft", &[&batch]);
        began.elapsed()
    };
    let mut times: Vec<Duration> = (0..FOREIGN_BATCHES).map(time).collect();
    times.sort();
    [times[times.len() / 2], times[times.len() - 1]]
}

#[test]
fn five_thousand_services_are_loaded_renewed_and_changed() {
    let Some(mut node) = node("fb-many") else { return };
    node.start(TIMEOUT);
    let idle = foreign_batches(&node);
    let before = slab();
    let all = many();
    let began = Instant::now();
    let reply = node.push("PUT", &put(&all, json!({ "podCidrs": ["10.244.1.0/24"] })));
    println!(
        "measured: {SERVICES} services, {} slots: push answered after {:.1?} (unoptimised), the thread ran {:.1?}, \
         slab {:+} KiB",
        16 * (SERVICES + DUAL),
        began.elapsed(),
        thread_time(&node),
        slab() - before
    );

    // A whole interval, in which each of them is renewed once.
    let (began, ran) = (Instant::now(), thread_time(&node));
    let busy = foreign_batches(&node);
    node.until("an interval has gone", |_| began.elapsed() >= INTERVAL);
    let ran = thread_time(&node) - ran;
    println!(
        "measured: an interval of {:.1?} with all renewed: the thread ran {ran:.1?}; a default second (50 of them) {:.1?}",
        began.elapsed(),
        ran / 100
    );
    println!(
        "measured: others' batches of 100 elements, median and longest: {idle:.1?} before, {busy:.1?} while 500 \
         services a second are renewed"
    );

    let (key, _) = fallback_node::set("s7", &[]);
    let change = json!({
        "base": reply["digest"],
        "patch": { key: { "add": [fallback_node::endpoint("10.244.0.250:8080")], "remove": [] } }
    });
    let (began, ran) = (Instant::now(), thread_time(&node));
    node.push("PATCH", &change);
    println!(
        "measured: one endpoint of {SERVICES} services: answered after {:.1?}, the thread ran {:.1?}",
        began.elapsed(),
        thread_time(&node) - ran
    );
    assert_eq!(node.metric("umbra_fallback_rebuilt_total"), 0);

    // What is there is told by a new proxy that adopts it: nft takes minutes to list 80,000 elements.
    node.kill();
    let began = Instant::now();
    let said = node.start(TIMEOUT);
    println!("measured: {SERVICES} services adopted: started after {:.1?} (unoptimised)", began.elapsed());
    assert!(said.contains(&format!("entries={} ", SERVICES + DUAL)), "{said}");
}
