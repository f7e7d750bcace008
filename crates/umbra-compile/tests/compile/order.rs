//! Whatever order events come in, the same objects give the same bytes; and what an event leaves out of its `Dirty`
//! has not changed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use proptest::prelude::*;
use serde_json::{Value, json};
use umbra_compile::{Compiled, Finding, Options, Outcome};
use umbra_index::api::ObjectKey;
use umbra_index::{Change, Dirty, Event, Index, Kind, ObjectName, View};
use umbra_routing::{BackendRef, BackendSet, Client, NodeSettings, ServiceName};

use crate::world::{backend, key, parse, pod_json, service_json, slice_json};

const SERVICES: [&str; 3] = ["default/s0", "default/s1", "other/s2"];
const VIRTUAL_SERVICES: [&str; 3] = ["default/a", "default/b", "other/a"];
const DESTINATION_RULES: [&str; 3] = ["default/a", "other/a", "istio-system/a"];
const SLICES: [&str; 3] = ["default/x", "default/y", "other/z"];
const PODS: [&str; 3] = ["default/p0", "default/p1", "other/p2"];
const NODES: [&str; 3] = ["/node-a", "/node-b", "/node-c"];
const POLICIES: [&str; 3] = ["default/a", "default/b", "other/a"];
const NAMES: [[&str; 3]; 7] = [SERVICES, VIRTUAL_SERVICES, DESTINATION_RULES, SLICES, PODS, NODES, POLICIES];
const SLICE_KIND: usize = 3;
const POD_KIND: usize = 4;
const VARIANTS: usize = 10;

/// The objects that are there, by kind and name, as JSON.
type Model = [BTreeMap<ObjectKey, Value>; 7];

/// One thing that happens to one of the three names of one of the seven kinds.
#[derive(Clone, Copy, Debug)]
struct Step {
    kind: usize,
    name: usize,
    variant: usize,
    how: How,
}

#[derive(Clone, Copy, Debug)]
enum How {
    Apply,
    Delete,
    /// A relist that brings this change and lacks the next name.
    Relist,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let how = prop_oneof![6 => Just(How::Apply), 2 => Just(How::Delete), 1 => Just(How::Relist)];
    let step = (0..NAMES.len(), 0..3_usize, 0..VARIANTS, how);
    prop::collection::vec(
        step.prop_map(|(kind, name, variant, how)| Step { kind, name, variant, how }),
        0..60,
    )
}

/// Both the same object in new states and new objects of the same name.
fn meta(name: &str, variant: usize) -> Value {
    let key = key(name);
    json!({"namespace": key.namespace, "name": key.name, "uid": format!("uid-{}", variant % 2), "generation": variant,
           "creationTimestamp": format!("2026-01-01T00:00:0{}Z", variant % 3)})
}

fn object(kind: usize, name: &str, variant: usize) -> Value {
    match kind {
        0 => service_object(name, variant),
        1 => json!({"metadata": meta(name, variant), "spec": virtual_service_spec(variant)}),
        2 => json!({"metadata": meta(name, variant), "spec": destination_rule_spec(variant)}),
        3 => slice_object(name, variant),
        4 => pod_object(name, variant),
        5 => json!({"metadata": meta(name, 0), "spec": {"podCIDRs": [format!("10.{variant}.0.0/24")]}}),
        _ => json!({"metadata": meta(name, variant), "spec": policy_spec(variant)}),
    }
}

fn service_object(name: &str, variant: usize) -> Value {
    let spec = match variant {
        0 => json!({"clusterIP": "None", "clusterIPs": ["None"]}),
        1 => json!({"ports": [{"name": "http", "port": 80}, {"name": "alt", "port": 81}]}),
        2 => json!({"publishNotReadyAddresses": true}),
        3 => json!({"type": "NodePort", "ports": [{"name": "tcp", "port": 80}]}),
        _ => json!({}),
    };
    service_json(name, 80, spec)
}

