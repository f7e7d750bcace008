//! What became of shadows: `eligible = sent + dropped`, `sent = answered + timed_out + failed`, whenever nothing is in
//! flight. A shadow is counted eligible when it is drawn, and once more when its outcome is known.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::{Labels, registered};

/// Why a request that should have been copied was not: umbra's or the client's doing, never the mirror's answer.
/// The closed list of the label `reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DropReason {
    /// Nothing defines the mirror's service, port or subset.
    Unresolved,
    /// The mirror has no ready endpoint.
    NoEndpoint,
    /// As many copies to this mirror are in flight as are allowed (256 by default).
    Overflow,
    /// As many copies went to this mirror within a second as are allowed (any number by default).
    Rate,
    /// This mirror has as many connections as are allowed (512 by default), or the process so many that users need the rest.
    Connections,
    /// Users waited for this worker, and copies were given up for their sake.
    Busy,
    /// Connecting to the mirror failed several times in a row; it is tried again from time to time.
    Breaker,
    /// The mirror hung up on the last copies (twice as many as may be in flight): it took a connection for each, and ended it
    /// without a byte of an answer. Some still go out, to see whether it answers.
    HungUp,
    /// The mirror read the body slower than the primary by more than the buffers allow: a copy's, a mirror's, a worker's.
    BodyBudget,
    /// The request never reached a primary, so there was nothing to copy.
    PrimaryFailed,
    /// The request ended before its body did: the client left, or the primary ended it early.
    Incomplete,
    /// Upgrades (WebSocket) are not copied.
    Upgrade,
    /// The request was a copy's doing: it came from a local pod with the mark of copies (`--shadow-mark`).
    Marked,
    /// The controller has not been heard of for 10 minutes, or the service is being released.
    Stopped,
    /// The proxy stopped before the mirror had answered.
    Shutdown,
}

impl DropReason {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::Unresolved,
        Self::NoEndpoint,
        Self::Overflow,
        Self::Rate,
        Self::Connections,
        Self::Busy,
        Self::Breaker,
        Self::HungUp,
        Self::BodyBudget,
        Self::PrimaryFailed,
        Self::Incomplete,
        Self::Upgrade,
        Self::Marked,
        Self::Stopped,
        Self::Shutdown,
    ];

    /// The label's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unresolved => "unresolved",
            Self::NoEndpoint => "no_endpoint",
            Self::Overflow => "overflow",
            Self::Rate => "rate",
            Self::Connections => "connections",
            Self::Busy => "busy",
            Self::Breaker => "breaker",
            Self::HungUp => "hung_up",
            Self::BodyBudget => "body_budget",
            Self::PrimaryFailed => "primary_failed",
            Self::Incomplete => "incomplete",
            Self::Upgrade => "upgrade",
            Self::Marked => "marked",
            Self::Stopped => "stopped",
            Self::Shutdown => "shutdown",
        }
    }
}

/// What the mirror made of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ShadowResult {
    /// An answer came, whatever its status.
    Answered,
    /// No whole answer in time.
    TimedOut,
    /// Connecting or the connection failed.
    Failed,
}

/// How a shadow ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Dropped(DropReason),
    Sent(ShadowResult),
}

pub(super) struct Families {
    eligible: Family<Labels, Counter>,
    sent: Family<Labels, Counter>,
    dropped: Family<Labels, Counter>,
    result: Family<Labels, Counter>,
}

/// The counters of one mirror of one rule, looked up once.
pub(crate) struct ShadowCounters {
    pub(crate) eligible: Counter,
    sent: Counter,
    dropped: [Counter; DropReason::ALL.len()],
    answered: Counter,
    timed_out: Counter,
    failed: Counter,
}

impl Families {
    pub(super) fn register(registry: &mut Registry) -> Self {
        Self {
            eligible: registered(
                registry,
                "umbra_shadow_eligible",
                "Requests that sampling chose for a mirror",
            ),
            sent: registered(registry, "umbra_shadow_sent", "Copies that the mirror got or failed to take"),
            dropped: registered(registry, "umbra_shadow_dropped", "Copies that were not made, by reason"),
            result: registered(registry, "umbra_shadow_result", "What became of copies that were sent"),
        }
    }

    pub(super) fn counters(&self, service: &str, rule: &str, mirror: &str) -> ShadowCounters {
        let own = || vec![("service", service.into()), ("rule", rule.into()), ("mirror", mirror.into())];
        let with = |name, value: &str| -> Labels {
            let mut labels: Labels = own();
            labels.push((name, value.to_owned()));
            labels
        };
        let result = |value| self.result.get_or_create_owned(&with("result", value));
        ShadowCounters {
            eligible: self.eligible.get_or_create_owned(&own()),
            sent: self.sent.get_or_create_owned(&own()),
            dropped: DropReason::ALL.map(|r| self.dropped.get_or_create_owned(&with("reason", r.as_str()))),
            answered: result("answered"),
            timed_out: result("timed_out"),
            failed: result("failed"),
        }
    }
}

impl ShadowCounters {
    pub(crate) fn record(&self, outcome: Outcome) {
        match outcome {
            Outcome::Dropped(reason) => {
                self.dropped[reason as usize].inc();
            }
            Outcome::Sent(result) => {
                self.sent.inc();
                match result {
                    ShadowResult::Answered => self.answered.inc(),
                    ShadowResult::TimedOut => self.timed_out.inc(),
                    ShadowResult::Failed => self.failed.inc(),
                };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_stands_at_its_own_index() {
        for (index, reason) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index, "{}", reason.as_str());
        }
    }
}
