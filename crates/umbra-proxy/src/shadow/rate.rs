//! Copies a second: a bucket of tokens for one mirror, on this node.
//!
//! It holds as many tokens as a second brings, so that requests that come in bunches find some. In any `t` seconds at most
//! `(t + 1) * per_second` copies go out.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What a full bucket holds, in time.
const BURST: u64 = Duration::from_secs(1).as_nanos() as u64;

/// Shared by all workers, without a lock: all that is known of the bucket is when it will be full.
pub(crate) struct Bucket {
    made: Instant,
    /// Nanoseconds since `made`.
    full_at: AtomicU64,
}

impl Bucket {
    pub(crate) fn new() -> Self {
        Self { made: Instant::now(), full_at: AtomicU64::new(0) }
    }

    /// Takes a token, if one is there.
    pub(crate) fn takes(&self, per_second: NonZeroU32, now: Instant) -> bool {
        let now = u64::try_from(now.saturating_duration_since(self.made).as_nanos()).unwrap_or(u64::MAX);
        let token = BURST / u64::from(per_second.get());
        let taken = |full_at: u64| {
            let full_at = full_at.max(now).saturating_add(token);
            (full_at <= now.saturating_add(BURST)).then_some(full_at)
        };
        self.full_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_s_worth_at_once_and_then_one_by_one() {
        let (bucket, rate) = (Bucket::new(), NonZeroU32::new(4).expect("not zero"));
        let mut now = Instant::now();
        let taken = |now, asked| (0..asked).filter(|_| bucket.takes(rate, now)).count();
        assert_eq!(taken(now, 10), 4);
        now += Duration::from_millis(249);
        assert_eq!(taken(now, 1), 0, "not quite");
        now += Duration::from_millis(2);
        assert_eq!(taken(now, 2), 1);
        now += Duration::from_secs(3600);
        assert_eq!(taken(now, 10), 4, "it holds no more than a second's");
    }
}
