//! CPU per request, in paired rounds.
//!
//! A round visits every subject once in order and once backwards (A B C C B A), so whatever the machine does meanwhile
//! falls on all alike, and only quotients within a round are used. The raw forwarder is the control: where its two visits
//! differ by more than 5 % (its latency: 10 %), the machine changed during the round. Row 10 has a control of its own:
//! `isolation`.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::cpu;
use crate::harness::{Counts, Fault, Harness, Rate, Shape, Suffered, Until};
use crate::peers::{Kind, Mode, Peer};
use crate::void::{copies_each, judge};

/// How much of a visit passes before it counts: connections are made, pools filled.
const WARM_UP: f64 = 0.2;
/// Clients of a patient loop, at least: more than are ever waited for at once while nothing is stuck.
const PATIENT_CLIENTS: usize = 16;
/// By how much the CPU of the control's visits may differ.
const STEADY: f64 = 0.05;
/// And how much its median latency, where that is measured: it repeats within 5 % on a quiet machine, either way.
const STEADY_LATENCY: f64 = 0.1;
/// Rounds that are tried beyond those wanted.
const MORE: usize = 3;
/// A median of fewer says little: then the unsteady rounds are used, too, and the table says so.
const ENOUGH: usize = 3;

/// How requests come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Load {
    /// Each client asks again when it is answered.
    Closed(Shape),
    /// Small ones at planned times.
    Open,
    /// Small ones in a closed loop, to umbra with one worker and with two.
    Workers,
}

/// One thing that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Subject {
    /// Which program.
    pub(crate) kind: Kind,
    /// What it does.
    pub(crate) mode: Mode,
}

/// What is measured of it, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Measure {
    /// CPU of a request.
    Cpu,
    /// The time within which half of the requests are answered (open loop).
    P50,
    /// The time within which 99 of 100 are.
    P99,
}

/// What one visit gave, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Visit {
    cpu: f64,
    /// The 50th and the 99th percentile.
    latency: Option<(f64, f64)>,
}

/// The visits that count, of each subject.
#[derive(Clone, Debug, Default)]
pub(crate) struct Round {
    visits: BTreeMap<Subject, Vec<Visit>>,
}

/// All rounds of some subjects.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rounds {
    /// In order.
    pub(crate) all: Vec<Round>,
    /// Visits that do not count, and why.
    pub(crate) void: Vec<(Subject, String)>,
}

impl Visit {
    fn get(&self, measure: Measure) -> Option<f64> {
        match measure {
            Measure::Cpu => Some(self.cpu),
            Measure::P50 => Some(self.latency?.0),
            Measure::P99 => Some(self.latency?.1),
        }
    }
}

impl Round {
    /// The mean of both visits; `None` when one of them is void.
    pub(crate) fn mean(&self, subject: Subject, measure: Measure) -> Option<f64> {
        self.both(subject, measure).map(|[first, second]| f64::midpoint(first, second))
    }

    /// Both visits; `None` when one of them is void.
    pub(crate) fn both(&self, subject: Subject, measure: Measure) -> Option<[f64; 2]> {
        match self.visits.get(&subject)?.as_slice() {
            [first, second] => Some([first.get(measure)?, second.get(measure)?]),
            _ => None,
        }
    }

    /// Whether the machine was the same at both of the control's visits.
    pub(crate) fn is_steady(&self) -> bool {
        let control = self.visits.get(&Subject { kind: Kind::Raw, mode: Mode::Plain });
        let Some([first, second]) = control.map(Vec::as_slice) else { return false };
        let alike = |measure, limit| match (first.get(measure), second.get(measure)) {
            (Some(first), Some(second)) => (first - second).abs() <= limit * f64::midpoint(first, second),
            // Not measured in a closed loop.
            _ => measure != Measure::Cpu,
        };
        alike(Measure::Cpu, STEADY) && alike(Measure::P50, STEADY_LATENCY)
    }
}

impl Rounds {
    /// Visits these subjects until so many rounds were steady, or enough were tried.
    pub(crate) fn measure(
        rounds: usize,
        subjects: &[Subject],
        mut visit: impl FnMut(Subject) -> Result<Visit>,
        mut say: impl FnMut(&Round),
    ) -> Self {
        let mut done = Self::default();
        while done.steady() < rounds && done.all.len() < rounds + MORE {
            let round = done.visited(subjects, &mut visit);
            say(&round);
            done.all.push(round);
        }
        done
    }

