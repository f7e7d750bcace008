//! A VirtualService and its DestinationRule may come and go in either order: nobody is refused in between.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use umbra_testkit::{CEILING, wait_for};

use crate::cluster_api::Api;
use crate::cluster_system::{Example, Second, manifest, with_example};
use crate::cluster_users::{Connections, Log, Users};

/// One client, two requests: the controller waits this long for what belongs together.
const APART: Duration = Duration::from_millis(300);
/// Each with both orders.
const ROUNDS: usize = 5;

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
        for round in 0..ROUNDS {
            for (applied, deleted) in [(0, 0), (1, 1), (0, 1), (1, 0)] {
                apply(example, &api, orders[applied])?;
                shadowed(example, &users)?;
                delete(example, &api, orders[deleted])?;
                not_shadowed(&users)?;
                let failures: Vec<String> = users.each().flat_map(|user| user.log().failures).collect();
                ensure!(
                    failures.is_empty(),
                    "round {round}, {} applied first, {} deleted first: {failures:#?}",
                    orders[applied][0].0,
                    orders[deleted][0].0
                );
            }
        }
        let log = users.finish_unharmed()?;
        let shadows = example.settled_shadows()?;
        println!("under load: {} requests, by version {:?}; {shadows:?}", log.requests, log.versions);
        Ok(())
    });
}

fn apply(example: &Example, api: &Api, order: [Kind; 2]) -> Result<()> {
    let manifests = [manifest(order[0].1)?, manifest(order[1].1)?];
    // v1alpha3 in the file, v1 in the path: the same object.
    let manifests =
        manifests.map(|yaml| yaml.replace("networking.istio.io/v1alpha3", "networking.istio.io/v1"));
    let began = Instant::now();
    for (kind, yaml) in order.into_iter().zip(&manifests) {
        api.create(example.name(), kind.0, yaml)?;
    }
    in_time(began)
}

fn delete(example: &Example, api: &Api, order: [Kind; 2]) -> Result<()> {
    let began = Instant::now();
    for kind in order {
        api.delete(example.name(), kind.0, "sa-logic")?;
    }
    in_time(began)
}

/// The premise: on a machine too busy for it, the test says nothing.
fn in_time(began: Instant) -> Result<()> {
    let apart = began.elapsed();
    ensure!(apart <= APART, "this machine is too busy: both requests took {apart:?}, over {APART:?}");
    Ok(())
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