fn virtual_service_spec(variant: usize) -> Value {
    let (s0, s1, s2) =
        ("s0.default.svc.cluster.local", "s1.default.svc.cluster.local", "s2.other.svc.cluster.local");
    let to = |host: &str, subset: &str| json!({"host": host, "subset": subset});
    match variant {
        0 => {
            json!({"hosts": [s0], "http": [{"route": [{"destination": to(s0, "v1")}], "mirror": to(s0, "v2")}]})
        }
        1 => {
            json!({"hosts": [s0, s1], "http": [{"route": [{"destination": {"host": s1}}], "mirror": to(s2, "v1")}]})
        }
        2 => json!({"hosts": [s0], "gateways": ["g"], "http": [{"route": [{"destination": {"host": s0}}]}]}),
        3 => {
            json!({"hosts": [s1, s2], "http": [{"route": [{"destination": to(s1, "v1")}], "timeout": "1s"}]})
        }
        4 => json!({"hosts": [s0], "http": []}),
        6 => {
            json!({"hosts": ["*.default.svc.cluster.local"], "http": [
                {"match": [{"sourceLabels": {"version": "v1"}}], "route": [{"destination": to(s1, "v1")}]}]})
        }
        7 => {
            json!({"http": [{"match": [{"uri": {"prefix": "/x/y"}}], "route": [{"destination": to(s2, "v1")}]}]})
        }
        8 => {
            json!({"hosts": [s0], "http": [{"match": [{"uri": {"prefix": "/x"}}], "delegate": {"name": "b"}},
                {"delegate": {"name": "a", "namespace": "other"}}]})
        }
        9 => {
            json!({"hosts": [s0, s2], "exportTo": [".", "third"], "http": [
                {"match": [{"sourceNamespace": "third"}], "route": [{"destination": to(s0, "v1")}]}]})
        }
        _ => json!({"hosts": [s2, "short"], "http": [
            {"match": [{"uri": {"prefix": "/x"}}], "route": [{"destination": to(s0, "v2"), "weight": 3},
             {"destination": {"host": s2, "port": {"number": 81}}, "weight": 1}]}, {"route": [{"destination": {"host": s1}}]}]}),
    }
}

fn destination_rule_spec(variant: usize) -> Value {
    let v = |name: &str| json!({"name": name, "labels": {"version": name}});
    let s0 = "s0.default.svc.cluster.local";
    match variant {
        0 => json!({"host": s0, "subsets": [v("v1"), v("v2")]}),
        1 => json!({"host": s0, "subsets": [v("v1")], "exportTo": ["."]}),
        2 => json!({"host": "*", "subsets": [v("v1")]}),
        3 => json!({"host": "s1.default.svc.cluster.local", "subsets": [v("v1")], "trafficPolicy": {"a": 1}}),
        4 => json!({"host": "s2.other.svc.cluster.local", "subsets": [{"name": "v1"}]}),
        6 => {
            json!({"host": s0, "workloadSelector": {"matchLabels": {"version": "v1"}}, "subsets": [v("v1")]})
        }
        7 => json!({"host": s0, "exportTo": ["third"], "subsets": [v("v1")]}),
        8 => json!({"host": "*.other.svc.cluster.local", "exportTo": [".", "third"], "subsets": [v("v1")]}),
        _ => json!({"host": "s0"}),
    }
}

fn policy_spec(variant: usize) -> Value {
    match variant {
        0 => json!({"podSelector": {}}),
        1 => json!({"podSelector": {"matchLabels": {"version": "v1"}}}),
        2 => json!({"podSelector": {"matchLabels": {"app": "s0"}}, "egress": [{}]}),
        3 => json!({"podSelector": {"matchLabels": {"version": "v2"}}, "policyTypes": ["Egress"]}),
        4 => {
            json!({"podSelector": {"matchExpressions": [{"key": "version", "operator": "NotIn", "values": ["v1"]}]}})
        }
        _ => json!({"podSelector": {"matchExpressions": [{"key": "app", "operator": "Exists"}]}}),
    }
}

