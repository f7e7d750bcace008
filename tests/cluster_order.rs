//! A VirtualService and its DestinationRule may come and go in either order: nobody is refused in between.

use std::time::Duration;

use anyhow::{Result, ensure};
use umbra_testkit::{CEILING, wait_for};

use crate::cluster_api::Api;
use crate::cluster_system::{Example, Second, manifest, with_example};
use crate::cluster_users::{Connections, Log, Users};

/// Between a round's two requests, beside the time they take: umbra promises 300 ms, on a machine that keeps up.
const APART: [Duration; 4] =
    [Duration::ZERO, Duration::from_millis(50), Duration::from_millis(120), Duration::from_millis(200)];

/// A kind of object of the example: its plural, and its manifest.
#[derive(Clone, Copy)]
struct Kind(&'static str, &'static str);

const VIRTUAL_SERVICE: Kind = Kind("virtualservices", "sa-logic-subsets-shadowing-vs.yaml");
const DESTINATION_RULE: Kind = Kind("destinationrules", "sa-logic-subsets-destinationrule.yaml");

#[test]
fn either_order_on_apply_and_on_delete_fails_no_request() {
    with_example("order", Second::Right, |example| {
        let api = Api::start(example.cluster())?;
        let users = Users::start(example, Duration::from_millis(5))?;
        users.wait_for_more(20)?;
        let orders = [[VIRTUAL_SERVICE, DESTINATION_RULE], [DESTINATION_RULE, VIRTUAL_SERVICE]];
        for apart in APART {
            for (applied, deleted) in [(0, 0), (1, 1), (0, 1), (1, 0)] {
                let coming = apply(example, &api, orders[applied], apart)?;
                shadowed(example, &users)?;
                let going = delete(example, &api, orders[deleted], apart)?;
                not_shadowed(&users)?;
                let failures: Vec<String> = users.each().flat_map(|user| user.log().failures).collect();
                let [first, last] = [orders[applied][0].0, orders[deleted][0].0];
                ensure!(
                    failures.is_empty(),
                    "{first} applied first, {last} deleted first, {coming:?} and {going:?} apart: {failures:#?}"
                );
                println!(
                    "{first} applied first, {last} deleted first: {coming:.0?} and {going:.0?} apart, nothing failed"
                );
            }
        }
        let log = users.finish_unharmed()?;
        let shadows = example.settled_shadows()?;
        println!("under load: {} requests, by version {:?}; {shadows:?}", log.requests, log.versions);
        Ok(())
    });
}

/// Gives how far apart the two answers of the API server were.
fn apply(example: &Example, api: &Api, order: [Kind; 2], apart: Duration) -> Result<Duration> {
    let [first, second] = order;
    // v1alpha3 in the file, v1 in the path: the same object.
    let yaml = |kind: Kind| Ok::<_, anyhow::Error>(manifest(kind.1)?.replace("/v1alpha3", "/v1"));
    let (one, other) = (yaml(first)?, yaml(second)?);
    let began = api.create(example.name(), first.0, &one)?;
    // Not to wait for anything: how far apart they are is what is tried.
    std::thread::sleep(apart);
    Ok(api.create(example.name(), second.0, &other)? - began)
}

/// The same for their end.
fn delete(example: &Example, api: &Api, order: [Kind; 2], apart: Duration) -> Result<Duration> {
    let began = api.delete(example.name(), order[0].0, "sa-logic")?;
    std::thread::sleep(apart);
    Ok(api.delete(example.name(), order[1].0, "sa-logic")? - began)
}

/// Every node serves the rules, and copies are made.
fn shadowed(example: &Example, users: &Users) -> Result<()> {
    example.wait_programmed()?;
    let before = example.shadows()?.eligible;
    users.wait_for_more(5)?;
    wait_for("requests are mirrored", CEILING, || {
        let now = example.shadows()?;
        ensure!(now.eligible > before, "{now:?}");
        Ok(())
    })
}

/// New connections on every node get answers of v2, as only the Service's own endpoints give them.
fn not_shadowed(users: &Users) -> Result<()> {
    let v2 = |log: &Log| log.versions.get("v2").copied().unwrap_or_default();
    for user in users.each().filter(|user| user.connections == Connections::Fresh) {
        let before = v2(&user.log());
        wait_for("the Service itself serves", CEILING, || {
            let log = user.log();
            ensure!(v2(&log) > before, "{}: {log:?}", user.node);
            Ok(())
        })?;
    }
    Ok(())
}
