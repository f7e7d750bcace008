//! umbra itself is replaced under load, proxy by proxy and then the controller: no request fails, and shadows go on. While
//! a node has no proxy, the Service itself serves: both versions answer.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use umbra_testkit::{CEILING, Samples, wait_for};

use crate::cluster_system::{Example, Second, UMBRA, with_example};
use crate::cluster_users::Users;

#[test]
fn replacing_umbra_fails_no_request() {
    with_example("upgrade", Second::Right, |example| {
        example.route()?;
        let users = Users::start(example, Duration::from_millis(10))?;
        users.wait_for_more(20)?;
        for (what, component) in
            [("daemonset/umbra-proxy", "proxy"), ("deployment/umbra-controller", "controller")]
        {
            replace(example, what, component)?;
            shadowed_on_every_node(example)?;
            let failures: Vec<String> = users.each().flat_map(|user| user.log().failures).collect();
            ensure!(failures.is_empty(), "while {what} was replaced: {failures:#?}");
        }
        let log = users.finish_unharmed()?;
        let shadows = example.settled_shadows()?;
        println!("under load: {} requests, by version {:?}; {shadows:?}", log.requests, log.versions);
        Ok(())
    });
}

/// Every pod of it is another one afterwards.
fn replace(example: &Example, what: &str, component: &str) -> Result<()> {
    let kubectl = example.cluster().kubectl();
    let before = uids(example, component)?;
    kubectl.run(&["-n", UMBRA, "rollout", "restart", what])?;
    let ceiling = format!("--timeout={}s", CEILING.as_secs());
    kubectl.run(&["-n", UMBRA, "rollout", "status", what, &ceiling])?;
    let after = uids(example, component)?;
    ensure!(before.is_disjoint(&after) && !after.is_empty(), "{what}: {before:?}, then {after:?}");
    Ok(())
}

/// Of the pods that are not on their way out.
fn uids(example: &Example, component: &str) -> Result<BTreeSet<String>> {
    let pods = example.cluster().pods(UMBRA, &format!("app.kubernetes.io/component={component}"))?;
    let stay = pods.iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
    stay.map(|pod| pod["metadata"]["uid"].as_str().map(str::to_owned).context("a pod has a uid")).collect()
}

/// Each proxy copies requests, from now on.
fn shadowed_on_every_node(example: &Example) -> Result<()> {
    let host = example.host();
    let sent = |samples: &Samples| samples.sum("umbra_shadow_sent_total", &[("service", &host)]);
    let before: Vec<f64> = example.samples()?.iter().map(sent).collect();
    wait_for("every proxy shadows requests", CEILING, || {
        let now: Vec<f64> = example.samples()?.iter().map(sent).collect();
        ensure!(before.iter().zip(&now).all(|(before, now)| now > before), "{before:?}, then {now:?}");
        Ok(())
    })
}
