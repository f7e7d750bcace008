//! Choices by seeded draws and a clock of the tests' own: nothing here waits.

mod simulation;

use std::time::Duration;

use http::{HeaderMap, StatusCode};
use umbra_testkit::allocations;

use super::*;

fn endpoint(port: u16) -> Endpoint {
    Endpoint {
        address: ([127, 0, 0, 1], port).into(),
        pod: None,
        namespace: "default".into(),
        workload: "w".into(),
        app: "w".into(),
        version: "v1".into(),
        canonical_name: "w".into(),
        canonical_revision: "v1".into(),
        zone: None,
    }
}

impl Backends {
    /// As a worker of this one's own would choose.
    pub(crate) fn lease(
        &self,
        tried: &[Held<Upstream>],
        family: Option<Family>,
        now: Instant,
        draw: &mut impl Draw,
    ) -> Option<Lease> {
        self.choose(&Kind::default(), tried, family, now, draw)
    }

    fn copy_lease(&self, family: Option<Family>, draw: &mut impl Draw) -> Option<CopyLease> {
        self.choose_for_copy(&Kind::default(), family, draw)
    }
}

/// A set of so many endpoints, at ports from 1.
fn set_of(count: u16) -> Arc<Backends> {
    let set = Backends::new(ServiceName::new("default", "w"));
    set.replace(&(1..=count).map(endpoint).collect::<Vec<_>>(), SpokenTo::Http1);
    set
}

fn is_same(a: &Held<Upstream>, b: &Held<Upstream>) -> bool {
    Arc::ptr_eq(a.shared(), b.shared())
}

fn port(lease: &Lease) -> u16 {
    lease.upstream().endpoint.address.port()
}

/// The answer comes, and is at its end.
fn answer(mut lease: Lease, status: u16, now: Instant) {
    let status = StatusCode::from_u16(status).expect("a status");
    let headers = &HeaderMap::new();
    lease.answered(&Answered { status, headers, is_grpc: false, asked: None }, now);
}

/// Draws that are the same each time.
fn seeded() -> impl FnMut(u64) -> u64 {
    let mut rng = fastrand::Rng::with_seed(17);
    move |bound| rng.u64(0..bound)
}

/// The share of 1,000 requests in a row that the endpoint at port 1 gets; it answers after `first`, with `status`, and
/// the others with 200 after 5 ms.
fn share_of_the_first(count: u16, first: Duration, status: u16) -> f64 {
    let (set, mut now, mut draw) = (set_of(count), Instant::now(), seeded());
    let mut chosen = 0;
    for _ in 0..1_000 {
        let lease = set.lease(&[], None, now, &mut draw).expect("endpoints");
        let is_first = port(&lease) == 1;
        now += if is_first { first } else { Duration::from_millis(5) };
        chosen += u32::from(is_first);
        answer(lease, if is_first { status } else { 200 }, now);
    }
    f64::from(chosen) / 1_000.0
}

#[test]
fn a_slow_endpoint_and_one_that_fails_quickly_get_less() {
    let fair = share_of_the_first(4, Duration::from_millis(5), 200);
    assert!((0.2..0.3).contains(&fair), "{fair}");
    for (after, status) in [(1_000, 200), (1, 503), (1, 500), (1, 429)] {
        let share = share_of_the_first(4, Duration::from_millis(after), status);
        assert!(share < 0.1 * fair, "{status} after {after} ms: {share}");
    }
    let soon = share_of_the_first(4, Duration::from_millis(50), 200);
    assert_eq!(soon, fair, "those that answer soon get equal shares");
    let not_found = share_of_the_first(4, Duration::from_millis(5), 404);
    assert_eq!(not_found, fair, "what the client did is nothing to the endpoint");
}

#[test]
fn grpc_tells_by_its_status_and_a_clients_own_pace_does_not_count() {
    let (set, start) = (set_of(2), Instant::now());
    let (later, ok) = (start + Duration::from_secs(20), StatusCode::OK);
    let load = |lease: &Lease, now| lease.upstream().load.of_users(now);
    let headers =
        &HeaderMap::from_iter([(http::HeaderName::from_static("grpc-status"), "14".parse().expect("text"))]);
    for (is_grpc, penalised) in [(false, false), (true, true)] {
        let mut lease = set_of(1).lease(&[], None, start, &mut |_| 0).expect("an endpoint");
        lease.answered(&Answered { status: ok, headers, is_grpc, asked: None }, start);
        assert_eq!(load(&lease, start) > 1_000_000.0, penalised, "{is_grpc}");
    }
    let mut lease = set.lease(&[], None, start, &mut |_| 0).expect("an endpoint");
    let asked = Some(later - Duration::from_millis(5));
    lease.answered(&Answered { status: ok, headers: &HeaderMap::new(), is_grpc: false, asked }, later);
    assert!(lease.upstream().load.expected(later).0 < 6_000.0);
}

