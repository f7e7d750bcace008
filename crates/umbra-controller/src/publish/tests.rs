use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use umbra_compile::{ObjectRef, Reason};
use umbra_index::api::{DestinationRule, EndpointSlice, ObjectKey, Pod, Service, VirtualService};
use umbra_index::{Change as Of, ObjectName};
use umbra_routing::{BackendSet, Config, Resource, ServiceName, ServiceTable};

use super::publisher::{Change, Publisher};
use super::*;
use crate::metrics::PushKind;
use crate::push::tests::serve;
use crate::push::{Node, Nodes};
use crate::{Controller, Options};

mod hold;

const PATIENCE: Duration = Duration::from_secs(1);

fn meta(name: &str, generation: i64) -> Value {
    json!({"namespace": "default", "name": name, "uid": format!("{name}-uid"), "generation": generation,
        "creationTimestamp": "2026-11-22T10:00:00Z"})
}

fn read<T: serde::de::DeserializeOwned>(json: Value) -> T {
    serde_json::from_value(json).unwrap()
}

/// All requests to v1, and copies to v2.
fn virtual_service(name: &str, generation: i64, change: impl FnOnce(&mut Value)) -> VirtualService {
    let mut rule = json!({
        "route": [{"destination": {"host": name, "subset": "v1"}}],
        "mirror": {"host": name, "subset": "v2"},
    });
    change(&mut rule);
    read(json!({"metadata": meta(name, generation), "spec": {"hosts": [name], "http": [rule]}}))
}

fn destination_rule(name: &str) -> DestinationRule {
    let subset = |version: &str| json!({"name": version, "labels": {"version": version}});
    let spec = json!({"host": name, "subsets": [subset("v1"), subset("v2")]});
    read(json!({"metadata": meta(name, 1), "spec": spec}))
}

fn service(name: &str, number: usize) -> Service {
    let ip = format!("10.96.{}.{}", number / 250, number % 250 + 1);
    read(json!({"metadata": meta(name, 0), "spec": {
        "clusterIP": ip, "clusterIPs": [ip], "ports": [{"name": "http", "port": 80}], "selector": {"app": name}}}))
}

/// v1 has the pods in `ips`, all of them of version v1.
fn slice(name: &str, ips: &[&str]) -> EndpointSlice {
    let endpoint = |ip: &&str| {
        json!({"addresses": [ip], "conditions": {"ready": true},
            "targetRef": {"kind": "Pod", "namespace": "default", "name": format!("pod-{ip}"), "uid": format!("uid-{ip}")}})
    };
    let mut metadata = meta(name, 0);
    metadata["labels"] = json!({"kubernetes.io/service-name": name});
    read(json!({"metadata": metadata, "addressType": "IPv4",
        "endpoints": ips.iter().map(endpoint).collect::<Vec<_>>(), "ports": [{"name": "http", "port": 5000}]}))
}

fn pod(ip: &str) -> Pod {
    read(json!({
        "metadata": {"namespace": "default", "name": format!("pod-{ip}"), "uid": format!("uid-{ip}"),
            "labels": {"app": "sa-logic", "version": "v1"}},
        "spec": {"nodeName": "node2"}, "status": {"phase": "Running", "podIPs": [{"ip": ip}]}}))
}

fn vs(change: Of<VirtualService>) -> Input {
    Input::Event(Event::VirtualService(change))
}

fn dr(change: Of<DestinationRule>) -> Input {
    Input::Event(Event::DestinationRule(change))
}

/// The article's objects, each kind listed once.
fn article() -> Vec<Input> {
    let listed = [
        Event::Service(Of::Relist(vec![service("sa-logic", 0)])),
        Event::EndpointSlice(Of::Relist(vec![slice("sa-logic", &["10.0.0.1"])])),
        Event::Pod(Of::Relist(vec![pod("10.0.0.1"), pod("10.0.0.2")])),
        Event::Node(Of::Relist(Vec::new())),
        Event::DestinationRule(Of::Relist(vec![destination_rule("sa-logic")])),
        Event::VirtualService(Of::Relist(vec![virtual_service("sa-logic", 1, |_| {})])),
        Event::NetworkPolicy(Of::Relist(Vec::new())),
    ];
    listed.into_iter().map(Input::Event).collect()
}

