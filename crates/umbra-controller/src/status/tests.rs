use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use umbra_compile::{ObjectRef, Reason};
use umbra_index::Kind;
use umbra_index::api::ObjectKey;
use umbra_routing::BackendRef;

use super::*;
use crate::push::Node;

const VERSION: u64 = 7;

fn service() -> ServiceName {
    ServiceName::new("default", "sa-logic")
}

fn object() -> ObjectRef {
    let key = ObjectKey::new("default", "sa-logic");
    ObjectRef { kind: Kind::VirtualService, key, uid: "u".into(), generation: 3 }
}

fn state(since: Instant) -> ObjectState {
    ObjectState {
        object: object(),
        findings: Vec::new(),
        undecodable: None,
        services: BTreeMap::from([(service(), Part::Published)]),
        empty: BTreeSet::new(),
        version: VERSION,
        since,
    }
}

fn finding(condition: Option<Condition>, reason: Reason, path: &str) -> Finding {
    Finding { object: object(), condition, reason, path: path.into(), message: "wrong".into() }
}

fn ack(since: Instant, version: Option<u64>, armed: bool) -> Ack {
    let armed: BTreeSet<Key> = armed.then(|| Key::Service(service())).into_iter().collect();
    Ack { version, armed: Arc::new(armed), ..Ack::new(since) }
}

fn nodes(names: &[&str]) -> Nodes {
    let node = |name: &&str| {
        let node = Node { name: (*name).into(), address: String::new(), uid: String::new() };
        ((*name).to_owned(), node)
    };
    Some(names.iter().map(node).collect())
}

/// `Programmed` of an object published `age` ago, on nodes with these acknowledgements.
fn judge(
    change: impl FnOnce(&mut ObjectState),
    acks: &[(&str, Ack)],
    nodes: &Nodes,
    age: Duration,
) -> Wanted {
    let now = Instant::now() + Duration::from_secs(3600);
    let mut state = state(now - age);
    change(&mut state);
    let acks: Acks = acks.iter().map(|(node, ack)| ((*node).to_owned(), ack.clone())).collect();
    let started = now - Duration::from_secs(600);
    let [_, _, programmed] = conditions(&state, &World { nodes, acks: &acks, started, now });
    programmed
}

fn short(wanted: &Wanted) -> (Truth, &'static str, &str) {
    (wanted.truth, wanted.reason, wanted.message.as_str())
}

#[test]
fn programmed_needs_every_live_node() {
    let old = Instant::now();
    let both = nodes(&["node1", "node2"]);
    let good = ("node1", ack(old, Some(VERSION), true));
    let soon = Duration::from_millis(100);
    let late = Duration::from_secs(11);
    let programmed =
        judge(|_| {}, &[good.clone(), ("node2", ack(old, Some(VERSION + 1), true))], &both, soon);
    assert_eq!(short(&programmed), (Truth::True, "Programmed", "every live node serves it"));

    let behind = [good.clone(), ("node2", ack(old, Some(VERSION - 1), true))];
    let pending = judge(|_| {}, &behind, &both, soon);
    assert_eq!(short(&pending), (Truth::False, "NodesPending", "waiting for nodes"));
    let named = judge(|_| {}, &behind, &both, late);
    assert_eq!(short(&named), (Truth::False, "NodesPending", "node node2: has not acknowledged it"));

    let failing = Ack { failing: Some("connection refused".into()), ..ack(old, None, false) };
    let named = judge(|_| {}, &[good.clone(), ("node2", failing)], &both, late);
    assert_eq!(named.message, "node node2: push failing: connection refused");

    let unarmed = judge(|_| {}, &[good.clone(), ("node2", ack(old, Some(VERSION), false))], &both, late);
    assert_eq!(unarmed.message, "node node2: does not take over default/sa-logic");

    let reasons = BTreeMap::from([(Key::Service(service()), "no memory".to_owned())]);
    let refusing = Ack { refused: Arc::new(reasons), ..ack(old, Some(VERSION), true) };
    let refused = judge(|_| {}, &[good.clone(), ("node2", refusing)], &both, soon);
    let expected = "node node2: refuses service/default/sa-logic: no memory";
    assert_eq!(short(&refused), (Truth::False, "Refused", expected));

    let reason = format!("{NOT_ARMED_UNRESOLVED}sa-logic.default.svc.cluster.local port 80 is not defined");
    let reasons = BTreeMap::from([(Key::Service(service()), reason)]);
    let unresolved = Ack { refused: Arc::new(reasons), ..ack(old, Some(VERSION), false) };
    let waiting = judge(|_| {}, &[good.clone(), ("node2", unresolved)], &both, soon);
    let expected = "default/sa-logic not taken over yet: see ResolvedRefs of the rules for it";
    assert_eq!(short(&waiting), (Truth::False, "Waiting", expected), "a wait, not a fault of the node");

    let gone = judge(|_| {}, &[good], &nodes(&["node1"]), late);
    assert_eq!(gone.truth, Truth::True, "a node that is not live is not waited for");
    assert_eq!(judge(|_| {}, &[], &nodes(&[]), late).reason, "NoNodes");
    assert_eq!(judge(|_| {}, &[], &None, late).truth, Truth::Unknown);
}