#[test]
fn an_endpoint_that_refuses_is_avoided_at_once_and_probed_by_one_request_after_each_pause() {
    let (set, mut now, mut draw) = (set_of(3), Instant::now(), seeded());
    let mut choose = |now| set.lease(&[], None, now, &mut draw).expect("endpoints");
    let refuse_first = |mut lease: Lease, now| {
        let is_first = port(&lease) == 1;
        if is_first {
            lease.refused(now);
        } else {
            lease.upstream().connected();
            answer(lease, 200, now);
        }
        u32::from(is_first)
    };
    let mut tries = 0;
    while tries == 0 {
        tries += refuse_first(choose(now), now);
    }
    // A request each 10 ms; pauses of 1, 2, 4, 8, 16, 30, 30 .. s end in the first 91 s.
    for _ in 0..9_150 {
        now += Duration::from_millis(10);
        tries += refuse_first(choose(now), now);
    }
    assert_eq!(tries, 1 + 7);
    now += Duration::from_secs(30);
    let probe = (0..100).map(|_| choose(now)).find(|lease| port(lease) == 1).expect("a probe");
    assert!((0..100).all(|_| port(&choose(now)) != 1), "one at a time");
    probe.upstream().connected();
    answer(probe, 200, now);
    assert!((0..100).any(|_| port(&choose(now)) == 1), "it is back");
}

#[test]
fn when_all_are_avoided_they_are_tried_all_the_same_and_those_of_the_other_family_before_them() {
    let (set, now, mut draw) = (set_of(3), Instant::now(), seeded());
    let mut tried = Vec::new();
    while let Some(mut lease) = set.lease(&tried, Some(Family::V4), now, &mut draw) {
        lease.refused(now);
        tried.push(lease.upstream().clone());
    }
    assert_eq!(tried.len(), 3);
    let chosen: std::collections::BTreeSet<_> = (0..100)
        .filter_map(|_| set.lease(&[], Some(Family::V4), now, &mut draw))
        .map(|lease| port(&lease))
        .collect();
    assert_eq!(chosen.into_iter().collect::<Vec<_>>(), [1, 2, 3]);
    let v6 = Endpoint { address: "[::1]:9".parse().expect("an address"), ..endpoint(9) };
    set.replace(&[endpoint(1), endpoint(2), endpoint(3), v6], SpokenTo::Http1);
    let lease = set.lease(&[], Some(Family::V4), now, &mut draw).expect("endpoints");
    assert_eq!(port(&lease), 9);
}

#[test]
fn a_tried_endpoint_is_never_chosen_and_an_untried_one_always_is() {
    let mut rng = fastrand::Rng::with_seed(3);
    let now = Instant::now();
    for _ in 0..2_000 {
        let count = rng.u16(1..8);
        let set = set_of(count);
        let all = set.endpoints.load().all.clone();
        for upstream in &all {
            if rng.bool() {
                upstream.breaker.failed(now);
            }
        }
        let tried: Vec<_> = all.iter().filter(|_| rng.bool()).map(|one| Kind::default().get(one)).collect();
        let at = now + Duration::from_millis(rng.u64(0..2_000));
        let family = [None, Some(Family::V4), Some(Family::V6)][rng.usize(0..3)];
        let lease = set.lease(&tried, family, at, &mut |bound| rng.u64(0..bound));
        assert_eq!(lease.is_none(), tried.len() == all.len());
        let is_tried = |lease: &Lease| tried.iter().any(|tried| is_same(tried, lease.upstream()));
        assert!(!lease.as_ref().is_some_and(is_tried));
    }
}

#[test]
fn copies_go_where_fewer_requests_are_and_leave_no_trace_for_users() {
    let (set, now, mut draw) = (set_of(2), Instant::now(), seeded());
    let busy = set.lease(&[], None, now, &mut draw).expect("two endpoints");
    let loads = || set.endpoints.load().all.iter().map(|one| one.load.of_users(now)).collect::<Vec<_>>();
    let before = loads();
    let copy = set.copy_lease(None, &mut draw).expect("two endpoints");
    assert!(!is_same(copy.upstream(), busy.upstream()));
    let copies: Vec<_> = (0..9).filter_map(|_| set.copy_lease(None, &mut draw)).collect();
    let there = copies.iter().filter(|one| is_same(one.upstream(), busy.upstream())).count();
    assert!((4..=5).contains(&there), "{there}");
    assert_eq!(loads(), before);
    drop((copy, copies));
    assert_eq!(loads(), before);
    // Where users are refused copies do not go, and they do not probe either.
    busy.upstream().breaker.failed(now);
    let copies: Vec<_> = (0..9).filter_map(|_| set.copy_lease(None, &mut draw)).collect();
    assert!(copies.iter().all(|copy| !is_same(copy.upstream(), busy.upstream())));
}

