//! An invalid VirtualService keeps what it had.

use serde_json::{Value, json};
use std::collections::BTreeSet;

use umbra_compile::{Compiled, Hold, Outcome, held};
use umbra_index::{Change, Event};
use umbra_routing::{Rule, ServiceTable};

use crate::world::{World, key, parse, to, versions};

fn valid() -> Value {
    json!([{"route": [to("v1")], "mirrors": [{"destination": {"host": "sa-logic", "subset": "v2"}},
        {"destination": {"host": "reviews", "port": {"number": 9080}}}]}])
}

fn hold_of(compiled: Compiled) -> Hold {
    match compiled.outcome {
        Outcome::Hold(hold) => hold,
        other => panic!("not held: {other:?}"),
    }
}

/// The same object (uid) with another spec.
fn update(world: &mut World, namespace: &str, uid: &str, http: Value) {
    let object = json!({"metadata": {"namespace": namespace, "name": "a", "uid": uid, "generation": 2,
        "creationTimestamp": "2026-01-01T00:00:02Z"},
        "spec": {"hosts": ["sa-logic.default.svc.cluster.local"], "http": http}});
    world.index.apply(Event::VirtualService(Change::Apply(parse(object))));
}

fn rules(table: &ServiceTable, client: Option<&str>) -> Option<Vec<Rule>> {
    let variants = table.ports[0].variants.iter();
    let mut own = variants.filter(|variant| variant.client_namespace.as_deref() == client);
    own.next().map(|variant| variant.rules.clone())
}

#[test]
fn rules_stay_and_mirrors_no_longer_named_stop() {
    let mut world = World::new();
    world.versions();
    update(&mut world, "default", "u", valid());
    let before = world.compile("default/sa-logic");
    let Outcome::Table(table) = &before.outcome else { panic!("no table") };
    assert_eq!(rules(table, None).unwrap()[0].mirrors.len(), 2);
    let mirrors = |mirrors: Value| {
        let mut world = World::new();
        world.versions();
        update(
            &mut world,
            "default",
            "u",
            json!([{"route": [to("v2")], "mirrors": mirrors, "timeout": "soon"}]),
        );
        let hold = hold_of(world.compile("default/sa-logic"));
        let held = held(Some(table), &hold).expect("a table is held");
        assert_eq!(
            held.rules_of,
            BTreeSet::from(["u".to_owned()]),
            "a second hold finds its object's rules here"
        );
        let rule = &rules(&held, None).unwrap()[0];
        assert_eq!(rule.destinations[0].backend.subset.as_deref(), Some("v1"), "the previous route");
        rule.mirrors.iter().map(|mirror| mirror.backend.service.name.clone()).collect::<Vec<_>>()
    };
    let v2 = json!({"destination": {"host": "sa-logic", "subset": "v2"}});
    assert_eq!(
        mirrors(json!([v2, {"destination": {"host": "reviews", "port": {"number": 9080}}}])),
        ["sa-logic", "reviews"]
    );
    assert_eq!(mirrors(json!([v2])), ["sa-logic"]);
    assert_eq!(
        mirrors(json!([{"destination": {"host": "sa-logic", "subset": "v2"}, "percentage": {"value": 0.0}}])),
        [""; 0]
    );
    assert_eq!(mirrors(json!([{"destination": {"host": "sa-logic", "subset": "v3"}}])), [""; 0]);
    assert_eq!(
        mirrors(json!([{"destination": {"host": "reviews"}}])),
        ["reviews"],
        "the client's port may be any"
    );
    assert_eq!(mirrors(json!([])), [""; 0]);
}

#[test]
fn nothing_before_nothing_held() {
    let mut world = World::new();
    update(&mut world, "default", "u", json!([{"route": [to("v1")], "timeout": "soon"}]));
    assert_eq!(held(None, &hold_of(world.compile("default/sa-logic"))), None);
}

#[test]
fn another_objects_rules_are_not_held() {
    let mut world = World::new();
    world.versions();
    update(&mut world, "default", "u1", valid());
    let before = world.compile("default/sa-logic");
    let Outcome::Table(table) = &before.outcome else { panic!("no table") };
    update(&mut world, "default", "u2", json!([{"route": [to("v1")], "timeout": "soon"}]));
    let compiled = world.compile("default/sa-logic");
    assert!(compiled.governed_by.iter().any(|object| object.uid == "u2"), "a second hold belongs to it, too");
    let hold = hold_of(compiled);
    assert_eq!((hold.fits(table), hold.holders()), (false, BTreeSet::from(["u2".to_owned()])));
    assert_eq!(held(Some(table), &hold), None);
}

