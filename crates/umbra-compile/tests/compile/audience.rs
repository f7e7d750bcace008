//! DestinationRules for some clients only: `workloadSelector` (spec/istio.md 2.5, 4.10).

use serde_json::{Value, json};
use umbra_index::api::Labels;

use crate::world::{World, assert_has, to};

const HOST: &str = "sa-logic.default.svc.cluster.local";

/// One subset `v1` that selects `version: <mark>`, for clients with these labels.
fn selecting(labels: Value, mark: &str) -> Value {
    json!({"host": HOST, "workloadSelector": {"matchLabels": labels}, "subsets": [{"name": "v1", "labels": {"version": mark}}]})
}

fn plain(mark: &str) -> Value {
    json!({"host": HOST, "subsets": [{"name": "v1", "labels": {"version": mark}}]})
}

fn world() -> World {
    let mut world = World::new();
    world.virtual_service("default/a", json!({"hosts": ["sa-logic"], "http": [{"route": [to("v1")]}]}));
    world
}

fn labels(client: &[(&str, &str)]) -> Labels {
    client.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// What `v1` means to a client of a namespace with these labels; `None`: 503.
fn seen(world: &World, namespace: &str, client: &[(&str, &str)]) -> Option<String> {
    let client = labels(client);
    let has = |block: &umbra_routing::RequestMatch| {
        block.source_labels.iter().all(|(name, value)| client.get(name) == Some(value))
    };
    let rules = world.rules_for(namespace);
    let rule =
        rules.iter().find(|rule| rule.matches.is_empty() || rule.matches.iter().any(has)).expect("a rule");
    rule.destinations[0].backend.selector.as_ref().map(|selector| selector["version"].clone())
}

fn version(mark: &str) -> Option<String> {
    Some(mark.to_owned())
}

#[test]
fn it_is_for_clients_with_the_labels() {
    let mut world = world();
    world.destination_rule("default/web", selecting(json!({"app": "web", "tier": "1"}), "web"));
    assert_eq!(seen(&world, "default", &[("app", "web"), ("tier", "1"), ("more", "x")]), version("web"));
    for client in [&[("app", "web")][..], &[("app", "web"), ("tier", "2")], &[]] {
        assert_eq!(seen(&world, "default", client), None, "{client:?}");
    }
    assert_eq!(seen(&world, "other", &[("app", "web"), ("tier", "1")]), None, "nor is it exported");
    assert_has(&world.findings(), "SubsetNotFound spec.http[0].route[0].destination: ");
}

#[test]
fn it_beats_a_plain_one_that_all_others_see() {
    let mut world = world();
    world.destination_rule("default/plain", plain("plain"));
    world.destination_rule("default/web", selecting(json!({"app": "web"}), "web"));
    assert_eq!(seen(&world, "default", &[("app", "web")]), version("web"));
    assert_eq!(seen(&world, "default", &[("app", "x")]), version("plain"));
    assert_eq!(seen(&world, "other", &[("app", "web")]), version("plain"));
}

#[test]
fn one_that_does_not_select_hides_other_namespaces() {
    let mut world = world();
    world.destination_rule("default/plain", plain("plain"));
    world.destination_rule("other/web", selecting(json!({"app": "web"}), "web"));
    assert_eq!(seen(&world, "other", &[("app", "web")]), version("web"));
    assert_eq!(seen(&world, "other", &[("app", "x")]), None);
    assert_eq!(seen(&world, "third", &[("app", "web")]), version("plain"));
}

#[test]
fn with_the_same_export_to_a_plain_one_is_folded_into_it() {
    let mut world = world();
    let mut own = plain("plain");
    own["exportTo"] = json!(["."]);
    own["subsets"][0]["name"] = json!("other");
    world.destination_rule("default/plain", own);
    world.destination_rule("default/web", selecting(json!({"app": "web"}), "web"));
    assert_eq!(seen(&world, "default", &[("app", "web")]), version("web"));
    world.virtual_service("default/a", json!({"hosts": ["sa-logic"], "http": [{"route": [to("other")]}]}));
    assert_eq!(seen(&world, "default", &[("app", "web")]), version("plain"), "matching clients see both");
    assert_eq!(seen(&world, "default", &[("app", "x")]), None, "all others neither");
}

#[test]
fn an_empty_selector_takes_every_client_of_its_namespace() {
    let mut world = world();
    world.destination_rule("default/all", json!({"host": HOST, "workloadSelector": {}, "subsets": [{"name": "v1", "labels": {"version": "all"}}]}));
    assert_eq!(seen(&world, "default", &[]), version("all"));
    assert_eq!(seen(&world, "other", &[]), None);
    assert_eq!(world.rules_for("default").len(), 1, "nothing to tell apart");
}

#[test]
fn of_several_that_select_the_older_serves() {
    let mut world = world();
    world.destination_rule("default/z", selecting(json!({"app": "web"}), "older"));
    world.destination_rule("default/a", selecting(json!({"tier": "1"}), "younger"));
    assert_eq!(seen(&world, "default", &[("app", "web"), ("tier", "1")]), version("older"));
    assert_eq!(seen(&world, "default", &[("tier", "1")]), version("younger"));
    assert_eq!(seen(&world, "default", &[("app", "web")]), version("older"));
    assert_eq!(seen(&world, "default", &[("app", "x")]), None);
}

#[test]
fn selectors_that_no_client_fits_together_are_not_joined() {
    let mut world = world();
    for app in ["a", "b", "c"] {
        world.destination_rule(&format!("default/{app}"), selecting(json!({"app": app}), app));
    }
    assert_eq!(world.rules_for("default").len(), 4);
    for app in ["a", "b", "c"] {
        assert_eq!(seen(&world, "default", &[("app", app)]), version(app));
    }
}

#[test]
fn conditional_rules_end_before_those_of_other_clients() {
    let mut world = world();
    world.virtual_service(
        "default/a",
        json!({"hosts": ["sa-logic"], "http": [
            {"name": "r", "match": [{"uri": {"exact": "/a"}}, {"sourceLabels": {"app": "x"}}], "route": [to("v1")]}]}),
    );
    world.destination_rule("default/web", selecting(json!({"app": "web"}), "web"));
    let rules = world.rules_for("default");
    assert_eq!(world.names_for("default"), ["r", "unmatched", "r"]);
    let wanted: Vec<_> = rules
        .iter()
        .map(|rule| rule.matches.iter().map(|block| &block.source_labels).collect::<Vec<_>>())
        .collect();
    let (web, x, none) = (labels(&[("app", "web")]), labels(&[("app", "x")]), Labels::new());
    assert_eq!(wanted, [vec![&web], vec![&web], vec![&none, &x]], "a block that no such client fits is gone");
}

#[test]
fn more_selectors_than_can_be_told_apart_are_said() {
    let mut world = world();
    for number in 0..5 {
        world.destination_rule(
            &format!("default/r{number}"),
            selecting(json!({format!("l{number}"): "x"}), "m"),
        );
    }
    let compiled = world.compile("default/sa-logic");
    let beyond: Vec<_> =
        compiled.findings.iter().filter(|finding| finding.path == "spec.workloadSelector").collect();
    assert_eq!(beyond.len(), 1, "{beyond:?}");
    assert_eq!(beyond[0].object.key.to_string(), "default/r4");
    assert!(beyond[0].condition.is_some());
}
