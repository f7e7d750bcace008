//! What proxies count of copies, and when the counters have to add up.

use std::ops::Add;

use anyhow::{Result, ensure};

use crate::Samples;

/// How many copies became what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shadows {
    /// Requests that were chosen for a mirror.
    pub eligible: u64,
    /// Copies that a mirror got or failed to take.
    pub sent: u64,
    /// Copies that were not made.
    pub dropped: u64,
    /// Of those sent: an answer came.
    pub answered: u64,
    /// Of those sent: none came in time.
    pub timed_out: u64,
    /// Of those sent: the connection failed.
    pub failed: u64,
}

impl Shadows {
    /// What one proxy counts in all series with these labels.
    pub fn of(samples: &Samples, labels: &[(&str, &str)]) -> Self {
        // Counters of a test's requests: whole numbers far below 2^53.
        let sum = |name: &str, labels: &[(&str, &str)]| {
            samples.sum(&format!("umbra_shadow_{name}_total"), labels) as u64
        };
        let result = |what| sum("result", &[labels, &[("result", what)]].concat());
        Self {
            eligible: sum("eligible", labels),
            sent: sum("sent", labels),
            dropped: sum("dropped", labels),
            answered: result("answered"),
            timed_out: result("timed_out"),
            failed: result("failed"),
        }
    }

    /// No copy is in flight: eligible = sent + dropped, sent = answered + timed_out + failed.
    ///
    /// # Errors
    /// Not yet, with the counters.
    pub fn settled(&self) -> Result<()> {
        let Self { eligible, sent, dropped, answered, timed_out, failed } = self;
        ensure!(*eligible == sent + dropped && *sent == answered + timed_out + failed, "{self:?}");
        Ok(())
    }
}

impl Add for Shadows {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            eligible: self.eligible + other.eligible,
            sent: self.sent + other.sent,
            dropped: self.dropped + other.dropped,
            answered: self.answered + other.answered,
            timed_out: self.timed_out + other.timed_out,
            failed: self.failed + other.failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_settled_when_each_has_its_outcome() {
        let text = |failed: u32| {
            let service = "service=\"web\"";
            Samples::from_text(format!(
                "umbra_shadow_eligible_total{{{service}}} 6\numbra_shadow_sent_total{{{service}}} 4\n\
                 umbra_shadow_dropped_total{{{service},reason=\"breaker\"}} 2\n\
                 umbra_shadow_result_total{{{service},result=\"answered\"}} 3\n\
                 umbra_shadow_result_total{{{service},result=\"failed\"}} {failed}\n\
                 umbra_shadow_eligible_total{{service=\"other\"}} 1\n"
            ))
        };
        let web = |failed| Shadows::of(&text(failed), &[("service", "web")]);
        web(1).settled().unwrap();
        web(0).settled().unwrap_err();
        Shadows::of(&text(1), &[]).settled().unwrap_err();
        assert_eq!((web(1) + web(1)).dropped, 4);
    }
}
