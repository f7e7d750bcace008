//! Endpoints of destinations, clients and settings of nodes.

use serde_json::{Value, json};
use umbra_index::{Change, Event};
use umbra_routing::{BackendRef, BackendSet, ServiceName, SpokenTo};

use crate::world::{World, backend, key, parse, pod_json, slice_json};

fn addresses(set: &BackendSet) -> Vec<String> {
    set.endpoints.iter().map(|endpoint| endpoint.address.to_string()).collect()
}

fn all(world: &World) -> Vec<String> {
    let reference = BackendRef::all(ServiceName::new("default", "sa-logic"), 80);
    addresses(&umbra_compile::backends(world.index.view(), &reference))
}

fn subset(world: &World, name: &str) -> Vec<String> {
    addresses(&umbra_compile::backends(world.index.view(), &backend("default/sa-logic", 80, name)))
}

/// One slice, whose endpoints have no pods.
fn bare_slice(name: &str, endpoints: Value) -> Value {
    let mut slice = slice_json("default/sa-logic", name, &[]);
    slice["endpoints"] = endpoints;
    slice
}

#[test]
fn subsets_select_pods_by_label_and_follow_them() {
    let mut world = World::new();
    assert_eq!(subset(&world, "v1"), ["10.1.0.1:5000", "10.1.0.2:5000"]);
    assert_eq!(subset(&world, "v2"), ["10.1.0.3:5000"]);
    assert_eq!(all(&world).len(), 3);
    let dirty = world.pod("default/v1-b", "10.1.0.2", json!({"app": "sa-logic", "version": "v2"}));
    assert_eq!(dirty.backends, [key("default/sa-logic")].into());
    assert!(dirty.endpoints_only());
    assert_eq!((subset(&world, "v1").len(), subset(&world, "v2").len()), (1, 2));
    let mut empty = backend("default/sa-logic", 80, "");
    assert_eq!(
        addresses(&umbra_compile::backends(world.index.view(), &empty)),
        [""; 0],
        "an empty value is a value"
    );
    empty.selector = None;
    assert_eq!(addresses(&umbra_compile::backends(world.index.view(), &empty)), [""; 0], "unresolved");
    assert_eq!(
        addresses(&umbra_compile::backends(world.index.view(), &backend("default/sa-logic", 81, "v1"))),
        [""; 0]
    );
}

#[test]
fn an_endpoint_says_who_it_is() {
    let mut world = World::new();
    let mut pod = pod_json(
        "default/v1-a",
        "10.1.0.1",
        json!({"app": "sa-logic", "version": "v1", "pod-template-hash": "5d"}),
    );
    pod["metadata"]["ownerReferences"] =
        json!([{"kind": "ReplicaSet", "name": "logic-5d", "controller": true}]);
    world.index.apply(Event::Pod(Change::Apply(parse(pod))));
    let set = umbra_compile::backends(world.index.view(), &backend("default/sa-logic", 80, "v1"));
    let endpoint = serde_json::to_value(&set.endpoints[0]).unwrap();
    assert_eq!(
        endpoint,
        json!({"address": "10.1.0.1:5000", "pod": "v1-a", "namespace": "default", "workload": "logic",
        "app": "sa-logic", "version": "v1", "canonicalName": "sa-logic", "canonicalRevision": "v1"})
    );
}

#[test]
fn readiness_is_the_slices() {
    let endpoints = json!([
        {"addresses": ["10.2.0.1"], "conditions": {}},
        {"addresses": ["10.2.0.2"], "conditions": {"ready": false}},
        {"addresses": ["10.2.0.3"], "conditions": {"ready": true, "terminating": true}},
        {"addresses": ["10.2.0.4"], "conditions": {"ready": false, "serving": true, "terminating": true}},
        {"addresses": ["10.2.0.5", "10.2.0.6"]},
        {"addresses": []},
        {"addresses": ["name.example.com"]},
    ]);
    let mut world = World::empty();
    world.service("default/sa-logic", 80, json!({}));
    world.slice(bare_slice("s", endpoints));
    assert_eq!(all(&world), ["10.2.0.1:5000", "10.2.0.5:5000"]);
    world.service("default/sa-logic", 80, json!({"publishNotReadyAddresses": true}));
    assert_eq!(all(&world), ["10.2.0.1:5000", "10.2.0.2:5000", "10.2.0.3:5000", "10.2.0.5:5000"]);
}

#[test]
fn slices_are_merged_in_both_families_and_by_port_name() {
    let mut world = World::empty();
    let ports = json!([{"name": "http", "port": 80}, {"name": "alt", "port": 81}]);
    world.service("default/sa-logic", 80, json!({"ports": ports}));
    world.slice(bare_slice("a", json!([{"addresses": ["10.2.0.1"]}])));
    world.slice(bare_slice(
        "b",
        json!([{"addresses": ["10.2.0.1"]}, {"addresses": ["10.2.0.2"], "conditions": {"ready": false}}]),
    ));
    let mut six = bare_slice("c", json!([{"addresses": ["fd00::1"]}, {"addresses": ["10.2.0.2"]}]));
    six["ports"] = json!([{"name": "alt", "port": 5001}, {"name": "http", "port": 5000}]);
    world.slice(six);
    assert_eq!(all(&world), ["10.2.0.1:5000", "10.2.0.2:5000", "[fd00::1]:5000"]);
    let alt = BackendRef::all(ServiceName::new("default", "sa-logic"), 81);
    let alt = umbra_compile::backends(world.index.view(), &alt);
    assert_eq!(
        addresses(&alt),
        ["10.2.0.2:5001", "[fd00::1]:5001"],
        "only where the slice has a port of that name"
    );
    assert_eq!((alt.endpoints[0].workload.as_str(), alt.endpoints[0].pod.as_deref()), ("unknown", None));
}

