//! Which VirtualService governs a service, and for whom.

use serde_json::{Value, json};
use umbra_compile::Outcome;

use crate::world::{World, assert_has, key, to};

fn spec(hosts: Value, subset: &str) -> Value {
    let destination = json!({"host": "sa-logic.default.svc.cluster.local", "subset": subset});
    json!({"hosts": hosts, "http": [{"route": [{"destination": destination}]}]})
}

fn subset(rules: &[umbra_routing::Rule]) -> Option<String> {
    rules[0].destinations[0].backend.subset.clone()
}

fn world() -> World {
    let mut world = World::new();
    world.versions();
    world
}

#[test]
fn hosts_are_short_or_full_and_ignore_case() {
    for host in ["sa-logic", "SA-Logic", "sa-logic.default.svc.cluster.local"] {
        let mut world = world();
        world.virtual_service("default/a", spec(json!([host]), "v1"));
        assert_eq!(subset(&world.rules()).as_deref(), Some("v1"), "{host}");
    }
    for host in [
        "sa-logic.default",
        "sa-logic.default.svc",
        "*.other.svc.cluster.local",
        "*.default",
        "sa",
        "ratings",
    ] {
        let mut world = world();
        world.virtual_service("default/a", spec(json!([host]), "v1"));
        assert_eq!(world.compile("default/sa-logic").outcome, Outcome::NotGoverned, "{host}");
    }
}

#[test]
fn a_destination_or_mirror_is_not_governed() {
    let mut world = world();
    world.virtual_service(
        "default/a",
        json!({"hosts": ["reviews"], "http": [
        {"route": [to("v1")], "mirror": {"host": "sa-logic", "subset": "v2"}}]}),
    );
    assert_eq!(world.compile("default/sa-logic").outcome, Outcome::NotGoverned);
}

#[test]
fn gateways_without_mesh_do_not_apply() {
    for (gateways, governs) in [
        (json!(["http-gateway"]), false),
        (json!(["default/mesh"]), false),
        (json!(["Mesh"]), false),
        (json!(["http-gateway", "mesh"]), true),
        (json!([]), true),
        (json!(null), true),
    ] {
        let mut world = world();
        let mut spec = spec(json!(["sa-logic"]), "v1");
        spec["gateways"] = gateways.clone();
        world.virtual_service("default/a", spec);
        let outcome = world.compile("default/sa-logic").outcome;
        assert_eq!(matches!(outcome, Outcome::Table(_)), governs, "{gateways}");
    }
}

#[test]
fn the_oldest_wins_and_the_others_learn_it() {
    let mut world = world();
    world.virtual_service("default/z", spec(json!(["sa-logic"]), "v1"));
    world.virtual_service("default/a", spec(json!(["reviews", "sa-logic.default.svc.cluster.local"]), "v2"));
    assert_eq!(subset(&world.rules()).as_deref(), Some("v1"));
    assert_has(
        &world.findings(),
        "Accepted=False Conflicted spec.hosts[1]: sa-logic.default.svc.cluster.local: \
        the older virtualservice default/z has this host",
    );
    let about: Vec<_> =
        world.compile("default/sa-logic").findings.iter().map(|f| f.object.key.to_string()).collect();
    assert_eq!(about, ["default/a"]);
}

#[test]
fn wildcards_cover_services_and_yield_to_exact_hosts_and_longer_ones() {
    let mut world = world();
    world.virtual_service("default/short", spec(json!(["*.cluster.local"]), "v1"));
    assert_eq!(subset(&world.rules()).as_deref(), Some("v1"));
    world.virtual_service("default/long", spec(json!(["*.default.svc.cluster.local"]), "v2"));
    assert_eq!(subset(&world.rules()).as_deref(), Some("v2"), "the longer one, whatever the age");
    let conflicts =
        |world: &World| world.findings().iter().filter(|finding| finding.contains("Conflicted")).count();
    assert_eq!(conflicts(&world), 0, "the shorter one is as its author means it");
    world.virtual_service("default/exact", spec(json!(["sa-logic"]), "v3"));
    assert_eq!(subset(&world.rules()).as_deref(), Some("v3"));
    assert_eq!(conflicts(&world), 0);
    world.virtual_service("default/same", spec(json!(["*.default.svc.cluster.local"]), "v1"));
    world.index.apply(umbra_index::Event::VirtualService(umbra_index::Change::Delete(key("default/exact"))));
    assert_has(&world.findings(), "virtualservice default/long has this host, and only one can");
}

