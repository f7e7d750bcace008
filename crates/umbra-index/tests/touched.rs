//! What an event touches, and what it does not.

use serde_json::{Value, json};
use umbra_index::api::ObjectKey;
use umbra_index::{Change, Dirty, Event, Index, Kind, ObjectName};

fn parse<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("a test's own object")
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::new("default", name)
}

fn meta(name: &str) -> Value {
    json!({"namespace": "default", "name": name, "uid": format!("uid-{name}"), "generation": 1})
}

fn service(name: &str) -> Event {
    let spec = json!({"clusterIP": "10.96.0.1", "ports": [{"port": 80}]});
    Event::Service(Change::Apply(parse(json!({"metadata": meta(name), "spec": spec}))))
}

fn virtual_service(name: &str, host: &str, to: &str, mirror: &str) -> Event {
    let http = json!([{"route": [{"destination": {"host": to}}], "mirror": {"host": mirror}}]);
    let spec = json!({"hosts": [host], "http": http});
    Event::VirtualService(Change::Apply(parse(json!({"metadata": meta(name), "spec": spec}))))
}

fn destination_rule(name: &str, host: &str) -> Event {
    Event::DestinationRule(Change::Apply(parse(json!({"metadata": meta(name), "spec": {"host": host}}))))
}

fn slice(service: &str, ready: bool) -> Event {
    let mut meta = meta(&format!("{service}-x"));
    meta["labels"] = json!({"kubernetes.io/service-name": service});
    let target =
        json!({"kind": "Pod", "namespace": "default", "name": service, "uid": format!("uid-{service}")});
    let endpoint = json!({"addresses": ["10.0.0.1"], "conditions": {"ready": ready}, "targetRef": target});
    Event::EndpointSlice(Change::Apply(parse(json!({"metadata": meta, "endpoints": [endpoint]}))))
}

fn pod(name: &str, version: &str, phase: &str) -> Event {
    let mut meta = meta(name);
    meta["labels"] = json!({"version": version});
    let pod = json!({"metadata": meta, "spec": {"nodeName": "node-a"}, "status": {"phase": phase}});
    Event::Pod(Change::Apply(parse(pod)))
}

fn services(names: &[&str]) -> Dirty {
    Dirty { services: names.iter().map(|name| key(name)).collect(), ..Dirty::default() }
}

/// `shop` is governed, sends to `shop`, and copies to `mirror`.
fn shop() -> Index {
    let mut index = Index::new();
    for event in [service("shop"), service("mirror"), virtual_service("shop", "shop", "shop", "mirror")] {
        index.apply(event);
    }
    index
}

#[test]
fn one_endpoint_among_a_thousand_services_touches_one() {
    let mut index = Index::new();
    for number in 0..1000 {
        let name = format!("s{number}");
        for event in [service(&name), virtual_service(&name, &name, &name, "mirror"), slice(&name, true)] {
            index.apply(event);
        }
    }
    let dirty = index.apply(slice("s7", false));
    assert_eq!(dirty, Dirty { backends: [key("s7")].into(), ..Dirty::default() });
    assert!(dirty.endpoints_only() && !dirty.is_empty());
    index.apply(slice("mirror", true));
    let dirty = index.apply(slice("mirror", false));
    assert_eq!(dirty, Dirty { backends: [key("mirror")].into(), ..Dirty::default() }, "also a mirror of all");
}

#[test]
fn a_mirrors_service_touches_the_tables_that_name_it() {
    let mut index = shop();
    let dirty = index.apply(Event::Service(Change::Delete(key("mirror"))));
    assert_eq!(dirty, Dirty { backends: [key("mirror")].into(), ..services(&["shop"]) });
    let dirty = index.apply(service("unrelated"));
    assert_eq!((dirty.services.len(), dirty.objects.len()), (0, 0));
    let dirty = index.apply(destination_rule("d", "mirror"));
    assert_eq!(dirty.services, services(&["shop"]).services);
    assert_eq!(index.apply(destination_rule("e", "unrelated")).services, services(&[]).services);
    assert_eq!(
        index.apply(destination_rule("e", "*.svc.cluster.local")).services,
        services(&["shop"]).services
    );
    assert_eq!(
        index.apply(destination_rule("e", "unrelated")).services,
        services(&["shop"]).services,
        "as it was"
    );
}

