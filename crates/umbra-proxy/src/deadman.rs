//! Whether the workers live: what the dead-man element and `/livez` ask. Pure.

use std::time::{Duration, Instant};

/// A worker ticks several times a second; one that has not for this long does not serve its connections, and the
/// kernel lets new ones pass (spec/interception.md 3).
pub(crate) const BEATS_WITHIN: Duration = Duration::from_secs(1);
/// A process that hangs for this long is better started anew.
pub(crate) const LIVES_WITHIN: Duration = Duration::from_secs(10);

/// Every worker has ticked within `limit` before `now`. No worker at all is no life.
pub(crate) fn all_ticked(ticks: impl IntoIterator<Item = Instant>, now: Instant, limit: Duration) -> bool {
    let mut ticks = ticks.into_iter().peekable();
    ticks.peek().is_some() && ticks.all(|tick| now.saturating_duration_since(tick) <= limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_late_worker_is_enough_to_stop_the_beat() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        assert!(all_ticked([at(0), at(900)], at(1_000), BEATS_WITHIN));
        assert!(!all_ticked([at(0), at(900)], at(1_001), BEATS_WITHIN));
        assert!(all_ticked([at(2_000)], at(1_000), BEATS_WITHIN), "a tick after the clock was read");
        assert!(!all_ticked([], at(0), BEATS_WITHIN));
    }
}
