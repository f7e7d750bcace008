//! Endpoints that come, go and change sides, and shares between them: users keep their v1.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;
use umbra_testkit::{CEILING, wait_for};

use crate::cluster_status::{patch, wait_condition, wait_for_copies, wait_for_drops};
use crate::cluster_system::{Example, Second, with_example};
use crate::cluster_users::{Client, Connections, Log, Users};

const PACE: Duration = Duration::from_millis(100);
/// Requests of each of the four users in a state that is to be looked at.
const SOME: u64 = 10;

#[test]
fn a_mirror_that_is_gone_harms_no_user_and_its_copies_are_counted() {
    with_example("mirror-gone", Second::Right, |example| {
        example.route()?;
        let users = Users::start(example, PACE)?;
        wait_for_copies(example)?;

        example.kubectl(&["scale", "deployment/sa-logic-buggy", "--replicas=0"])?;
        wait_for_drops(example, "no_endpoint")?;
        users.wait_for_more(SOME)?;
        // Defined and empty is resolved: nothing is wrong with anybody's spec. That v2 is not there is told.
        wait_for_reason(example, "NoEndpoints", "\"v2\"")?;
        example.kubectl(&["scale", "deployment/sa-logic-buggy", "--replicas=1"])?;
        wait_for_copies(example)?;
        wait_for_reason(example, "ResolvedRefs", "")?;

        example.kubectl(&["delete", "deployment/sa-logic-buggy"])?;
        wait_for_drops(example, "no_endpoint")?;
        wait_for_reason(example, "NoEndpoints", "\"v2\"")?;
        users.wait_for_more(SOME)?;
        finish_on_v1(example, users)
    });
}

/// `ResolvedRefs` is True, for this reason and with this in its message.
fn wait_for_reason(example: &Example, reason: &str, named: &str) -> Result<()> {
    wait_for(&format!("ResolvedRefs says {reason}"), CEILING, || {
        let (said, message) = wait_condition(example, "vs/sa-logic", "ResolvedRefs", "True")?;
        ensure!(said == reason && message.contains(named), "{said}: {message}");
        Ok(())
    })
}

#[test]
fn a_mirror_that_nothing_defines_is_a_finding_and_its_copies_are_counted() {
    with_example("mirror-unknown", Second::Right, |example| {
        example.route()?;
        let users = Users::start(example, PACE)?;
        wait_for_copies(example)?;

        let v1 = json!({"name": "v1", "labels": {"version": "v1"}});
        let v2 = json!({"name": "v2", "labels": {"version": "v2"}});
        patch(example, "dr/sa-logic", &json!({"subsets": [v1]}))?;
        unresolved_mirror(example, &users, "SubsetNotFound", "v2")?;
        patch(example, "dr/sa-logic", &json!({"subsets": [v1, v2]}))?;
        wait_condition(example, "vs/sa-logic", "ResolvedRefs", "True")?;
        wait_for_copies(example)?;

        let rule = json!({
            "route": [{"destination": {"host": "sa-logic", "subset": "v1"}}],
            "mirror": {"host": "sa-logic-of-yesterday"},
        });
        patch(example, "vs/sa-logic", &json!({"http": [rule]}))?;
        unresolved_mirror(example, &users, "HostNotFound", "sa-logic-of-yesterday")?;
        finish_on_v1(example, users)
    });
}

/// The VirtualService says which field names what is not there, and the copies are counted while users go on.
fn unresolved_mirror(example: &Example, users: &Users, reason: &str, names: &str) -> Result<()> {
    let (said, message) = wait_condition(example, "vs/sa-logic", "ResolvedRefs", "False")?;
    println!("ResolvedRefs: {said}: {message}");
    ensure!(said == reason, "reason {said}: {message}");
    ensure!(message.contains("spec.http[0].mirror: ") && message.contains(names), "{message}");
    wait_condition(example, "vs/sa-logic", "Accepted", "True")?;
    wait_for_drops(example, "unresolved")?;
    users.wait_for_more(SOME)
}

/// Nobody noticed anything, and every copy is accounted for.
fn finish_on_v1(example: &Example, users: Users) -> Result<()> {
    let seen = users.finish_unharmed()?;
    only_v1(&seen)?;
    let shadows = example.settled_shadows()?;
    ensure!(shadows.eligible == seen.requests, "each request is eligible: {seen:?}, {shadows:?}");
    Ok(())
}

fn only_v1(seen: &Log) -> Result<()> {
    ensure!(seen.versions.keys().eq(["v1"]), "who answered: {:?}", seen.versions);
    Ok(())
}