#[test]
fn a_virtual_service_touches_its_old_hosts_and_its_new_ones() {
    let mut index = shop();
    let dirty = index.apply(virtual_service("shop", "other", "shop", "mirror"));
    let object = ObjectName::new(Kind::VirtualService, key("shop"));
    assert_eq!(dirty, Dirty { objects: [object].into(), ..services(&["other", "shop"]) });
    assert_eq!(
        index.apply(Event::VirtualService(Change::Delete(key("shop")))).services,
        services(&["other"]).services
    );
    assert!(index.apply(Event::VirtualService(Change::Delete(key("shop")))).is_empty());
}

#[test]
fn a_wildcard_touches_the_services_that_are_there() {
    let mut index = shop();
    let wildcard = virtual_service("all", "*.default.svc.cluster.local", "mirror", "mirror");
    assert_eq!(index.apply(wildcard).services, services(&["shop", "mirror"]).services);
    assert_eq!(index.apply(service("late")).services, services(&["late"]).services);
    assert_eq!(index.view().virtual_services_for(&key("late")).count(), 1);
    let narrower = virtual_service("all", "*.other.svc.cluster.local", "mirror", "mirror");
    assert_eq!(index.apply(narrower).services, services(&["shop", "mirror", "late"]).services);
    assert_eq!(index.view().virtual_services_for(&key("late")).count(), 0);
}

/// `root` has rules for `shop`, which are those of `api`.
fn delegating() -> Index {
    let mut index = shop();
    let spec = json!({"hosts": ["shop"], "http": [{"delegate": {"name": "api"}}]});
    index.apply(Event::VirtualService(Change::Apply(parse(json!({"metadata": meta("root"), "spec": spec})))));
    index
}

fn delegate(to: &str) -> Event {
    let spec = json!({"http": [{"route": [{"destination": {"host": to}}]}]});
    Event::VirtualService(Change::Apply(parse(json!({"metadata": meta("api"), "spec": spec}))))
}

#[test]
fn a_delegate_touches_what_its_roots_name() {
    let mut index = delegating();
    assert_eq!(index.apply(delegate("late")).services, services(&["shop"]).services, "when it comes");
    assert_eq!(index.apply(service("late")).services, services(&["shop"]).services, "with what it sends to");
    assert_eq!(index.apply(destination_rule("late", "late")).services, services(&["shop"]).services);
    let gone = index.apply(Event::VirtualService(Change::Delete(key("api"))));
    assert_eq!(gone.services, services(&["shop"]).services);
    assert_eq!(index.apply(destination_rule("late", "mirror")).services, services(&["shop"]).services);
}

#[test]
fn a_root_touches_the_findings_of_its_delegates() {
    let mut index = delegating();
    let api = ObjectName::new(Kind::VirtualService, key("api"));
    index.apply(delegate("mirror"));
    assert_eq!(index.view().roots_of(&key("api")).count(), 1);
    let gone = index.apply(Event::VirtualService(Change::Delete(key("root"))));
    assert!(gone.objects.contains(&api), "{gone:?}");
    assert_eq!(index.view().roots_of(&key("api")).count(), 0);
    assert_eq!(index.apply(delegate("shop")).services, services(&[]).services);
}

#[test]
fn what_nobody_reads_touches_nothing() {
    let mut index = shop();
    index.apply(pod("shop", "v1", "Running"));
    index.apply(slice("shop", true));
    for event in
        [service("shop"), virtual_service("shop", "shop", "shop", "mirror"), pod("shop", "v1", "Running")]
    {
        assert!(index.apply(event).is_empty());
    }
    let mut labelled = meta("shop");
    labelled["labels"] = json!({"team": "a"});
    labelled["generation"] = json!(7);
    let spec = json!({"clusterIP": "10.96.0.1", "ports": [{"port": 80}]});
    let event = Event::Service(Change::Apply(parse(json!({"metadata": labelled, "spec": spec}))));
    assert!(index.apply(event).is_empty(), "a Service's labels and generation");
    let node = |ready: &str| {
        let status = json!({"conditions": [{"type": "Ready", "status": ready}]});
        Event::Node(Change::Apply(parse(json!({"metadata": {"name": "n"}, "status": status}))))
    };
    index.apply(node("True"));
    assert!(index.apply(node("Unknown")).is_empty(), "a Node's status");
}

