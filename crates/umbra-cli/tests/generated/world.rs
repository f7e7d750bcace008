//! The services, pods and endpoints that generated rules are about, and what a controller makes of all of it.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use proptest::prelude::*;
use serde_json::value::to_raw_value;
use serde_json::{Value, json};
use umbra_cli::files::{Object, ObjectKind};
use umbra_compile::{Options, Outcome};
use umbra_index::Index;
use umbra_index::api::ObjectKey;
use umbra_routing::{Key, Put, ServiceName};

use crate::requests::{Asked, CLIENTS, Client};

/// The node that clients are on.
const NODE: &str = "laptop";

/// Namespace, name, and the service's pods' numbers; `s0` alone has the port 81.
pub(crate) const SERVICES: [(&str, &str, &[usize]); 3] =
    [("default", "s0", &[0, 1, 2]), ("default", "s1", &[3, 4]), ("other", "s2", &[5])];

/// How many backends there are.
pub(crate) const PODS: usize = 6;

/// A backend's version, and whether it is ready.
pub(crate) type Pods = Vec<(&'static str, bool)>;

pub(crate) fn pods() -> impl Strategy<Value = Pods> {
    let pod = (prop_oneof![Just("v1"), Just("v2")], prop::bool::weighted(0.8));
    prop::collection::vec(pod, PODS)
}

/// All objects; `at` are the addresses of each backend for the ports 80 and 81.
pub(crate) fn objects(pods: &Pods, rules: &[Value], at: &[[SocketAddr; 2]]) -> Vec<Value> {
    let mut all: Vec<Value> =
        CLIENTS.iter().enumerate().map(|(number, client)| client_pod(number, client)).collect();
    for (namespace, name, of_service) in SERVICES {
        all.push(service(namespace, name));
        for number in of_service {
            let (version, ready) = pods[*number];
            all.push(backend_pod(namespace, *number, name, version));
            all.push(slice(namespace, name, *number, ready, at[*number]));
        }
    }
    all.extend(rules.iter().cloned());
    all
}

fn client_pod(number: usize, (namespace, name, labels): &Client) -> Value {
    let labels: BTreeMap<&str, &str> = labels.iter().copied().collect();
    let ip = std::net::Ipv4Addr::from(Asked::source(number)).to_string();
    json!({
        "kind": "Pod", "metadata": {"namespace": namespace, "name": name, "uid": format!("client-{number}"), "labels": labels},
        "spec": {"nodeName": NODE}, "status": {"phase": "Running", "podIPs": [{"ip": ip}]},
    })
}

fn backend_pod(namespace: &str, number: usize, app: &str, version: &str) -> Value {
    json!({
        "kind": "Pod", "metadata": {"namespace": namespace, "name": format!("p{number}"), "uid": format!("p{number}"),
            "labels": {"app": app, "version": version}},
        "spec": {"nodeName": "elsewhere"}, "status": {"phase": "Running"},
    })
}

fn service(namespace: &str, name: &str) -> Value {
    let mut ports = vec![json!({"name": "http", "port": 80})];
    if name == "s0" {
        ports.push(json!({"name": "http-alt", "port": 81}));
    }
    json!({
        "kind": "Service", "metadata": {"namespace": namespace, "name": name},
        "spec": {"type": "ClusterIP", "clusterIP": "10.96.0.1", "selector": {"app": name}, "ports": ports},
    })
}

/// One slice for each pod: all backends have one address, so each needs ports of its own.
fn slice(namespace: &str, service: &str, number: usize, ready: bool, at: [SocketAddr; 2]) -> Value {
    let target = json!({"kind": "Pod", "namespace": namespace, "name": format!("p{number}"), "uid": format!("p{number}")});
    json!({
        "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"namespace": namespace, "name": format!("p{number}"), "labels": {"kubernetes.io/service-name": service}},
        "ports": [{"name": "http", "port": at[0].port()}, {"name": "http-alt", "port": at[1].port()}],
        "endpoints": [{"addresses": [at[0].ip()], "conditions": {"ready": ready}, "targetRef": target}],
    })
}

/// Those that decode; what does not, a cluster's watch leaves out, too.
pub(crate) fn decoded(objects: &[Value]) -> Vec<Object> {
    let decode = |object: &Value| {
        let kind = match object["kind"].as_str().expect("a kind") {
            "Pod" => ObjectKind::Pod,
            "Service" => ObjectKind::Service,
            "EndpointSlice" => ObjectKind::EndpointSlice,
            "VirtualService" => ObjectKind::VirtualService,
            "DestinationRule" => ObjectKind::DestinationRule,
            other => panic!("a generated {other}"),
        };
        Object::decode(kind, object).ok()
    };
    objects.iter().filter_map(decode).collect()
}

/// An index that has heard of the objects one by one, in this order.
pub(crate) fn one_by_one<'a>(objects: impl Iterator<Item = &'a Object>) -> Index {
    let mut index = Object::index(std::iter::empty());
    for object in objects {
        index.apply(object.clone().apply());
    }
    index
}

/// What a controller that has just started pushes to the clients' node.
pub(crate) fn put(index: &Index) -> Put {
    let (view, options) = (index.view(), Options::default());
    let mut put = Put::default();
    let mut insert = |key, value: Box<serde_json::value::RawValue>| drop(put.resources.insert(key, value));
    for (namespace, name, _) in SERVICES {
        let compiled = umbra_compile::service(view, &ObjectKey::new(namespace, name), &options);
        let table = match compiled.outcome {
            Outcome::Table(table) => Some(table),
            Outcome::NotGoverned => None,
            Outcome::Hold(hold) => umbra_compile::held(None, &hold),
        };
        let Some(table) = table else { continue };
        for reference in umbra_compile::backend_refs(&table) {
            let set = umbra_compile::backends(view, &reference);
            if let Some(key) = reference.key() {
                insert(key, to_raw_value(&set).expect("plain data"));
            }
        }
        insert(Key::Service(ServiceName::new(namespace, name)), to_raw_value(&table).expect("plain data"));
    }
    for (ip, client) in umbra_compile::clients(view, NODE, &options) {
        insert(Key::Client(ip), to_raw_value(&client).expect("plain data"));
    }
    put
}
