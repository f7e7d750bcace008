//! 5,000 governed services on every node: what arming and renewing cost, and whether kube-proxy waits for it. Entries are
//! not looked at here: beside kube-proxy's own tables of that size Debian's nft takes minutes for any question (the
//! proxy's tests/fallback.rs reads them, and times an endpoint's change). A stage of its own (`--ignored`): deleting so many objects keeps the cluster busy for a while.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use umbra_testkit::{Samples, wait_for};

use crate::cluster_proxies::{NoProxies, PROXY, on_node, pod_on, state};
use crate::cluster_system::{Example, Second, UMBRA, with_example};

const SERVICES: usize = 5000;
/// kubectl spares the API server: 50 requests a second each. More of them share the work.
const WRITERS: usize = 8;
/// So many objects take a while to write, and to be listed.
const CEILING: Duration = Duration::from_secs(600);
/// Endpoint changes that kube-proxy is timed over.
const CHANGES: usize = 10;

#[test]
#[ignore = "a stage of its own: see tests/run.sh"]
fn five_thousand_services() {
    with_example("scale", Second::Right, |example| {
        example.route()?;
        let began = Instant::now();
        write(example)?;
        println!("measured: {SERVICES} Services and VirtualServices written in {:.0?}", began.elapsed());
        let node = example.cluster().nodes().first().context("a node")?.name.clone();
        wait_for("all are armed", CEILING, || {
            let armed = state(example, &node)?["armed"].as_array().map_or(0, Vec::len);
            ensure!(armed > SERVICES, "{armed} are");
            Ok(())
        })?;
        println!("measured: {SERVICES} services armed {:.1?} after the first was written", began.elapsed());
        let pod = pod_on(example, PROXY, &node)?;
        let (now, most) = example.cluster().pod_memory(UMBRA, &pod)?;
        println!(
            "measured: proxy with {SERVICES} services: resident {} MiB, at most {} MiB",
            now >> 20,
            most >> 20
        );
        renewing(example, &pod)?;

        let with = kube_proxy_sync(example, &node)?;
        let away = NoProxies::new(example)?;
        let without = kube_proxy_sync(example, &node)?;
        println!(
            "measured: kube-proxy's sync with {SERVICES} services: {:.1} ms while umbra renews, {:.1} ms without umbra: {:.2} times",
            with * 1e3,
            without * 1e3,
            with / without
        );
        away.end()
    });
}

fn write(example: &Example) -> Result<()> {
    example.apply(&format!(
        "{{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {{name: many}}, spec: {{host: \"*.{}.svc.cluster.local\", \
         subsets: [{{name: v1, labels: {{version: v1}}}}, {{name: v2, labels: {{version: v2}}}}]}}}}",
        example.name()
    ))?;
    let each = SERVICES.div_ceil(WRITERS);
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..WRITERS)
            .map(|writer| {
                scope.spawn(move || create(example, writer * each..((writer + 1) * each).min(SERVICES)))
            })
            .collect();
        all.into_iter().try_for_each(|one| one.join().expect("a writer does not panic"))
    })
}

fn create(example: &Example, numbers: std::ops::Range<usize>) -> Result<()> {
    let mut text = String::new();
    for number in numbers {
        write!(
            text,
            "---\n{{apiVersion: v1, kind: Service, metadata: {{name: many-{number}}}, spec: {{selector: {{app: sa-logic}}, \
             ports: [{{name: http, port: 80, targetPort: 5000}}]}}}}\n---\n\
             {{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {{name: many-{number}}}, spec: {{hosts: [many-{number}], \
             http: [{{route: [{{destination: {{host: many-{number}, subset: v1}}}}], mirror: {{host: many-{number}, subset: v2}}}}]}}}}\n"
        )?;
    }
    example.cluster().kubectl().run_with_input(&["-n", example.name(), "create", "-f", "-"], &text).map(drop)
}

/// CPU time of the proxy while nothing happens but renewals, and its share that the kernel spends.
fn renewing(example: &Example, pod: &str) -> Result<()> {
    let process = *example.cluster().pod_processes(UMBRA, pod)?.first().context("a process")?;
    let ticks = || -> Result<(u64, u64)> {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
        let fields: Vec<u64> = stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .skip(11)
            .take(2)
            .flat_map(str::parse)
            .collect();
        Ok((fields[0], fields[1]))
    };
    let (before, began) = (ticks()?, Instant::now());
    // A third of the timeout: every entry is renewed once.
    let span = Duration::from_secs(100);
    wait_for("every entry has been renewed", CEILING, || {
        ensure!(began.elapsed() >= span);
        Ok(())
    })?;
    let after = ticks()?;
    // USER_HZ is 100 on every Linux.
    println!(
        "measured: renewing {SERVICES} services once in {:.0?}: {} ms in the process, {} ms in the kernel for it",
        began.elapsed(),
        (after.0 - before.0) * 10,
        (after.1 - before.1) * 10
    );
    Ok(())
}

/// Mean seconds that kube-proxy took for a sync, over some that changes of endpoints ask for.
fn kube_proxy_sync(example: &Example, node: &str) -> Result<f64> {
    let read = || -> Result<(f64, f64)> {
        let text = on_node(example, node, "curl", &["-sf", "http://127.0.0.1:10249/metrics"])?;
        let samples = Samples::from_text(text);
        let name = "kubeproxy_sync_proxy_rules_duration_seconds";
        Ok((samples.sum(&format!("{name}_sum"), &[]), samples.sum(&format!("{name}_count"), &[])))
    };
    let before = read()?;
    for number in 0..CHANGES {
        let replicas = if number % 2 == 0 { "--replicas=0" } else { "--replicas=1" };
        let count = read()?.1;
        example.kubectl(&["scale", "deployment/sa-web-app", replicas])?;
        wait_for("kube-proxy has synced", CEILING, || {
            ensure!(read()?.1 > count);
            Ok(())
        })?;
    }
    let after = read()?;
    Ok((after.0 - before.0) / (after.1 - before.1))
}
