//! NetworkPolicies: what is left alone for them, in which words, and what opting out changes.

use serde_json::{Value, json};
use umbra_compile::{NetworkPolicies, Options, Outcome};
use umbra_index::{Change, Event};

use crate::world::{World, assert_has, key, parse, pod_json, slice_json, to, versions};

/// The article's rules: users to v1, a copy to v2.
fn article() -> World {
    World::with_rules(json!([{"route": [to("v1")], "mirror": {"host": "sa-logic", "subset": "v2"}}]))
}

fn selecting(labels: Value) -> Value {
    json!({"podSelector": {"matchLabels": labels}})
}

const V1_LEFT_ALONE: &str = "networkpolicy default/deny selects pods of subset \"v1\" of \
    sa-logic.default.svc.cluster.local and would see umbra's node in place of the client: users stay on the primary \
    and nothing is copied, until no ingress policy selects these pods or the controller runs with \
    --network-policies=ignore";

#[test]
fn a_policy_on_the_primary_or_on_a_mirror_leaves_the_service_alone() {
    let mut world = article();
    assert_eq!(world.table().leave_alone, None);
    world.policy("default/deny", selecting(json!({"version": "v1"})));
    assert_eq!(world.table().leave_alone.as_deref(), Some(V1_LEFT_ALONE));
    let findings = world.findings();
    assert_eq!(
        findings,
        [format!("NetworkPolicy spec.hosts[0]: sa-logic.default.svc.cluster.local: {V1_LEFT_ALONE}")]
    );

    world.policy("default/deny", selecting(json!({"version": "v2"})));
    let mirror = world.table().leave_alone.expect("copies are connections, too");
    assert!(mirror.contains("subset \"v2\""), "{mirror}");
    for harmless in [
        selecting(json!({"version": "v3"})),
        json!({"podSelector": {"matchLabels": {"version": "v1"}}, "policyTypes": ["Egress"]}),
    ] {
        world.policy("default/deny", harmless.clone());
        assert_eq!(world.table().leave_alone, None, "{harmless}");
    }
    world.policy("other/deny", json!({}));
    assert_eq!(world.table().leave_alone, None, "of another namespace");
    world.policy("default/deny", json!({}));
    assert!(world.table().leave_alone.is_some(), "an empty selector selects all");
    let dirty = world.index.apply(Event::NetworkPolicy(Change::Delete(key("default/deny"))));
    assert_eq!(dirty.policed, [key("default/reviews"), key("default/sa-logic")].into());
    assert_eq!(world.table().leave_alone, None);
}

#[test]
fn what_is_said_stays_through_rollouts() {
    let mut world = article();
    world.policy("default/b", selecting(json!({"version": "v1"})));
    world.policy("default/a", selecting(json!({"version": "v2"})));
    let before = world.table();
    world.pod("default/v1-new", "10.1.0.9", json!({"app": "sa-logic", "version": "v1", "hash": "x"}));
    world.slice(slice_json("default/sa-logic", "sa-logic-x", &[("v1-new", "10.1.0.9")]));
    assert_eq!(world.table(), before);
    // Nobody is there, and whoever comes will have the subset's labels.
    world.slice(slice_json("default/sa-logic", "sa-logic-x", &[]));
    assert_eq!(world.table(), before, "scaled to zero");
}

#[test]
fn a_policy_by_a_label_that_only_some_pods_have_comes_and_goes_with_them() {
    let mut world = article();
    world.policy("default/deny", selecting(json!({"tier": "secret"})));
    assert_eq!(world.table().leave_alone, None);
    let secret = json!({"app": "sa-logic", "version": "v1", "tier": "secret"});
    let dirty = world.pod("default/v1-a", "10.1.0.1", secret);
    assert_eq!(dirty.policed, [key("default/sa-logic")].into());
    assert_eq!(world.table().leave_alone.as_deref(), Some(V1_LEFT_ALONE));
    // Not ready is not gone: it will be.
    let mut slice = slice_json("default/sa-logic", "sa-logic-x", &[("v1-a", "10.1.0.1")]);
    slice["endpoints"][0]["conditions"]["ready"] = json!(false);
    world.slice(slice);
    assert!(world.table().leave_alone.is_some());
    let dirty = world.slice(slice_json("default/sa-logic", "sa-logic-x", &[("v1-b", "10.1.0.2")]));
    assert_eq!(dirty.policed, [key("default/sa-logic")].into());
    assert_eq!(world.table().leave_alone, None);
}