fn slice_object(name: &str, variant: usize) -> Value {
    let key = key(name);
    let service = match (key.namespace.as_str(), variant % 2) {
        ("other", _) => "other/s2",
        (_, 0) => "default/s0",
        _ => "default/s1",
    };
    let pods = if key.namespace == "other" {
        vec![("p2", "10.0.0.3")]
    } else {
        vec![("p0", "10.0.0.1"), ("p1", "10.0.0.2")]
    };
    let mut slice = slice_json(service, &key.name, &pods);
    for (index, endpoint) in slice["endpoints"].as_array_mut().into_iter().flatten().enumerate() {
        endpoint["targetRef"]["uid"] = json!(format!("uid-{}", (variant + index) % 2));
        endpoint["conditions"]["ready"] = json!([true, true, false][(variant + index) % 3]);
    }
    slice
}

fn pod_object(name: &str, variant: usize) -> Value {
    let version = if variant < 3 { "v1" } else { "v2" };
    let mut pod = pod_json(name, &format!("10.0.0.{variant}"), json!({"version": version}));
    pod["metadata"]["uid"] = json!(format!("uid-{}", variant % 2));
    pod["spec"]["nodeName"] = json!(["node-a", "node-b", "node-b"][variant % 3]);
    pod
}

fn event(kind: usize, change: Change<Value>) -> Event {
    match kind {
        0 => Event::Service(typed(change)),
        1 => Event::VirtualService(typed(change)),
        2 => Event::DestinationRule(typed(change)),
        3 => Event::EndpointSlice(typed(change)),
        4 => Event::Pod(typed(change)),
        5 => Event::Node(typed(change)),
        _ => Event::NetworkPolicy(typed(change)),
    }
}

fn typed<T: serde::de::DeserializeOwned>(change: Change<Value>) -> Change<T> {
    match change {
        Change::Apply(value) => Change::Apply(parse(value)),
        Change::Delete(key) => Change::Delete(key),
        Change::Relist(values) => Change::Relist(values.into_iter().map(parse).collect()),
    }
}

/// Lets a step happen to the model; gives the event that tells of it.
fn happen(model: &mut Model, step: Step) -> Event {
    let name = NAMES[step.kind][step.name];
    let (object, objects) = (object(step.kind, name, step.variant), &mut model[step.kind]);
    let change = match step.how {
        How::Delete => {
            objects.remove(&key(name));
            Change::Delete(key(name))
        }
        How::Apply => {
            objects.insert(key(name), object.clone());
            Change::Apply(object)
        }
        How::Relist => {
            objects.insert(key(name), object);
            objects.remove(&key(NAMES[step.kind][(step.name + 1) % 3]));
            Change::Relist(objects.values().rev().cloned().collect())
        }
    };
    event(step.kind, change)
}

/// Slices follow pods in the end: those that name pods of the past are what the index remembers and a new one cannot.
fn without_references_to_the_past(model: &mut Model) {
    let pods = model[POD_KIND].clone();
    for slice in model[SLICE_KIND].values_mut() {
        let endpoints = slice["endpoints"].as_array_mut().expect("a list");
        endpoints.retain(|endpoint| {
            let target = &endpoint["targetRef"];
            let text = |field: &str| target[field].as_str().expect("text").to_owned();
            pods.get(&ObjectKey::new(text("namespace"), text("name")))
                .is_some_and(|pod| pod["metadata"]["uid"] == target["uid"])
        });
    }
}

/// Everything that is computed from a view.
#[derive(Debug, Default, PartialEq)]
struct Computed {
    services: BTreeMap<ObjectKey, Compiled>,
    backends: BTreeMap<BackendRef, BackendSet>,
    clients: BTreeMap<String, BTreeMap<IpAddr, Client>>,
    settings: BTreeMap<String, NodeSettings>,
    findings: BTreeMap<ObjectName, Vec<Finding>>,
}