    /// One more round.
    pub(crate) fn visited(
        &mut self,
        subjects: &[Subject],
        visit: &mut impl FnMut(Subject) -> Result<Visit>,
    ) -> Round {
        let mut round = Round::default();
        for subject in subjects.iter().chain(subjects.iter().rev()) {
            match visit(*subject) {
                Ok(visit) => round.visits.entry(*subject).or_default().push(visit),
                Err(error) => self.void.push((*subject, format!("{error:#}"))),
            }
        }
        round
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

/// What visits need.
pub(crate) struct Visitor<'a> {
    /// Clients and backends.
    pub(crate) harness: &'a mut Harness,
    /// All that run.
    pub(crate) peers: &'a [Peer],
    /// Seconds of a visit.
    pub(crate) seconds: f64,
}

impl Visitor<'_> {
    /// A closed loop.
    ///
    /// # Errors
    /// The run is void.
    pub(crate) fn closed(&mut self, subject: Subject, shape: Shape) -> Result<Visit> {
        let seconds = self.seconds;
        let copies = copies_each(subject.mode);
        let run = |harness: &mut Harness| Ok((harness.run(within(seconds), copies)?, None));
        self.measured(subject, shape, run)
    }

    /// An open loop of so many small requests a second.
    ///
    /// # Errors
    /// The run is void.
    pub(crate) fn open(&mut self, subject: Subject, per_second: f64) -> Result<Visit> {
        let rate = Rate { per_second, seconds: self.seconds };
        let run = |harness: &mut Harness| {
            let (counts, latencies) = harness.run_open(rate, copies_each(subject.mode))?;
            Ok((counts, percentiles(&latencies)))
        };
        self.measured(subject, Shape::Small, run)
    }

    /// An open loop of so many requests a second, in which failed requests are counted and not an error.
    ///
    /// # Errors
    /// A healthy mirror did not get each copy.
    pub(crate) fn patient(
        &mut self,
        subject: Subject,
        (shape, per_second): (Shape, f64),
        fault: Fault,
    ) -> Result<(Visit, Suffered)> {
        let Subject { kind, mode } = subject;
        let peer = self.peers.iter().find(|peer| peer.kind == kind).context("it is not running")?;
        let target = peer.target(mode, shape).context("it cannot do that")?;
        peer.heartbeat()?;
        let clients = shape.clients().max(PATIENT_CLIENTS);
        self.harness.open(&target, shape, clients)?;
        let copies = if fault == Fault::Healthy { copies_each(mode) } else { 0 };
        let mut run = |seconds| self.harness.run_patiently(Rate { per_second, seconds }, copies);
        let warm = run(self.seconds * WARM_UP)?;
        let before = cpu::nanoseconds(peer.process())?;
        let mut suffered = run(self.seconds)?;
        let used = cpu::nanoseconds(peer.process())? - before;
        // What the mirror has kept ends with the visit, and so does what it costs.
        self.harness.close();
        self.harness.cut_mirror();
        self.harness.rest()?;
        // One that keeps its copies may have all that it gets by then.
        suffered.counts.met += warm.counts.met;
        let Counts { answered, copies, .. } = suffered.counts;
        let is_whole = fault != Fault::Healthy || copies == copies_each(mode) * answered;
        ensure!(is_whole, "{copies} copies of {answered} requests came");
        Ok((
            Visit { cpu: used as f64 / answered.max(1) as f64, latency: percentiles(&suffered.latencies) },
            suffered,
        ))
    }

    fn measured(
        &mut self,
        Subject { kind, mode }: Subject,
        shape: Shape,
        run: impl FnOnce(&mut Harness) -> Result<(Counts, Option<(f64, f64)>)>,
    ) -> Result<Visit> {
        let peer = self.peers.iter().find(|peer| peer.kind == kind).context("it is not running")?;
        let target = peer.target(mode, shape).context("it cannot do that")?;
        peer.heartbeat()?;
        self.harness.open(&target, shape, shape.clients())?;
        self.harness.run(within(self.seconds * WARM_UP), copies_each(mode))?;
        let before = cpu::nanoseconds(peer.process())?;
        let (counts, latency) = run(self.harness)?;
        let used = cpu::nanoseconds(peer.process())? - before;
        self.harness.close();
        judge(mode, counts).map_err(|void| anyhow::anyhow!("{void}"))?;
        Ok(Visit { cpu: used as f64 / counts.answered as f64, latency })
    }
}

fn within(seconds: f64) -> Until {
    Until::Time(Instant::now() + Duration::from_secs_f64(seconds))
}

/// The 50th and the 99th, in nanoseconds.
fn percentiles(sorted: &[Duration]) -> Option<(f64, f64)> {
    let at = |share| percentile(sorted, share).map(|it| it.as_nanos() as f64);
    at(0.5).zip(at(0.99))
}

