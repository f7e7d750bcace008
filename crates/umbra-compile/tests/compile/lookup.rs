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

#[test]
fn rules_for_some_workloads_only_are_left_out() {
    let mut world = world();
    let mut selecting = rule("sa-logic", "selected");
    selecting["workloadSelector"] = json!({"matchLabels": {"app": "web"}});
    world.destination_rule("default/s", selecting);
    assert_eq!(seen(&world, "x"), None);
    world.versions();
    assert_eq!(seen(&world, "x"), marks("v1"));
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
