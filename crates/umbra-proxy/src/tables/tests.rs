use serde_json::value::to_raw_value;
use umbra_routing::{Port, Protocol, Put, Rule, Variant, WeightedBackend};

use super::*;

fn table(name: &str, namespace: &str, address: Option<&str>) -> ServiceTable {
    let service = ServiceName::new(namespace, name);
    let backend = BackendRef::all(service.clone(), 80);
    let rule = Rule {
        name: "http[0]".into(),
        destinations: vec![WeightedBackend::new(0, backend)],
        ..Rule::default()
    };
    ServiceTable {
        service,
        addresses: address.into_iter().map(|ip| ip.parse().expect("an address")).collect(),
        ports: vec![Port {
            number: 80,
            protocol: Protocol::Http,
            variants: vec![Variant { client_namespace: None, rules: vec![rule] }],
        }],
        leave_alone: None,
        rules_of: BTreeSet::new(),
    }
}

fn pushed(config: &mut Config, tables: &Tables, services: &[ServiceTable]) -> Vec<RefusedKey> {
    let resources = services
        .iter()
        .map(|table| (Key::Service(table.service.clone()), to_raw_value(table).expect("plain data")))
        .collect();
    let applied = config.put(&Put { resources, ..Put::default() }).expect("well-formed");
    tables.apply(config, &applied)
}

#[test]
fn a_host_names_a_service_by_any_of_its_names() {
    let (mut config, tables) = (Config::default(), Tables::new(Metrics::new()));
    let services = [table("web", "default", None), table("web", "shop", None), table("pay", "shop", None)];
    assert_eq!(pushed(&mut config, &tables, &services), []);
    let named = |host: &str| tables.by_host(host).map(|governed| governed.service.to_string());
    for host in ["web", "WEB:8080", "web.default", "web.default.svc", "web.default.svc.cluster.local."] {
        assert_eq!(named(host).as_deref(), Some("default/web"), "{host}");
    }
    assert_eq!(named("pay").as_deref(), Some("shop/pay"), "the only one of that name");
    assert_eq!(named("web.shop").as_deref(), Some("shop/web"));
    assert_eq!(named("pay.default"), None);
    assert_eq!(named("web.default.example.com"), None);
}

#[test]
fn a_table_that_went_serves_what_is_on_its_way_then_is_forgotten() {
    let (mut config, tables) = (Config::default(), Tables::new(Metrics::new()));
    pushed(&mut config, &tables, &[table("web", "default", Some("10.0.0.1"))]);
    let at = "10.0.0.1:80".parse().expect("an address");
    assert!(tables.by_address(at).expect("governed").is_in_force());
    pushed(&mut config, &tables, &[]);
    assert!(!tables.by_address(at).expect("serves what is on its way").is_in_force());
    tables.forget_retired(Instant::now() + RETIRED_SERVES);
    assert!(tables.by_address(at).is_none());
}

#[test]
fn a_workers_housekeeping_does_not_wait_for_a_push() {
    let (mut config, tables) = (Config::default(), Tables::new(Metrics::new()));
    pushed(&mut config, &tables, &[table("web", "default", Some("10.0.0.1"))]);
    pushed(&mut config, &tables, &[]);
    let (ticked, waits) = std::sync::mpsc::channel();
    let building = tables.building();
    let of_worker = Arc::clone(&tables);
    std::thread::spawn(move || {
        let options = crate::worker::Options {
            listen: ([127, 0, 0, 1], 0).into(),
            workers: 1,
            mode: crate::listen::Mode::ByHost,
            limits: crate::worker::Limits::default(),
            shadow_mark: None,
            seed: None,
        };
        let (_phase, phase) = watch::channel(crate::worker::Phase::Serving);
        crate::connection::Worker::new(options, of_worker, Metrics::new(), Default::default(), phase, 1)
            .tick(Duration::ZERO);
        ticked.send(()).expect("the test waits");
    });
    waits.recv_timeout(Duration::from_secs(20)).expect("a tick while a push is being built");
    drop(building);
}

