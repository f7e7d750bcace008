//! A cluster of many services that know nothing of each other, and what a change of one leads to.

use serde_json::{Value, json};
use umbra_compile::{Options, Outcome};
use umbra_index::{Change, Event, Index};
use umbra_routing::BackendRef;

/// Of each service.
const PODS: usize = 3;

fn parse<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("an object of our own")
}

fn meta(name: &str, labels: Value) -> Value {
    json!({"namespace": "default", "name": name, "uid": format!("uid-{name}"), "generation": 1, "labels": labels,
           "creationTimestamp": "2026-01-01T00:00:00Z"})
}

fn service(name: &str, port: u16) -> Value {
    json!({"metadata": meta(name, json!({})), "spec": {"type": "ClusterIP", "clusterIP": "10.96.0.1",
           "selector": {"app": name}, "ports": [{"name": "http", "port": port}]}})
}

/// One rule for some requests, and one for all others, which is mirrored.
fn virtual_service(name: &str, weight: u32) -> Value {
    let to = |subset: &str| json!({"host": name, "subset": subset});
    let canary = json!([{"destination": to("v1"), "weight": 100 - weight}, {"destination": to("v2"), "weight": weight}]);
    json!({"metadata": meta(name, json!({})), "spec": {"hosts": [name], "http": [
        {"match": [{"uri": {"prefix": "/canary"}}], "route": canary},
        {"route": [{"destination": to("v1")}], "mirror": to("v2")}]}})
}

fn destination_rule(name: &str, label: &str) -> Value {
    let subset = |version: &str| json!({"name": version, "labels": {label: version}});
    json!({"metadata": meta(name, json!({})), "spec": {"host": name, "subsets": [subset("v1"), subset("v2")]}})
}

fn pod(service: &str, number: usize) -> Value {
    let name = format!("{service}-{number}");
    let labels = json!({"app": service, "version": format!("v{}", 1 + number % 2)});
    json!({"metadata": meta(&name, labels), "spec": {"nodeName": "node"}, "status": {"phase": "Running"}})
}

fn slice(service: &str, ready: bool) -> Value {
    let endpoint = |number: usize| {
        let name = format!("{service}-{number}");
        json!({"addresses": [format!("10.0.0.{number}")], "conditions": {"ready": ready || number > 0},
               "targetRef": {"kind": "Pod", "namespace": "default", "name": name, "uid": format!("uid-{name}")}})
    };
    let endpoints: Vec<Value> = (0..PODS).map(endpoint).collect();
    json!({"metadata": meta(service, json!({"kubernetes.io/service-name": service})), "addressType": "IPv4",
           "ports": [{"name": "http", "port": 5000}], "endpoints": endpoints})
}

/// So many services, each with its rules and pods, listed.
pub(crate) fn of(services: usize) -> Index {
    let names: Vec<String> = (0..services).map(|number| format!("s{number:05}")).collect();
    let mut index = Index::new();
    let all = |object: &dyn Fn(&str) -> Value| names.iter().map(|name| object(name)).collect::<Vec<_>>();
    let typed = |values: Vec<Value>| json!(values);
    index.apply(Event::Service(Change::Relist(parse(typed(all(&|name| service(name, 80)))))));
    let pods = names.iter().flat_map(|name| (0..PODS).map(|number| pod(name, number))).collect();
    index.apply(Event::Pod(Change::Relist(parse(typed(pods)))));
    index.apply(Event::EndpointSlice(Change::Relist(parse(typed(all(&|name| slice(name, true)))))));
    index.apply(Event::DestinationRule(Change::Relist(parse(typed(all(&|name| {
        destination_rule(name, "version")
    }))))));
    index.apply(Event::VirtualService(Change::Relist(parse(typed(all(&|name| virtual_service(name, 10)))))));
    index
}

/// One object of a service, in its other state or as it was.
pub(crate) type Changing = fn(&str, bool) -> Event;

/// By the kind that changes.
pub(crate) const CHANGES: [(&str, Changing); 4] = [
    ("VirtualService", |name, other| {
        Event::VirtualService(Change::Apply(parse(virtual_service(name, if other { 20 } else { 10 }))))
    }),
    ("DestinationRule", |name, other| {
        Event::DestinationRule(Change::Apply(parse(destination_rule(
            name,
            if other { "app" } else { "version" },
        ))))
    }),
    ("Service", |name, other| {
        Event::Service(Change::Apply(parse(service(name, if other { 81 } else { 80 }))))
    }),
    ("EndpointSlice", |name, other| Event::EndpointSlice(Change::Apply(parse(slice(name, !other))))),
];

/// Takes the change in and computes all that it touches, as the controller does. How many services that were.
pub(crate) fn recompute(index: &mut Index, event: Event) -> usize {
    let (dirty, options) = (index.apply(event), Options::default());
    let view = index.view();
    for service in &dirty.services {
        let compiled = umbra_compile::service(view, service, &options);
        let Outcome::Table(table) = compiled.outcome else { panic!("no table: {compiled:?}") };
        sets(view, umbra_compile::backend_refs(&table));
    }
    for service in &dirty.backends {
        let name = umbra_routing::ServiceName::new(&service.namespace, &service.name);
        sets(view, [BackendRef::all(name, 80)]);
    }
    for object in &dirty.objects {
        std::hint::black_box(umbra_compile::object_findings(view, object));
    }
    dirty.services.union(&dirty.backends).count()
}

fn sets(view: umbra_index::View<'_>, references: impl IntoIterator<Item = BackendRef>) {
    for reference in references {
        std::hint::black_box(umbra_compile::backends(view, &reference));
    }
}