#[test]
fn the_services_port_says_which_http_is_spoken_to_endpoints() {
    let mut world = World::new();
    let spoken_to = |world: &World, port| {
        let reference = BackendRef::all(ServiceName::new("default", "sa-logic"), port);
        umbra_compile::backends(world.index.view(), &reference).spoken_to
    };
    assert_eq!(spoken_to(&world, 80), SpokenTo::Http1);
    let ports =
        json!([{"name": "http", "port": 80, "appProtocol": "kubernetes.io/h2c"}, {"name": "x", "port": 81}]);
    let dirty = world.service("default/sa-logic", 80, json!({"ports": ports}));
    assert!(dirty.backends.contains(&key("default/sa-logic")), "its sets are published anew: {dirty:?}");
    assert_eq!(
        [80, 81, 82].map(|port| spoken_to(&world, port)),
        [SpokenTo::Http2, SpokenTo::AsClient, SpokenTo::AsClient]
    );
}

#[test]
fn endpoints_without_a_pod_are_in_no_subset() {
    let mut world = World::new();
    world.slice(bare_slice("bare", json!([{"addresses": ["10.2.0.1"]}])));
    world.slice(slice_json("default/sa-logic", "unknown", &[("nobody", "10.2.0.2")]));
    assert_eq!(all(&world).len(), 5);
    assert_eq!((subset(&world, "v1").len(), subset(&world, "v2").len()), (2, 1));
}

#[test]
fn only_slices_remove_endpoints() {
    let mut world = World::new();
    world.index.apply(Event::Pod(Change::Delete(key("default/v2-a"))));
    assert_eq!(subset(&world, "v2"), ["10.1.0.3:5000"], "the slice still names it");
    let mut namesake = pod_json("default/v2-a", "10.1.0.9", json!({"version": "v3"}));
    namesake["metadata"]["uid"] = json!("another");
    world.index.apply(Event::Pod(Change::Apply(parse(namesake))));
    assert_eq!(subset(&world, "v2"), ["10.1.0.3:5000"], "its namesake is another pod");
    world.slice(slice_json("default/sa-logic", "sa-logic-x", &[("v1-a", "10.1.0.1")]));
    assert_eq!(subset(&world, "v2"), [""; 0]);
    world.slice(slice_json("default/sa-logic", "sa-logic-x", &[("v2-a", "10.1.0.3")]));
    assert_eq!(subset(&world, "v2"), [""; 0], "forgotten once no slice named it");
}

#[test]
fn a_pod_may_come_after_its_slice() {
    let mut world = World::empty();
    world.service("default/sa-logic", 80, json!({}));
    world.slice(slice_json("default/sa-logic", "s", &[("late", "10.3.0.1")]));
    assert_eq!((all(&world).len(), subset(&world, "v1").len()), (1, 0));
    let dirty = world.pod("default/late", "10.3.0.1", json!({"version": "v1"}));
    assert_eq!(dirty.backends, [key("default/sa-logic")].into());
    assert_eq!(subset(&world, "v1"), ["10.3.0.1:5000"]);
}

#[test]
fn clients_are_the_nodes_own_running_pods() {
    let mut world = World::empty();
    let mut pod = |name: &str, change: Value| {
        let mut pod = pod_json(&format!("shop/{name}"), "10.4.0.1", json!({"app": name}));
        for (path, value) in change.as_object().unwrap() {
            *pod.pointer_mut(path).expect("a field of the pod") = value.clone();
        }
        world.index.apply(Event::Pod(Change::Apply(parse(pod))));
    };
    pod("web", json!({"/status/podIPs": [{"ip": "10.4.0.2"}, {"ip": "fd00::2"}]}));
    pod("starting", json!({"/status/phase": "Pending", "/status/podIPs": [{"ip": "10.4.0.3"}]}));
    pod("waiting", json!({"/status/phase": "Pending", "/status/podIPs": null}));
    pod("done", json!({"/status/phase": "Succeeded", "/status/podIPs": [{"ip": "10.4.0.2"}]}));
    pod("elsewhere", json!({"/spec": {"nodeName": "node-b"}, "/status/podIPs": [{"ip": "10.4.0.4"}]}));
    pod(
        "host",
        json!({"/spec": {"nodeName": "node-a", "hostNetwork": true}, "/status/podIPs": [{"ip": "192.0.2.1"}]}),
    );
    let clients = umbra_compile::clients(world.index.view(), "node-a", &world.options);
    let names: Vec<_> =
        clients.iter().map(|(ip, client)| format!("{ip} {}/{}", client.namespace, client.app)).collect();
    assert_eq!(names, ["10.4.0.2 shop/web", "10.4.0.3 shop/starting", "fd00::2 shop/web"]);
    assert_eq!(clients.values().next().unwrap().labels["app"], "web");
}

#[test]
fn node_settings_are_its_pod_ranges() {
    let mut world = World::empty();
    let node = json!({"metadata": {"name": "node-a"}, "spec": {"podCIDRs": ["10.1.0.0/24", "fd00::/64"]}});
    let dirty = world.index.apply(Event::Node(Change::Apply(parse(node))));
    assert_eq!(dirty.nodes, ["node-a".to_owned()].into());
    let settings = |node| umbra_compile::node_settings(world.index.view(), node, &world.options).pod_cidrs;
    assert_eq!(settings("node-a"), ["10.1.0.0/24", "fd00::/64"]);
    assert_eq!(settings("node-b"), [""; 0]);
}
