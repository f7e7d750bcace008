//! A mirror that cannot be reached is left alone for a while. Only failed connects count (with HTTP/2 also to whoever takes
//! a connection and does not begin to speak it): a mirror that is slow or answers errors is what we came to see.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Failed connects in a row that open it.
const FAILURES: u32 = 5;
/// First pause, doubled with each failed probe.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Shared by all workers; locked for a few instructions and never across an await, and only where a connect has failed
/// since one succeeded.
#[derive(Default)]
pub(crate) struct Breaker {
    troubled: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    failures: u32,
    /// Set while open: the next copy that may try.
    retry_at: Option<Instant>,
    /// A probe is out; copies that were under way when it opened say nothing new.
    probing: bool,
    pause: Duration,
}

impl Breaker {
    /// Whether a copy may be sent. While open, one probe at the end of each pause.
    pub(crate) fn allows(&self, now: Instant) -> bool {
        if !self.troubled.load(Ordering::Acquire) {
            return true;
        }
        let mut state = self.state();
        match state.retry_at {
            None => true,
            Some(at) if now < at => false,
            Some(_) => {
                // Others wait for the probe's outcome, or the next pause if it never tells.
                state.retry_at = Some(now + state.pause);
                state.probing = true;
                true
            }
        }
    }

    pub(crate) fn connected(&self) {
        if self.troubled.load(Ordering::Acquire) {
            let mut state = self.state();
            *state = State::default();
            self.troubled.store(false, Ordering::Release);
        }
    }

    pub(crate) fn failed(&self, now: Instant) {
        let mut state = self.state();
        self.troubled.store(true, Ordering::Release);
        state.failures = state.failures.saturating_add(1);
        if state.retry_at.is_some() && !state.probing || state.failures < FAILURES {
            return;
        }
        state.pause = if state.probing { (state.pause * 2).min(LONGEST_PAUSE) } else { FIRST_PAUSE };
        state.probing = false;
        state.retry_at = Some(now + state.pause);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_on_failures_in_a_row_probes_and_closes_on_success() {
        let breaker = Breaker::default();
        let start = Instant::now();
        (1..FAILURES).for_each(|_| breaker.failed(start));
        assert!(breaker.allows(start), "not yet");
        breaker.failed(start);
        assert!(!breaker.allows(start));
        let later = start + FIRST_PAUSE;
        assert!(breaker.allows(later), "a probe");
        assert!(!breaker.allows(later), "one only");
        breaker.failed(later);
        assert!(!breaker.allows(later + FIRST_PAUSE), "the pause has doubled");
        assert!(breaker.allows(later + 2 * FIRST_PAUSE));
        breaker.connected();
        assert!(breaker.allows(later));
    }

    #[test]
    fn stragglers_do_not_lengthen_the_pause_and_probes_do_up_to_the_limit() {
        let breaker = Breaker::default();
        let mut now = Instant::now();
        (0..100).for_each(|_| breaker.failed(now));
        assert!(breaker.allows(now + FIRST_PAUSE));
        for _ in 0..10 {
            breaker.failed(now);
            now += LONGEST_PAUSE;
            assert!(breaker.allows(now));
        }
    }
}
