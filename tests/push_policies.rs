//! NetworkPolicies on the way to nodes: what they are about is left alone, its author reads why, and it is taken over
//! when the policy goes, or when the cluster's administrator says so.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use umbra_testkit::{objects, wait_for};

use crate::push_system::{CEILING, System, with_system};

const NODE: &str = "n1";
const V1_IP: &str = "10.244.1.11";
const CALLER_IP: &str = "10.244.1.12";

#[test]
fn what_a_policy_is_about_is_left_alone_until_it_goes() -> Result<()> {
    with_system(&[NODE], |system| {
        article(system)?;
        system.start_all()?;
        system.wait_condition(&["vs", "sa-logic"], "Programmed", "True")?;
        ingress(system)?;
        egress(system)
    })
}

#[test]
fn policies_that_are_ignored_are_told_of_and_leave_nothing_alone() -> Result<()> {
    with_system(&[NODE], |system| {
        article(system)?;
        system.apply(&objects::list([deny("v1"), out()]))?;
        system.controller_flags = vec!["--network-policies=ignore".into()];
        system.start_all()?;
        system.wait_condition(&["vs", "sa-logic"], "Programmed", "True")?;
        let accepted = system.wait_condition(&["vs", "sa-logic"], "Accepted", "True")?;
        says(&accepted, "networkpolicy default/deny selects pods of subset \"v1\"")?;
        says(&accepted, "and is not minded (--network-policies=ignore)")?;
        let config = system.proxies[0].config()?;
        ensure!(config["service/default/sa-logic"]["leaveAlone"].is_null(), "{config}");
        ensure!(!is_skipped(&config) && config["node"]["knownPodsOnly"].is_null(), "{config}");
        Ok(())
    })
}

fn ingress(system: &System) -> Result<()> {
    let (proxy, kubectl) = (&system.proxies[0], system.server.kubectl());
    // A mirror is policed like a primary: copies are connections.
    for version in ["v1", "v2"] {
        system.apply(&deny(version).to_string())?;
        let why = format!("networkpolicy default/deny selects pods of subset \"{version}\" of sa-logic");
        let state = wait_for("it is left alone", CEILING, || {
            let state = proxy.state()?;
            let refused = &state["refused"][0];
            let reason = refused["reason"].as_str().unwrap_or_default();
            ensure!(reason.starts_with(&format!("not armed: {why}")), "{state}");
            ensure!(refused["key"] == "service/default/sa-logic", "{state}");
            Ok(state)
        })?;
        ensure!(state["armed"] == json!([]), "{state}");
        for object in ["vs", "dr"] {
            wait_for("it is told so", CEILING, || {
                let programmed = system.wait_condition(&[object, "sa-logic"], "Programmed", "False")?;
                ensure!(programmed["reason"] == "LeftAlone", "{programmed}");
                says(&programmed, &format!("default/sa-logic is not taken over: {why}"))?;
                says(&programmed, "--network-policies=ignore")
            })?;
        }
        says(&system.wait_condition(&["vs", "sa-logic"], "Accepted", "True")?, &why)?;
    }
    // A policy about nobody's pods of ours changes nothing of it; without the first one all is as before.
    system.apply(&deny("v9").to_string())?;
    system.wait_condition(&["vs", "sa-logic"], "Programmed", "True")?;
    proxy.wait_armed(1)?;
    system.apply(&deny("v1").to_string())?;
    system.wait_condition(&["vs", "sa-logic"], "Programmed", "False")?;
    kubectl.run(&["delete", "networkpolicy", "deny"])?;
    system.wait_condition(&["vs", "sa-logic"], "Programmed", "True")?;
    let state = proxy.wait_armed(1)?;
    ensure!(state["refused"] == json!([]), "{state}");
    Ok(())
}

fn egress(system: &System) -> Result<()> {
    let proxy = &system.proxies[0];
    ensure!(!is_skipped(&proxy.config()?), "skipped without a policy");
    system.apply(&out().to_string())?;
    let config = wait_for("its client is skipped", CEILING, || {
        let config = proxy.config()?;
        ensure!(is_skipped(&config) && config["node"]["knownPodsOnly"] == true, "{config}");
        Ok(config)
    })?;
    ensure!(config[client(V1_IP)]["skip"].is_null(), "it is not selected: {config}");
    system.wait_condition(&["vs", "sa-logic"], "Programmed", "True")?;
    wait_for("the author is told", CEILING, || {
        let accepted = system.wait_condition(&["vs", "sa-logic"], "Accepted", "True")?;
        says(&accepted, "clients that an egress NetworkPolicy selects are not taken over")
    })?;
    system.server.kubectl().run(&["delete", "networkpolicy", "out"])?;
    wait_for("its client is served again", CEILING, || {
        let config = proxy.config()?;
        ensure!(!is_skipped(&config) && config["node"]["knownPodsOnly"].is_null(), "{config}");
        Ok(())
    })
}

fn says(condition: &Value, part: &str) -> Result<()> {
    let message = condition["message"].as_str().context("a message")?;
    ensure!(message.contains(part), "no {part:?} in {message}");
    Ok(())
}

fn client(ip: &str) -> String {
    format!("client/{ip}")
}

fn is_skipped(config: &Value) -> bool {
    config[client(CALLER_IP)]["skip"] == true
}

/// The article's system on one node: v1 runs there, and a caller.
fn article(system: &System) -> Result<()> {
    let v1 = objects::pod("sa-logic", "v1", "v1-a", NODE, &[V1_IP.parse()?]);
    let caller = objects::pod("sa-web-app", "v1", "caller", NODE, &[CALLER_IP.parse()?]);
    let pods = objects::list([v1, caller]);
    system.apply(&objects::list([objects::node(NODE, &["10.244.1.0/24".into()])]))?;
    system.apply(&pods)?;
    system.server.kubectl().apply_status(&pods)?;
    system.apply(&objects::list([
        objects::service("sa-logic", &[]),
        objects::endpoint_slice("sa-logic", "sa-logic-a", &[("v1-a", V1_IP.parse()?)]),
        objects::destination_rule("sa-logic"),
        objects::virtual_service("sa-logic"),
    ]))
}

/// Lets nobody connect to pods of this version.
fn deny(version: &str) -> Value {
    policy("deny", &json!({"podSelector": {"matchLabels": {"app": "sa-logic", "version": version}}}))
}

/// Lets callers connect to nobody.
fn out() -> Value {
    policy("out", &json!({"podSelector": {"matchLabels": {"app": "sa-web-app"}}, "policyTypes": ["Egress"]}))
}

fn policy(name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": "default"},
        "spec": spec,
    })
}