#[test]
fn a_pod_touches_its_node_and_only_with_its_identity_its_services() {
    let mut index = shop();
    index.apply(slice("shop", true));
    let both =
        Dirty { backends: [key("shop")].into(), nodes: ["node-a".to_owned()].into(), ..Dirty::default() };
    let node = Dirty { nodes: ["node-a".to_owned()].into(), ..Dirty::default() };
    assert_eq!(index.apply(pod("shop", "v1", "Pending")), both);
    assert_eq!(index.apply(pod("shop", "v1", "Running")), node);
    assert_eq!(index.apply(pod("shop", "v2", "Running")), both);
    assert_eq!(index.apply(pod("stranger", "v2", "Running")), node);
    assert_eq!(index.apply(Event::Pod(Change::Relist(Vec::new()))), both, "a relist is one difference");
}

#[test]
fn pods_of_one_template_share_their_labels() {
    let mut index = Index::new();
    index.apply(pod("a", "v1", "Running"));
    index.apply(pod("b", "v1", "Running"));
    index.apply(pod("c", "v2", "Running"));
    let labels: Vec<_> = index.view().pods_on("node-a").map(|entry| &entry.labels).collect();
    assert!(std::sync::Arc::ptr_eq(labels[0], labels[1]) && labels[0] != labels[2]);
}

fn policy(name: &str, spec: Value) -> Event {
    Event::NetworkPolicy(Change::Apply(parse(json!({"metadata": meta(name), "spec": spec}))))
}

fn about(version: &str) -> Value {
    json!({"podSelector": {"matchLabels": {"version": version}}})
}

fn policed(names: &[&str]) -> Dirty {
    Dirty { policed: names.iter().map(|name| key(name)).collect(), ..Dirty::default() }
}

#[test]
fn a_policy_touches_the_services_of_the_pods_that_it_selects_or_no_longer_does() {
    let mut index = Index::new();
    for number in 0..1000 {
        let name = format!("s{number}");
        let version = if number < 2 { "v1" } else { "v2" };
        for event in [service(&name), slice(&name, true), pod(&name, version, "Running")] {
            index.apply(event);
        }
    }
    assert!(index.apply(policy("p", about("v3"))).is_empty(), "nobody's");
    assert_eq!(index.apply(policy("p", about("v1"))), policed(&["s0", "s1"]));
    assert!(index.apply(policy("p", about("v1"))).is_empty(), "again");
    assert_eq!(index.apply(policy("p", json!({"podSelector": {}}))).policed.len(), 998, "v1 stays selected");
    let elsewhere = json!({"metadata": {"namespace": "other", "name": "p"}, "spec": {"podSelector": {}}});
    assert!(index.apply(Event::NetworkPolicy(Change::Apply(parse(elsewhere)))).is_empty());
    assert_eq!(index.apply(policy("p", about("v1"))).policed.len(), 998);
    assert_eq!(index.apply(Event::NetworkPolicy(Change::Delete(key("p")))), policed(&["s0", "s1"]));
}

