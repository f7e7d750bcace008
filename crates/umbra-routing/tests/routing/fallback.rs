//! The kernel's slots: only endpoints of primaries, by weight, for every ClusterIP and port.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use proptest::prelude::*;
use serde_json::value::to_raw_value;
use umbra_routing::{
    BackendRef, BackendSet, Config, Endpoint, Key, Mirror, Port, Protocol, Put, RequestMatch, Rule, SLOTS,
    ServiceName, ServiceTable, SpokenTo, StringMatch, Variant, WeightedBackend, slots_of,
};

fn service() -> ServiceName {
    ServiceName::new("default", "a")
}

fn subset(version: &str) -> BackendRef {
    BackendRef {
        subset: Some(version.into()),
        selector: Some(BTreeMap::from([("version".into(), version.into())])),
        ..BackendRef::all(service(), 80)
    }
}

fn endpoint(address: &str) -> Endpoint {
    let text = || String::from("unknown");
    Endpoint {
        address: address.parse().expect("an address"),
        pod: None,
        namespace: "default".into(),
        workload: text(),
        app: text(),
        version: text(),
        canonical_name: text(),
        canonical_revision: text(),
        zone: None,
    }
}

fn rule(matches: Vec<RequestMatch>, destinations: &[(u32, BackendRef)], mirrors: &[BackendRef]) -> Rule {
    let weighted = |(weight, backend): &(u32, BackendRef)| WeightedBackend::new(*weight, backend.clone());
    let mirror = |backend: &BackendRef| Mirror::new(1_000_000, backend.clone());
    Rule {
        name: "http[0]".into(),
        matches,
        destinations: destinations.iter().map(weighted).collect(),
        mirrors: mirrors.iter().map(mirror).collect(),
        ..Rule::default()
    }
}

fn table(addresses: &[&str], rules: Vec<Rule>) -> ServiceTable {
    let variants = vec![Variant { client_namespace: None, rules }];
    ServiceTable {
        service: service(),
        addresses: addresses.iter().map(|ip| ip.parse().expect("an address")).collect(),
        ports: vec![Port { number: 80, protocol: Protocol::Http, variants }],
        leave_alone: None,
        rules_of: BTreeSet::new(),
    }
}

fn config(sets: &[(BackendRef, &[&str])]) -> Config {
    let mut config = Config::default();
    let resources = sets.iter().map(|(backend, addresses)| {
        let set = BackendSet {
            service: backend.service.clone(),
            port: backend.port,
            selector: backend.selector.clone().expect("resolved"),
            spoken_to: SpokenTo::default(),
            endpoints: addresses.iter().map(|address| endpoint(address)).collect(),
        };
        (backend.key().expect("resolved"), to_raw_value(&set).expect("plain data"))
    });
    config.put(&put(resources.collect())).expect("well formed");
    config
}

fn put(resources: BTreeMap<Key, Box<serde_json::value::RawValue>>) -> Put {
    Put { resources, hold: BTreeMap::new() }
}

const NONE: Option<SocketAddr> = None;

fn addresses(slots: &[Option<SocketAddr>]) -> Vec<String> {
    let mut all: Vec<_> =
        slots.iter().map(|slot| slot.map_or("nowhere".into(), |to| to.to_string())).collect();
    all.sort();
    all.dedup();
    all
}

#[test]
fn slots_lead_to_the_catch_alls_primary_and_never_to_a_mirror() {
    let config =
        config(&[(subset("v1"), &["10.0.0.1:8080", "10.0.0.2:8080"]), (subset("v2"), &["10.0.0.9:8080"])]);
    let beta = RequestMatch { uri: Some(StringMatch::Prefix("/beta".into())), ..RequestMatch::default() };
    let rules = vec![
        rule(vec![beta], &[(1, subset("v2"))], &[]),
        rule(vec![], &[(1, subset("v1"))], &[subset("v2")]),
    ];
    let all = slots_of(&table(&["10.96.0.1"], rules), &config, "n1");
    let [(at, Some(slots))] = all.as_slice() else { panic!("{all:?}") };
    assert_eq!(at.to_string(), "10.96.0.1:80");
    assert_eq!(addresses(slots), ["10.0.0.1:8080", "10.0.0.2:8080"]);
}

#[test]
fn each_address_gets_endpoints_of_its_family() {
    let config = config(&[(subset("v1"), &["10.0.0.1:8080", "[fd00::1]:8080"])]);
    let table =
        table(&["10.96.0.1", "fd00:96::1", "fd00:96::2"], vec![rule(vec![], &[(1, subset("v1"))], &[])]);
    for (at, slots) in slots_of(&table, &config, "n1") {
        let expected = if at.is_ipv4() { "10.0.0.1:8080" } else { "[fd00::1]:8080" };
        assert_eq!(addresses(&slots.expect("a catch-all")), [expected], "{at}");
    }
}

