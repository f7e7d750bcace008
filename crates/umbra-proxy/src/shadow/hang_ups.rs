//! A mirror that takes each connection and ends it without an answer gets a new one for each copy, which costs the worker
//! that users wait for ten times what a copy on a kept connection does. When it seems to do nothing else, only some are sent.
//!
//! Takes: how copies on new connections ended, and the time. Gives: whether to send another one.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use super::rate::Bucket;

/// Copies in a row: as many as may be in flight by default, so that no single restart of a mirror looks like this.
const IN_A_ROW: u32 = 256;
/// Copies a second that go on to such a mirror: enough to see within a second what it does, and that it answers again.
const TRIES: NonZeroU32 = NonZeroU32::new(100).expect("not zero");

/// Shared by all workers, who need not agree: relaxed ordering is enough.
pub(crate) struct HangUps {
    /// Copies since the last answer.
    in_a_row: AtomicU32,
    tries: Bucket,
}

impl HangUps {
    pub(crate) fn new() -> Self {
        Self { in_a_row: AtomicU32::new(0), tries: Bucket::new() }
    }

    /// Whether another copy may go out.
    pub(crate) fn allow(&self, now: Instant) -> bool {
        self.in_a_row.load(Ordering::Relaxed) < IN_A_ROW || self.tries.takes(TRIES, now)
    }

    /// The mirror took a new connection, and ended it without an answer.
    pub(crate) fn another(&self) {
        let more = |in_a_row: u32| in_a_row.checked_add(1);
        // At its end it stays there.
        let _ = self.in_a_row.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }

    /// The mirror answered.
    pub(crate) fn answered(&self) {
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

    #[test]
    fn a_mirror_that_does_nothing_else_gets_some_until_it_answers() {
        let (hang_ups, mut now) = (HangUps::new(), Instant::now());
        let allowed = |now, asked| (0..asked).filter(|_| hang_ups.allow(now)).count();
        (1..IN_A_ROW).for_each(|_| hang_ups.another());
        assert_eq!(allowed(now, 1_000), 1_000, "not yet");
        hang_ups.another();
        assert_eq!(allowed(now, 1_000), TRIES.get() as usize);
        now += Duration::from_millis(101);
        assert_eq!(allowed(now, 1_000), TRIES.get() as usize / 10);
        hang_ups.answered();
        hang_ups.another();
        assert_eq!(allowed(now, 1_000), 1_000, "it begins anew");
    }
}
