//! Services that are special: each is honoured, or its author is told; none is worse than without umbra.

use serde_json::{Value, json};
use umbra_compile::Outcome;
use umbra_routing::{BackendRef, ServiceName};

use crate::world::{World, assert_has, slice_json, to};

/// What becomes of a governed Service with this in its spec.
struct Case {
    what: &'static str,
    spec: Value,
    /// The ports that nodes take over; none: the Service is as without umbra.
    ports: &'static [u16],
    /// A part of a finding; none: nothing to tell.
    told: Option<&'static str>,
}

/// As without umbra.
fn not_taken_over() -> [Case; 3] {
    let case = |what, spec, told| Case { what, spec, ports: &[], told: Some(told) };
    [
        case(
            "ExternalName",
            json!({"type": "ExternalName", "clusterIP": "", "clusterIPs": []}),
            "Accepted=False UnsupportedService spec.hosts[0]: sa-logic.default.svc.cluster.local: the Service is of \
             type ExternalName",
        ),
        case(
            "headless",
            json!({"clusterIP": "None", "clusterIPs": ["None"]}),
            "Accepted=False UnsupportedService spec.hosts[0]: sa-logic.default.svc.cluster.local: the Service is \
             headless",
        ),
        case(
            "internalTrafficPolicy Local",
            json!({"internalTrafficPolicy": "Local"}),
            "Accepted=False UnsupportedService spec.hosts[0]: sa-logic.default.svc.cluster.local: the Service has \
             internalTrafficPolicy Local",
        ),
    ]
}

/// Taken over, and something is to be known.
fn told_of() -> [Case; 5] {
    let case = |what, spec, told| Case { what, spec, ports: &[80], told: Some(told) };
    [
        case(
            "NodePort",
            json!({"type": "NodePort"}),
            "ReachableOutsideUmbra spec.hosts[0]: sa-logic.default.svc.cluster.local: the Service has node ports, \
             whose callers umbra does not see",
        ),
        case(
            "LoadBalancer",
            json!({"type": "LoadBalancer"}),
            "has a load balancer, whose callers umbra does not see",
        ),
        case(
            "externalIPs",
            json!({"externalIPs": ["192.0.2.7"]}),
            "has externalIPs, whose callers umbra does not see",
        ),
        case(
            "sessionAffinity ClientIP",
            json!({"sessionAffinity": "ClientIP"}),
            "has sessionAffinity ClientIP, which umbra does not keep",
        ),
        case(
            "trafficDistribution",
            json!({"trafficDistribution": "PreferClose"}),
            "NotKept spec.hosts[0]: sa-logic.default.svc.cluster.local: the Service has trafficDistribution PreferClose",
        ),
    ]
}

/// Taken over, without a word.
fn honoured() -> [Case; 5] {
    let case = |what, spec, ports| Case { what, spec, ports, told: None };
    let several = json!({"ports": [
        {"name": "http", "port": 80}, {"name": "grpc-x", "port": 81}, {"name": "tls", "port": 443},
        {"name": "dns", "port": 53}, {"name": "dns-udp", "port": 53, "protocol": "UDP"},
        {"name": "http-udp", "port": 80, "protocol": "UDP"}]});
    [
        case("plain", json!({}), &[80]),
        case("sessionAffinity None", json!({"sessionAffinity": "None"}), &[80]),
        case("several ports", several, &[80, 81]),
        case("publishNotReadyAddresses", json!({"publishNotReadyAddresses": true}), &[80]),
        case("dual stack", json!({"clusterIPs": ["10.96.0.1", "fd00::1"]}), &[80]),
    ]
}

#[test]
fn every_kind_of_service_is_taken_over_or_told_of() {
    for Case { what, spec, ports, told } in not_taken_over().into_iter().chain(told_of()).chain(honoured()) {
        let mut world = World::with_rules(json!([{"route": [{"destination": {"host": "sa-logic"}}]}]));
        world.service("default/sa-logic", 80, spec);
        let findings = world.findings();
        match world.compile("default/sa-logic").outcome {
            Outcome::Table(table) => {
                let numbers: Vec<_> = table.ports.iter().map(|port| port.number).collect();
                assert_eq!(numbers, ports, "{what}");
            }
            Outcome::NotGoverned => assert_eq!(ports, [0; 0], "{what}"),
            other @ Outcome::Hold(_) => panic!("{what}: {other:?}"),
        }
        assert_eq!(findings.len(), usize::from(told.is_some()), "{what}: {findings:?}");
        told.into_iter().for_each(|told| assert_has(&findings, told));
    }
}