#[test]
fn a_new_cluster_ip_replaces_the_old_one_and_connections_see_new_rules() {
    let (mut config, tables) = (Config::default(), Tables::new(Metrics::new()));
    pushed(&mut config, &tables, &[table("web", "default", Some("10.0.0.1"))]);
    let held = tables.by_address("10.0.0.1:80".parse().expect("an address")).expect("governed");
    pushed(&mut config, &tables, &[table("web", "default", Some("fd00::1"))]);
    let old = "10.0.0.1:80".parse().expect("an address");
    assert!(Arc::ptr_eq(&held, &tables.by_address(old).expect("serves what is on its way")));
    tables.forget_retired(Instant::now() + RETIRED_SERVES);
    assert!(tables.by_address(old).is_none());
    let now = tables.by_address("[fd00::1]:80".parse().expect("an address")).expect("governed");
    assert!(Arc::ptr_eq(&held, &now), "an open connection follows its service");
}

#[test]
fn an_address_that_changes_hands_is_its_new_owners() {
    let addresses =
        |a: &'static str, b: &'static str| [table("a", "default", Some(a)), table("b", "default", Some(b))];
    let (mut config, tables) = (Config::default(), Tables::new(Metrics::new()));
    pushed(&mut config, &tables, &addresses("10.0.0.1", "10.0.0.2"));
    pushed(&mut config, &tables, &addresses("10.0.0.2", "10.0.0.1"));
    let at = |address: &str| {
        let governed = tables.by_address(address.parse().expect("an address")).expect("governed");
        governed.service.name.clone()
    };
    for _ in 0..2 {
        assert_eq!((at("10.0.0.2:80"), at("10.0.0.1:80")), ("a".into(), "b".into()));
        tables.forget_retired(Instant::now() + RETIRED_SERVES);
    }
}

#[test]
fn a_table_in_force_keeps_its_endpoints_when_its_successor_cannot_be_used() {
    let (mut config, tables) = (Config::default(), Tables::new(Metrics::new()));
    let web = table("web", "default", Some("10.0.0.1"));
    let backend = web.ports[0].variants[0].rules[0].destinations[0].backend.clone();
    let endpoint = umbra_routing::Endpoint {
        address: "10.244.0.9:80".parse().expect("an address"),
        pod: None,
        namespace: "default".into(),
        workload: "web".into(),
        app: "web".into(),
        version: "v1".into(),
        canonical_name: "web".into(),
        canonical_revision: "v1".into(),
        zone: None,
    };
    let set = umbra_routing::BackendSet {
        service: backend.service.clone(),
        port: backend.port,
        selector: backend.selector.clone().expect("resolved"),
        spoken_to: umbra_routing::SpokenTo::default(),
        endpoints: vec![endpoint],
    };
    let key = backend.key().expect("resolved");
    let mut put = |table: &ServiceTable, set: Option<&umbra_routing::BackendSet>| {
        let mut resources: std::collections::BTreeMap<Key, _> =
            [(Key::Service(table.service.clone()), to_raw_value(table).expect("plain data"))].into();
        resources.extend(set.map(|set| (key.clone(), to_raw_value(set).expect("plain data"))));
        let applied = config.put(&Put { resources, ..Put::default() }).expect("well-formed");
        tables.apply(&config, &applied)
    };
    assert_eq!(put(&web, Some(&set)), []);
    let of_web = || Arc::clone(&tables.building().sets[&key]);
    let mut bad = web.clone();
    bad.ports[0].variants[0].rules[0].matches = vec![umbra_routing::RequestMatch {
        uri: Some(umbra_routing::StringMatch::Regex("(".into())),
        ..Default::default()
    }];
    assert_eq!(put(&bad, None).len(), 1);
    assert!(of_web().lease(&[], None, Instant::now(), &mut |_| 0).is_some(), "the old table goes on");
    assert_eq!(put(&web, None), []);
    assert!(
        of_web().lease(&[], None, Instant::now(), &mut |_| 0).is_none(),
        "a table that can be used has what the push says"
    );
}

#[test]
fn a_table_that_cannot_be_used_is_refused_and_the_old_one_stays() {
    let (mut config, tables) = (Config::default(), Tables::new(Metrics::new()));
    pushed(&mut config, &tables, &[table("web", "default", Some("10.0.0.1"))]);
    let mut bad = table("web", "default", Some("10.0.0.2"));
    bad.ports[0].variants[0].rules[0].matches = vec![umbra_routing::RequestMatch {
        uri: Some(umbra_routing::StringMatch::Regex("(".into())),
        ..Default::default()
    }];
    let refused = pushed(&mut config, &tables, &[bad]);
    assert_eq!(refused.len(), 1);
    assert!(refused[0].reason.contains("regex"), "{}", refused[0].reason);
    assert!(tables.by_address("10.0.0.1:80".parse().expect("an address")).is_some());
}