fn tables(inputs: Vec<Input>) -> Publisher {
    let mut tables = Publisher::new(umbra_compile::Options::default(), PATIENCE, Arc::default());
    for input in inputs {
        tables.apply(input);
    }
    tables
}

fn key() -> ObjectKey {
    ObjectKey::new("default", "sa-logic")
}

fn vs_name() -> ObjectName {
    ObjectName::new(Kind::VirtualService, key())
}

fn config(published: &Published) -> Config {
    let mut config = Config::default();
    config.put(&published.snapshot.node("node1").put()).unwrap();
    config
}

fn table(published: &Published) -> Option<ServiceTable> {
    match config(published).get(&Key::Service(ServiceName::new("default", "sa-logic")))? {
        Resource::Service(table) => Some(table.clone()),
        _ => None,
    }
}

/// Addresses in the set of version v1.
fn v1(published: &Published) -> Vec<String> {
    let is_v1 = |set: &BackendSet| set.selector.get("version").is_some_and(|version| version == "v1");
    let sets = config(published);
    let mut sets = sets.iter().filter_map(|(_, resource)| match resource {
        Resource::Backends(set) if is_v1(set) => Some(set.clone()),
        _ => None,
    });
    sets.next().unwrap().endpoints.iter().map(|endpoint| endpoint.address.to_string()).collect()
}

fn unresolved(published: &Published) -> bool {
    table(published).expect("published").unresolved_primary().is_some()
}

#[test]
fn the_article_gives_a_table_and_its_endpoints() {
    let mut tables = tables(article());
    assert!(tables.is_complete());
    let published = tables.publish(Instant::now());
    assert!(!unresolved(&published));
    assert_eq!(v1(&published), ["10.0.0.1:5000"]);
    let state = &published.objects[&vs_name()];
    assert_eq!((state.version, state.object.generation, state.findings.len()), (1, 1, 0), "{state:?}");
    assert_eq!(state.services[&ServiceName::new("default", "sa-logic")], Part::Published);
}

#[test]
fn an_endpoint_makes_no_new_version_of_an_object() {
    let mut tables = tables(article());
    tables.publish(Instant::now());
    let change = tables
        .apply(Input::Event(Event::EndpointSlice(Of::Apply(slice("sa-logic", &["10.0.0.1", "10.0.0.2"])))));
    assert_eq!(change, Change::Endpoints);
    let published = tables.publish(Instant::now());
    assert_eq!(v1(&published), ["10.0.0.1:5000", "10.0.0.2:5000"]);
    assert_eq!((published.snapshot.version, published.objects[&vs_name()].version), (2, 1));
    tables.apply(vs(Of::Apply(virtual_service("sa-logic", 2, |rule| {
        rule["mirrorPercentage"] = json!({"value": 5})
    }))));
    let published = tables.publish(Instant::now());
    assert_eq!(published.objects[&vs_name()].version, 3);
}

#[test]
fn a_set_that_loses_its_last_endpoint_is_told_without_a_new_version() {
    let mut tables = tables(article());
    let empty = |published: &Published| {
        let state = &published.objects[&vs_name()];
        let subsets = state.empty.iter().map(|set| set.subset.clone().unwrap()).collect::<Vec<_>>();
        (subsets, state.version)
    };
    let published = tables.publish(Instant::now());
    assert_eq!(empty(&published), (vec!["v2".to_owned()], 1), "nobody is v2 in this world");
    let mut endpoints = |ips: &[&str]| {
        tables.apply(Input::Event(Event::EndpointSlice(Of::Apply(slice("sa-logic", ips)))));
        empty(&tables.publish(Instant::now()))
    };
    assert_eq!(endpoints(&[]), (vec!["v1".to_owned(), "v2".to_owned()], 1));
    assert_eq!(endpoints(&["10.0.0.2"]), (vec!["v2".to_owned()], 1));
}

