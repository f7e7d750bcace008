//! An object that is invalid now keeps its rules, whoever restarts, and its endpoints are followed meanwhile.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;
use umbra_testkit::{CEILING, wait_for};

use crate::cluster_proxies::{CONTROLLER, kill, wait_armed};
use crate::cluster_status::{patch, wait_condition, wait_for_copies};
use crate::cluster_system::{Example, Second, UMBRA, with_example};
use crate::cluster_users::Users;

const PACE: Duration = Duration::from_millis(50);

#[test]
fn a_held_object_survives_controllers_and_follows_v1() {
    with_example("held", Second::Right, |example| {
        example.route()?;
        let users = Users::start(example, PACE)?;
        wait_for_copies(example)?;
        let to = json!([{"destination": {"host": "sa-logic", "subset": "v1"}}]);
        let mirror = json!({"host": "sa-logic", "subset": "v2"});
        // A fault that is none makes no sense: the object is refused, its rules stay.
        let fault = json!({});
        patch(example, "vs/sa-logic", &json!({"http": [{"route": to, "mirror": mirror, "fault": fault}]}))?;
        wait_condition(example, "vs/sa-logic", "Accepted", "False")?;

        restart_controllers(example)?;
        wait_condition(example, "vs/sa-logic", "Programmed", "False")?;
        let old: Vec<_> = example.v1()?.into_iter().map(|pod| pod.name).collect();
        example.kubectl(&["rollout", "restart", "deployment/sa-logic"])?;
        let ceiling = format!("--timeout={}s", CEILING.as_secs());
        example.kubectl(&["rollout", "status", "deployment/sa-logic", &ceiling])?;
        wait_for("no old pod of v1 is left", CEILING, || {
            let pods = example.v1()?;
            ensure!(pods.iter().all(|pod| !old.contains(&pod.name)), "{pods:?}");
            Ok(())
        })?;
        users.wait_for_more(40)?;
        wait_for_copies(example)?;
        for node in example.cluster().nodes() {
            wait_armed(example, &node.name)?;
        }

        // The mirror goes in an edit that is invalid for another reason: copies stop all the same.
        patch(example, "vs/sa-logic", &json!({"http": [{"route": to, "fault": fault}]}))?;
        wait_for("copies have stopped", CEILING, || {
            let before = example.shadows()?.eligible;
            users.wait_for_more(20)?;
            let now = example.shadows()?.eligible;
            ensure!(now == before, "{now} eligible, {before} before");
            Ok(())
        })?;
        let seen = users.finish_unharmed()?;
        ensure!(seen.versions.keys().eq(["v1"]), "who answered: {:?}", seen.versions);
        println!(
            "measured: fault: controllers restarted while an object is held: {} requests, 0 failed, all v1's",
            seen.requests
        );
        Ok(())
    });
}

/// Every controller is killed, and another one leads.
fn restart_controllers(example: &Example) -> Result<()> {
    let kubectl = example.cluster().kubectl();
    let lease = || kubectl.get(&["lease/umbra-controller", "-n", UMBRA]);
    let held = lease()?["spec"]["holderIdentity"].clone();
    for pod in example.cluster().pods(UMBRA, CONTROLLER)? {
        kill(example, pod["metadata"]["name"].as_str().unwrap_or_default())?;
    }
    wait_for("a new term", CEILING, || {
        let now = lease()?["spec"]["holderIdentity"].clone();
        ensure!(now != held && now.as_str().is_some_and(|now| !now.is_empty()), "{now}");
        Ok(())
    })
}