#[test]
fn without_a_catch_all_or_a_definition_there_is_no_way() {
    let config = config(&[(subset("v1"), &["10.0.0.1:8080"])]);
    let some = RequestMatch { uri: Some(StringMatch::Prefix("/x".into())), ..RequestMatch::default() };
    let undefined = BackendRef { selector: None, ..subset("v3") };
    for rules in [
        vec![rule(vec![some], &[(1, subset("v1"))], &[])],
        vec![rule(vec![], &[(1, undefined.clone())], &[])],
        // What has no weight leads nowhere, defined or not.
        vec![rule(vec![], &[(1, undefined.clone()), (0, subset("v1"))], &[])],
        vec![],
    ] {
        assert_eq!(slots_of(&table(&["10.96.0.1"], rules), &config, "n1")[0].1, None);
    }
    // Half of it is defined: the other half answers 503 as it does through the proxy.
    let half = vec![rule(vec![], &[(1, subset("v1")), (1, undefined)], &[])];
    let slots = slots_of(&table(&["10.96.0.1"], half), &config, "n1")[0].1.expect("half is defined");
    assert_eq!(slots.iter().filter(|slot| **slot == NONE).count(), SLOTS / 2);
}

#[test]
fn no_endpoint_is_nowhere() {
    let rules = vec![rule(vec![], &[(1, subset("v1"))], &[])];
    let slots = slots_of(&table(&["10.96.0.1"], rules), &config(&[(subset("v1"), &[])]), "n1")[0].1;
    assert_eq!(slots, Some([None; SLOTS]));
}

#[test]
fn nodes_together_use_more_endpoints_than_one_has_slots() {
    let many: Vec<String> = (1..=64).map(|number| format!("10.0.0.{number}:80")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let config = config(&[(subset("v1"), &many)]);
    let table = table(&["10.96.0.1"], vec![rule(vec![], &[(1, subset("v1"))], &[])]);
    let of = |node: &str| addresses(&slots_of(&table, &config, node)[0].1.expect("a catch-all"));
    assert_eq!(of("n1").len(), SLOTS);
    assert_eq!(of("n1"), of("n1"));
    let all: BTreeSet<String> = (0..40).flat_map(|node| of(&format!("n{node}"))).collect();
    assert!(all.len() > 60, "{} of 64 endpoints", all.len());
}

proptest! {
    #[test]
    fn every_slot_leads_to_a_destination_with_a_weight(
        weights in proptest::collection::vec(0_u32..=100, 1..5),
        counts in proptest::collection::vec(1_usize..20, 5),
    ) {
        let several = weights.len() > 1;
        prop_assume!(weights.iter().any(|weight| *weight > 0) || !several);
        let sets: Vec<(BackendRef, Vec<String>)> = (0..weights.len())
            .map(|set| (subset(&format!("v{set}")), (0..counts[set]).map(|end| format!("10.{set}.0.{end}:80")).collect()))
            .collect();
        let sets: Vec<(BackendRef, Vec<&str>)> =
            sets.iter().map(|(backend, all)| (backend.clone(), all.iter().map(String::as_str).collect())).collect();
        let borrowed: Vec<(BackendRef, &[&str])> = sets.iter().map(|(backend, all)| (backend.clone(), all.as_slice())).collect();
        let destinations: Vec<(u32, BackendRef)> =
            weights.iter().zip(&sets).map(|(weight, (backend, _))| (*weight, backend.clone())).collect();
        let table = table(&["10.96.0.1"], vec![rule(vec![], &destinations, &[])]);
        let slots = slots_of(&table, &config(&borrowed), "n1")[0].1.expect("a catch-all");
        for slot in slots {
            let Some(SocketAddr::V4(to)) = slot else { panic!("every set has endpoints") };
            let set = usize::from(to.ip().octets()[1]);
            prop_assert!(!several || weights[set] > 0, "a slot leads to weight 0");
            prop_assert!(borrowed[set].1.contains(&slot.expect("checked").to_string().as_str()));
        }
    }
}

/// The slots of a service whose primary has the endpoints 10.0.0.N, for each N.
fn of_endpoints(numbers: &BTreeSet<u8>) -> Vec<SocketAddr> {
    let all: Vec<String> = numbers.iter().map(|number| format!("10.0.0.{number}:80")).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    let table = table(&["10.96.0.1"], vec![rule(vec![], &[(1, subset("v1"))], &[])]);
    let slots = slots_of(&table, &config(&[(subset("v1"), &all)]), "n1")[0].1.expect("a catch-all");
    slots.iter().map(|slot| slot.expect("it has endpoints")).collect()
}

#[test]
fn endpoints_share_slots_evenly_and_one_that_changes_moves_few_others() {
    let (mut moved, mut must) = (0, 0);
    for count in 2..=30_u8 {
        let numbers: BTreeSet<u8> = (1..=count).collect();
        let before = of_endpoints(&numbers);
        let mut shares = BTreeMap::<SocketAddr, usize>::new();
        before.iter().for_each(|to| *shares.entry(*to).or_default() += 1);
        let even = SLOTS / usize::from(count).min(SLOTS);
        assert_eq!(shares.len(), usize::from(count).min(SLOTS));
        assert!(shares.values().all(|share| (even..=even + 1).contains(share)), "{shares:?}");
        for gone in 1..=count {
            let after: BTreeSet<u8> =
                numbers.iter().map(|number| if *number == gone { 200 } else { *number }).collect();
            let after = of_endpoints(&after);
            moved += before.iter().zip(&after).filter(|(before, after)| before != after).count();
            must += before.iter().filter(|to| to.to_string() == format!("10.0.0.{gone}:80")).count();
        }
    }
    assert!(2 * moved <= 5 * must, "{moved} slots changed, {must} had to");
}
