//! How long to wait after a failure: full jitter, so that nodes that failed together do not come back together.

use std::time::Duration;

/// The first pause is below this.
const FIRST: Duration = Duration::from_millis(100);
/// Pauses are never above this: a node that is back is served within 15 s.
const LONGEST: Duration = Duration::from_secs(15);

/// The bound of the next pause; it doubles with each failure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff {
    bound: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { bound: FIRST }
    }
}

impl Backoff {
    /// The next pause; `draw` is uniform in 0..1.
    pub(crate) fn next(&mut self, draw: f64) -> Duration {
        let pause = self.bound.mul_f64(draw);
        self.bound = (self.bound * 2).min(LONGEST);
        pause
    }

    /// After a success.
    pub(crate) fn reset(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_the_longest_and_starts_again() {
        let mut backoff = Backoff::default();
        let pauses: Vec<_> = (0..9).map(|_| backoff.next(1.0).as_millis()).collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1600, 3200, 6400, 12800, 15000]);
        assert_eq!(backoff.next(0.0), Duration::ZERO);
        backoff.reset();
        assert_eq!(backoff.next(0.5), Duration::from_millis(50));
    }
}
