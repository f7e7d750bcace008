//! Which DestinationRule defines a subset (spec/istio.md 2.5, 4.10).

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::world::{World, assert_has, to};

const HOST: &str = "sa-logic.default.svc.cluster.local";

/// A rule for sa-logic with one subset `v1` that selects `version: <mark>`.
fn rule(host: &str, mark: &str) -> Value {
    json!({"host": host, "subsets": [{"name": "v1", "labels": {"version": mark}}]})
}

fn world() -> World {
    let mut world = World::new();
    world.virtual_service("default/a", json!({"hosts": ["sa-logic"], "http": [{"route": [to("v1")]}]}));
    world
}

/// What `v1` selects for clients of the namespace; `None`: unresolved.
fn seen(world: &World, namespace: &str) -> Option<BTreeMap<String, String>> {
    world.rules_for(namespace)[0].destinations[0].backend.selector.clone()
}

fn marks(mark: &str) -> Option<BTreeMap<String, String>> {
    Some(BTreeMap::from([("version".to_owned(), mark.to_owned())]))
}

#[test]
fn the_clients_namespace_then_the_services_then_the_root() {
    let mut world = world();
    assert_eq!(seen(&world, "x"), None);
    world.destination_rule("istio-system/r", rule(HOST, "root"));
    assert_eq!(seen(&world, "x"), marks("root"));
    world.destination_rule("default/r", rule("sa-logic", "own"));
    assert_eq!((seen(&world, "x"), seen(&world, "istio-system")), (marks("own"), marks("own")));
    world.destination_rule("other/r", rule(HOST, "other"));
    assert_eq!((seen(&world, "other"), seen(&world, "x")), (marks("other"), marks("own")));
    let variants = world.table().ports[0].variants.clone();
    let namespaces: Vec<_> = variants.iter().map(|variant| variant.client_namespace.as_deref()).collect();
    assert_eq!(namespaces, [None, Some("other")], "variants only where they differ");
}

#[test]
fn the_first_namespace_decides_alone() {
    let mut world = world();
    world.versions();
    world.destination_rule("other/r", json!({"host": HOST, "subsets": [{"name": "v7"}]}));
    assert_eq!((seen(&world, "other"), seen(&world, "x")), (None, marks("v1")));
    assert_has(&world.findings(), "(destinationrule other/r defines: v7) (for clients in namespace other)");
    world.destination_rule("other/r", json!({"host": HOST}));
    assert_eq!(seen(&world, "other"), None, "also without any subset");
    world.destination_rule("other/r", json!({"host": "*"}));
    assert_eq!(seen(&world, "other"), None, "also as a wildcard");
}

#[test]
fn exact_hosts_beat_wildcards_and_long_ones_short_ones() {
    let mut world = world();
    world.destination_rule("default/short", rule("*.cluster.local", "short"));
    assert_eq!(seen(&world, "x"), marks("short"));
    world.destination_rule("default/long", rule("*.default.svc.cluster.local", "long"));
    assert_eq!(seen(&world, "x"), marks("long"));
    world.destination_rule("default/exact", rule("sa-logic", "exact"));
    assert_eq!(seen(&world, "x"), marks("exact"));
}

#[test]
fn rules_for_one_host_are_merged_oldest_first() {
    let mut world = world();
    world.destination_rule("default/z", json!({"host": "sa-logic", "subsets": [{"name": "v0"}]}));
    world.destination_rule(
        "default/y",
        json!({"host": HOST, "subsets": [
        {"name": "v1", "labels": {"version": "older"}}, {"name": "v1", "labels": {"version": "second"}}]}),
    );
    world.destination_rule("default/a", rule("sa-logic", "younger"));
    assert_eq!(seen(&world, "x"), marks("older"));
    assert_eq!(world.compile("default/sa-logic").governed_by.len(), 4);
}

#[test]
fn exported_differently_the_youngest_stands_alone() {
    let mut world = world();
    world.destination_rule("default/a", rule("sa-logic", "older"));
    let mut younger = json!({"host": "sa-logic", "exportTo": ["*"], "subsets": [{"name": "v2"}]});
    world.destination_rule("default/b", younger.clone());
    assert_eq!(seen(&world, "x"), None);
    younger["exportTo"] = json!(null);
    world.destination_rule("default/b", younger);
    assert_eq!(seen(&world, "x"), marks("older"));
}