impl Computed {
    fn update(&mut self, view: View<'_>, dirty: &Dirty) {
        let policed = self.services.iter().filter(|(_, compiled)| uses(compiled, &dirty.policed));
        let policed: Vec<_> = policed.map(|(service, _)| service.clone()).collect();
        for service in dirty.services.iter().chain(&policed) {
            self.services.insert(service.clone(), umbra_compile::service(view, service, &Options::default()));
        }
        for service in &dirty.backends {
            for reference in references(service) {
                self.backends.insert(reference.clone(), umbra_compile::backends(view, &reference));
            }
        }
        for node in &dirty.nodes {
            self.clients.insert(node.clone(), umbra_compile::clients(view, node, &Options::default()));
            self.settings.insert(node.clone(), umbra_compile::node_settings(view, node, &Options::default()));
        }
        for object in &dirty.objects {
            self.findings.insert(object.clone(), umbra_compile::object_findings(view, object));
        }
    }

    /// The bytes that would be pushed.
    fn bytes(&self) -> String {
        let tables = self.services.values().map(|compiled| match &compiled.outcome {
            Outcome::Table(table) => serde_json::to_string(table).expect("plain data"),
            other => format!("{other:?}"),
        });
        let backends = self.backends.values().map(|set| serde_json::to_string(set).expect("plain data"));
        let clients =
            self.clients.values().map(|clients| serde_json::to_string(clients).expect("plain data"));
        tables.chain(backends).chain(clients).collect()
    }
}

/// Its table names a destination or mirror at one of these.
fn uses(compiled: &Compiled, services: &BTreeSet<ObjectKey>) -> bool {
    let table = match &compiled.outcome {
        Outcome::Table(table) => table,
        Outcome::Hold(hold) => &hold.fresh,
        Outcome::NotGoverned => return false,
    };
    let references = umbra_compile::backend_refs(table);
    let key = |name: &ServiceName| ObjectKey::new(&name.namespace, &name.name);
    references.iter().any(|reference| services.contains(&key(&reference.service)))
}

/// References that tables of this test may have.
fn references(service: &ObjectKey) -> Vec<BackendRef> {
    let name = ServiceName::new(&service.namespace, &service.name);
    let subset = |version: &str| backend(&service.to_string(), 80, version);
    vec![BackendRef::all(name.clone(), 80), BackendRef::all(name, 81), subset("v1"), subset("v2")]
}

/// Every name there is in this test.
fn everything() -> Dirty {
    let named = |kind: Kind, names: [&str; 3]| names.map(|name| ObjectName::new(kind, key(name)));
    let rules = named(Kind::DestinationRule, DESTINATION_RULES);
    Dirty {
        services: SERVICES.map(key).into(),
        backends: SERVICES.map(key).into(),
        policed: BTreeSet::new(),
        nodes: NODES.map(|name| key(name).name).into(),
        objects: named(Kind::VirtualService, VIRTUAL_SERVICES).into_iter().chain(rules).collect(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn the_final_objects_alone_decide(steps in steps(), rotate in 0..NAMES.len()) {
        let mut model = Model::default();
        let mut index = Index::new();
        let mut computed = Computed::default();
        computed.update(index.view(), &everything());
        let mut take = |index: &mut Index, event| {
            let dirty = index.apply(event);
            computed.update(index.view(), &dirty);
        };
        for step in steps {
            take(&mut index, happen(&mut model, step));
        }
        without_references_to_the_past(&mut model);
        take(&mut index, event(SLICE_KIND, Change::Relist(model[SLICE_KIND].values().cloned().collect())));
        computed.services.retain(|service, _| SERVICES.contains(&service.to_string().as_str()));

        let mut fresh = Index::new();
        for kind in 0..NAMES.len() {
            let kind = (kind + rotate) % NAMES.len();
            prop_assert!(!fresh.is_complete());
            fresh.apply(event(kind, Change::Relist(model[kind].values().cloned().collect())));
        }
        prop_assert!(fresh.is_complete());
        let mut expected = Computed::default();
        expected.update(fresh.view(), &everything());
        prop_assert_eq!(&computed, &expected);
        prop_assert_eq!(computed.bytes(), expected.bytes());

        // The same again is no change.
        for (kind, objects) in model.iter().enumerate() {
            prop_assert!(index.apply(event(kind, Change::Relist(objects.values().cloned().collect()))).is_empty());
        }
    }
}
