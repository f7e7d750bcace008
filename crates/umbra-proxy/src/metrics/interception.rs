//! Counters of what was and was not taken over.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::{Labels, registered};

/// Why armed services were not taken over for a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LapseReason {
    /// The process, or one of its workers, had stopped.
    Hung,
    /// Connections that were given to the listener did not arrive.
    Blocked,
    /// The process was not there.
    Dead,
}

impl LapseReason {
    const ALL: [Self; 3] = [Self::Hung, Self::Blocked, Self::Dead];

    fn labels(self) -> Labels {
        let reason = match self {
            Self::Hung => "hung",
            Self::Blocked => "blocked",
            Self::Dead => "dead",
        };
        vec![("reason", reason.to_owned())]
    }
}

/// The counters. Clones count in the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct InterceptionMetrics {
    lapses: Family<Labels, Counter>,
    disarmed: Family<Labels, Counter<f64, AtomicU64>>,
    intercepted: Counter,
    unseen: Counter,
    unlisted: Counter,
}

/// What the kernel has counted since the table was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct KernelCounts {
    /// Connections given to the listener.
    pub(crate) given: u64,
    /// Of those, arrived.
    pub(crate) arrived: u64,
    /// Connections past umbra.
    pub(crate) unseen: u64,
    /// Packets of more connections past umbra than are remembered.
    pub(crate) unlisted: u64,
}

impl InterceptionMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            lapses: registered(
                registry,
                "umbra_interception_lapses",
                "Times in which armed services were not taken over, by reason",
            ),
            disarmed: registered(
                registry,
                "umbra_interception_disarmed_seconds",
                "Seconds for which armed services were not taken over, by reason",
            ),
            intercepted: registered(
                registry,
                "umbra_intercepted_connections",
                "First packets that the kernel gave to the listener: connections, more when some do not arrive",
            ),
            unseen: registered(
                registry,
                "umbra_unseen_connections",
                "Connections of local pods past umbra while their service is armed",
            ),
            unlisted: registered(
                registry,
                "umbra_unseen_unlisted_packets",
                "Packets of connections past umbra that are not counted, being too many",
            ),
        };
        for reason in LapseReason::ALL {
            // Shown from the start, so that an alert on their increase sees the first.
            drop(metrics.lapses.get_or_create(&reason.labels()));
            drop(metrics.disarmed.get_or_create(&reason.labels()));
        }
        metrics
    }

    /// A lapse has begun.
    pub(crate) fn lapse_began(&self, reason: LapseReason) {
        self.lapses.get_or_create(&reason.labels()).inc();
    }

    /// It has lasted for so much longer.
    pub(crate) fn disarmed_for(&self, reason: LapseReason, passed: Duration) {
        self.disarmed.get_or_create(&reason.labels()).inc_by(passed.as_secs_f64());
    }

    /// A starting proxy learns that nobody was there for so long.
    pub(crate) fn dead(&self, passed: Duration) {
        self.lapse_began(LapseReason::Dead);
        self.disarmed_for(LapseReason::Dead, passed);
    }

    /// The kernel's counters have moved from `before` to `now`.
    pub(crate) fn counted(&self, before: KernelCounts, now: KernelCounts) {
        self.intercepted.inc_by(now.given.saturating_sub(before.given));
        self.unseen.inc_by(now.unseen.saturating_sub(before.unseen));
        self.unlisted.inc_by(now.unlisted.saturating_sub(before.unlisted));
    }

    #[cfg(test)]
    pub(crate) fn lapses(&self, reason: LapseReason) -> u64 {
        self.lapses.get_or_create(&reason.labels()).get()
    }

    #[cfg(test)]
    pub(crate) fn disarmed_seconds(&self, reason: LapseReason) -> f64 {
        self.disarmed.get_or_create(&reason.labels()).get()
    }
}