fn exported(mark: &str, to: Value) -> Value {
    let mut rule = rule(HOST, mark);
    rule["exportTo"] = to;
    rule
}

#[test]
fn who_sees_a_rule_of_the_services_namespace() {
    for (to, in_own, in_other, in_third) in [
        (json!(null), true, true, true),
        (json!(["*"]), true, true, true),
        (json!(["."]), true, false, false),
        (json!(["default"]), true, false, false),
        (json!(["other"]), false, true, false),
        (json!([".", "other"]), true, true, false),
    ] {
        let mut world = world();
        world.destination_rule("default/r", exported("own", to.clone()));
        let sees = ["default", "other", "third"].map(|client| seen(&world, client).is_some());
        assert_eq!(sees, [in_own, in_other, in_third], "{to}");
    }
}

#[test]
fn a_private_rule_of_the_services_namespace_leaves_others_to_the_root() {
    let mut world = world();
    world.destination_rule("istio-system/r", rule(HOST, "root"));
    world.destination_rule("default/r", exported("own", json!(["."])));
    assert_eq!((seen(&world, "default"), seen(&world, "x")), (marks("own"), marks("root")));
}

#[test]
fn a_rule_of_the_clients_namespace_counts_only_when_it_is_seen_there() {
    let mut world = world();
    world.destination_rule("default/r", rule("sa-logic", "own"));
    world.destination_rule("other/r", exported("theirs", json!(["third"])));
    assert_eq!((seen(&world, "other"), seen(&world, "third")), (marks("own"), marks("own")));
    world.destination_rule("other/r", exported("theirs", json!(["other"])));
    assert_eq!((seen(&world, "other"), seen(&world, "third")), (marks("theirs"), marks("own")));
}

#[test]
fn the_root_namespace_is_what_the_cluster_says() {
    let mut world = world();
    world.destination_rule("mesh/r", rule(HOST, "mesh"));
    assert_eq!(seen(&world, "x"), None, "a third namespace");
    world.options.root_namespace = "mesh".to_owned();
    assert_eq!(seen(&world, "x"), marks("mesh"));
    world.destination_rule("default/r", rule("sa-logic", "own"));
    assert_eq!((seen(&world, "x"), seen(&world, "mesh")), (marks("own"), marks("own")));
    world.destination_rule("mesh/r", exported("private", json!(["."])));
    assert_eq!((seen(&world, "x"), seen(&world, "mesh")), (marks("own"), marks("private")));
}

#[test]
fn a_wider_younger_rule_joins_the_older_at_home_and_stands_alone_elsewhere() {
    let mut world = world();
    world.destination_rule("default/a", exported("older", json!(["."])));
    let younger = json!({"host": HOST, "exportTo": [".", "other"], "subsets": [{"name": "v2"}]});
    world.destination_rule("default/b", younger);
    assert_eq!(seen(&world, "default"), marks("older"));
    assert_eq!(seen(&world, "other"), None, "there only the younger is seen, which has no v1");
    world.destination_rule("default/b", exported("younger", json!([".", "other"])));
    assert_eq!((seen(&world, "default"), seen(&world, "other")), (marks("older"), marks("younger")));
}

#[test]
fn a_narrower_younger_rule_serves_where_it_is_exported() {
    let mut world = world();
    world.destination_rule("default/a", exported("wide", json!([".", "other", "third"])));
    world.destination_rule("default/b", exported("narrow", json!([".", "other"])));
    assert_eq!((seen(&world, "default"), seen(&world, "other")), (marks("narrow"), marks("narrow")));
    assert_eq!(seen(&world, "third"), marks("wide"));
}

#[test]
fn a_subset_without_labels_is_everything() {
    let mut world = world();
    world.destination_rule(
        "default/r",
        json!({"host": "sa-logic", "subsets": [{"name": "v1", "labels": null}]}),
    );
    assert_eq!(seen(&world, "x"), Some(BTreeMap::new()));
}
