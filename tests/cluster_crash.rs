//! `kill -9`, a second `kubectl apply`, and a stranger at the push port.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use umbra_testkit::{CEILING, Samples, Signal, http, wait_for};

use crate::cluster_status::{patch, wait_condition, wait_for_copies};
use crate::cluster_system::{Example, Second, UMBRA, proxy_metrics, with_example};
use crate::cluster_users::{Client, Connections, User, Users};

const PACE: Duration = Duration::from_millis(100);
const PROXY: &str = "app.kubernetes.io/component=proxy";
const CONTROLLER: &str = "app.kubernetes.io/component=controller";

#[test]
fn a_killed_proxy_leaves_new_connections_to_kube_proxy_until_it_is_back() {
    with_example("kill-proxy", Second::Right, |example| {
        example.route()?;
        let clients = example.clients()?;
        let (here, there) = (&clients[0], clients.last().context("two clients")?);
        ensure!(here.node != there.node, "{clients:?}");
        let elsewhere = User::start(example, there, Connections::Kept, PACE)?;
        let mut client = Client::new(example, here)?;
        ask(&mut client, "before", "v1")?;

        let proxy = pod_on(example, PROXY, &here.node)?;
        kill(example, &proxy)?;
        let killed = Instant::now();
        // The process is gone, and with it its table: from here on no new connection may fail, whoever serves it.
        let user = User::start(example, here, Connections::Fresh, Duration::from_millis(5))?;
        wait_for("the proxy is ready again", CEILING, || ready(example, &here.node))?;
        let back = killed.elapsed();
        wait_for("umbra serves again: 20 answers in a row are v1's", CEILING, || {
            (0..20).try_for_each(|number| ask(&mut client, &format!("again-{number}"), "v1"))
        })?;
        let (seen, took) = (user.finish(), killed.elapsed());
        println!(
            "measured: proxy killed: ready after {back:.1?}, {:?} answered within {took:.1?}",
            seen.versions
        );
        ensure!(seen.failed == 0, "{seen:?}");
        ensure!(seen.versions.contains_key("v2"), "kube-proxy knows no versions: {:?}", seen.versions);
        copies_again(example, &here.node, &mut client)?;
        let seen = elsewhere.finish();
        ensure!(seen.failed == 0 && seen.versions.keys().eq(["v1"]), "on the other node: {seen:?}");
        Ok(())
    });
}

/// The proxy of a node says that it is ready.
fn ready(example: &Example, node: &str) -> Result<()> {
    http::get(metrics_on(example, node)?, "/readyz").map(drop)
}

fn metrics_on(example: &Example, node: &str) -> Result<SocketAddr> {
    let found = example.cluster().nodes().iter().find(|one| one.name == node);
    proxy_metrics(&found.with_context(|| format!("no node {node}"))?.address)
}

/// Requests on the node are copied again, one by one.
fn copies_again(example: &Example, node: &str, client: &mut Client) -> Result<()> {
    let before = eligible_on(example, node)?;
    for number in 0..10 {
        ask(client, &format!("copied-{number}"), "v1")?;
    }
    let now = eligible_on(example, node)?;
    ensure!(now == before + 10, "on {node} {now} requests are eligible, {before} before");
    example.settled_shadows().map(drop)
}

/// Requests to sa-logic that this node's proxy wanted copied since it started.
fn eligible_on(example: &Example, node: &str) -> Result<u64> {
    let samples = Samples::of(metrics_on(example, node)?)?;
    // Counters of some thousand requests: whole numbers far below 2^53.
    Ok(samples.sum("umbra_shadow_eligible_total", &[("service", &example.host())]) as u64)
}

