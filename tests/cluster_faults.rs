//! What may happen to a proxy, under the load of the promise: users are answered by v1, only what was in flight on that
//! node is lost, and every connection is counted by whoever took it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use umbra_testkit::{CEILING, Samples, Signal, stop_thread, wait_for};

use crate::cluster_load::{Fault, Load, Seen, adds_up, paths};
use crate::cluster_proxies::{
    PROXY, client_nodes, kill_proxy, metrics_on, not_armed_because, pod_on, wait_armed,
    wait_mirrored_everywhere, wait_rolled_out,
};
use crate::cluster_status::{wait_condition, wait_for_copies};
use crate::cluster_system::{Example, Second, UMBRA, with_example};

/// How often a proxy is killed.
const KILLS: u32 = 30;

/// A row of the table of faults.
fn report(fault: &str, seen: &Seen, paths: &BTreeMap<String, u64>, example: &Example) -> Result<()> {
    let copies = example.settled_shadows()?;
    println!(
        "measured: fault: {fault}: sent {}, failed {}, v1 {}, v2 {}, connections {paths:?}, slowest {:.1?}; copies since the last start {copies:?}",
        seen.requests,
        seen.failures.len(),
        seen.answered.get("v1").copied().unwrap_or_default(),
        seen.answered.get("v2").copied().unwrap_or_default(),
        seen.slowest
    );
    Ok(())
}

/// Runs a fault under load, checks what users saw and that all connections were counted.
fn under_load(name: &str, fault: impl FnOnce(&Example, &Load) -> Result<Vec<Fault>>) {
    with_example(name, Second::Right, |example| {
        example.route()?;
        let before = paths(example)?;
        let load = Load::start(example)?;
        wait_for_copies(example)?;
        let faults = fault(example, &load)?;
        wait_mirrored_everywhere(example, &load)?;
        let seen = load.finish();
        seen.harmed_only_by(&faults)?;
        let since = adds_up(example, &before, &seen)?;
        report(name, &seen, &since, example)
    });
}

#[test]
fn a_proxy_killed_again_and_again_costs_only_what_was_in_flight() {
    under_load("killed", |example, load| {
        let nodes = client_nodes(example)?;
        let mut random = Scatter(u64::from(std::process::id()));
        let mut faults = Vec::new();
        for number in 0..KILLS {
            let node = &nodes[number as usize % nodes.len()];
            wait_armed(example, node)?;
            // Any moment is as good as another: that is what is tried.
            std::thread::sleep(Duration::from_millis(random.below(500)));
            faults.push(kill_proxy(example, node)?);
            load.wait_for_node(node, 10)?;
        }
        Ok(faults)
    });
}

#[test]
fn a_hung_proxy_is_passed_by_after_the_dead_mans_time() {
    under_load("hung", |example, load| {
        let node = client_nodes(example)?.first().cloned().context("a node with users")?;
        let pod = pod_on(example, PROXY, &node)?;
        let from = Instant::now();
        example.cluster().signal_container(UMBRA, &pod, Signal::SIGSTOP)?;
        let resumed = Resume { example, pod: &pod };
        let stopped = Instant::now();
        let to = load.wait_served(&node, stopped)?;
        println!("measured: fault: hung: fresh connections are served again after {:.1?}", to - stopped);
        // From here on nobody may notice.
        load.wait_for_node(&node, 500)?;
        drop(resumed);
        Ok(vec![Fault { node, from, to }])
    });
}

#[test]
fn one_blocked_worker_thread_is_enough_to_be_passed_by() {
    under_load("blocked-worker", |example, load| {
        let node = client_nodes(example)?.first().cloned().context("a node with users")?;
        let pod = pod_on(example, PROXY, &node)?;
        let process = *example.cluster().pod_processes(UMBRA, &pod)?.first().context("a process")?;
        let from = Instant::now();
        let blocked = stop_thread(u32::try_from(process)?, "worker-0")?;
        // The other worker goes on with its share until the kernel lets all of them pass: no beat for 3 s.
        let passed_by =
            |samples: &Samples| samples.sum("umbra_node_connections_total", &[("path", "fallback")]);
        let before = passed_by(&Samples::of(metrics_on(example, &node)?)?);
        let to = wait_for("the fallback serves", CEILING, || {
            ensure!(passed_by(&Samples::of(metrics_on(example, &node)?)?) > before);
            Ok(Instant::now())
        })?;
        println!("measured: fault: one blocked worker: passed by after {:.1?}", to - from);
        load.wait_for_node(&node, 500)?;
        drop(blocked);
        Ok(vec![Fault { node, from, to }])
    });
}

