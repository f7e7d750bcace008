//! `kill -9`, a second `kubectl apply`, and a stranger at the push port.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use umbra_testkit::{CEILING, Signal, wait_for};

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
        // The process is gone, and with it its table: from here on no new connection may fail.
        let (mut asked, mut by_v2) = (0_u32, 0_u32);
        while !serves(example, &here.node) {
            ensure!(killed.elapsed() < CEILING, "no proxy on {} again", here.node);
            let answer = client.ask(&format!("without-{asked}"), Connections::Fresh)?;
            ensure!(
                answer.status == 200,
                "request {asked}, {:?} after the kill: {answer:?}",
                killed.elapsed()
            );
            asked += 1;
            by_v2 += u32::from(answer.version == "v2");
        }
        println!(
            "measured: proxy killed: {asked} connections by kube-proxy ({by_v2} to v2), none failed; back after {:.1?}",
            killed.elapsed()
        );
        umbra_serves(example, &mut client)?;
        let seen = elsewhere.finish();
        ensure!(seen.failed == 0 && seen.versions.keys().eq(["v1"]), "on the other node: {seen:?}");
        Ok(())
    });
}

/// The node's proxy is ready and has something to do: what it is told is armed before it says so.
fn serves(example: &Example, node: &str) -> bool {
    let ready = || -> Result<()> {
        let found = example.cluster().nodes().iter().find(|one| one.name == node).context("a node")?;
        umbra_testkit::http::get(proxy_metrics(&found.address)?, "/readyz").map(drop)
    };
    ready().is_ok()
}

/// New connections on the node go to v1 alone again, and are copied.
fn umbra_serves(example: &Example, client: &mut Client) -> Result<()> {
    wait_for("umbra serves again: 20 answers in a row are v1's", CEILING, || {
        (0..20).try_for_each(|number| ask(client, &format!("again-{number}"), "v1"))
    })?;
    let before = example.shadows()?.eligible;
    for number in 0..10 {
        ask(client, &format!("copied-{number}"), "v1")?;
    }
    let now = example.shadows()?.eligible;
    // The user on the other node is copied, too.
    ensure!(now >= before + 10, "{now} requests eligible, {before} before");
    Ok(())
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
