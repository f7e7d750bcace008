//! A delta applied to its base is the full push.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use proptest::prelude::*;
use umbra_routing::{
    BackendRef, BackendSet, Client, Config, ConfigError, Encoded, Endpoint, Key, NodeSettings, NodeView,
    Patch, Port, Protocol, Put, Resource, Rule, ServiceName, ServiceTable, Snapshot, Variant,
    WeightedBackend,
};

const NODE: &str = "node-a";

fn service(number: u8) -> ServiceName {
    ServiceName::new("default", format!("s{number}"))
}

fn table(number: u8, weight: u32) -> ServiceTable {
    let backend = BackendRef::all(service(number), 80);
    let rule = Rule {
        name: "http[0]".into(),
        matches: Vec::new(),
        destinations: vec![WeightedBackend { weight, backend }],
        mirrors: Vec::new(),
    };
    let variants = vec![Variant { client_namespace: None, rules: vec![rule] }];
    let port = Port { number: 80, protocol: Protocol::Http, variants };
    ServiceTable {
        service: service(number),
        addresses: vec![IpAddr::V4(Ipv4Addr::new(10, 96, 0, number))],
        ports: vec![port],
        leave_alone: None,
        rules_of: BTreeSet::new(),
    }
}

fn endpoint(number: u8, version: u8) -> Endpoint {
    Endpoint {
        address: SocketAddr::from(([10, 0, 0, number], 5000)),
        pod: Some(format!("pod-{number}")),
        namespace: "default".into(),
        workload: "w".into(),
        app: "a".into(),
        version: format!("v{version}"),
        canonical_name: "a".into(),
        canonical_revision: format!("v{version}"),
        zone: None,
    }
}

fn set(number: u8, endpoints: &BTreeMap<u8, u8>) -> (Key, Arc<Encoded>) {
    let key = BackendRef::all(service(number), 80).key().expect("a resolved destination");
    let endpoints = endpoints.iter().map(|(number, version)| endpoint(*number, *version)).collect();
    let set = BackendSet { service: service(number), port: 80, selector: BTreeMap::new(), endpoints };
    Encoded::backends(key, &set)
}

fn client(number: u8, version: u8) -> (Key, Arc<Encoded>) {
    let client = Client {
        pod: format!("pod-{number}"),
        namespace: "default".into(),
        workload: "w".into(),
        app: "a".into(),
        version: format!("v{version}"),
        canonical_name: "a".into(),
        canonical_revision: "latest".into(),
        labels: BTreeMap::new(),
        skip: false,
    };
    Encoded::client(IpAddr::V4(Ipv4Addr::new(10, 0, 0, number)), &client)
}

fn small_maps() -> impl Strategy<Value = BTreeMap<u8, u8>> {
    prop::collection::btree_map(0..5_u8, 0..3_u8, 0..5)
}

prop_compose! {
    fn snapshots()(
        tables in small_maps(),
        sets in prop::collection::btree_map(0..4_u8, small_maps(), 0..4),
        clients in small_maps(),
        cidrs in prop::option::of(0..3_u8),
    ) -> NodeView {
        let tables = tables.iter().map(|(number, weight)| Encoded::service(&table(*number, u32::from(*weight))));
        let sets = sets.iter().map(|(number, endpoints)| set(*number, endpoints));
        let settings = cidrs.map(|number| NodeSettings { pod_cidrs: vec![format!("10.{number}.0.0/16")], known_pods_only: false });
        let own = clients.iter().map(|(number, version)| client(*number, *version));
        let own = own.chain(settings.as_ref().map(Encoded::node)).collect();
        let nodes = BTreeMap::from([(NODE.to_owned(), Arc::new(own))]);
        Snapshot { version: 1, shared: Arc::new(tables.chain(sets).collect()), nodes }.node(NODE)
    }
}

/// Over the wire and back, as text.
fn put(view: &NodeView) -> Put {
    let text = serde_json::to_string(&view.put()).expect("resources are JSON");
    serde_json::from_str(&text).expect("the same text")
}

fn patch(from: &NodeView, to: &NodeView) -> Patch {
    let text = serde_json::to_string(&to.patch_from(from)).expect("resources are JSON");
    serde_json::from_str(&text).expect("the same text")
}

fn contents(config: &Config) -> Vec<(Key, Resource)> {
    config.iter().map(|(key, resource)| (key.clone(), resource.clone())).collect()
}

fn config(view: &NodeView) -> Config {
    let mut config = Config::default();
    config.put(&put(view)).expect("a snapshot's own resources");
    config
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn a_delta_on_its_base_is_the_full_push(views in prop::collection::vec(snapshots(), 2..5)) {
        let mut node = config(&views[0]);
        prop_assert_eq!(node.digest(), views[0].digest());
        for step in views.windows(2) {
            let before = contents(&node);
            let applied = node.patch(&patch(&step[0], &step[1])).expect("a delta on its own base");
            let full = config(&step[1]);
            prop_assert_eq!(contents(&node), contents(&full));
            prop_assert_eq!(node.digest(), step[1].digest());
            prop_assert_eq!(full.digest(), step[1].digest());
            let differs: std::collections::BTreeSet<Key> = before.iter().chain(&contents(&node))
                .filter(|(key, resource)| {
                    !(before.contains(&(key.clone(), resource.clone())) && node.get(key) == Some(resource))
                })
                .map(|(key, _)| key.clone()).collect();
            prop_assert_eq!(&applied.changed, &differs);
        }
    }

    #[test]
    fn a_full_push_names_what_it_changed(from in snapshots(), to in snapshots()) {
        let (mut by_put, mut by_patch) = (config(&from), config(&from));
        let put = by_put.put(&put(&to)).expect("a snapshot's own resources");
        let patched = by_patch.patch(&patch(&from, &to)).expect("a delta on its own base");
        prop_assert_eq!(put, patched);
        prop_assert_eq!(contents(&by_put), contents(&by_patch));
    }

    #[test]
    fn another_base_changes_nothing(from in snapshots(), to in snapshots(), here in snapshots()) {
        prop_assume!(here.digest() != from.digest());
        let mut node = config(&here);
        let before = contents(&node);
        let refused = node.patch(&patch(&from, &to));
        let is_base = matches!(refused, Err(ConfigError::Base { base, have }) if base == from.digest() && have == here.digest());
        prop_assert!(is_base);
        prop_assert_eq!((contents(&node), node.digest()), (before, here.digest()));
    }
}

