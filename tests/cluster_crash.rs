//! `kill -9` of the controller, and a second `kubectl apply`.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use umbra_testkit::{CEILING, wait_for};

use crate::cluster_proxies::{CONTROLLER, kill};
use crate::cluster_status::{patch, wait_condition, wait_for_copies};
use crate::cluster_system::{Example, Second, UMBRA, with_example};
use crate::cluster_users::Users;

const PACE: Duration = Duration::from_millis(100);

#[test]
fn a_killed_controller_changes_nothing_for_anybody() {
    with_example("kill-controller", Second::Right, |example| {
        example.route()?;
        let users = Users::start(example, PACE)?;
        wait_for_copies(example)?;
        let restarts = restarts(example)?;
        let killed = Instant::now();
        let pods = example.cluster().pods(UMBRA, CONTROLLER)?;
        let killed_pods = u64::try_from(pods.len())?;
        for pod in pods {
            kill(example, pod["metadata"]["name"].as_str().context("a pod has a name")?)?;
        }
        users.wait_for_more(5)?;
        wait_for("the controller is back", CEILING, || {
            ensure!(self::restarts(example)? >= restarts + killed_pods, "not all restarted yet");
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

/// How often the controller's container was started anew.
fn restarts(example: &Example) -> Result<u64> {
    let pods = example.cluster().pods(UMBRA, CONTROLLER)?;
    let count =
        |pod: &Value| pod["status"]["containerStatuses"][0]["restartCount"].as_u64().unwrap_or_default();
    Ok(pods.iter().map(count).sum())
}