#[test]
fn endpoints_that_nobody_uses_change_nothing() {
    let mut tables = tables(article());
    tables.publish(Instant::now());
    let churn = |ips: &[&str]| Input::Event(Event::EndpointSlice(Of::Apply(slice("other", ips))));
    assert_eq!(tables.apply(churn(&["10.0.0.7"])), Change::Nothing);
    // Governed later, it has what came meanwhile.
    tables.apply(Input::Event(Event::Service(Of::Apply(service("other", 1)))));
    let to_other = |rule: &mut Value| rule["route"][0]["destination"] = json!({"host": "other"});
    tables.apply(vs(Of::Apply(virtual_service("sa-logic", 2, to_other))));
    let published = config(&tables.publish(Instant::now()));
    let has = |address: &str| {
        published.iter().any(|(_, resource)| match resource {
            Resource::Backends(set) => set.endpoints.iter().any(|e| e.address.to_string() == address),
            _ => false,
        })
    };
    assert!(has("10.0.0.7:5000"));
    assert_eq!(tables.apply(churn(&["10.0.0.8"])), Change::Endpoints);
}

#[test]
fn the_halves_of_a_deletion_may_come_in_either_order() {
    let mut tables = tables(article());
    let start = Instant::now();
    tables.publish(start);
    tables.apply(dr(Of::Delete(key())));
    let published = tables.publish(start);
    assert!(!unresolved(&published), "the old table stays for now");
    assert_eq!(tables.wait_ends(), Some(start + PATIENCE));
    tables.apply(vs(Of::Delete(key())));
    let published = tables.publish(start + PATIENCE / 3);
    assert_eq!(table(&published), None);
    assert_eq!(tables.wait_ends(), None);
}

#[test]
fn a_primary_that_stays_unresolved_is_published_after_the_longest_wait() {
    let mut tables = tables(article());
    let start = Instant::now();
    tables.publish(start);
    tables.apply(vs(Of::Apply(virtual_service("sa-logic", 2, |rule| {
        rule["route"][0]["destination"]["subset"] = json!("v9");
    }))));
    let waiting = tables.publish(start);
    assert!(!unresolved(&waiting));
    assert_eq!(waiting.objects[&vs_name()].object.generation, 1, "nobody has generation 2 yet");
    // Something else is published meanwhile.
    tables.apply(Input::Event(Event::Pod(Of::Apply(pod("10.0.0.9")))));
    let waiting = tables.publish(start + PATIENCE / 2);
    assert_eq!(waiting.objects[&vs_name()].object.generation, 1);
    let published = tables.publish(start + PATIENCE);
    assert!(unresolved(&published));
    let state = &published.objects[&vs_name()];
    assert_eq!((state.object.generation, state.version), (2, published.snapshot.version));
    assert!(state.findings.iter().any(|finding| finding.condition.is_some()), "{:?}", state.findings);
    assert_eq!(tables.wait_ends(), None);
}

/// Nodes do not arm it the first time; but one that has it armed keeps it, whichever controller says so.
#[test]
fn a_fresh_controller_publishes_a_service_whose_primary_is_unresolved() {
    let mut inputs = article();
    inputs[4] = dr(Of::Relist(Vec::new()));
    let mut tables = tables(inputs);
    let published = tables.publish(Instant::now());
    assert!(unresolved(&published));
    assert_eq!(published.objects[&vs_name()].services.values().collect::<Vec<_>>(), [&Part::Published]);
    tables.apply(dr(Of::Apply(destination_rule("sa-logic"))));
    let published = tables.publish(Instant::now());
    assert!(!unresolved(&published));
}