fn view_of(resources: impl IntoIterator<Item = (Key, Arc<Encoded>)>) -> NodeView {
    Snapshot { version: 1, shared: Arc::new(resources.into_iter().collect()), nodes: BTreeMap::new() }
        .node(NODE)
}

#[test]
fn one_endpoint_travels_alone() {
    let many: BTreeMap<u8, u8> = (0..250).map(|number| (number, 0)).collect();
    let mut fewer = many.clone();
    fewer.remove(&7);
    fewer.insert(9, 1);
    let before = view_of([Encoded::service(&table(1, 1)), set(1, &many), set(2, &many)]);
    let after = view_of([Encoded::service(&table(1, 1)), set(1, &fewer), set(2, &many)]);
    let delta = after.patch_from(&before);
    assert_eq!((delta.upsert.len(), delta.remove.len(), delta.patch.len()), (0, 0, 1));
    let text = serde_json::to_string(&delta).expect("resources are JSON");
    assert!(text.len() < 2048, "{} bytes: {text}", text.len());
    let nothing = after.patch_from(&after);
    assert!(nothing.upsert.is_empty() && nothing.remove.is_empty() && nothing.patch.is_empty());
}

#[test]
fn a_push_that_does_not_decode_changes_nothing() {
    let view = view_of([Encoded::service(&table(1, 1)), set(1, &BTreeMap::from([(1, 1)]))]);
    let mut node = config(&view);
    let before = contents(&node);
    let good = set(1, &BTreeMap::new()).0;
    let patches = [
        format!(r#"{{"base":"{}","upsert":{{"service/a/b":{{"ports":1}}}}}}"#, view.digest()),
        format!(r#"{{"base":"{}","remove":["node"],"patch":{{"{good}":{{"add":[{{}}]}}}}}}"#, view.digest()),
        format!(r#"{{"base":"{}","patch":{{"{good}":{{"remove":["10.9.9.9:1"]}}}}}}"#, view.digest()),
        format!(
            r#"{{"base":"{}","patch":{{"service/default/s1":{{"remove":["10.9.9.9:1"]}}}}}}"#,
            view.digest()
        ),
        format!(r#"{{"base":"{}","patch":{{"backends/1":{{}}}}}}"#, view.digest()),
    ];
    for text in patches {
        let patch: Patch = serde_json::from_str(&text).expect("a patch by its form");
        assert!(node.patch(&patch).is_err(), "{text}");
        assert_eq!((contents(&node), node.digest()), (before.clone(), view.digest()), "{text}");
    }
    let put: Put =
        serde_json::from_str(r#"{"resources":{"node":{"podCidrs":7}}}"#).expect("a put by its form");
    let error = node.put(&put).expect_err("podCidrs is a list").to_string();
    assert!(error.starts_with("node: invalid type"), "{error}");
    assert_eq!(contents(&node), before);
}

#[test]
fn a_value_under_the_key_of_another_and_two_changes_of_one_key_are_refused() {
    let (good, encoded) = set(1, &BTreeMap::from([(1, 1)]));
    let view = view_of([Encoded::service(&table(1, 1)), (good.clone(), encoded)]);
    let sent = view.put().resources;
    let (table, set) = (&sent[&Key::Service(service(1))], &sent[&good]);
    let elsewhere = BackendRef::all(service(2), 80).key().expect("a resolved destination");
    let base = view.digest();
    let cases = [
        (
            format!(r#"{{"base":"{base}","upsert":{{"service/default/s2":{table}}}}}"#),
            "service/default/s2: the table is that of default/s1".to_owned(),
        ),
        (
            format!(r#"{{"base":"{base}","upsert":{{"{elsewhere}":{set}}}}}"#),
            format!("{elsewhere}: the backend set is that of key {good}"),
        ),
        (
            format!(r#"{{"base":"{base}","upsert":{{"{good}":{set}}},"patch":{{"{good}":{{}}}}}}"#),
            format!("{good}: patched, and replaced or removed by the same push"),
        ),
    ];
    for (text, says) in cases {
        let mut node = config(&view);
        let patch: Patch = serde_json::from_str(&text).expect("a patch by its form");
        assert_eq!(node.patch(&patch).expect_err(&text).to_string(), says);
        assert_eq!(node.digest(), base);
    }
}

#[test]
fn fields_of_later_versions_are_ignored_and_hashed_as_sent() {
    let mut node = Config::default();
    let put: Put =
        serde_json::from_str(r#"{"resources":{"node":{"podCidrs":[],"later":1}}}"#).expect("a put");
    node.put(&put).expect("unknown fields are no error");
    let plain: Put = serde_json::from_str(r#"{"resources":{"node":{"podCidrs":[]}}}"#).expect("a put");
    let with_later = node.digest();
    node.put(&plain).expect("plain");
    assert_ne!(node.digest(), with_later);
}
