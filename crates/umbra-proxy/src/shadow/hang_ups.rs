//! A mirror of HTTP/1 that takes each connection and ends it without a word gets a new one for each copy: the dearest
//! copies there are, made by the worker that users wait for. When it does nothing else, only some are sent.
//!
//! Takes: which copies the mirror hung up on and which it did not, and the time. Gives: whether to send another one.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use super::rate::Bucket;

/// Copies a second that go on to such a mirror: enough to see within a second what it does, and that it answers again.
const TRIES: NonZeroU32 = NonZeroU32::new(100).expect("not zero");

/// Shared by all workers, who need not agree: relaxed ordering is enough.
pub(crate) struct HangUps {
    in_a_row: AtomicUsize,
    tries: Bucket,
}

impl HangUps {
    pub(crate) fn new() -> Self {
        Self { in_a_row: AtomicUsize::new(0), tries: Bucket::new() }
    }

    /// Whether another copy may go out. `in_flight`: how many there may be at once. A mirror that is restarted hangs up on all
    /// of them, and is not meant; nor one that is restarted twice.
    pub(crate) fn allows(&self, in_flight: usize, now: Instant) -> bool {
        self.in_a_row.load(Ordering::Relaxed) <= in_flight.saturating_mul(2) || self.tries.takes(TRIES, now)
    }

    /// The mirror took a new connection, and ended it without a byte of an answer.
    pub(crate) fn hung_up(&self) {
        // As many connections as there are numbers are never made.
        self.in_a_row.fetch_add(1, Ordering::Relaxed);
    }

    /// The mirror began an answer, or kept the connection until the copy's time was up.
    pub(crate) fn stayed(&self) {
        // Looked at first: it is zero nearly always, and reading disturbs no other worker.
        if self.in_a_row.load(Ordering::Relaxed) != 0 {
            self.in_a_row.store(0, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const IN_FLIGHT: usize = 256;

    #[test]
    fn a_mirror_that_does_nothing_else_gets_some_until_it_stays() {
        let (hang_ups, mut now) = (HangUps::new(), Instant::now());
        let allowed = |now, asked| (0..asked).filter(|_| hang_ups.allows(IN_FLIGHT, now)).count();
        (0..2 * IN_FLIGHT).for_each(|_| hang_ups.hung_up());
        assert_eq!(allowed(now, 1_000), 1_000, "it may have been restarted twice");
        hang_ups.hung_up();
        assert_eq!(allowed(now, 1_000), TRIES.get() as usize);
        now += Duration::from_millis(101);
        assert_eq!(allowed(now, 1_000), TRIES.get() as usize / 10);
        hang_ups.stayed();
        hang_ups.hung_up();
        assert_eq!(allowed(now, 1_000), 1_000, "it begins anew");
    }
}
