//! The demo's sums: users on one side, the shadow on the other, and whether they agree. Pure.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Seen;
use super::metrics::Sample;
use crate::load::Report;

/// What `target/demo.json` says.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Ledger {
    /// What users saw.
    pub users: Users,
    /// What the shadow did.
    pub shadow: Shadow,
    /// What the two versions say they got; only for the checks.
    #[serde(skip)]
    pub seen: Seen,
    /// The users' failures in words; only for the screen.
    #[serde(skip)]
    pub failures: BTreeMap<String, u64>,
}

/// What users saw.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Users {
    /// Requests sent.
    pub requests: u64,
    /// Those without a right answer of v1.
    pub failed: u64,
    /// Half of them took no longer, in milliseconds.
    pub p50_ms: f64,
    /// 99 of 100 took no longer, in milliseconds.
    pub p99_ms: f64,
}

/// What the shadow did, by umbra's counters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Shadow {
    /// Requests that were to be copied.
    pub eligible: u64,
    /// Copies that went out.
    pub sent: u64,
    /// Copies that v2 answered, in whatever way.
    pub answered: u64,
    /// Copies that v2 answered with a status of 500 or more.
    pub answered_5xx: u64,
    /// Copies that got no answer in time.
    pub timed_out: u64,
    /// Copies whose connection failed.
    pub failed: u64,
    /// Copies that were not made, by reason.
    pub dropped: BTreeMap<String, u64>,
}

impl Shadow {
    /// Adds up what `/metrics` says.
    pub(super) fn read(samples: &[Sample]) -> Self {
        let sum = |name: &str, chosen: &dyn Fn(&Sample) -> bool| {
            let chosen = samples.iter().filter(|sample| sample.name == name && chosen(sample));
            chosen.map(|sample| sample.value as u64).sum::<u64>()
        };
        let result = |result| sum("umbra_shadow_result_total", &|sample| sample.label("result") == result);
        let mut shadow = Self {
            eligible: sum("umbra_shadow_eligible_total", &|_| true),
            sent: sum("umbra_shadow_sent_total", &|_| true),
            answered: result("answered"),
            answered_5xx: sum("istio_requests_total", &answered_5xx),
            timed_out: result("timed_out"),
            failed: result("failed"),
            dropped: BTreeMap::new(),
        };
        for sample in samples.iter().filter(|s| s.name == "umbra_shadow_dropped_total" && s.value > 0.0) {
            *shadow.dropped.entry(sample.label("reason").to_owned()).or_default() += sample.value as u64;
        }
        shadow
    }

    /// Copies that were not made.
    pub fn dropped(&self) -> u64 {
        self.dropped.values().sum()
    }

    /// Copies of which the end is not known yet.
    pub fn in_flight(&self) -> u64 {
        let ended = self.answered + self.timed_out + self.failed + self.dropped();
        self.eligible.saturating_sub(ended)
    }

    /// Copies that did not end well.
    pub fn worse(&self) -> u64 {
        self.answered_5xx + self.timed_out + self.failed
    }
}

/// A 5xx that v2 sent itself, not one that stands for a timeout (UT) or a failed connection (UF).
fn answered_5xx(sample: &Sample) -> bool {
    sample.label("request_role") == "shadow"
        && sample.label("response_code").starts_with('5')
        && matches!(sample.label("response_flags"), "-" | "")
}

impl Ledger {
    /// Both sides of one play.
    pub fn new(users: &Report, shadow: Shadow, seen: Seen) -> Self {
        let failures = users.failures.clone();
        let (requests, failed) = (users.requests, users.failed);
        let users = Users { requests, failed, p50_ms: users.p50_ms, p99_ms: users.p99_ms };
        Self { users, shadow, seen, failures }
    }

