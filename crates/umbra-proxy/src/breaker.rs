//! What cannot be reached is left alone for a while. Only failed connects count: what is slow, answers errors or
//! resets what it took is reachable.
//!
//! Takes: how connects ended, and the time. Gives: whether to try again now, to one caller at the end of each pause.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// First pause, doubled with each failed probe.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Pauses doubled so often are the longest. A mask of bits, too.
const MOST_DOUBLED: u8 = 7;

/// Shared by all workers. Its state is one number that changes as a whole, so nobody waits and relaxed ordering is enough.
pub(crate) struct Breaker {
    /// Failed connects in a row that open it.
    limit: u8,
    /// Times count from here.
    born: Instant,
    state: AtomicU64,
}

#[derive(Clone, Copy, Default)]
struct State {
    failures: u8,
    open: Option<Open>,
}

#[derive(Clone, Copy)]
struct Open {
    /// The next that may try, in milliseconds since the breaker's birth.
    retry_at: u64,
    /// A probe is out; attempts that were under way when it opened say nothing new.
    probing: bool,
    /// How often the pause was doubled.
    doubled: u8,
}

impl Breaker {
    /// Closed; opened by `limit` failed connects in a row.
    pub(crate) fn new(limit: u8, now: Instant) -> Self {
        Self { limit, born: now, state: AtomicU64::new(0) }
    }

    /// Nothing is known against it.
    pub(crate) fn is_closed(&self) -> bool {
        self.state().open.is_none()
    }

    /// Whether the caller may try. While open, one probe at the end of each pause.
    pub(crate) fn allows(&self, now: Instant) -> bool {
        let now = self.millis(now);
        let probe = |bits| State::from_bits(bits).probe(now).map(State::bits);
        match self.state.fetch_update(Ordering::Relaxed, Ordering::Relaxed, probe) {
            Ok(_) => true,
            Err(bits) => State::from_bits(bits).open.is_none(),
        }
    }

    pub(crate) fn connected(&self) {
        // Looked at first: it is closed nearly always, and reading disturbs no other worker.
        if self.state.load(Ordering::Relaxed) != 0 {
            self.state.store(0, Ordering::Relaxed);
        }
    }

    pub(crate) fn failed(&self, now: Instant) {
        let now = self.millis(now);
        let fail = |bits| Some(State::from_bits(bits).fail(self.limit, now).bits());
        self.state.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fail).expect("always a new state");
    }

    fn state(&self) -> State {
        State::from_bits(self.state.load(Ordering::Relaxed))
    }

    fn millis(&self, at: Instant) -> u64 {
        millis(at.saturating_duration_since(self.born))
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl Open {
    fn pause(self) -> u64 {
        millis((FIRST_PAUSE * (1 << self.doubled)).min(LONGEST_PAUSE))
    }

    fn again_after_pause(self, now: u64) -> Self {
        Self { retry_at: now + self.pause(), ..self }
    }
}

impl State {
    /// Others wait for the probe's outcome, or the next pause if it never tells.
    fn probe(self, now: u64) -> Option<Self> {
        let open = self.open.filter(|open| open.retry_at <= now)?;
        Some(Self { open: Some(Open { probing: true, ..open.again_after_pause(now) }), ..self })
    }

    fn fail(self, limit: u8, now: u64) -> Self {
        let failures = self.failures.saturating_add(1);
        let open = match self.open {
            None if failures < limit => None,
            None => Some(Open { retry_at: 0, probing: false, doubled: 0 }.again_after_pause(now)),
            Some(open) if !open.probing => Some(open),
            Some(open) => {
                let longer = Open { probing: false, doubled: (open.doubled + 1).min(MOST_DOUBLED), ..open };
                Some(longer.again_after_pause(now))
            }
        };
        Self { failures, open }
    }

    /// From the lowest: failures (8 bits), open, probing, how often doubled (3 bits); from bit 16 the time.
    fn bits(self) -> u64 {
        let open = self.open.map_or(0, |open| {
            1 << 8 | u64::from(open.probing) << 9 | u64::from(open.doubled) << 10 | open.retry_at << 16
        });
        u64::from(self.failures) | open
    }

    fn from_bits(bits: u64) -> Self {
        let open = Open {
            retry_at: bits >> 16,
            probing: bits & 1 << 9 != 0,
            doubled: (bits >> 10) as u8 & MOST_DOUBLED,
        };
        Self { failures: bits as u8, open: (bits & 1 << 8 != 0).then_some(open) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: u8 = 5;

    #[test]
    fn opens_on_failures_in_a_row_probes_and_closes_on_success() {
        let start = Instant::now();
        let breaker = Breaker::new(LIMIT, start);
        (1..LIMIT).for_each(|_| breaker.failed(start));
        assert!(breaker.allows(start), "not yet");
        breaker.failed(start);
        assert!(!breaker.allows(start));
        let later = start + FIRST_PAUSE;
        assert!(breaker.allows(later), "a probe");
        assert!(!breaker.allows(later), "one only");
        breaker.failed(later);
        assert!(!breaker.allows(later + FIRST_PAUSE), "the pause has doubled");
        assert!(breaker.allows(later + 2 * FIRST_PAUSE));
        assert!(!breaker.is_closed(), "the probe is out");
        breaker.connected();
        assert!(breaker.allows(later) && breaker.is_closed());
    }

    #[test]
    fn stragglers_do_not_lengthen_the_pause_and_probes_do_up_to_the_limit() {
        let mut now = Instant::now();
        let breaker = Breaker::new(LIMIT, now);
        (0..1_000).for_each(|_| breaker.failed(now));
        assert!(breaker.allows(now + FIRST_PAUSE));
        for _ in 0..100 {
            breaker.failed(now);
            now += LONGEST_PAUSE;
            assert!(breaker.allows(now));
        }
        breaker.failed(now);
        assert!(!breaker.allows(now + LONGEST_PAUSE - Duration::from_millis(1)), "the longest by now");
    }

    #[test]
    fn a_probe_that_never_tells_is_followed_by_another_one() {
        let start = Instant::now();
        let breaker = Breaker::new(1, start);
        breaker.failed(start);
        for pause in 1..5 {
            assert!(breaker.allows(start + pause * FIRST_PAUSE));
            assert!(!breaker.allows(start + pause * FIRST_PAUSE));
        }
    }
}