#[test]
fn clients_of_one_namespace_are_waited_for_too_and_stop_nobody_else() {
    let mut tables = tables(article());
    let start = Instant::now();
    tables.publish(start);
    let mut theirs = destination_rule("all");
    theirs.metadata.namespace = "theirs".into();
    theirs.spec.host = "*.local".into();
    theirs.spec.subsets.clear();
    tables.apply(dr(Of::Apply(theirs)));
    tables.publish(start);
    assert_eq!(tables.wait_ends(), Some(start + PATIENCE));
    assert!(!unresolved(&tables.publish(start + PATIENCE)), "the default is as it was");
}

#[test]
fn a_hold_freezes_rules_follows_endpoints_and_ends_with_its_object() {
    let mut tables = tables(article());
    let before = table(&tables.publish(Instant::now())).unwrap();
    tables.apply(vs(Of::Apply(virtual_service("sa-logic", 2, |rule| rule["fault"] = json!({"abort": {}})))));
    let held = tables.publish(Instant::now());
    assert_eq!(table(&held).unwrap(), before);
    assert_eq!(held.objects[&vs_name()].services.values().collect::<Vec<_>>(), [&Part::Held]);
    tables.apply(Input::Event(Event::EndpointSlice(Of::Apply(slice("sa-logic", &["10.0.0.2"])))));
    assert_eq!(v1(&tables.publish(Instant::now())), ["10.0.0.2:5000"]);
    tables.apply(vs(Of::Delete(key())));
    assert_eq!(table(&tables.publish(Instant::now())), None);
}

fn policy(label: &str, value: &str) -> Input {
    let policy = json!({"metadata": {"namespace": "default", "name": "deny"},
        "spec": {"podSelector": {"matchLabels": {label: value}}}});
    Input::Event(Event::NetworkPolicy(Of::Apply(read(policy))))
}

fn no_policy() -> Input {
    Input::Event(Event::NetworkPolicy(Of::Delete(ObjectKey::new("default", "deny"))))
}

#[test]
fn a_policy_leaves_the_services_alone_whose_pods_it_selects_and_no_other_is_compiled() {
    let metrics = Arc::new(Metrics::default());
    let mut tables = Publisher::new(umbra_compile::Options::default(), PATIENCE, Arc::clone(&metrics));
    for input in article() {
        tables.apply(input);
    }
    tables.publish(Instant::now());
    let compiled = metrics.services_compiled.get();
    assert_eq!(tables.apply(policy("app", "other")), Change::Nothing);
    assert_eq!(tables.apply(policy("version", "v1")), Change::Config);
    let left = tables.publish(Instant::now());
    assert_eq!(metrics.services_compiled.get() - compiled, 1);
    let why = table(&left).unwrap().leave_alone.expect("it is policed");
    let name = ServiceName::new("default", "sa-logic");
    assert_eq!(*left.left_alone, BTreeSet::from([Key::Service(name.clone())]));
    assert_eq!(left.objects[&vs_name()].services[&name], Part::LeftAlone(why));
    let told = &left.objects[&vs_name()].findings;
    assert!(
        told.iter().any(|finding| finding.reason == Reason::NetworkPolicy && finding.condition.is_none())
    );

    // The newest rules are not in force; those in force name policed pods.
    let fault = virtual_service("sa-logic", 2, |rule| rule["fault"] = json!({"abort": {}}));
    tables.apply(vs(Of::Apply(fault)));
    let held = tables.publish(Instant::now());
    assert_eq!(table(&held), table(&left));
    assert_eq!(held.objects[&vs_name()].services[&name], Part::Held);
    assert_eq!(tables.apply(no_policy()), Change::Config);
    let free = tables.publish(Instant::now());
    assert_eq!(table(&free).unwrap().leave_alone, None);
    assert!(free.left_alone.is_empty());
}