#[test]
fn a_policy_touches_services_whose_pods_to_come_it_may_select() {
    let mut index = Index::new();
    for app in ["a", "b"] {
        let spec = json!({"clusterIP": "10.96.0.1", "ports": [{"port": 80}], "selector": {"app": app}});
        index.apply(Event::Service(Change::Apply(parse(json!({"metadata": meta(app), "spec": spec})))));
    }
    let of_a = json!({"podSelector": {"matchLabels": {"app": "a", "version": "v1"}}});
    assert_eq!(index.apply(policy("p", of_a)), policed(&["a"]));
    let not_a =
        json!({"podSelector": {"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["a"]}]}});
    assert_eq!(index.apply(policy("p", not_a)), policed(&["a", "b"]), "the old one and the new one");
}

#[test]
fn policed_pods_touch_their_services_when_their_kind_comes_or_goes() {
    let mut index = shop();
    index.apply(policy("p", about("v1")));
    index.apply(slice("shop", true));
    let (backends, nodes) = ([key("shop")].into(), ["node-a".to_owned()].into());
    let both = Dirty { backends, nodes, ..policed(&["shop"]) };
    assert_eq!(index.apply(pod("shop", "v1", "Running")), both);
    let ready = Dirty { backends: [key("shop")].into(), ..Dirty::default() };
    assert_eq!(index.apply(slice("shop", false)), ready, "the same pods");
    assert!(index.apply(slice("shop", true)).endpoints_only());
    assert_eq!(index.apply(pod("shop", "v2", "Running")), both, "not any more");
    assert_eq!(index.apply(pod("shop", "v3", "Running")).policed, policed(&[]).policed);
    index.apply(pod("shop", "v1", "Running"));
    let gone = index.apply(Event::EndpointSlice(Change::Delete(key("shop-x"))));
    assert_eq!(gone, Dirty { backends: [key("shop")].into(), ..policed(&["shop"]) });
}

#[test]
fn an_egress_policy_touches_its_pods_nodes_and_the_first_one_all() {
    let mut index = shop();
    let node = |name: &str| Event::Node(Change::Apply(parse(json!({"metadata": {"name": name}}))));
    let out = |version: &str| json!({"podSelector": {"matchLabels": {"version": version}}, "policyTypes": ["Egress"]});
    for event in [node("node-a"), node("node-b"), pod("client", "v1", "Running")] {
        index.apply(event);
    }
    let all = ["node-a".to_owned(), "node-b".to_owned()];
    assert_eq!(
        index.apply(policy("p", out("v9"))),
        Dirty { nodes: all.clone().into(), ..services(&["shop"]) }
    );
    let one = Dirty { nodes: ["node-a".to_owned()].into(), ..Dirty::default() };
    assert_eq!(index.apply(policy("q", out("v1"))), one, "the node of the one pod that it selects");
    assert_eq!(index.apply(Event::NetworkPolicy(Change::Delete(key("q")))), one);
    let last = index.apply(Event::NetworkPolicy(Change::Delete(key("p"))));
    assert_eq!(last, Dirty { nodes: all.into(), ..services(&["shop"]) });
}

#[test]
fn complete_means_every_kind_was_listed() {
    let mut index = Index::new();
    let lists = [
        Event::VirtualService(Change::Relist(Vec::new())),
        Event::DestinationRule(Change::Relist(Vec::new())),
        Event::Service(Change::Relist(Vec::new())),
        Event::EndpointSlice(Change::Relist(Vec::new())),
        Event::Pod(Change::Relist(Vec::new())),
        Event::Node(Change::Relist(Vec::new())),
        Event::NetworkPolicy(Change::Relist(Vec::new())),
    ];
    for list in lists {
        assert!(!index.is_complete());
        assert!(index.apply(list).is_empty());
    }
    assert!(index.is_complete());
}

#[test]
fn problems_are_those_of_the_newest_version() {
    let mut index = Index::new();
    let names = [Kind::VirtualService, Kind::DestinationRule].map(|kind| ObjectName::new(kind, key("shop")));
    let said = |index: &Index| {
        let problems = names.iter().flat_map(|name| index.view().problems(name));
        problems.map(|problem| problem.path.clone()).collect::<Vec<_>>()
    };
    index.apply(virtual_service("shop", "shop", "*", "mirror"));
    index.apply(destination_rule("shop", "a_b"));
    assert_eq!(said(&index), ["spec.http[0].route[0].destination.host", "spec.host"]);
    index.apply(virtual_service("shop", "shop", "shop", "mirror"));
    index.apply(Event::DestinationRule(Change::Delete(key("shop"))));
    assert_eq!(said(&index), [""; 0]);
}