#[test]
fn the_less_busy_of_two_is_chosen_and_tried_ones_are_not() {
    let (set, now) = (Backends::new(ServiceName::new("default", "w")), Instant::now());
    set.replace(&[endpoint(1), endpoint(2)], SpokenTo::Http1);
    let mut draw = |_| 0;
    let busy = set.lease(&[], None, now, &mut draw).expect("two endpoints");
    let other = set.lease(&[], None, now, &mut draw).expect("two endpoints");
    assert_ne!(busy.upstream().endpoint.address, other.upstream().endpoint.address);
    let tried = [busy.upstream().clone(), other.upstream().clone()];
    assert!(set.lease(&tried, None, now, &mut draw).is_none());
}

#[test]
fn the_clients_family_comes_first_and_the_other_one_after_it() {
    let (set, now) = (Backends::new(ServiceName::new("default", "w")), Instant::now());
    let v6 = Endpoint { address: "[::1]:1".parse().expect("an address"), ..endpoint(9) };
    set.replace(&[v6.clone(), endpoint(1), endpoint(2)], SpokenTo::Http1);
    let family = |lease: &Lease| Family::of(lease.upstream().endpoint.address.ip());
    for first in 0..3 {
        for wanted in [Family::V4, Family::V6] {
            let lease = set.lease(&[], Some(wanted), now, &mut |bound| first % bound).expect("an endpoint");
            assert_eq!(family(&lease), wanted);
        }
    }
    let mut tried = Vec::new();
    let mut seen = Vec::new();
    while let Some(lease) = set.lease(&tried, Some(Family::V4), now, &mut |_| 0) {
        seen.push(family(&lease));
        tried.push(lease.upstream().clone());
    }
    assert_eq!(seen, [Family::V4, Family::V4, Family::V6]);
    set.replace(&[v6], SpokenTo::Http1);
    assert!(
        set.lease(&[], Some(Family::V4), now, &mut |_| 0).is_some(),
        "rather the other family than nobody"
    );
}

#[test]
fn a_push_keeps_the_counts_of_endpoints_that_stay() {
    let (set, now) = (Backends::new(ServiceName::new("default", "w")), Instant::now());
    set.replace(&[endpoint(1)], SpokenTo::Http1);
    let lease = set.lease(&[], None, now, &mut |_| 0).expect("one endpoint");
    set.replace(&[endpoint(1), endpoint(2)], SpokenTo::Http1);
    let next = set.lease(&[], None, now, &mut |_| 0).expect("two endpoints");
    assert_eq!(next.upstream().endpoint.address.port(), 2, "the first is busy");
    let first = lease.upstream().clone();
    drop(lease);
    set.replace(&[endpoint(2)], SpokenTo::Http1);
    set.replace(&[endpoint(1), endpoint(2)], SpokenTo::Http1);
    let again = set.lease(&[], None, now, &mut |_| 0).expect("two endpoints");
    assert_eq!(again.upstream().endpoint, first.endpoint);
    assert!(!is_same(again.upstream(), &first), "one that was gone begins anew");
}

#[test]
fn a_request_that_is_given_up_leaves_nobody_there() {
    let set = set_of(1);
    let lease = set.lease(&[], None, Instant::now(), &mut |_| 0).expect("an endpoint");
    let upstream = lease.upstream().clone();
    drop(lease);
    assert_eq!(upstream.load.of_all(), 0.0);
    let expected = |now| upstream.load.expected(now).0;
    let unanswered = expected(Instant::now());
    assert!(unanswered > 0.0, "it is known for having given nothing");
    assert!(expected(Instant::now() + Duration::from_secs(60)) < 0.1 * unanswered, "nobody waits");
}

#[test]
fn choosing_allocates_nothing() {
    let (set, now, mut draw, at_hand) = (set_of(1), Instant::now(), seeded(), Kind::default());
    let mut ask = || {
        let lease = set.choose(&at_hand, &[], Some(Family::V4), now, &mut draw).expect("endpoints");
        let copy = set.choose_for_copy(&at_hand, None, &mut draw).expect("endpoints");
        answer(lease, 200, now);
        drop(copy);
    };
    // The first on a thread makes room to read the set without a lock, and has nothing at hand.
    ask();
    assert_eq!(allocations(ask).1, 0);
}
