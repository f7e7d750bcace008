//! Row 10, the promise: nothing that a mirror does reaches a user. Each case is a proxy of its own, so that no breaker or
//! stuck copy of another case is in it, in front of a mirror that does one thing wrong, and is asked in paired rounds with
//! the mirror and without.
//!
//! A failed request is a figure here, and so is a peer that hangs.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::cpu::Cores;
use crate::harness::{Fault, Harness, Shape};
use crate::peers::{Kind, Mode, Peer, Wiring};
use crate::ratio::Figure;
use crate::rounds::{Measure, Round, Rounds, Subject, Visitor};

/// Of a visit of other parts: what stalls a busy machine falls into one of several short visits, and their median is free of
/// it. A mirror is at its limit of 256 requests in flight within an eighth of a second.
const VISIT: f64 = 0.5;

/// The most that users may notice of a mirror: their p50 and p99 over the same without it (row 10).
pub(crate) const MOST: [(Measure, f64); 2] = [(Measure::P50, 1.05), (Measure::P99, 1.10)];

/// A case of ours whose figures are over the most is asked on, so many times as long in all, and so is one whose requests
/// without the mirror are not alike in both of a round's visits. Then all its rounds count, once: to stop at the first look
/// that pleases would flatter. In 11 rounds of half a second a p99 repeats within some 10 %, so that of 32 cases a few are
/// over by chance. Each time it is another proxy: how its memory happens to lie is in all rounds of one (a p99 of 1.18 in 96
/// rounds of one, 0.91 to 1.10 in 24 of each of three).
const TIMES: usize = 4;
/// A median of fewer rounds says little.
const ENOUGH: usize = 3;

/// A mirror, and what users ask meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Case {
    /// What the mirror does.
    pub(crate) fault: Fault,
    /// What is asked.
    pub(crate) shape: Shape,
}

/// How users of one proxy fared in one case.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fared {
    /// Plain and mirrored, in turn.
    pub(crate) rounds: Rounds,
    /// Mirrored requests that were planned.
    pub(crate) planned: u64,
    /// And of these, failed.
    pub(crate) failed: u64,
    /// Plain requests that failed: the machine was too busy for this load, whatever the mirror does.
    pub(crate) failed_without: u64,
}

/// By case and program.
pub(crate) type Isolation = BTreeMap<(Case, Kind), Result<Fared, String>>;

const TEN_MS: Fault = Fault::Late(Duration::from_millis(10));
const ONE_S: Fault = Fault::Late(Duration::from_secs(1));

/// All mirrors, in the order of the table.
const FAULTS: [Fault; 14] = [
    Fault::Healthy,
    TEN_MS,
    ONE_S,
    Fault::Silent,
    Fault::Deaf,
    Fault::Drip,
    Fault::Resets,
    Fault::ResetsHalfway,
    Fault::Refuses,
    Fault::Errors,
    Fault::Early,
    Fault::HalfCloses,
    Fault::Endless,
    Fault::Absent,
];

/// Those asked over HTTP/2, too.
const HTTP2: [Fault; 4] = [Fault::Healthy, ONE_S, Fault::Silent, Fault::Resets];

/// Those that Envoy and nginx are put before, too.
const BESIDE: [Case; 8] = [
    Case { fault: Fault::Healthy, shape: Shape::Small },
    Case { fault: ONE_S, shape: Shape::Small },
    Case { fault: Fault::Silent, shape: Shape::Small },
    Case { fault: Fault::Refuses, shape: Shape::Small },
    Case { fault: Fault::Endless, shape: Shape::Small },
    Case { fault: Fault::Silent, shape: Shape::Large },
    Case { fault: Fault::Deaf, shape: Shape::Large },
    Case { fault: Fault::ResetsHalfway, shape: Shape::Large },
];

impl Case {
    /// As `bench.json` has it.
    pub(crate) fn name(self) -> String {
        let fault = match self.fault {
            Fault::Healthy => "healthy",
            Fault::Late(by) if by < Duration::from_secs(1) => "10ms_late",
            Fault::Late(_) => "1s_late",
            Fault::Silent => "never_answers",
            Fault::Deaf => "never_reads",
            Fault::Drip => "reads_1_byte_per_s",
            Fault::Resets => "resets_at_once",
            Fault::ResetsHalfway => "resets_halfway",
            Fault::Refuses => "refuses",
            Fault::Errors => "always_503",
            Fault::Early => "answers_early",
            Fault::HalfCloses => "half_closes",
            Fault::Endless => "endless_answer",
            Fault::Absent => "scaled_to_0",
        };
        let shape = match self.shape {
            Shape::Small => "",
            Shape::Large => "_64k",
            Shape::OneStream | Shape::ManyStreams => "_http2",
        };
        format!("{fault}{shape}")
    }

    /// Requests a second: what the slowest peer forwards and copies on a busy machine with most of its core to spare.
    fn per_second(self) -> f64 {
        if self.shape == Shape::Large { 1_000.0 } else { 2_000.0 }
    }

