//! Eleven endpoints, one of which answers after 2 s for half a minute, and clients that wait for 1 s: how many of their
//! requests fail, by how an endpoint is chosen. The clock is simulated, so the figures are the same each time.

#![allow(clippy::print_stdout, reason = "it says what it has measured")]

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::*;

const ENDPOINTS: u16 = 11;
const WHOLE: Duration = Duration::from_secs(60);
const SLOW_FROM: Duration = Duration::from_secs(15);
const SLOW_UNTIL: Duration = Duration::from_secs(45);
const SLOW: Duration = Duration::from_secs(2);
const TIMEOUT: Duration = Duration::from_secs(1);

#[derive(Clone, Copy)]
enum Policy {
    /// As users' requests are balanced.
    Ours,
    /// As copies are: by what is in flight.
    LeastRequests,
    RoundRobin,
}

/// Who holds a place at an endpoint.
enum Held {
    User(Lease),
    Other { _copy: Option<CopyLease> },
}

/// A request that was sent. Ordered by when it is over.
struct Sent {
    over: Duration,
    number: u64,
    answered: bool,
    held: Held,
}

impl PartialEq for Sent {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Sent {}

impl PartialOrd for Sent {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Sent {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.over, self.number).cmp(&(other.over, other.number))
    }
}

struct Simulation {
    set: Arc<Backends>,
    start: Instant,
    rng: fastrand::Rng,
    policy: Policy,
    in_flight: BinaryHeap<Reverse<Sent>>,
    sent: u64,
    failed: u64,
}

impl Simulation {
    /// Requests that were sent, and those that failed, at so many a second.
    fn run(policy: Policy, a_second: u32) -> (u64, u64) {
        let (set, start, rng) = (set_of(ENDPOINTS), Instant::now(), fastrand::Rng::with_seed(11));
        let in_flight = BinaryHeap::new();
        let mut this = Self { set, start, rng, policy, in_flight, sent: 0, failed: 0 };
        let mut now = Duration::ZERO;
        while now < WHOLE {
            this.finish(now);
            this.send(now);
            // Arrivals do not depend on each other.
            now += Duration::from_secs_f64(-this.rng.f64().max(1e-12).ln() / f64::from(a_second));
        }
        this.finish(WHOLE + SLOW);
        (this.sent, this.failed)
    }

    fn send(&mut self, now: Duration) {
        let draw = &mut |bound| self.rng.u64(0..bound);
        let (held, port) = match self.policy {
            Policy::Ours => {
                let lease = self.set.lease(&[], None, self.start + now, draw).expect("endpoints");
                let port = port(&lease);
                (Held::User(lease), port)
            }
            Policy::LeastRequests => {
                let copy = self.set.copy_lease(None, draw).expect("endpoints");
                let port = copy.upstream().endpoint.address.port();
                (Held::Other { _copy: Some(copy) }, port)
            }
            Policy::RoundRobin => {
                (Held::Other { _copy: None }, (self.sent % u64::from(ENDPOINTS)) as u16 + 1)
            }
        };
        let is_slow = port == 1 && (SLOW_FROM..SLOW_UNTIL).contains(&now);
        let takes = if is_slow { SLOW } else { Duration::from_micros(self.rng.u64(2_000..8_000)) };
        let over = now + takes.min(TIMEOUT);
        self.in_flight.push(Reverse(Sent { over, number: self.sent, answered: takes < TIMEOUT, held }));
        self.sent += 1;
    }

    fn finish(&mut self, now: Duration) {
        while self.in_flight.peek().is_some_and(|Reverse(sent)| sent.over <= now) {
            let Some(Reverse(sent)) = self.in_flight.pop() else { return };
            self.failed += u64::from(!sent.answered);
            match sent.held {
                Held::User(lease) if sent.answered => answer(lease, 200, self.start + sent.over),
                Held::User(mut lease) => lease.left(self.start + sent.over),
                Held::Other { .. } => {}
            }
        }
    }
}

#[test]
fn requests_do_not_go_to_an_endpoint_that_has_become_slow() {
    for a_second in [50, 200, 1_000, 5_000] {
        let run = |policy| {
            let (sent, failed) = Simulation::run(policy, a_second);
            (failed, 100.0 * (sent - failed) as f64 / sent as f64)
        };
        let (ours, least, round) = (run(Policy::Ours), run(Policy::LeastRequests), run(Policy::RoundRobin));
        println!(
            "measured: {a_second}/s to {ENDPOINTS} endpoints, one of {SLOW:?} for half the time, 1 s to wait: failed \
             {} ({:.3} % answered); by requests in flight {} ({:.2} %); in turn {} ({:.1} %)",
            ours.0, ours.1, least.0, least.1, round.0, round.1,
        );
        assert!(ours.1 >= 99.9, "{ours:?} at {a_second}/s");
        assert!(ours.0 * 10 <= round.0, "{ours:?} and {round:?} at {a_second}/s");
    }
}