#[test]
fn no_younger_one_takes_the_host() {
    let mut world = World::new();
    update(&mut world, "default", "u", json!([{"route": [to("v1")], "timeout": "soon"}]));
    for _ in 0..2 {
        world.virtual_service("default/pad", json!({"hosts": []}));
    }
    world.virtual_service(
        "default/younger",
        json!({"hosts": ["sa-logic"], "http": [{"route": [{"destination": {"host": "sa-logic"}}]}]}),
    );
    let hold = hold_of(world.compile("default/sa-logic"));
    assert_eq!(hold.scopes[&(None, 80)].uid, "u");
    assert!(world.findings().iter().any(|finding| finding.contains("Conflicted")));
}

#[test]
fn a_foreign_hold_leaves_everybody_else_alone() {
    let mut world = World::new();
    world.versions();
    let own = |subset: &str| json!({"hosts": ["sa-logic"], "http": [{"route": [to(subset)]}]});
    let full = json!({"host": "sa-logic.default.svc.cluster.local", "subset": "v2"});
    update(&mut world, "other", "u", json!([{"route": [{"destination": full}]}]));
    for _ in 0..2 {
        world.virtual_service("default/pad", json!({"hosts": []}));
    }
    world.virtual_service("default/own", own("v1"));
    let before = world.compile("default/sa-logic");
    let Outcome::Table(table) = &before.outcome else { panic!("no table: {before:?}") };
    update(&mut world, "other", "u", json!([{"route": [{"destination": full}], "timeout": "soon"}]));
    world.virtual_service("default/own", own("v2"));
    let hold = hold_of(world.compile("default/sa-logic"));
    let subset = |table: &ServiceTable, client| {
        table.ports[0].variant(client).map(|v| v.rules[0].destinations[0].backend.subset.clone())
    };
    let again = held(Some(table), &hold).expect("a table");
    assert_eq!(subset(&again, None), Some(Some("v2".into())), "the valid one moved on");
    assert_eq!(subset(&again, Some("other")), Some(Some("v2".into())), "the invalid one stays");
    let fresh = held(None, &hold).expect("the service's own rules need nothing before");
    assert_eq!((subset(&fresh, None), rules(&fresh, Some("other"))), (Some(Some("v2".into())), None));
}

/// Its rules do the same as everybody's; whose they are is written all the same.
#[test]
fn a_foreign_hold_keeps_rules_that_were_like_those_of_all() {
    let mut world = World::new();
    world.versions();
    let own = |subset: &str| json!({"hosts": ["sa-logic"], "http": [{"name": "r", "route": [to(subset)]}]});
    let full = json!({"host": "sa-logic.default.svc.cluster.local", "subset": "v1"});
    let foreign = json!({"name": "r", "route": [{"destination": full}]});
    update(&mut world, "other", "u", json!([foreign]));
    for _ in 0..2 {
        world.virtual_service("default/pad", json!({"hosts": []}));
    }
    world.virtual_service("default/own", own("v1"));
    let before = world.table();
    assert!(rules(&before, Some("other")).is_some(), "{before:?}");
    assert_eq!(before.rules_of.len(), 2);
    let mut invalid = foreign;
    invalid["timeout"] = json!("soon");
    update(&mut world, "other", "u", json!([invalid]));
    let same = held(Some(&before), &hold_of(world.compile("default/sa-logic"))).expect("a table");
    assert_eq!(same, before, "still like everybody's");
    world.virtual_service("default/own", own("v2"));
    let moved = held(Some(&before), &hold_of(world.compile("default/sa-logic"))).expect("a table");
    assert_eq!(rules(&moved, Some("other")), rules(&before, Some("other")), "the others moved on, it stays");
    assert_ne!(rules(&moved, None), rules(&before, None));
}

#[test]
fn a_foreign_invalid_one_takes_nothing_over() {
    let mut world = World::new();
    update(&mut world, "other", "u", json!([{"route": [to("v1")], "timeout": "soon"}]));
    let hold = hold_of(world.compile("default/sa-logic"));
    assert_eq!(held(None, &hold), None, "nobody governs the service");
    let mut table = hold.fresh.clone();
    assert_eq!(held(Some(&table), &hold), None, "what was before was not its own");
    table.rules_of.insert("u".into());
    assert_eq!(held(Some(&table), &hold), Some(table.clone()), "what it had before stays");
}

#[test]
fn endpoints_go_on_moving_under_a_hold() {
    let mut world = World::new();
    world.versions();
    update(&mut world, "default", "u", valid());
    let table = world.table();
    update(&mut world, "default", "u", json!([{"route": [to("v1")], "timeout": "soon"}]));
    let service = &table.ports[0].variants[0].rules[0].destinations[0].backend;
    let count = |world: &World| umbra_compile::backends(world.index.view(), service).endpoints.len();
    assert_eq!(count(&world), 2);
    world.pod("default/v1-b", "10.1.0.2", json!({"version": "v2"}));
    assert_eq!(count(&world), 1);
    world.index.apply(Event::DestinationRule(Change::Delete(key("default/sa-logic"))));
    assert_eq!(count(&world), 1, "the selector is held with the rules");
    world.destination_rule("default/sa-logic", versions("sa-logic"));
}