#[test]
fn destinations_in_other_namespaces_have_policies_of_theirs() {
    let http = json!([{"route": [{"destination": {"host": "ratings.other.svc.cluster.local", "port": {"number": 9080}}}]}]);
    let mut world = World::with_rules(http);
    let dirty = world.policy("other/deny", selecting(json!({"app": "ratings"})));
    assert_eq!(dirty.policed, [key("other/ratings")].into());
    let why = world.table().leave_alone.expect("the primary is policed");
    assert!(
        why.starts_with("networkpolicy other/deny selects pods of ratings.other.svc.cluster.local"),
        "{why}"
    );
    // Endpoints without a selector: the pods alone tell.
    let mut world = article();
    world.service("default/sa-logic", 80, json!({"selector": {}}));
    let mut guest = pod_json("guests/v1-g", "10.1.0.7", json!({"version": "v1"}));
    guest["metadata"]["uid"] = json!("uid-v1-g");
    world.index.apply(Event::Pod(Change::Apply(parse(guest))));
    let mut slice = slice_json("default/sa-logic", "guests", &[("v1-g", "10.1.0.7")]);
    slice["endpoints"][0]["targetRef"]["namespace"] = json!("guests");
    world.slice(slice);
    let dirty = world.policy("guests/deny", json!({}));
    assert_eq!(dirty.policed, [key("default/sa-logic")].into());
    assert!(world.table().leave_alone.is_some_and(|why| why.starts_with("networkpolicy guests/deny")));
}

#[test]
fn clients_under_an_egress_policy_are_skipped_and_strangers_not_taken() {
    let mut world = article();
    let node = |world: &mut World, name: &str| {
        let node = json!({"metadata": {"name": name}, "spec": {"podCIDRs": ["10.1.0.0/24"]}});
        world.index.apply(Event::Node(Change::Apply(parse(node))));
    };
    node(&mut world, "node-a");
    node(&mut world, "node-b");
    let seen = |world: &World| {
        let clients = umbra_compile::clients(world.index.view(), "node-a", &world.options);
        let skipped: Vec<_> =
            clients.values().filter(|client| client.skip).map(|client| client.pod.clone()).collect();
        let known =
            |node| umbra_compile::node_settings(world.index.view(), node, &world.options).known_pods_only;
        (skipped, known("node-a"), known("node-b"))
    };
    assert_eq!(seen(&world), (vec![], false, false));
    let spec = json!({"podSelector": {"matchLabels": {"version": "v2"}}, "policyTypes": ["Egress"]});
    let dirty = world.policy("default/out", spec);
    assert_eq!(dirty.nodes, ["node-a".to_owned(), "node-b".to_owned()].into());
    assert_eq!(seen(&world), (vec!["v2-a".to_owned()], true, true));
    assert_eq!(world.table().leave_alone, None, "it says nothing of who connects");
    assert_has(&world.findings(), "clients that an egress NetworkPolicy selects are not taken over");
    world.options = ignoring();
    assert_eq!(seen(&world), (vec![], false, false));
    assert_has(&world.findings(), "egress NetworkPolicies of clients see umbra's node");
}

fn ignoring() -> Options {
    Options { network_policies: NetworkPolicies::Ignore, ..Options::default() }
}

#[test]
fn ignored_policies_are_still_told_of() {
    let mut world = article();
    world.options = ignoring();
    world.policy("default/deny", selecting(json!({"version": "v1"})));
    assert_eq!(world.table().leave_alone, None);
    let findings = world.findings();
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert_has(&findings, "would see umbra's node in place of the client, and is not minded");
}

#[test]
fn a_held_table_is_left_alone_by_what_it_still_names() {
    let mut world = article();
    let table = world.table();
    world.policy("default/deny", selecting(json!({"version": "v1"})));
    world.virtual_service(
        "default/sa-logic",
        json!({"hosts": ["sa-logic"], "http": [{"rewrite": {"uri": "/"}}]}),
    );
    world.destination_rule("default/sa-logic", versions("sa-logic"));
    assert!(matches!(world.compile("default/sa-logic").outcome, Outcome::Hold(_)));
    let why = umbra_compile::leave_alone(world.index.view(), &table, &world.options);
    assert_eq!(why.as_deref(), Some(V1_LEFT_ALONE));
}