#[test]
fn a_killed_controller_changes_nothing_for_anybody() {
    with_example("kill-controller", Second::Right, |example| {
        example.route()?;
        let users = Users::start(example, PACE)?;
        wait_for_copies(example)?;
        let restarts = restarts(example)?;
        let killed = Instant::now();
        for pod in example.cluster().pods(UMBRA, CONTROLLER)? {
            kill(example, pod["metadata"]["name"].as_str().context("a pod has a name")?)?;
        }
        users.wait_for_more(5)?;
        wait_for("the controller is back", CEILING, || {
            ensure!(self::restarts(example)? > restarts, "not restarted yet");
            let pods = example.cluster().pods(UMBRA, CONTROLLER)?;
            let ready = pods.iter().all(|pod| pod["status"]["containerStatuses"][0]["ready"] == true);
            ensure!(ready, "not ready yet");
            Ok(())
        })?;
        println!("measured: controller killed: ready again after {:.1?}", killed.elapsed());
        users.wait_for_more(20)?;
        wait_for_copies(example)?;
        // And it is in charge again: a change reaches both nodes.
        let to = json!([{"destination": {"host": "sa-logic", "subset": "v1"}}]);
        patch(example, "vs/sa-logic", &json!({"http": [{"route": to}]}))?;
        wait_condition(example, "vs/sa-logic", "Programmed", "True")?;
        let before = example.shadows()?.eligible;
        users.wait_for_more(10)?;
        let now = example.shadows()?.eligible;
        ensure!(now == before, "without a mirror {now} requests are eligible, {before} before");
        let seen = users.finish_unharmed()?;
        ensure!(seen.versions.keys().eq(["v1"]), "who answered: {:?}", seen.versions);
        let shadows = example.settled_shadows()?;
        ensure!(shadows.dropped == 0, "{shadows:?}");
        Ok(())
    });
}

#[test]
fn applying_umbra_again_keeps_secrets_and_pods() {
    with_example("apply-again", Second::Right, |example| {
        let kubectl = example.cluster().kubectl();
        let contents = || -> Result<Vec<Value>> {
            let names = ["umbra-ca", "umbra-controller-tls", "umbra-proxy-tls"];
            names
                .iter()
                .map(|name| Ok(kubectl.get(&["secret", name, "-n", UMBRA])?["data"].clone()))
                .collect()
        };
        let pods = || kubectl.run(&["get", "pods", "-n", UMBRA, "-o", "jsonpath={.items[*].metadata.uid}"]);
        let (data, uids) = (contents()?, pods()?);
        ensure!(data.iter().all(|data| data["ca.crt"].is_string()), "filled by the controller");
        // What `make deploy` has rendered for this cluster: `with_example` ran it.
        let rendered = umbra_testkit::repository().join("target/deploy");
        let rendered = rendered.to_str().context("the repository's path is UTF-8")?;
        let said = kubectl.run(&["apply", "-k", rendered])?;
        ensure!(said.contains("secret/umbra-proxy-tls unchanged"), "{said}");
        // Not with `ensure!`, which would print keys.
        ensure!(contents()? == data, "the contents of a Secret have changed");
        ensure!(pods()? == uids, "pods were replaced: {said}");
        Ok(())
    });
}

/// Kills a pod's program as the kernel would, and returns when it is gone.
fn kill(example: &Example, pod: &str) -> Result<()> {
    let cluster = example.cluster();
    let processes = cluster.pod_processes(UMBRA, pod)?;
    cluster.signal_container(UMBRA, pod, Signal::SIGKILL)?;
    wait_for(&format!("{pod} is dead"), CEILING, || {
        // A zombie has no program any more: its sockets are closed.
        let alive = |process: &&i32| std::fs::read_link(format!("/proc/{process}/exe")).is_ok();
        let left: Vec<_> = processes.iter().filter(alive).collect();
        ensure!(left.is_empty(), "alive: {left:?}");
        Ok(())
    })
}

/// The name of umbra's pod on a node.
fn pod_on(example: &Example, selector: &str, node: &str) -> Result<String> {
    let pods = example.cluster().pods(UMBRA, selector)?;
    let found = pods.iter().find(|pod| pod["spec"]["nodeName"] == node);
    let name = found.and_then(|pod| pod["metadata"]["name"].as_str());
    name.map(str::to_owned).with_context(|| format!("no pod {selector} on {node}"))
}

/// How often the controller's container was started anew.
fn restarts(example: &Example) -> Result<u64> {
    let pods = example.cluster().pods(UMBRA, CONTROLLER)?;
    let count =
        |pod: &Value| pod["status"]["containerStatuses"][0]["restartCount"].as_u64().unwrap_or_default();
    Ok(pods.iter().map(count).sum())
}

fn ask(client: &mut Client, id: &str, version: &str) -> Result<()> {
    let answer = client.ask(id, Connections::Fresh)?;
    ensure!(answer.status == 200 && answer.version == version, "{id}: {answer:?}");
    Ok(())
}