    /// Whatever is not as it must be; empty when all is well.
    pub fn complaints(&self) -> Vec<String> {
        let (users, shadow) = (&self.users, &self.shadow);
        let mut complaints = Vec::new();
        if users.failed > 0 {
            complaints.push(format!("{} users were affected: {:?}", users.failed, self.failures));
        }
        let mut equal = |left: &str, a: u64, right: &str, b: u64| {
            if a != b {
                complaints.push(format!("{left} is {a}, but {right} is {b}"));
            }
        };
        equal("eligible", shadow.eligible, "the users' requests", users.requests);
        equal("eligible", shadow.eligible, "sent + dropped", shadow.sent + shadow.dropped());
        let ended = shadow.answered + shadow.timed_out + shadow.failed;
        equal("sent", shadow.sent, "answered + timed_out + failed", ended);
        equal("what v1 saw", self.seen.v1, "the users' requests", users.requests);
        if self.seen.v2 > shadow.sent || self.seen.v2 < shadow.answered + shadow.timed_out {
            let (seen, sent) = (self.seen.v2, shadow.sent);
            complaints.push(format!("v2 saw {seen}, but {sent} were sent and {} failed", shadow.failed));
        }
        if shadow.answered_5xx > shadow.answered {
            complaints.push(format!("{} of {} answers are 5xx", shadow.answered_5xx, shadow.answered));
        }
        complaints
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::metrics::parse;

    const TEXT: &str = r#"# TYPE umbra_shadow_eligible counter
umbra_shadow_eligible_total{service="s",rule="r",mirror="m"} 10
umbra_shadow_sent_total{service="s",rule="r",mirror="m"} 8
umbra_shadow_dropped_total{service="s",rule="r",mirror="m",reason="overflow"} 2
umbra_shadow_dropped_total{service="s",rule="r",mirror="m",reason="breaker"} 0
umbra_shadow_result_total{service="s",rule="r",mirror="m",result="answered"} 5
umbra_shadow_result_total{service="s",rule="r",mirror="m",result="timed_out"} 2
umbra_shadow_result_total{service="s",rule="r",mirror="m",result="failed"} 1
istio_requests_total{request_role="shadow",response_code="500",response_flags="-"} 3
istio_requests_total{request_role="shadow",response_code="200",response_flags="-"} 2
istio_requests_total{request_role="shadow",response_code="504",response_flags="UT"} 2
istio_requests_total{request_role="shadow",response_code="503",response_flags="UF"} 1
istio_requests_total{request_role="primary",response_code="500",response_flags="-"} 7
"#;

    fn ledger() -> Ledger {
        let shadow = Shadow::read(&parse(TEXT));
        let mut users = Report::default();
        users.requests = 10;
        Ledger::new(&users, shadow, Seen { v1: 10, v2: 7 })
    }

    #[test]
    fn umbras_counters_add_up() {
        let shadow = ledger().shadow;
        let dropped = BTreeMap::from([("overflow".to_owned(), 2)]);
        let expected =
            Shadow { eligible: 10, sent: 8, answered: 5, answered_5xx: 3, timed_out: 2, failed: 1, dropped };
        assert_eq!(shadow, expected);
        assert_eq!((shadow.in_flight(), shadow.worse()), (0, 6));
        assert_eq!(ledger().complaints(), [""; 0]);
    }

    #[test]
    fn whatever_does_not_add_up_is_said() {
        type Break = fn(&mut Ledger);
        let cases: [(Break, &str); 6] = [
            (|l| l.users.failed = 1, "users were affected"),
            (|l| l.users.requests = 11, "the users' requests is 11"),
            (|l| l.shadow.dropped.clear(), "sent + dropped is 8"),
            (|l| l.shadow.timed_out = 1, "answered + timed_out + failed is 7"),
            (|l| l.seen.v1 = 9, "what v1 saw is 9"),
            (|l| l.seen.v2 = 5, "v2 saw 5"),
        ];
        for (breaks, expected) in cases {
            let mut ledger = ledger();
            breaks(&mut ledger);
            let complaints = ledger.complaints();
            assert!(complaints.iter().any(|c| c.contains(expected)), "{expected}: {complaints:?}");
        }
    }

    #[test]
    fn the_json_has_the_agreed_shape() {
        let json = serde_json::to_value(ledger()).unwrap();
        let expected = serde_json::json!({
            "users": {"requests": 10, "failed": 0, "p50_ms": 0.0, "p99_ms": 0.0},
            "shadow": {"eligible": 10, "sent": 8, "answered": 5, "answered_5xx": 3, "timed_out": 2, "failed": 1,
                "dropped": {"overflow": 2}}
        });
        assert_eq!(json, expected);
    }
}