    /// All that umbra is put before, then those of the peers.
    pub(crate) fn all() -> impl Iterator<Item = (Self, Kind)> {
        let with = |shape| move |fault| Self { fault, shape };
        let plain = FAULTS.into_iter().map(with(Shape::Small));
        let large = FAULTS.into_iter().map(with(Shape::Large));
        let http2 = HTTP2.into_iter().map(with(Shape::OneStream));
        let ours = plain.chain(large).chain(http2).map(|case| (case, Kind::Umbra));
        let peers = BESIDE.into_iter().flat_map(|case| [(case, Kind::Envoy), (case, Kind::Nginx)]);
        ours.chain(peers)
    }
}

impl Fared {
    /// Whether its figures prove anything: there are enough, requests without the mirror were alike in both visits (how far
    /// they scatter is in the interval), and none of them failed.
    pub(crate) fn is_sound(&self, kind: Kind) -> bool {
        let enough = |it: Figure| it.rounds >= ENOUGH;
        self.failed_without == 0
            && self.ratio(kind, Measure::P99).is_some_and(enough)
            && is_alike(&self.rounds, kind)
    }

    /// It is sound, and users notice the mirror.
    pub(crate) fn is_over(&self, kind: Kind, (measure, most): (Measure, f64)) -> bool {
        self.is_sound(kind) && self.ratio(kind, measure).is_some_and(|it| it.value > most)
    }

    /// The plain requests' over themselves, in the second visit and the first: what the machine does to that figure.
    pub(crate) fn itself(&self, kind: Kind, measure: Measure) -> Option<Figure> {
        itself(&self.rounds, kind, measure)
    }

    /// The plain requests' over themselves, as if every other visit had been with a mirror: the second of one round and the
    /// first of the next, so that what changes in the course of a round falls out as it does of [`Fared::ratio`]. Of half as
    /// many visits as that.
    pub(crate) fn control(&self, kind: Kind, measure: Measure) -> Option<Figure> {
        let plain = Subject { kind, mode: Mode::Plain };
        let visits = |(number, round): (usize, &Round)| {
            let [first, second] = round.both(plain, measure)?;
            Some(if number % 2 == 0 { ([second; 2], [first; 2]) } else { ([first; 2], [second; 2]) })
        };
        Figure::of_medians(&self.rounds.all.iter().enumerate().filter_map(visits).collect::<Vec<_>>())
    }

    /// The mirrored requests' over the plain ones'.
    pub(crate) fn ratio(&self, kind: Kind, measure: Measure) -> Option<Figure> {
        ratio(&self.rounds, kind, measure)
    }
}

/// Of all rounds: whether the control used as much CPU in both of its visits says little about latency. And of the median
/// visits: the tenth slowest of a thousand requests is one that a single pause of the machine held up, or none.
fn ratio(rounds: &Rounds, kind: Kind, measure: Measure) -> Option<Figure> {
    let both = |round: &Round, mode| round.both(Subject { kind, mode }, measure);
    let visits = |round| Some((both(round, Mode::Mirrored)?, both(round, Mode::Plain)?));
    Figure::of_medians(&rounds.all.iter().filter_map(visits).collect::<Vec<_>>())
}

fn itself(rounds: &Rounds, kind: Kind, measure: Measure) -> Option<Figure> {
    let plain = Subject { kind, mode: Mode::Plain };
    let visits = |round: &Round| round.both(plain, measure).map(|[first, second]| ([second; 2], [first; 2]));
    Figure::of_medians(&rounds.all.iter().filter_map(visits).collect::<Vec<_>>())
}

/// Without the mirror both visits of a round give the same, in the median of the rounds and as far as users may notice.
fn is_alike(rounds: &Rounds, kind: Kind) -> bool {
    let within = |(measure, most): (Measure, f64)| {
        itself(rounds, kind, measure).is_some_and(|it| (1.0 / most..=most).contains(&it.value))
    };
    MOST.into_iter().all(within)
}

/// Nothing more need be asked.
fn is_clear(rounds: &Rounds, kind: Kind) -> bool {
    let holds = |(measure, most)| ratio(rounds, kind, measure).is_some_and(|it| it.value <= most);
    // A peer's figures are there to be compared with, and no promise.
    kind != Kind::Umbra || MOST.into_iter().all(holds) && is_alike(rounds, kind)
}

/// One case, in so many rounds or [`TIMES`] as many, each time with a proxy of its own.
///
/// # Errors
/// The proxy does not start, or asks no mirror.
pub(crate) fn measure(
    harness: &mut Harness,
    wiring: &Wiring,
    (cores, rounds, seconds): (Cores, usize, f64),
    (case, kind): (Case, Kind),
) -> Result<Fared> {
    let mirror = harness.misbehave(case.fault)?;
    let wiring = Wiring { mirror, ..wiring.clone() };
    let (mut fared, mut met) = (Fared::default(), 0);
    for proxy in 0..TIMES {
        let peers = [Peer::start(kind, &wiring, &Cores::pinned(&[cores.proxy]))?];
        let mut visitor = Visitor { harness, peers: &peers, seconds: seconds * VISIT };
        met += ask(&mut visitor, (case, kind), rounds, &mut fared);
        // To look after each of them would be to stop when it pleases. One that gives nothing gives nothing later.
        if proxy == 0 && is_clear(&fared.rounds, kind) || fared.ratio(kind, Measure::P50).is_none() {
            break;
        }
    }
    // In each round it need not be: one that resets looks unreachable, and is left alone for a while.
    ensure!(met > 0 || !case.fault.is_met(), "the mirror was never asked");
    Ok(fared)
}

