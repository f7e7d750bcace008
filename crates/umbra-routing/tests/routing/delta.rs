//! A delta applied to its base is the full push.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use proptest::prelude::*;
use umbra_routing::{
    BackendRef, BackendSet, Client, Config, ConfigError, Encoded, Endpoint, Holds, Key, NodeSettings,
    NodeView, Patch, Port, Protocol, Put, Resource, Rule, ServiceName, ServiceTable, Snapshot, SpokenTo,
    Variant, WeightedBackend,
};

const NODE: &str = "node-a";

fn service(number: u8) -> ServiceName {
    ServiceName::new("default", format!("s{number}"))
}

fn table(number: u8, weight: u32) -> ServiceTable {
    let backend = BackendRef::all(service(number), 80);
    let rule = Rule {
        name: "http[0]".into(),
        destinations: vec![WeightedBackend::new(weight, backend)],
        ..Rule::default()
    };
    let variants = vec![Variant { client_namespace: None, rules: vec![rule] }];
    let port = Port { number: 80, protocol: Protocol::Http, variants };
    ServiceTable {
        service: service(number),
        addresses: vec![IpAddr::V4(Ipv4Addr::new(10, 96, 0, number))],
        ports: vec![port],
        leave_alone: None,
        rules_of: BTreeSet::from([uid(weight)]),
    }
}

/// Of the object that gives a table its weight.
fn uid(weight: u32) -> String {
    format!("u{weight}")
}