#[test]
fn without_v1_users_get_503_and_never_v2() {
    with_example("no-v1", Second::Right, |example| {
        example.route()?;
        let mut clients = clients(example)?;
        for client in &mut clients {
            ask_v1(client)?;
        }
        example.settled_shadows()?;
        example.kubectl(&["scale", "deployment/sa-logic", "--replicas=0"])?;
        for client in &mut clients {
            wait_for("503 without v1", CEILING, || {
                let answer = client.ask("going", Connections::Fresh)?;
                ensure!(answer.version != "v2", "{answer:?}");
                ensure!(answer.status == 503, "{answer:?}");
                Ok(())
            })?;
        }
        example.settled_shadows()?;
        let copied = requests_of_v2(example)?;
        for number in 0..50 {
            for client in &mut clients {
                let connections = if number % 2 == 0 { Connections::Kept } else { Connections::Fresh };
                let answer = client.ask(&format!("without-{number}"), connections)?;
                ensure!(answer.status == 503 && answer.version.is_empty(), "request {number}: {answer:?}");
            }
        }
        let now = requests_of_v2(example)?;
        ensure!(now == copied, "v2 saw {} requests of users that v1 had not got", now - copied);

        example.kubectl(&["scale", "deployment/sa-logic", "--replicas=1"])?;
        for client in &mut clients {
            wait_for("v1 answers again", CEILING, || ask_v1(client))?;
        }
        example.settled_shadows().map(drop)
    });
}

#[test]
fn relabelling_a_pod_moves_it_between_subsets() {
    with_example("relabel", Second::Right, |example| {
        example.route()?;
        let users = Users::start(example, PACE)?;
        users.wait_for_more(SOME)?;
        let pods = example.v2()?;
        let pod = pods.first().map(|pod| format!("pod/{}", pod.name)).unwrap_or_default();
        for user in users.each() {
            ensure!(!user.log().versions.contains_key("v2"), "v2 answers nobody yet: {:?}", user.log());
        }

        example.kubectl(&["label", &pod, "--overwrite", "version=v1"])?;
        for user in users.each() {
            user.wait_for_change(0, "v2")?;
        }
        // In no subset now, though still behind the Service.
        example.kubectl(&["label", &pod, "--overwrite", "version=none"])?;
        wait_for("only v1 answers", CEILING, || {
            let before: Vec<u64> = users.each().map(|user| of_v2(&user.log())).collect();
            users.wait_for_more(2 * SOME)?;
            let after: Vec<u64> = users.each().map(|user| of_v2(&user.log())).collect();
            ensure!(before == after, "v2 answered {before:?} requests, now {after:?}");
            Ok(())
        })?;
        let seen = users.finish_unharmed()?;
        println!("measured: answers while a pod of v2 was v1's: {:?}", seen.versions);
        Ok(())
    });
}

fn of_v2(seen: &Log) -> u64 {
    seen.versions.get("v2").copied().unwrap_or_default()
}

#[test]
fn weights_are_shares_within_three_sigma() {
    const ASKED: u32 = 1000;
    with_example("weights", Second::Right, |example| {
        example.route()?;
        let to =
            |subset, weight| json!({"destination": {"host": "sa-logic", "subset": subset}, "weight": weight});
        patch(example, "vs/sa-logic", &json!({"http": [{"route": [to("v1", 80), to("v2", 20)]}]}))?;
        wait_condition(example, "vs/sa-logic", "Programmed", "True")?;
        let mut clients = clients(example)?;
        let mut draw = || -> Result<f64> {
            let mut second = 0_u32;
            for number in 0..ASKED {
                let client = number as usize % clients.len();
                let answer = clients[client].ask(&format!("share-{number}"), Connections::Kept)?;
                ensure!(answer.status == 200, "{answer:?}");
                second += u32::from(answer.version == "v2");
            }
            let (asked, share) = (f64::from(ASKED), 0.2);
            let sigmas = (f64::from(second) - asked * share) / (asked * share * (1.0 - share)).sqrt();
            println!(
                "measured: weight 20 of 100: {second} of {ASKED} requests, {sigmas:+.2} sigma (aim: within 3)"
            );
            Ok(sigmas.abs())
        };
        // By chance alone one draw in 370 lies outside; two of two are one in 137,000.
        let within = draw()? <= 3.0 || draw()? <= 3.0;
        ensure!(within, "outside of three sigma twice");
        Ok(())
    });
}

/// One in each pod of sa-web-app: on both nodes.
fn clients(example: &Example) -> Result<Vec<Client>> {
    example.clients()?.iter().map(|pod| Client::new(example, pod)).collect()
}

fn ask_v1(client: &mut Client) -> Result<()> {
    let answer = client.ask("v1", Connections::Fresh)?;
    ensure!(answer.status == 200 && answer.version == "v1", "{answer:?}");
    Ok(())
}

/// What the pods of v2 have seen so far, copies or not.
fn requests_of_v2(example: &Example) -> Result<u64> {
    let mut all = 0;
    for pod in example.v2()? {
        let stats = example.stats(&pod)?;
        all += stats["requests"]
            .as_object()
            .into_iter()
            .flatten()
            .filter_map(|(_, count)| count.as_u64())
            .sum::<u64>();
    }
    Ok(all)
}