/// Of the same generation: what is known stays (`merge`); of a new one nothing is known before its time.
#[test]
fn a_node_that_joins_or_comes_back_is_waited_for_in_silence() {
    let now = Instant::now() + Duration::from_secs(3600);
    let both = nodes(&["node1", "node2"]);
    let started = now - Duration::from_secs(600);
    let judge = |joined: Instant, first: Option<u64>, published: Instant, now: Instant| {
        let acks = [("node1", ack(started, first, true)), ("node2", ack(joined, None, false))];
        let acks: Acks = acks.into_iter().map(|(node, ack)| (node.to_owned(), ack)).collect();
        let [_, _, programmed] =
            conditions(&state(published), &World { nodes: &both, acks: &acks, started, now });
        (programmed.truth, programmed.reason)
    };
    let long_ago = now - Duration::from_secs(60);
    assert_eq!(judge(now, Some(VERSION), long_ago, now), (Truth::Unknown, "NodesJoining"));
    assert_eq!(judge(now, Some(VERSION), long_ago, now + GRACE), (Truth::False, "NodesPending"));
    assert_eq!(
        judge(now, Some(VERSION - 1), now, now),
        (Truth::False, "NodesPending"),
        "a node that was there has a newer state to take"
    );
}

#[test]
fn a_young_controller_does_not_judge_nodes_it_has_not_heard() {
    let now = Instant::now();
    let both = nodes(&["node1", "node2"]);
    let acks: Acks =
        BTreeMap::from([("node1".into(), ack(now, Some(VERSION), true)), ("node2".into(), Ack::new(now))]);
    let at = |now| {
        let [_, _, programmed] =
            conditions(&state(now), &World { nodes: &both, acks: &acks, started: now, now });
        programmed.truth
    };
    assert_eq!(at(now), Truth::Unknown);
    let world = World { nodes: &both, acks: &acks, started: now, now: now + GRACE };
    assert_eq!(conditions(&state(now), &world)[2].truth, Truth::False);
}

#[test]
fn what_no_node_can_serve_says_why() {
    let node = nodes(&["node1"]);
    let acks = [("node1", ack(Instant::now(), Some(VERSION), true))];
    let judge = |change: fn(&mut ObjectState)| judge(change, &acks, &node, GRACE);
    assert_eq!(judge(|s| s.services.clear()).reason, "NoGovernedService");
    let held = judge(|s| s.services = BTreeMap::from([(service(), Part::Held)]));
    assert_eq!(
        held.message,
        "default/sa-logic keeps the rules it had: this generation is not in force, see Accepted"
    );
    let invalid = judge(|s| s.services = BTreeMap::from([(service(), Part::Invalid)]));
    let expected = "default/sa-logic has no rules of an earlier generation to keep, and this one is not in force: see Accepted";
    assert_eq!(short(&invalid), (Truth::False, "Invalid", expected));
    let waiting = judge(|s| s.services = BTreeMap::from([(service(), Part::Waiting)]));
    assert_eq!(waiting.reason, "Waiting");
    let left = |s: &mut ObjectState| {
        s.services.insert(service(), Part::LeftAlone("networkpolicy default/deny selects".into()));
    };
    let left = judge(left);
    let expected = "default/sa-logic is not taken over: networkpolicy default/deny selects";
    assert_eq!(short(&left), (Truth::False, "LeftAlone", expected));
    assert!(!left.is_passing(), "time alone does not change it");
    assert_eq!(judge(|s| s.undecodable = Some("bad".into())).reason, "Held");
}

