//! CPU per request, in paired rounds.
//!
//! A round visits every subject once in order and once backwards (A B C C B A), so whatever the machine does meanwhile
//! falls on all alike, and only quotients within a round are used. The raw forwarder is the control: where its two visits
//! differ by more than 5 %, the machine changed during the round.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::cpu;
use crate::harness::{Harness, Shape, Until};
use crate::peers::{Kind, Mode, Peer};
use crate::void::{copies_each, judge};

/// How much of a visit passes before it counts: connections are made, pools filled.
const WARM_UP: f64 = 0.2;
/// By how much the control's visits may differ.
const STEADY: f64 = 0.05;
/// A median of fewer says little: then the unsteady rounds are used, too, and the table says so.
const ENOUGH: usize = 3;

/// One thing that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Subject {
    /// Which program.
    pub(crate) kind: Kind,
    /// What it does.
    pub(crate) mode: Mode,
    /// What it is asked.
    pub(crate) shape: Shape,
}

/// Nanoseconds of CPU for a request, of each subject that did not fail.
#[derive(Clone, Debug, Default)]
pub(crate) struct Round {
    visits: BTreeMap<Subject, Vec<f64>>,
}

/// All rounds of some subjects.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rounds {
    /// In order.
    pub(crate) all: Vec<Round>,
    /// Visits that do not count, and why.
    pub(crate) void: Vec<(Subject, String)>,
}

/// How long it is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    /// Steady rounds that are wanted; at most twice as many are tried.
    pub(crate) rounds: usize,
    /// Of one visit.
    pub(crate) seconds: f64,
}

impl Round {
    /// The mean of both visits, in nanoseconds; `None` when one of them is void.
    pub(crate) fn mean(&self, subject: Subject) -> Option<f64> {
        match self.visits.get(&subject)?.as_slice() {
            [first, second] => Some(f64::midpoint(*first, *second)),
            _ => None,
        }
    }

    /// Whether the machine was the same at both of the control's visits.
    pub(crate) fn is_steady(&self) -> bool {
        let control = self.visits.iter().find(|(it, _)| (it.kind, it.mode) == (Kind::Raw, Mode::Plain));
        match control.map(|(_, visits)| visits.as_slice()) {
            Some([first, second]) => (first - second).abs() <= STEADY * f64::midpoint(*first, *second),
            _ => false,
        }
    }
}

impl Rounds {
    /// Visits these subjects until enough rounds were steady.
    pub(crate) fn measure(
        harness: &mut Harness,
        peers: &[Peer],
        subjects: &[Subject],
        effort: Effort,
        mut say: impl FnMut(&Round),
    ) -> Self {
        let mut rounds = Self::default();
        while rounds.steady() < effort.rounds && rounds.all.len() < 2 * effort.rounds {
            let mut round = Round::default();
            for subject in subjects.iter().chain(subjects.iter().rev()) {
                match visit(harness, peers, *subject, effort.seconds) {
                    Ok(cost) => round.visits.entry(*subject).or_default().push(cost),
                    Err(error) => rounds.void.push((*subject, format!("{error:#}"))),
                }
            }
            harness.close();
            say(&round);
            rounds.all.push(round);
        }
        rounds
    }

    /// How many rounds were steady.
    pub(crate) fn steady(&self) -> usize {
        self.all.iter().filter(|round| round.is_steady()).count()
    }

    /// Whether enough were, so that only those are used.
    pub(crate) fn is_sound(&self) -> bool {
        self.steady() >= ENOUGH
    }

    /// One value of each round that counts.
    pub(crate) fn values(&self, of: impl Fn(&Round) -> Option<f64>) -> Vec<f64> {
        let sound = self.is_sound();
        self.all.iter().filter(|round| !sound || round.is_steady()).filter_map(of).collect()
    }
}

/// What a request costs there now.
fn visit(harness: &mut Harness, peers: &[Peer], subject: Subject, seconds: f64) -> Result<f64> {
    let Subject { kind, mode, shape } = subject;
    let peer = peers.iter().find(|peer| peer.kind == kind).context("it is not running")?;
    let target = peer.target(mode).context("it cannot do that")?;
    harness.open(&target, shape, shape.clients())?;
    let within = |share: f64| Until::Time(Instant::now() + Duration::from_secs_f64(seconds * share));
    harness.run(within(WARM_UP), copies_each(mode))?;
    let before = cpu::nanoseconds(peer.process())?;
    let counts = harness.run(within(1.0), copies_each(mode))?;
    let used = cpu::nanoseconds(peer.process())? - before;
    judge(mode, counts).map_err(|void| anyhow::anyhow!("{void}"))?;
    Ok(used as f64 / counts.answered as f64)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn subject(kind: Kind, mode: Mode) -> Subject {
        Subject { kind, mode, shape: Shape::Small }
    }

    /// A round of these visits.
    pub(crate) fn round(visits: &[(Kind, Mode, &[f64])]) -> Round {
        let visits = visits.iter().map(|(kind, mode, visits)| (subject(*kind, *mode), visits.to_vec()));
        Round { visits: visits.collect() }
    }

    #[test]
    fn a_round_is_steady_while_its_control_is() {
        let with = |control: &[f64]| round(&[(Kind::Raw, Mode::Plain, control)]).is_steady();
        assert!(with(&[10.0, 10.4]));
        assert!(!with(&[10.0, 10.6]));
        assert!(!with(&[10.0]), "one visit was void");
        assert!(!round(&[(Kind::Raw, Mode::Mirrored, &[10.0, 10.0])]).is_steady(), "no control");
    }

    #[test]
    fn a_subject_with_a_void_visit_has_no_value_in_that_round() {
        let round = round(&[(Kind::Umbra, Mode::Plain, &[10.0, 14.0]), (Kind::Envoy, Mode::Plain, &[30.0])]);
        assert_eq!(round.mean(subject(Kind::Umbra, Mode::Plain)), Some(12.0));
        assert_eq!(round.mean(subject(Kind::Envoy, Mode::Plain)), None);
        assert_eq!(round.mean(subject(Kind::Nginx, Mode::Plain)), None);
    }

    #[test]
    fn unsteady_rounds_count_only_where_there_are_too_few_others() {
        let good = round(&[(Kind::Raw, Mode::Plain, &[10.0, 10.0])]);
        let bad = round(&[(Kind::Raw, Mode::Plain, &[10.0, 20.0])]);
        let values = |all| {
            let rounds = Rounds { all, void: Vec::new() };
            rounds.values(|round| round.mean(subject(Kind::Raw, Mode::Plain)))
        };
        assert_eq!(values(vec![good.clone(), good.clone(), bad.clone(), good.clone()]), [10.0; 3]);
        assert_eq!(values(vec![good, bad]), [10.0, 15.0]);
    }
}