/// Goes on when dropped, whatever the test came to.
struct Resume<'a> {
    example: &'a Example,
    pod: &'a str,
}

impl Drop for Resume<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.example.cluster().signal_container(UMBRA, self.pod, Signal::SIGCONT) {
            eprintln!("{} stays stopped: {error:#}", self.pod);
        }
    }
}

#[test]
fn a_rollout_of_the_proxies_fails_no_request() {
    under_load("restart", |example, load| {
        let kubectl = example.cluster().kubectl();
        kubectl.run(&["-n", UMBRA, "rollout", "restart", "ds/umbra-proxy"])?;
        wait_rolled_out(example)?;
        load.wait_for_more(200)?;
        Ok(Vec::new())
    });
}

#[test]
fn deleting_the_daemonset_fails_no_request() {
    under_load("deleted", |example, load| {
        let kubectl = example.cluster().kubectl();
        let manifest = kubectl.run(&["-n", UMBRA, "get", "ds/umbra-proxy", "-o", "yaml"])?;
        kubectl.run(&["-n", UMBRA, "delete", "ds/umbra-proxy", "--wait=true"])?;
        wait_for("no proxy is left", CEILING, || {
            let pods = example.cluster().pods(UMBRA, PROXY)?;
            ensure!(pods.is_empty(), "{} pods", pods.len());
            Ok(())
        })?;
        load.wait_for_more(1000)?;
        kubectl.run_with_input(&["create", "-f", "-"], &recreatable(&manifest))?;
        wait_rolled_out(example)?;
        Ok(Vec::new())
    });
}

/// An image of another wire version: the rollout stops at the first node, whose new proxy is not ready, and its users are
/// led to v1 by what the old one left.
#[test]
fn an_upgrade_that_the_controller_cannot_talk_to_leaves_users_on_v1() {
    under_load("upgrade", |example, load| {
        example
            .cluster()
            .load_images(&["umbra-proxy-next-wire"])
            .context("deploy/images.sh umbra-proxy-next-wire")?;
        let before: Vec<_> = proxies(example)?;
        let kubectl = example.cluster().kubectl();
        let set = |image: &str| {
            let image = format!("*=localhost/{image}:dev");
            kubectl.run(&["-n", UMBRA, "set", "image", "ds/umbra-proxy", &image]).map(drop)
        };
        set("umbra-proxy-next-wire")?;
        let upgraded = wait_for("one node has a new proxy, which runs", CEILING, || {
            let now = proxies(example)?;
            let new = now.into_iter().find(|(name, node, running)| {
                *running && !before.iter().any(|old| (&old.0, &old.1) == (name, node))
            });
            new.map(|(_, node, _)| node).context("not yet")
        });
        let served = upgraded.and_then(|node| cannot_be_talked_to(example, load, &node));
        set("umbra-proxy")?;
        served?;
        wait_rolled_out(example)?;
        Ok(Vec::new())
    });
}

fn cannot_be_talked_to(example: &Example, load: &Load, node: &str) -> Result<()> {
    load.wait_for_node(node, 500)?;
    let because = not_armed_because(example, node)?;
    ensure!(because.is_empty(), "it has a table: {because}");
    wait_for("Programmed says so", CEILING, || {
        let (word, message) = wait_condition(example, "vs/sa-logic", "Programmed", "False")?;
        ensure!(message.contains(node) && message.contains("another version of the push API"), "{message}");
        println!("measured: fault: upgrade: Programmed=False {word}: {message}");
        Ok(())
    })
}

/// Name and node of each proxy's pod, and whether its program runs.
fn proxies(example: &Example) -> Result<Vec<(String, String, bool)>> {
    let pods = example.cluster().pods(UMBRA, PROXY)?;
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let running =
        |pod: &serde_json::Value| pod["status"]["containerStatuses"][0]["state"]["running"].is_object();
    Ok(pods
        .iter()
        .map(|pod| (text(&pod["metadata"]["name"]), text(&pod["spec"]["nodeName"]), running(pod)))
        .collect())
}

/// Without what the API server refuses in a new object.
fn recreatable(manifest: &str) -> String {
    let own = |line: &&str| {
        !line.trim_start().starts_with("resourceVersion:") && !line.trim_start().starts_with("uid:")
    };
    manifest.lines().filter(own).flat_map(|line| [line, "\n"]).collect()
}

/// Any numbers do: Knuth's linear congruential generator.
struct Scatter(u64);

impl Scatter {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}
