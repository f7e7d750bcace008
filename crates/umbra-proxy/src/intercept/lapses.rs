//! Times in which armed services were not taken over: each counted, with its length and its cause. Pure but for the
//! counters that it moves.

use std::time::{Duration, Instant};

use crate::metrics::{InterceptionMetrics, LapseReason};

/// The rules do not work, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Broken {
    pub(super) reason: LapseReason,
    pub(super) since: Instant,
}

/// The lapse that is under way, if any.
#[derive(Debug, Default)]
pub(super) struct Lapses {
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    reason: LapseReason,
    counted_to: Instant,
}

impl Lapses {
    /// Counts. A lapse begins when the rules have stopped working while something is `armed`, and ends when they work
    /// again; its seconds are counted as they pass, or, after a hang, afterwards.
    pub(super) fn look(
        &mut self,
        now: Instant,
        broken: Option<Broken>,
        armed: bool,
        metrics: &InterceptionMetrics,
    ) {
        let Some(broken) = broken.filter(|_| armed) else {
            self.open = None;
            return;
        };
        let open = match &mut self.open {
            Some(open) if open.reason == broken.reason => open,
            open => {
                metrics.lapse_began(broken.reason);
                open.insert(Open { reason: broken.reason, counted_to: broken.since })
            }
        };
        let passed = now.saturating_duration_since(open.counted_to);
        metrics.disarmed_for(open.reason, passed);
        open.counted_to += passed;
    }
}

/// The element was renewed at `last_beat` and lives for `alive_for`: the rules have stopped working since.
pub(super) fn hung(now: Instant, last_beat: Instant, alive_for: Duration) -> Option<Broken> {
    let since = last_beat + alive_for;
    (now > since).then_some(Broken { reason: LapseReason::Hung, since })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOR: Duration = Duration::from_secs(3);

    fn counted(metrics: &InterceptionMetrics, reason: LapseReason) -> (u64, f64) {
        (metrics.lapses(reason), metrics.disarmed_seconds(reason))
    }

    #[test]
    fn a_hang_counts_from_when_the_rules_stopped() {
        let metrics = InterceptionMetrics::default();
        let mut lapses = Lapses::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        lapses.look(at(2), hung(at(2), start, FOR), true, &metrics);
        assert_eq!(counted(&metrics, LapseReason::Hung), (0, 0.0), "the element lives");
        // The process was stopped until the tenth second, and looks before it beats.
        lapses.look(at(10), hung(at(10), start, FOR), true, &metrics);
        assert_eq!(counted(&metrics, LapseReason::Hung), (1, 7.0));
        lapses.look(at(11), hung(at(11), at(10), FOR), true, &metrics);
        assert_eq!(counted(&metrics, LapseReason::Hung), (1, 7.0));
        // A worker hangs: it is seen while it lasts.
        for second in 12..=20 {
            lapses.look(at(second), hung(at(second), at(11), FOR), true, &metrics);
        }
        assert_eq!(counted(&metrics, LapseReason::Hung), (2, 7.0 + 6.0));
    }

    #[test]
    fn nothing_lapses_while_nothing_is_armed() {
        let metrics = InterceptionMetrics::default();
        let mut lapses = Lapses::default();
        let start = Instant::now();
        let later = start + Duration::from_secs(60);
        lapses.look(later, hung(later, start, FOR), false, &metrics);
        assert_eq!(counted(&metrics, LapseReason::Hung), (0, 0.0));
    }

    #[test]
    fn each_cause_is_a_lapse_of_its_own() {
        let metrics = InterceptionMetrics::default();
        let mut lapses = Lapses::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let blocked = Some(Broken { reason: LapseReason::Blocked, since: at(1) });
        lapses.look(at(1), blocked, true, &metrics);
        lapses.look(at(5), blocked, true, &metrics);
        lapses.look(at(6), None, true, &metrics);
        lapses.look(at(9), hung(at(9), at(4), FOR), true, &metrics);
        metrics.dead(Duration::from_secs(30));
        assert_eq!(counted(&metrics, LapseReason::Blocked), (1, 4.0));
        assert_eq!(counted(&metrics, LapseReason::Hung), (1, 2.0));
        assert_eq!(counted(&metrics, LapseReason::Dead), (1, 30.0));
    }
}
