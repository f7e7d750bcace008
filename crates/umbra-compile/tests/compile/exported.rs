//! `exportTo` of VirtualServices: who sees one, and in which order (spec/istio.md 2.4, 4.7).

use serde_json::{Value, json};

use crate::world::{World, assert_has};

/// A rule of that name for sa-logic, as somebody in any namespace would write it.
fn spec(name: &str, export_to: Value) -> Value {
    let host = "sa-logic.default.svc.cluster.local";
    json!({"hosts": [host], "exportTo": export_to, "http": [{"name": name, "route": [{"destination": {"host": host}}]}]})
}

/// Whose rule clients in default, in other and in a third namespace get.
fn seen(world: &World) -> [String; 3] {
    ["default", "other", "third"].map(|client| world.names_for(client).remove(0))
}

#[test]
fn who_sees_a_virtual_service() {
    let (all, own) = (["r", "r", "r"], ["r", "default", "default"]);
    for (export_to, expected) in [
        (json!(null), all),
        (json!([]), all),
        (json!(["*"]), all),
        (json!(["."]), own),
        (json!(["default"]), own),
        (json!(["other"]), ["default", "r", "default"]),
        (json!([".", "other"]), ["r", "r", "default"]),
        (json!(["third", "other"]), ["default", "r", "r"]),
    ] {
        let mut world = World::new();
        world.virtual_service("default/a", spec("r", export_to.clone()));
        assert_eq!(seen(&world), expected, "{export_to}");
        assert_eq!(world.findings(), Vec::<String>::new(), "{export_to}");
    }
}

#[test]
fn exported_to_nobody_governs_nothing_and_is_said() {
    let mut world = World::new();
    world.virtual_service("default/a", spec("r", json!(["~"])));
    assert_eq!(world.compile("default/sa-logic").outcome, umbra_compile::Outcome::NotGoverned);
    assert_has(&world.findings(), "Accepted=False NotExported spec.hosts[0]: ");
    world.virtual_service("default/b", spec("next", json!(null)));
    assert_eq!(seen(&world), ["next", "next", "next"], "and claims nothing");
}

#[test]
fn private_before_named_before_public_whatever_the_age() {
    let mut world = World::new();
    world.options.foreign_virtual_services = true;
    world.virtual_service("other/public", spec("public", json!(null)));
    assert_eq!(seen(&world), ["public", "public", "public"]);
    world.virtual_service("other/named", spec("named", json!(["default", "third"])));
    assert_eq!(seen(&world), ["named", "public", "named"]);
    world.virtual_service("default/private", spec("private", json!(["."])));
    assert_eq!(seen(&world), ["private", "public", "named"]);
    world.virtual_service("default/young", spec("young", json!(["."])));
    assert_eq!(seen(&world), ["private", "public", "named"], "of two alike the older");
    assert_has(
        &world.findings(),
        "Accepted=False Conflicted spec.hosts[0]: sa-logic.default.svc.cluster.local: the older \
        virtualservice default/private",
    );
}

#[test]
fn a_loser_learns_that_a_narrower_one_has_the_host() {
    let mut world = World::new();
    world.virtual_service("default/old", spec("old", json!(["default", "*"])));
    assert!(world.is_held(), "a list that says everybody twice makes no sense");
    let mut world = World::new();
    world.options.foreign_virtual_services = true;
    world.virtual_service("other/old", spec("old", json!(["default"])));
    world.virtual_service("default/young", spec("young", json!(["."])));
    assert_has(&world.findings(), "the more narrowly exported virtualservice default/young has this host");
}

#[test]
fn a_foreign_one_that_leaves_out_its_own_namespace_is_for_nobody() {
    let mut world = World::new();
    world.virtual_service("other/a", spec("r", json!(["default"])));
    assert_eq!(world.compile("default/sa-logic").outcome, umbra_compile::Outcome::NotGoverned);
    assert_has(&world.findings(), "Accepted=False NotExported spec.hosts[0]: ");
    world.options.foreign_virtual_services = true;
    assert_eq!(seen(&world), ["r", "default", "default"]);
}

#[test]
fn lists_that_make_no_sense_hold() {
    for (list, at) in [
        (json!(["*", "other"]), "exportTo[0]"),
        (json!([".", "."]), "exportTo[1]"),
        (json!(["other", "~"]), "exportTo[1]"),
        (json!([".", "Not A Namespace"]), "exportTo[1]"),
    ] {
        let mut world = World::new();
        world.virtual_service("default/a", spec("r", list.clone()));
        assert!(world.is_held(), "{list}");
        assert_has(&world.findings(), &format!("Accepted=False Invalid spec.{at}: "));
    }
}