/// The smallest that at least this share is not above. Of sorted ones.
fn percentile(sorted: &[Duration], share: f64) -> Option<Duration> {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn subject(kind: Kind, mode: Mode) -> Subject {
        Subject { kind, mode }
    }

    /// A round of these visits, with latencies to match: p50 as CPU, p99 ten times that.
    pub(crate) fn round(visits: &[(Kind, Mode, &[f64])]) -> Round {
        let visit = |cpu: &f64| Visit { cpu: *cpu, latency: Some((*cpu, 10.0 * *cpu)) };
        let visits = visits
            .iter()
            .map(|(kind, mode, visits)| (subject(*kind, *mode), visits.iter().map(visit).collect()));
        Round { visits: visits.collect() }
    }

    #[test]
    fn a_round_is_steady_while_its_control_is() {
        let with = |control: &[f64]| round(&[(Kind::Raw, Mode::Plain, control)]).is_steady();
        assert!(with(&[10.0, 10.4]));
        assert!(!with(&[10.0, 10.6]));
        assert!(!with(&[10.0]), "one visit was void");
        let slower = |p50| {
            let visits = [10.0, p50].map(|p50| Visit { cpu: 1.0, latency: Some((p50, 99.0)) });
            Round { visits: BTreeMap::from([(subject(Kind::Raw, Mode::Plain), visits.to_vec())]) }.is_steady()
        };
        assert!(slower(10.9) && !slower(11.2), "its latency counts, too");
        assert!(!round(&[(Kind::Raw, Mode::Mirrored, &[10.0, 10.0])]).is_steady(), "no control");
    }

    #[test]
    fn a_subject_with_a_void_visit_has_no_value_in_that_round() {
        let round = round(&[(Kind::Umbra, Mode::Plain, &[10.0, 14.0]), (Kind::Envoy, Mode::Plain, &[30.0])]);
        assert_eq!(round.mean(subject(Kind::Umbra, Mode::Plain), Measure::Cpu), Some(12.0));
        assert_eq!(round.both(subject(Kind::Umbra, Mode::Plain), Measure::P99), Some([100.0, 140.0]));
        assert_eq!(round.both(subject(Kind::Envoy, Mode::Plain), Measure::P99), None);
        assert_eq!(round.mean(subject(Kind::Envoy, Mode::Plain), Measure::Cpu), None);
        assert_eq!(round.mean(subject(Kind::Nginx, Mode::Plain), Measure::Cpu), None);
    }

    #[test]
    fn unsteady_rounds_count_only_where_there_are_too_few_others() {
        let good = round(&[(Kind::Raw, Mode::Plain, &[10.0, 10.0])]);
        let bad = round(&[(Kind::Raw, Mode::Plain, &[10.0, 20.0])]);
        let values = |all| {
            let rounds = Rounds { all, void: Vec::new() };
            rounds.values(|round| round.mean(subject(Kind::Raw, Mode::Plain), Measure::Cpu))
        };
        assert_eq!(values(vec![good.clone(), good.clone(), bad.clone(), good.clone()]), [10.0; 3]);
        assert_eq!(values(vec![good, bad]), [10.0, 15.0]);
    }

    #[test]
    fn a_round_goes_forwards_and_backwards_and_leaves_out_what_is_void() {
        let (a, b) = (subject(Kind::Raw, Mode::Plain), subject(Kind::Umbra, Mode::Plain));
        let mut order = Vec::new();
        let visit = |subject| {
            order.push(subject);
            anyhow::ensure!(order.len() != 3, "the third fails");
            Ok(Visit { cpu: 1.0, latency: None })
        };
        let rounds = Rounds::measure(1, &[a, b], visit, |_| ());
        assert_eq!(order, [a, b, b, a]);
        assert_eq!(rounds.void, [(b, "the third fails".to_owned())]);
        assert_eq!(rounds.all[0].mean(b, Measure::Cpu), None);
        assert_eq!(rounds.all[0].mean(a, Measure::Cpu), Some(1.0));
        assert_eq!(rounds.all[0].mean(a, Measure::P99), None, "nothing was timed");
        assert!(rounds.all[0].is_steady(), "nor is it asked for");
    }

    #[test]
    fn an_unsteady_machine_does_not_keep_it_going_for_ever() {
        let mut cost = 0.0;
        let visit = |_| {
            cost += 1.0;
            Ok(Visit { cpu: cost, latency: None })
        };
        let rounds = Rounds::measure(3, &[subject(Kind::Raw, Mode::Plain)], visit, |_| ());
        assert_eq!((rounds.all.len(), rounds.steady()), (6, 0));
    }

    #[test]
    fn percentiles_are_of_requests_that_were_answered() {
        let all: Vec<_> = (1..=200).map(Duration::from_micros).collect();
        assert_eq!(percentile(&all, 0.5), Some(Duration::from_micros(100)));
        assert_eq!(percentile(&all, 0.99), Some(Duration::from_micros(198)));
        assert_eq!(percentile(&all[..1], 0.5), Some(Duration::from_micros(1)));
        assert_eq!(percentile(&[], 0.5), None);
    }
}