#[test]
fn an_unreadable_object_keeps_its_last_value_until_it_is_deleted() {
    let mut tables = tables(article());
    let before = table(&tables.publish(Instant::now())).unwrap();
    let object =
        ObjectRef { kind: Kind::VirtualService, key: key(), uid: "sa-logic-uid".into(), generation: 2 };
    let unread = Undecodable { object, error: "hosts: not a list".into() };
    assert_eq!(tables.apply(Input::Undecodable(unread.clone())), Change::Config);
    assert_eq!(tables.apply(Input::Undecodable(unread.clone())), Change::Nothing, "the same again");
    let published = tables.publish(Instant::now());
    assert_eq!(table(&published).unwrap(), before);
    let state = &published.objects[&vs_name()];
    assert_eq!((state.object.generation, state.undecodable.as_deref()), (2, Some("hosts: not a list")));

    tables.apply(Input::Undecodables(Kind::VirtualService, vec![unread.clone()]));
    tables.apply(vs(Of::Relist(Vec::new())));
    assert_eq!(table(&tables.publish(Instant::now())).unwrap(), before, "a relist leaves it out");

    assert_eq!(tables.apply(vs(Of::Delete(key()))), Change::Config);
    let published = tables.publish(Instant::now());
    assert_eq!(table(&published), None);
    assert!(!published.objects.contains_key(&vs_name()));

    tables.apply(Input::Undecodable(unread));
    assert!(tables.publish(Instant::now()).objects.contains_key(&vs_name()), "it never was readable");
    assert_eq!(tables.apply(vs(Of::Delete(key()))), Change::Config);
    assert!(!tables.publish(Instant::now()).objects.contains_key(&vs_name()));
}

