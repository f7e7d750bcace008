//! One time of leading.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// Leave to push and to write status, under one epoch. Clones share their end, which each renewal puts off.
///
/// Whoever does something by it asks [`Term::is_valid`] right before: a process that stood still (SIGSTOP, a paused
/// machine) wakes up with the belief it had, while the clock has gone on.
#[derive(Clone, Debug)]
pub struct Term {
    epoch: u128,
    origin: Instant,
    /// Milliseconds from `origin`.
    valid_until: Arc<AtomicU64>,
}

impl Term {
    /// Valid until then.
    pub fn new(epoch: u128, valid_until: Instant) -> Self {
        let term = Self { epoch, origin: Instant::now(), valid_until: Arc::default() };
        term.extend(valid_until);
        term
    }

    /// Of a controller that nobody competes with.
    pub fn endless(epoch: u128) -> Self {
        Self { epoch, origin: Instant::now(), valid_until: Arc::new(AtomicU64::new(u64::MAX)) }
    }

    /// What every push carries.
    pub fn epoch(&self) -> u128 {
        self.epoch
    }

    /// Whether something may begin now.
    pub fn is_valid(&self, now: Instant) -> bool {
        millis(now.saturating_duration_since(self.origin)) < self.valid_until.load(Ordering::Acquire)
    }

    /// A renewal puts the end off; it is never put forward.
    pub fn extend(&self, valid_until: Instant) {
        let until = millis(valid_until.saturating_duration_since(self.origin));
        self.valid_until.fetch_max(until, Ordering::AcqRel);
    }
}

impl Default for Term {
    fn default() -> Self {
        Self::endless(0)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_term_ends_by_the_clock_unless_it_is_renewed() {
        let now = Instant::now();
        let seconds = Duration::from_secs;
        let term = Term::new(7, now + seconds(10));
        let pusher = term.clone();
        assert!(pusher.is_valid(now + seconds(9)) && !pusher.is_valid(now + seconds(11)));
        term.extend(now + seconds(20));
        term.extend(now + seconds(5));
        assert!(pusher.is_valid(now + seconds(19)) && !pusher.is_valid(now + seconds(60)));
        assert!(Term::endless(7).is_valid(now + seconds(1_000_000)));
    }
}
