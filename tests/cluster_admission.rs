//! Manifests that fit the schema and make no sense: the author is told where, and the previous rules stay in force.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use umbra_testkit::{CEILING, wait_for};

use crate::cluster_status::{patch, wait_condition, wait_for_copies};
use crate::cluster_system::{Example, Second, with_example};
use crate::cluster_users::Users;

const PACE: Duration = Duration::from_millis(100);
/// Requests of each of the four users in a state that is to be looked at.
const SOME: u64 = 10;

#[test]
fn rules_that_make_no_sense_leave_the_previous_ones_in_force() {
    with_example("hold", Second::Right, |example| {
        example.route()?;
        let users = Users::start(example, PACE)?;
        wait_for_copies(example)?;
        // Each would send everybody to v2, were it taken in.
        let regex =
            json!({"match": [{"uri": {"regex": "/analyse/("}}], "route": to("v2"), "mirror": at("v2")});
        held(
            example,
            &users,
            &json!([regex, {"route": to("v2")}]),
            "Invalid",
            "spec.http[0].match[0].uri.regex: ",
        )?;
        let fault = json!({"fault": {}, "route": to("v2"), "mirror": at("v2")});
        held(example, &users, &json!([fault]), "Invalid", "spec.http[0].fault: ")?;

        patch(example, "vs/sa-logic", &json!({"http": [{"route": to("v1"), "mirror": at("v2")}]}))?;
        wait_condition(example, "vs/sa-logic", "Accepted", "True")?;
        wait_condition(example, "vs/sa-logic", "Programmed", "True")?;
        wait_for_copies(example)?;
        let seen = users.finish_unharmed()?;
        ensure!(seen.versions.keys().eq(["v1"]), "who answered: {:?}", seen.versions);
        let shadows = example.settled_shadows()?;
        ensure!(shadows.eligible == seen.requests, "mirrored all along: {seen:?}, {shadows:?}");
        Ok(())
    });
}

#[test]
fn a_mirror_that_held_rules_no_longer_name_stops() {
    with_example("hold-mirror", Second::Right, |example| {
        example.route()?;
        let users = Users::start(example, PACE)?;
        wait_for_copies(example)?;
        let without = json!([{"fault": {}, "route": to("v2")}]);
        patch(example, "vs/sa-logic", &json!({"http": without}))?;
        let (reason, message) = wait_condition(example, "vs/sa-logic", "Accepted", "False")?;
        ensure!(reason == "Invalid", "{reason}: {message}");
        wait_for("no request is eligible any more", CEILING, || {
            let before = example.shadows()?.eligible;
            users.wait_for_more(SOME)?;
            let now = example.shadows()?.eligible;
            ensure!(now == before, "{now} are, {before} were");
            Ok(())
        })?;
        let seen = users.finish_unharmed()?;
        ensure!(seen.versions.keys().eq(["v1"]), "who answered: {:?}", seen.versions);
        example.settled_shadows().map(drop)
    });
}

#[test]
fn a_rule_that_is_bad_from_the_start_takes_nothing_over() {
    with_example("hold-fresh", Second::Right, |example| {
        let bad = json!({
            "apiVersion": "networking.istio.io/v1",
            "kind": "VirtualService",
            "metadata": {"name": "sa-logic"},
            "spec": {"hosts": ["sa-logic"], "http": [{"timeout": "1s500us", "route": to("v1"), "mirror": at("v2")}]},
        });
        example.apply(&crate::cluster_system::manifest("sa-logic-subsets-destinationrule.yaml")?)?;
        example.apply(&bad.to_string())?;
        let (reason, message) = wait_condition(example, "vs/sa-logic", "Accepted", "False")?;
        println!("Accepted: {reason}: {message}");
        ensure!(reason == "Invalid" && message.contains("spec.http[0].timeout: "), "{reason}: {message}");
        wait_condition(example, "vs/sa-logic", "Programmed", "False")?;
        // kube-proxy spreads over both versions, as before umbra.
        let users = Users::start(example, PACE)?;
        wait_for("both versions answer", CEILING, || {
            let both = |seen: &crate::cluster_users::Log| seen.versions.len() == 2;
            ensure!(users.each().any(|user| both(&user.log())), "one does");
            Ok(())
        })?;
        users.finish_unharmed()?;
        let shadows = example.shadows()?;
        ensure!(shadows.eligible == 0, "{shadows:?}");
        Ok(())
    });
}

/// Puts these rules in; their author is told the reason and the field; users and copies go on as before.
fn held(example: &Example, users: &Users, rules: &Value, reason: &str, path: &str) -> Result<()> {
    patch(example, "vs/sa-logic", &json!({"http": rules}))?;
    let (said, message) = wait_condition(example, "vs/sa-logic", "Accepted", "False")?;
    println!("Accepted: {said}: {message}");
    ensure!(said == reason && message.contains(path), "{said}: {message}");
    let (said, message) = wait_condition(example, "vs/sa-logic", "Programmed", "False")?;
    ensure!(said == "Held", "{said}: {message}");
    users.wait_for_more(SOME)?;
    wait_for_copies(example)
}

fn to(subset: &str) -> Value {
    json!([{"destination": at(subset)}])
}

fn at(subset: &str) -> Value {
    json!({"host": "sa-logic", "subset": subset})
}