/// So many rounds more; how often the mirror was met.
fn ask(visitor: &mut Visitor<'_>, (case, kind): (Case, Kind), rounds: usize, fared: &mut Fared) -> u64 {
    let Fared { rounds: all, planned, failed, failed_without } = fared;
    let mut met = 0;
    let mut visit = |subject: Subject| {
        let (visit, suffered) = visitor.patient(subject, (case.shape, case.per_second()), case.fault)?;
        if subject.mode == Mode::Mirrored {
            *planned += suffered.planned;
            *failed += suffered.failed;
            met += suffered.counts.met;
        } else {
            *failed_without += suffered.failed;
        }
        Ok(visit)
    };
    let subjects = [Mode::Plain, Mode::Mirrored].map(|mode| Subject { kind, mode });
    for _ in 0..rounds {
        let round = all.visited(&subjects, &mut visit);
        all.all.push(round);
    }
    met
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rounds::tests::round;

    #[test]
    fn a_case_is_asked_on_while_users_notice_or_the_machine_hides_it() {
        let rounds = |kind, plain: &[f64], mirrored: &[f64]| Rounds {
            all: vec![round(&[(kind, Mode::Plain, plain), (kind, Mode::Mirrored, mirrored)])],
            void: Vec::new(),
        };
        let clear = |kind, plain, mirrored| is_clear(&rounds(kind, plain, mirrored), kind);
        assert!(clear(Kind::Umbra, &[10.0, 10.4], &[10.6, 10.6]));
        assert!(!clear(Kind::Umbra, &[10.0, 10.4], &[10.8, 10.8]), "its p50 is over 1.05");
        assert!(!clear(Kind::Umbra, &[10.0, 10.6], &[10.3, 10.3]), "so is that of the machine alone");
        assert!(!clear(Kind::Umbra, &[10.6, 10.0], &[10.3, 10.3]), "either way");
        assert!(!is_clear(&Rounds::default(), Kind::Umbra), "nothing counts");
        assert!(clear(Kind::Envoy, &[10.0, 20.0], &[99.0, 99.0]), "a peer promises nothing");
    }

    #[test]
    fn the_control_keeps_what_scatters_and_not_what_each_round_does() {
        let control = |plain: &[[f64; 2]]| {
            let all = plain.iter().map(|plain| round(&[(Kind::Umbra, Mode::Plain, plain)])).collect();
            let fared = Fared { rounds: Rounds { all, void: Vec::new() }, ..Fared::default() };
            fared.control(Kind::Umbra, Measure::P50).expect("it was visited").value
        };
        assert!((control(&[[10.0, 11.0], [10.0, 11.0]]) - 1.0).abs() < 1e-9);
        assert!((control(&[[10.0, 12.0], [12.0, 10.0]]) - 1.2).abs() < 1e-9);
    }

    #[test]
    fn one_is_over_when_enough_rounds_say_so_on_a_machine_that_is_the_same_twice() {
        let fared = |plain: &[f64], rounds, failed_without| {
            let one =
                round(&[(Kind::Umbra, Mode::Plain, plain), (Kind::Umbra, Mode::Mirrored, &[12.0, 12.0])]);
            let rounds = Rounds { all: vec![one; rounds], void: Vec::new() };
            Fared { rounds, failed_without, ..Fared::default() }
        };
        let over = |fared: &Fared, most| fared.is_over(Kind::Umbra, (Measure::P99, most));
        let sound = fared(&[10.0, 10.0], ENOUGH, 0);
        assert!(over(&sound, 1.1) && !over(&sound, 1.2));
        for unsound in [
            fared(&[10.0, 10.0], ENOUGH - 1, 0),
            fared(&[9.0, 11.0], ENOUGH, 0),
            fared(&[10.0, 10.0], ENOUGH, 1),
        ] {
            assert!(!over(&unsound, 1.1) && !unsound.is_sound(Kind::Umbra));
        }
    }

    #[test]
    fn all_mirrors_are_asked_with_and_without_a_body_and_eight_of_the_peers() {
        let all: Vec<_> = Case::all().collect();
        let of = |kind| all.iter().filter(|(_, it)| *it == kind).map(|(case, _)| *case).collect::<Vec<_>>();
        assert_eq!(of(Kind::Umbra).len(), 14 * 2 + 4);
        assert_eq!((of(Kind::Envoy).len(), of(Kind::Nginx).len()), (8, 8));
        assert!(of(Kind::Envoy).iter().all(|case| of(Kind::Umbra).contains(case)), "each beside ours");
        let mut names: Vec<_> = of(Kind::Umbra).into_iter().map(Case::name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), 32);
    }
}