fn holds<'a>(held: impl IntoIterator<Item = (&'a u8, &'a u8)>) -> Holds {
    let held = held.into_iter();
    held.map(|(number, of)| (Key::Service(service(*number)), BTreeSet::from([uid(u32::from(*of))]))).collect()
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
    // Sets differ in what is spoken, too.
    let spoken_to = if endpoints.contains_key(&4) { SpokenTo::Http2 } else { SpokenTo::Http1 };
    let endpoints = endpoints.iter().map(|(number, version)| endpoint(*number, *version)).collect();
    let set =
        BackendSet { service: service(number), port: 80, selector: BTreeMap::new(), spoken_to, endpoints };
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
        held in small_maps(),
    ) -> NodeView {
        let held = held.iter().filter(|(number, _)| !tables.contains_key(number));
        let hold = Arc::new(holds(held));
        let tables = tables.iter().map(|(number, weight)| Encoded::service(&table(*number, u32::from(*weight))));
        let sets = sets.iter().map(|(number, endpoints)| set(*number, endpoints));
        let settings = cidrs.map(|number| NodeSettings { pod_cidrs: vec![format!("10.{number}.0.0/16")], known_pods_only: false });
        let own = clients.iter().map(|(number, version)| client(*number, *version));
        let own = own.chain(settings.as_ref().map(Encoded::node)).collect();
        let nodes = BTreeMap::from([(NODE.to_owned(), Arc::new(own))]);
        Snapshot { version: 1, shared: Arc::new(tables.chain(sets).collect()), nodes, hold }.node(NODE)
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

/// What a node has after a push of `view`, said in other words than the code's: all that is sent, the held tables
/// that were in force before, and the sets that these name and that were there before.
fn expected(before: &[(Key, Resource)], view: &NodeView) -> Vec<(Key, Resource)> {
    let mut all: BTreeMap<Key, Resource> = contents(&config(view)).into_iter().collect();
    for (key, uids) in view.put().hold {
        let Some((_, Resource::Service(table))) = before.iter().find(|(k, _)| *k == key) else { continue };
        if table.rules_of.iter().any(|uid| uids.contains(uid)) {
            let named: Vec<Key> = table.backends().filter_map(BackendRef::key).collect();
            let sets = before.iter().filter(|(key, _)| named.contains(key));
            for (key, set) in sets {
                all.entry(key.clone()).or_insert(set.clone());
            }
            all.insert(key, Resource::Service(table.clone()));
        }
    }
    all.into_iter().collect()
}

fn differing(before: &[(Key, Resource)], node: &Config) -> BTreeSet<Key> {
    let after = contents(node);
    let all = before.iter().chain(&after);
    all.filter(|one| !(before.contains(one) && after.contains(one))).map(|(key, _)| key.clone()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

    #[test]
    fn a_delta_on_its_base_is_the_full_push(views in prop::collection::vec(snapshots(), 2..6)) {
        let (mut by_put, mut by_patch) = (config(&views[0]), config(&views[0]));
        prop_assert_eq!(by_patch.digest(), views[0].digest());
        for step in views.windows(2) {
            let before = contents(&by_patch);
            let applied = by_patch.patch(&patch(&step[0], &step[1])).expect("a delta on its own base");
            let put = by_put.put(&put(&step[1])).expect("a snapshot's own resources");
            prop_assert_eq!(contents(&by_patch), expected(&before, &step[1]));
            prop_assert_eq!(contents(&by_put), contents(&by_patch));
            prop_assert_eq!(by_patch.digest(), step[1].digest());
            prop_assert_eq!(by_put.digest(), step[1].digest());
            prop_assert_eq!(&applied.changed, &differing(&before, &by_patch));
            prop_assert_eq!(applied, put);
            let held: Vec<Key> = by_patch.held().map(|(key, _)| key.clone()).collect();
            let wanted = step[1].put().hold;
            prop_assert!(held.iter().all(|key| wanted.contains_key(key)), "{:?}", held);
        }
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
    view_holding(resources, &[])
}

fn view_holding(resources: impl IntoIterator<Item = (Key, Arc<Encoded>)>, held: &[(u8, u8)]) -> NodeView {
    let shared = Arc::new(resources.into_iter().collect());
    let hold = Arc::new(holds(held.iter().map(|(number, of)| (number, of))));
    Snapshot { version: 1, shared, nodes: BTreeMap::new(), hold }.node(NODE)
}

/// Keys in force, those that are held marked.
fn in_force(node: &Config) -> Vec<String> {
    let held: BTreeSet<&Key> = node.held().map(|(key, _)| key).collect();
    let kinds = node.iter().map(|(key, _)| match key {
        Key::Service(service) => service.name.clone(),
        _ => "set".into(),
    });
    node.iter()
        .zip(kinds)
        .map(|((key, _), kind)| if held.contains(key) { kind + "!" } else { kind })
        .collect()
}

#[test]
fn a_held_table_stays_with_its_sets_outside_the_digest_until_it_is_let_go_or_sent() {
    let one = || [Encoded::service(&table(1, 7)), set(1, &BTreeMap::from([(1, 1)]))];
    let two = || [Encoded::service(&table(2, 1)), set(2, &BTreeMap::new())];
    let before = view_of(one().into_iter().chain(two()));
    let holding = view_holding(two(), &[(1, 7)]);
    let mut node = config(&before);
    let full = contents(&node);
    assert!(
        node.patch(&patch(&before, &holding)).expect("its own base").changed.is_empty(),
        "nothing differs"
    );
    assert_eq!((contents(&node), node.digest()), (full, holding.digest()));
    assert_eq!(in_force(&node), ["s1!", "s2", "set", "set"]);
    // Once more, as a new controller would: nothing changes.
    assert!(node.put(&put(&holding)).expect("a put").changed.is_empty());
    assert_eq!(in_force(&node), ["s1!", "s2", "set", "set"]);
    // The hold ends and nothing else changes: equal digests, but not the same.
    let without = view_of(two());
    assert!(without.digest() == holding.digest() && !without.is_same(&holding));
    let mut let_go = config(&before);
    let_go.put(&put(&holding)).expect("a put");
    let gone = let_go.patch(&patch(&holding, &without)).expect("its own base").changed;
    assert_eq!((in_force(&let_go), gone.len()), (vec!["s2".to_owned(), "set".to_owned()], 2));
    // Its rules are found: sent, it is a resource as any other.
    let found = view_of(one().into_iter().chain(two()));
    assert!(node.patch(&patch(&holding, &found)).expect("its own base").changed.is_empty());
    assert_eq!(
        (in_force(&node), node.digest()),
        (vec!["s1".into(), "s2".into(), "set".into(), "set".into()], found.digest())
    );
}

#[test]
fn rules_of_another_object_are_not_held_and_a_fresh_node_has_nothing() {
    let before = view_of([Encoded::service(&table(1, 7)), set(1, &BTreeMap::new())]);
    let holding = view_holding([], &[(1, 8)]);
    let mut node = config(&before);
    node.patch(&patch(&before, &holding)).expect("its own base");
    assert_eq!(in_force(&node), [""; 0]);
    // A held one goes too when the hold passes to another object.
    let mut node = config(&before);
    let first = view_holding([], &[(1, 7)]);
    node.put(&put(&first)).expect("a put");
    assert_eq!(in_force(&node), ["s1!", "set"]);
    node.patch(&patch(&first, &holding)).expect("its own base");
    assert_eq!(in_force(&node), [""; 0]);
}

#[test]
fn what_cannot_be_held_is_refused_and_changes_nothing() {
    let view = view_of([Encoded::service(&table(1, 7)), set(1, &BTreeMap::new())]);
    let table = &view.put().resources[&Key::Service(service(1))];
    let base = view.digest();
    for (text, says) in [
        (format!(r#"{{"base":"{base}","hold":{{"node":["u7"]}}}}"#), "node: held, and not a service"),
        (
            format!(
                r#"{{"base":"{base}","upsert":{{"service/default/s1":{table}}},"hold":{{"service/default/s1":["u7"]}}}}"#
            ),
            "service/default/s1: sent, and held by the same push",
        ),
    ] {
        let mut node = config(&view);
        let before = contents(&node);
        let patch: Patch = serde_json::from_str(&text).expect("a patch by its form");
        assert_eq!(node.patch(&patch).expect_err(&text).to_string(), says);
        assert_eq!((contents(&node), node.digest()), (before, base));
    }
    // Endpoints of a set that is only kept are nobody's business.
    let holding = view_holding([], &[(1, 7)]);
    let mut node = config(&view);
    node.put(&put(&holding)).expect("a put");
    let kept = set(1, &BTreeMap::new()).0;
    let text = format!(
        r#"{{"base":"{}","patch":{{"{kept}":{{}}}},"hold":{{"service/default/s1":["u7"]}}}}"#,
        holding.digest()
    );
    let patch: Patch = serde_json::from_str(&text).expect("a patch by its form");
    assert_eq!(node.patch(&patch).expect_err(&text).to_string(), format!("{kept}: no such backend set here"));
    assert_eq!(in_force(&node), ["s1!", "set"]);
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
