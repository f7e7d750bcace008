//! What the users saw.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use tokio::task::JoinError;

/// Different failures kept word for word; further kinds are only counted.
const MOST_KINDS: usize = 10;

/// Counts and latencies of the users' requests.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Requests that ended, in whatever way.
    pub requests: u64,
    /// Those without a right answer.
    pub failed: u64,
    /// Half of the requests took no longer, in milliseconds.
    pub p50_ms: f64,
    /// 99 of 100 requests took no longer, in milliseconds.
    pub p99_ms: f64,
    /// The slowest, in milliseconds.
    pub max_ms: f64,
    /// What went wrong, and how often.
    pub failures: BTreeMap<String, u64>,
    #[serde(skip)]
    took: Vec<Duration>,
}

impl Report {
    /// Counts a request that ended; gives how many have.
    pub(super) fn add(&mut self, done: Result<(Duration, Result<(), String>), JoinError>) -> u64 {
        let (took, answered) = done.unwrap_or_else(|panic| (Duration::ZERO, Err(panic.to_string())));
        self.requests += 1;
        self.took.push(took);
        if let Err(why) = answered {
            self.failed += 1;
            let known = self.failures.len() < MOST_KINDS || self.failures.contains_key(&why);
            *self.failures.entry(if known { why } else { "other".to_owned() }).or_default() += 1;
        }
        self.requests
    }

    /// With the percentiles of what was counted.
    pub(super) fn closed(mut self) -> Self {
        self.took.sort_unstable();
        self.p50_ms = percentile(&self.took, 50);
        self.p99_ms = percentile(&self.took, 99);
        self.max_ms = percentile(&self.took, 100);
        self
    }
}

/// Nearest rank, in milliseconds; 0 of nothing.
fn percentile(sorted: &[Duration], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).map_or(0.0, |took| took.as_secs_f64() * 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let took: Vec<_> = (1..=200).map(Duration::from_millis).collect();
        let of = |percent| percentile(&took, percent).round() as u64;
        assert_eq!((of(50), of(99), of(100)), (100, 198, 200));
        assert_eq!(percentile(&took[..1], 50).round() as u64, 1);
        assert!(percentile(&[], 99).abs() < f64::EPSILON);
    }

    #[test]
    fn failures_are_counted_by_kind_and_kinds_are_bounded() {
        let mut report = Report::default();
        report.add(Ok((Duration::ZERO, Ok(()))));
        for kind in 0..20 {
            report.add(Ok((Duration::ZERO, Err(format!("kind {kind}")))));
        }
        let report = report.closed();
        assert_eq!((report.requests, report.failed), (21, 20));
        assert_eq!(report.failures.len(), MOST_KINDS + 1);
        assert_eq!(report.failures["other"], 10);
    }
}