#[test]
fn an_exact_host_without_a_rule_does_not_fall_to_a_wildcard() {
    let mut world = world();
    world.virtual_service("default/wild", spec(json!(["*.default.svc.cluster.local"]), "v1"));
    let mut other_port = spec(json!(["sa-logic"]), "v2");
    other_port["http"][0]["match"] = json!([{"port": 81}]);
    world.virtual_service("default/exact", other_port);
    assert_eq!(
        world.compile("default/sa-logic").outcome,
        Outcome::NotGoverned,
        "the service answers by default"
    );
    world.virtual_service("default/next", spec(json!(["sa-logic"]), "v2"));
    assert_eq!(subset(&world.rules()).as_deref(), Some("v2"));
}

#[test]
fn a_wildcard_is_not_wrong_because_of_one_of_its_services() {
    let mut world = world();
    world.virtual_service("default/wild", spec(json!(["*.default.svc.cluster.local"]), "v1"));
    world.service("default/sa-logic", 80, json!({"clusterIP": "None", "clusterIPs": ["None"]}));
    assert_has(&world.findings(), "UnsupportedService spec.hosts[0]: sa-logic.default");
    assert!(world.findings().iter().all(|finding| !finding.contains("=False")), "{:?}", world.findings());
}

#[test]
fn hosts_that_say_the_same_twice_or_everything_are_invalid() {
    for (hosts, path) in [
        (json!(["sa-logic", "sa-logic"]), "spec.hosts[1]"),
        (json!(["sa-logic.default.svc.cluster.local", "*.default.svc.cluster.local"]), "spec.hosts[1]"),
        (json!(["sa-logic", "*"]), "spec.hosts[1]"),
        (json!(["*"]), "spec.hosts[0]"),
    ] {
        let mut world = world();
        world.virtual_service("default/a", spec(hosts.clone(), "v1"));
        assert!(world.is_held(), "{hosts}");
        assert_has(&world.findings(), &format!("Accepted=False Invalid {path}: "));
    }
    let mut world = world();
    world.virtual_service("default/a", spec(json!(["sa-logic", "sa-logic.default.svc.cluster.local"]), "v1"));
    assert!(!world.is_held(), "short and full are two spellings to Istio");
}

#[test]
fn one_port_may_have_another_virtual_service_than_the_next() {
    let mut world = world();
    let route = json!([{"destination": {"host": "reviews"}}]);
    let first = json!([{"name": "old", "match": [{"port": 9080}], "route": route}]);
    world.virtual_service("default/old", json!({"hosts": ["reviews"], "http": first}));
    world.virtual_service(
        "default/new",
        json!({"hosts": ["reviews"], "http": [{"name": "new", "route": route}]}),
    );
    let name = |port| world.rules_on("default/reviews", port, "default")[0].name.clone();
    assert_eq!((name(9080), name(9081)), ("old".to_owned(), "new".to_owned()));
}

#[test]
fn without_an_http_rule_there_is_no_claim() {
    let mut world = world();
    let route = json!([{"destination": {"host": "sa-logic"}}]);
    world.virtual_service("default/old", json!({"hosts": ["sa-logic"], "tcp": [{"route": route}]}));
    world.virtual_service("default/none", json!({"hosts": ["sa-logic"], "http": [], "tcp": [{"route": []}]}));
    assert_eq!(world.compile("default/sa-logic").outcome, Outcome::NotGoverned);
    world.virtual_service("default/new", spec(json!(["sa-logic"]), "v2"));
    assert_eq!((subset(&world.rules()).as_deref(), world.findings()), (Some("v2"), vec![]));
}