#[tokio::test(start_paused = true)]
async fn nothing_before_all_is_listed_then_at_once_then_gathered() {
    let (send, inputs) = mpsc::channel(64);
    let (publish, mut published) = watch::channel(None);
    let stop = CancellationToken::new();
    let windows = Windows::default();
    let (_recover, recovered) = mpsc::channel(1);
    let run = tokio::spawn(run(
        inputs,
        recovered,
        publish,
        umbra_compile::Options::default(),
        windows,
        Arc::default(),
        stop.clone(),
    ));
    let start = Instant::now();
    let mut all = article();
    let last = all.pop().unwrap();
    for input in all {
        send.send(input).await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(published.borrow().is_none(), "one kind is missing");
    let listed = Instant::now();
    send.send(last).await.unwrap();
    published.changed().await.unwrap();
    assert!(listed.elapsed() < Duration::from_millis(5), "{:?}", listed.elapsed());

    // Within the quiet time: gathered into one snapshot.
    let first = Instant::now();
    for generation in 2..5 {
        let change = |rule: &mut Value| rule["mirrorPercentage"] = json!({"value": generation});
        send.send(vs(Of::Apply(virtual_service("sa-logic", generation, change)))).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    published.changed().await.unwrap();
    let waited = first.elapsed();
    assert!(waited >= windows.config.quiet && waited < windows.config.longest, "{waited:?}");
    assert_eq!(published.borrow_and_update().as_ref().unwrap().snapshot.version, 2);
    assert!(start.elapsed() > Duration::from_secs(60));
    stop.cancel();
    run.await.unwrap();
}

#[tokio::test]
async fn a_world_without_objects_is_published_too() {
    let (send, inputs) = mpsc::channel(64);
    let (publish, mut published) = watch::channel(None);
    let stop = CancellationToken::new();
    let (options, windows) = (umbra_compile::Options::default(), Windows::default());
    let (_recover, recovered) = mpsc::channel(1);
    let run = tokio::spawn(run(inputs, recovered, publish, options, windows, Arc::default(), stop.clone()));
    for empty in [
        Event::Service(Of::Relist(Vec::new())),
        Event::EndpointSlice(Of::Relist(Vec::new())),
        Event::Pod(Of::Relist(Vec::new())),
        Event::Node(Of::Relist(Vec::new())),
        Event::NetworkPolicy(Of::Relist(Vec::new())),
        Event::DestinationRule(Of::Relist(Vec::new())),
        Event::VirtualService(Of::Relist(Vec::new())),
    ] {
        send.send(Input::Event(empty)).await.unwrap();
    }
    let first = tokio::time::timeout(Duration::from_secs(60), published.wait_for(Option::is_some)).await;
    assert_eq!(first.expect("published").unwrap().as_ref().unwrap().snapshot.version, 1);
    stop.cancel();
    run.await.unwrap();
}

const SERVICES: usize = 1000;

fn numbered(n: usize) -> String {
    format!("svc-{n}")
}

fn numbered_ips(n: usize) -> [String; 2] {
    [1, 2].map(|pod| format!("10.{pod}.{}.{}", n / 250, n % 250 + 1))
}

/// A thousand governed services with two pods each.
fn thousand() -> Vec<Input> {
    let all = || 0..SERVICES;
    let slice_of = |n: usize| {
        let [first, second] = numbered_ips(n);
        slice(&numbered(n), &[&first, &second])
    };
    let listed = [
        Event::Service(Of::Relist(all().map(|n| service(&numbered(n), n)).collect())),
        Event::EndpointSlice(Of::Relist(all().map(slice_of).collect())),
        Event::Pod(Of::Relist(all().flat_map(numbered_ips).map(|ip| pod(&ip)).collect())),
        Event::Node(Of::Relist(Vec::new())),
        Event::NetworkPolicy(Of::Relist(Vec::new())),
        Event::DestinationRule(Of::Relist(all().map(|n| destination_rule(&numbered(n))).collect())),
        Event::VirtualService(Of::Relist(all().map(|n| virtual_service(&numbered(n), 1, |_| {})).collect())),
    ];
    listed.into_iter().map(Input::Event).collect()
}

/// What one endpoint's change costs in a cluster of a thousand governed services and two nodes.
#[tokio::test]
async fn an_endpoint_of_a_thousand_services_travels_alone() {
    let (send, inputs) = mpsc::channel(64);
    let mut fakes = BTreeMap::new();
    let mut live = BTreeMap::new();
    for name in ["node1", "node2"] {
        let (fake, address, _) = serve().await;
        fakes.insert(name, fake);
        live.insert(name.to_owned(), Node { name: name.into(), address, uid: String::new() });
    }
    let (_nodes, live) = watch::channel::<Nodes>(Some(live));
    let metrics = Arc::new(Metrics::default());
    let mut controller = Controller::start(Options::default(), Arc::clone(&metrics), inputs, live);
    for input in thousand() {
        send.send(input).await.unwrap();
    }
    settled(&mut controller, SERVICES).await;
    let compiled = metrics.services_compiled.get();
    let pushed = |node: &str| [PushKind::put, PushKind::patch].map(|kind| metrics.pushes_ok(node, kind));
    let before: BTreeMap<_, _> = fakes.keys().map(|node| (*node, pushed(node))).collect();

    let version = controller.published.borrow().as_ref().unwrap().snapshot.version;
    let fewer = slice(&numbered(7), &[&numbered_ips(7)[0]]);
    send.send(Input::Event(Event::EndpointSlice(Of::Apply(fewer)))).await.unwrap();
    controller.acks.wait_for(|acks| acks.values().all(|ack| ack.version > Some(version))).await.unwrap();

    assert_eq!(metrics.services_compiled.get() - compiled, 1);
    let newest = controller.published.borrow().clone().unwrap();
    for (node, fake) in &fakes {
        let [puts, patches] = before[node];
        assert_eq!(pushed(node), [puts, patches + 1], "{node}");
        let fake = fake.lock().unwrap();
        assert!(
            fake.patch_bytes < 1500,
            "{} bytes, and heads and TLS need some of the 2 KB",
            fake.patch_bytes
        );
        assert_eq!(fake.config.digest(), newest.snapshot.node(node).digest());
    }
    controller.stop().await.unwrap();
}

/// Every node has acknowledged a snapshot with that many services.
async fn settled(controller: &mut Controller, services: usize) {
    let all = |published: &Option<Arc<Published>>| {
        published.as_ref().is_some_and(|published| published.services().count() == services)
    };
    let version = controller.published.wait_for(all).await.unwrap().as_ref().unwrap().snapshot.version;
    controller.acks.wait_for(|acks| acks.values().all(|ack| ack.version >= Some(version))).await.unwrap();
}