#[test]
fn both_addresses_of_a_dual_stack_service_select_it_and_both_families_serve() {
    let mut world = World::with_rules(json!([{"route": [to("v1")]}]));
    world.service("default/sa-logic", 80, json!({"clusterIPs": ["10.96.0.1", "fd00::1"]}));
    let mut six = slice_json("default/sa-logic", "sa-logic-6", &[("v1-a", "fd01::1")]);
    six["addressType"] = json!("IPv6");
    world.slice(six);
    let addresses: Vec<_> = world.table().addresses.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["10.96.0.1", "fd00::1"]);
    let set =
        umbra_compile::backends(world.index.view(), &crate::world::backend("default/sa-logic", 80, "v1"));
    let endpoints: Vec<_> = set.endpoints.iter().map(|endpoint| endpoint.address.to_string()).collect();
    assert_eq!(endpoints, ["10.1.0.1:5000", "10.1.0.2:5000", "[fd01::1]:5000"]);
}

#[test]
fn a_named_target_port_may_be_another_in_each_slice() {
    let mut world = World::with_rules(json!([{"route": [{"destination": {"host": "sa-logic"}}]}]));
    let mut newer = slice_json("default/sa-logic", "newer", &[("v1-b", "10.1.0.2")]);
    newer["ports"] =
        json!([{"name": "metrics", "port": 9}, {"name": "http", "port": 8080, "protocol": "TCP"}]);
    world.slice(newer);
    world.slice(slice_json("default/sa-logic", "sa-logic-x", &[("v1-a", "10.1.0.1")]));
    assert_eq!(all(&world), ["10.1.0.1:5000", "10.1.0.2:8080"]);
}

fn all(world: &World) -> Vec<String> {
    let reference = BackendRef::all(ServiceName::new("default", "sa-logic"), 80);
    let set = umbra_compile::backends(world.index.view(), &reference);
    set.endpoints.iter().map(|endpoint| endpoint.address.to_string()).collect()
}

/// kube-proxy's rule: those that are ending serve until another one is ready.
#[test]
fn endpoints_that_are_ending_serve_while_there_is_no_other() {
    let mut world = World::new();
    let endpoint = |ip: &str, ready: bool, serving: bool, terminating: bool| json!({"addresses": [ip], "conditions": {"ready": ready, "serving": serving, "terminating": terminating}});
    let mut slice = slice_json("default/sa-logic", "sa-logic-x", &[]);
    let ending = [
        endpoint("10.1.0.1", false, true, true),
        endpoint("10.1.0.2", false, false, true),
        endpoint("10.1.0.3", false, false, false),
    ];
    slice["endpoints"] = json!(ending);
    world.slice(slice.clone());
    assert_eq!(all(&world), ["10.1.0.1:5000"]);
    slice["endpoints"][2] = endpoint("10.1.0.3", true, true, false);
    world.slice(slice);
    assert_eq!(all(&world), ["10.1.0.3:5000"]);
}

#[test]
fn special_destinations_are_used_or_told_of() {
    let http = json!([{"route": [{"destination": {"host": "reviews", "port": {"number": 9080}}}]}]);
    let mut world = World::with_rules(http);
    assert_eq!(world.findings(), [""; 0]);
    // A headless destination has endpoints like any other.
    let ports = json!([{"name": "http", "port": 9080}]);
    world.service("default/reviews", 0, json!({"clusterIP": "None", "clusterIPs": ["None"], "ports": ports}));
    assert_eq!(world.findings(), [""; 0]);
    world.service("default/reviews", 0, json!({"internalTrafficPolicy": "Local", "ports": ports}));
    assert_has(&world.findings(), "NotKept spec.http[0].route[0].destination: Service reviews.default");
    world.service("default/reviews", 0, json!({"type": "ExternalName", "ports": ports}));
    assert_has(&world.findings(), "ResolvedRefs=False UnsupportedService spec.http[0].route[0].destination");
}

#[test]
fn rules_that_leave_requests_over_have_no_fallback() {
    let some = json!({"match": [{"uri": {"prefix": "/api"}}], "route": [to("v1")]});
    let world = World::with_rules(json!([some]));
    let findings = world.findings();
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert_has(&findings, "NoFallback spec.http: no rule takes every request");
    let world = World::with_rules(json!([some, {"route": [to("v1")]}]));
    assert_eq!(world.findings(), [""; 0]);
    // Several services and ports of one object read it once: the same words about the same field.
    let mut world = World::new();
    world.versions();
    world.virtual_service("default/a", json!({"hosts": ["sa-logic", "reviews"], "http": [some]}));
    let of = |service: &str| {
        let findings = world.compile(service).findings;
        findings.into_iter().filter(|finding| finding.path == "spec.http").collect::<Vec<_>>()
    };
    assert_eq!((of("default/sa-logic").len(), of("default/sa-logic")), (1, of("default/reviews")));
}