#[test]
fn rules_that_are_sought_are_unknown_until_every_node_that_answers_has_been_asked() {
    let old = Instant::now();
    let both = nodes(&["node1", "node2"]);
    let seek = |s: &mut ObjectState| s.services = BTreeMap::from([(service(), Part::Sought)]);
    let judge = |acks: &[(&str, Ack)], age| {
        let said = judge(seek, acks, &both, age);
        (said.truth, said.reason)
    };
    let (soon, late) = (Duration::from_millis(100), GRACE);
    let asked = ("node1", ack(old, Some(VERSION), false));
    let silent = ("node2", ack(old, None, false));
    let open = (Truth::Unknown, "Recovering");
    assert_eq!(judge(&[asked.clone(), silent.clone()], soon), open);
    assert_eq!(
        judge(&[asked.clone(), silent], late),
        (Truth::False, "Invalid"),
        "who is dead is not waited for"
    );
    let both_asked = [asked.clone(), ("node2", ack(old, Some(VERSION), false))];
    assert_eq!(judge(&both_asked, soon), (Truth::False, "Invalid"));
    let holds = Ack { held: Arc::new(BTreeSet::from([Key::Service(service())])), ..asked.1.clone() };
    assert_eq!(
        judge(&[("node1", holds), both_asked[1].clone()], late),
        open,
        "found, and about to be published"
    );
}

#[test]
fn findings_make_their_condition_false_and_name_the_field() {
    let now = Instant::now();
    let none = None;
    let acks = Acks::new();
    let world = World { nodes: &none, acks: &acks, started: now, now };
    let mut state = state(now);
    state.findings = vec![
        finding(None, Reason::ReachableOutsideUmbra, "spec.type"),
        finding(Some(Condition::ResolvedRefs), Reason::SubsetNotFound, "spec.http[0].mirror"),
    ];
    let [accepted, resolved, _] = conditions(&state, &world);
    assert_eq!(short(&accepted), (Truth::True, "Accepted", "spec.type: wrong"));
    assert_eq!(short(&resolved), (Truth::False, "SubsetNotFound", "spec.http[0].mirror: wrong"));

    state.findings = (0..5)
        .map(|n| finding(Some(Condition::Accepted), Reason::Invalid, &format!("spec.http[{n}]")))
        .collect();
    let [accepted, ..] = conditions(&state, &world);
    let expected = "spec.http[0]: wrong; spec.http[1]: wrong; spec.http[2]: wrong; and more";
    assert_eq!(short(&accepted), (Truth::False, "Invalid", expected));

    state.undecodable = Some("spec.hosts: not a list".into());
    let [accepted, ..] = conditions(&state, &world);
    assert_eq!(accepted.reason, "Invalid");
    assert!(accepted.message.starts_with("cannot be read: spec.hosts: not a list"), "{}", accepted.message);
}

#[test]
fn a_mirror_without_endpoints_is_resolved_and_named() {
    let mut state = state(Instant::now());
    let selector = Some(BTreeMap::from([("version".to_owned(), "v2".to_owned())]));
    let mirror = BackendRef { service: service(), port: 80, subset: Some("v2".into()), selector };
    state.empty.insert(mirror);
    let said = resolved_refs(&state);
    assert_eq!((said.truth, said.reason), (Truth::True, "NoEndpoints"));
    let named = r#"subset "v2" of sa-logic.default.svc.cluster.local, port 80, has no ready endpoint"#;
    assert!(said.message.starts_with(named), "{}", said.message);
    state.findings.push(finding(Some(Condition::ResolvedRefs), Reason::HostNotFound, "spec.http[0].mirror"));
    assert_eq!(resolved_refs(&state).reason, "HostNotFound", "what is not defined weighs more");
}