#[test]
fn one_without_any_rule_is_invalid_and_holds_what_it_had() {
    let mut world = world();
    world.virtual_service("default/empty", json!({"hosts": ["sa-logic"], "http": []}));
    assert!(world.is_held());
    assert_has(&world.findings(), "Accepted=False Invalid spec.http: http, tcp or tls must be provided");
}

#[test]
fn a_foreign_virtual_service_is_for_its_own_namespace() {
    let mut world = world();
    world.virtual_service("other/a", spec(json!(["sa-logic.default.svc.cluster.local"]), "v2"));
    assert_eq!(subset(&world.rules()), None, "the others get the service's default");
    assert_eq!(world.rules()[0].name, "default");
    assert_eq!(subset(&world.rules_for("other")).as_deref(), Some("v2"));
    assert_has(&world.findings(), "OwnNamespaceOnly spec.hosts[0]");
    world.options.foreign_virtual_services = true;
    assert_eq!(subset(&world.rules()).as_deref(), Some("v2"));
    assert_eq!((world.table().ports[0].variants.len(), world.findings()), (1, vec![]));
}

#[test]
fn a_younger_foreign_virtual_service_yields_to_the_services_own() {
    let mut world = world();
    world.virtual_service("default/own", spec(json!(["sa-logic"]), "v1"));
    world.virtual_service("other/a", spec(json!(["sa-logic.default.svc.cluster.local"]), "v2"));
    assert_eq!(subset(&world.rules_for("other")).as_deref(), Some("v1"));
    assert_has(&world.findings(), "Accepted=False Conflicted");
    let mut world = self::world();
    world.virtual_service("other/a", spec(json!(["sa-logic.default.svc.cluster.local"]), "v2"));
    world.virtual_service("default/own", spec(json!(["sa-logic"]), "v1"));
    assert_eq!(subset(&world.rules()).as_deref(), Some("v1"));
    assert_eq!(subset(&world.rules_for("other")).as_deref(), Some("v2"));
    assert!(world.findings().iter().all(|finding| !finding.contains("Conflicted")));
}

#[test]
fn services_without_a_cluster_ip_or_http_are_left_alone() {
    for (spec, reason) in [
        (json!({"type": "ExternalName"}), "UnsupportedService"),
        (json!({"clusterIP": "None", "clusterIPs": ["None"]}), "UnsupportedService"),
        (json!({"internalTrafficPolicy": "Local"}), "UnsupportedService"),
        (json!({"ports": [{"name": "tls-x", "port": 443}, {"name": "", "port": 3306}]}), "NoHttpPort"),
        (json!({"ports": [{"name": "http", "port": 80, "protocol": "UDP"}]}), "NoHttpPort"),
    ] {
        let mut world = world();
        world.virtual_service("default/a", self::spec(json!(["sa-logic"]), "v1"));
        world.service("default/sa-logic", 80, spec.clone());
        assert_eq!(world.compile("default/sa-logic").outcome, Outcome::NotGoverned, "{spec}");
        assert_has(&world.findings(), &format!("Accepted=False {reason} spec.hosts[0]: sa-logic.default"));
    }
}

#[test]
fn callers_past_umbra_are_told_of() {
    for spec in
        [json!({"type": "NodePort"}), json!({"type": "LoadBalancer"}), json!({"sessionAffinity": "ClientIP"})]
    {
        let mut world = world();
        world.virtual_service("default/a", self::spec(json!(["sa-logic"]), "v1"));
        world.service("default/sa-logic", 80, spec.clone());
        let findings = world.findings();
        assert_eq!((findings.len(), world.rules().len()), (1, 1), "{spec}");
        assert!(findings[0].starts_with("ReachableOutsideUmbra spec.hosts[0]"), "{findings:?}");
    }
}

#[test]
fn only_http_ports_are_in_the_table() {
    let mut world = world();
    world.virtual_service("default/a", spec(json!(["sa-logic"]), "v1"));
    let ports =
        json!([{"name": "web", "port": 80}, {"name": "https", "port": 443}, {"name": "grpc", "port": 50051}]);
    world.service("default/sa-logic", 80, json!({"ports": ports}));
    let numbers: Vec<_> = world.table().ports.iter().map(|port| port.number).collect();
    assert_eq!(numbers, [80, 50051]);
}
