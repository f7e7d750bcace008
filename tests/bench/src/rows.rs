//! The table: which figure stands in which row, against whom, and what it has to be. Pure.

use std::collections::BTreeMap;

use crate::exact::Count;
use crate::harness::Shape;
use crate::isolation::{Case, Fared, Isolation};
use crate::memory::{self, Growth};
use crate::peers::{Kind, Mode};
use crate::ratio::Figure;
use crate::rounds::{Load, Measure, Rounds, Subject};

/// One figure of the table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    /// Its row; one with several figures has several of these.
    pub(crate) number: u8,
    /// Its name, once in the table.
    pub(crate) metric: &'static str,
    /// What it must not exceed.
    pub(crate) must: Option<f64>,
    /// What we aim at.
    pub(crate) aim: f64,
    /// Where it comes from.
    pub(crate) source: Source,
}

/// How a figure is made.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Source {
    /// Measured in rounds: umbra's in this mode, over that of the other in that mode.
    Timed(Load, Measure, Mode, (Kind, Mode)),
    /// CPU of a mirrored request less that of a plain one, umbra's over raw's.
    MirrorCost,
    /// Counted: umbra's in this mode, over that of the other in that mode.
    Counted(Count, Mode, (Kind, Mode)),
    /// Counted, mirrored less plain: umbra's over the other's.
    MirrorCount(Count, Kind),
    /// Counted, of a request of umbra's, as it is.
    Own(Count, Mode),
    /// Resident memory before the first request: umbra's over the other's.
    Idle(Kind),
    /// Resident memory that a client's idle connection takes of umbra's.
    IdleConnection,
    /// CPU of a request of umbra's with two workers, over that with one.
    Workers,
    /// Before a faulty mirror, over the same without it: the worst of all cases.
    Isolated(Measure),
    /// Requests that failed before a faulty mirror, of all cases.
    Failed,
    /// What a mirror that keeps its copies makes umbra grow by, in units.
    Grown(Case, Unit),
}

/// Of what grows.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Unit {
    /// Memory, in what umbra is allowed.
    Cap,
    /// Memory, in what Envoy grows by.
    Envoy,
    /// Descriptors, in connections that umbra may have to one mirror.
    Connections,
}

/// Everything that was measured.
#[derive(Debug, Default)]
pub(crate) struct Measured {
    /// By how requests came.
    pub(crate) rounds: BTreeMap<Load, Rounds>,
    /// One value of each repetition.
    pub(crate) exact: BTreeMap<(Count, Kind, Mode), Result<Vec<f64>, String>>,
    /// Resident bytes before the first request.
    pub(crate) idle: BTreeMap<Kind, u64>,
    /// Resident bytes that each client's connection adds, once it has been asked on.
    pub(crate) idle_connection: BTreeMap<Kind, f64>,
    /// How users fared before faulty mirrors.
    pub(crate) isolation: Isolation,
    /// What mirrors that keep their copies made a proxy grow by.
    pub(crate) growth: BTreeMap<(Case, Kind), Result<Growth, String>>,
    /// Peers that could not be started, and why.
    pub(crate) absent: BTreeMap<Kind, String>,
}

const fn cpu(
    number: u8,
    metric: &'static str,
    (kind, mode, shape): (Kind, Mode, Shape),
    must: Option<f64>,
    aim: f64,
) -> Row {
    let source = Source::Timed(Load::Closed(shape), Measure::Cpu, mode, (kind, mode));
    Row { number, metric, must, aim, source }
}

const fn latency(
    number: u8,
    metric: &'static str,
    measure: Measure,
    mode: Mode,
    other: (Kind, Mode),
    (must, aim): (Option<f64>, f64),
) -> Row {
    Row { number, metric, must, aim, source: Source::Timed(Load::Open, measure, mode, other) }
}

const fn own(number: u8, metric: &'static str, count: Count, mode: Mode, must: f64, aim: f64) -> Row {
    Row { number, metric, must: Some(must), aim, source: Source::Own(count, mode) }
}

const SMALL: Shape = Shape::Small;
const LARGE: Shape = Shape::Large;
const PLAIN: Mode = Mode::Plain;
const MIRRORED: Mode = Mode::Mirrored;
const MANY: Shape = Shape::ManyStreams;
const ONE: Shape = Shape::OneStream;

const fn other(number: u8, metric: &'static str, source: Source, (must, aim): (Option<f64>, f64)) -> Row {
    Row { number, metric, must, aim, source }
}

/// The rows, in order; the first of each number is the one that the row is named by.
pub(crate) const ROWS: &[Row] = &[
    cpu(1, "cpu_vs_envoy", (Kind::Envoy, Mode::Plain, SMALL), Some(0.40), 0.33),
    cpu(1, "cpu_vs_nginx", (Kind::Nginx, Mode::Plain, SMALL), Some(1.00), 0.92),
    cpu(1, "cpu_vs_haproxy", (Kind::Haproxy, Mode::Plain, SMALL), Some(1.00), 0.92),
    cpu(1, "cpu_vs_raw", (Kind::Raw, Mode::Plain, SMALL), None, 1.15),
    cpu(2, "cpu_mirrored_vs_envoy", (Kind::Envoy, Mode::Mirrored, SMALL), Some(0.35), 0.27),
    cpu(2, "cpu_mirrored_vs_nginx", (Kind::Nginx, Mode::Mirrored, SMALL), Some(0.45), 0.33),
    cpu(2, "cpu_mirrored_vs_raw", (Kind::Raw, Mode::Mirrored, SMALL), None, 1.15),
    Row { number: 3, metric: "mirror_cost_vs_raw", must: Some(1.9), aim: 1.1, source: Source::MirrorCost },
    Row {
        number: 4,
        metric: "instructions_unsampled_mirror",
        must: Some(1.01),
        aim: 1.002,
        source: Source::Counted(Count::Instructions, Mode::Unsampled, (Kind::Umbra, Mode::Plain)),
    },
    Row {
        number: 5,
        metric: "instructions_vs_nginx",
        must: None,
        aim: 0.60,
        source: Source::Counted(Count::Instructions, Mode::Plain, (Kind::Nginx, Mode::Plain)),
    },
    Row {
        number: 5,
        metric: "instructions_mirror_vs_nginx",
        must: None,
        aim: 0.35,
        source: Source::MirrorCount(Count::Instructions, Kind::Nginx),
    },
    own(6, "allocations", Count::Allocations, Mode::Plain, 6.0, 2.0),
    own(6, "allocations_mirrored", Count::Allocations, Mode::Mirrored, 14.0, 4.0),
    own(7, "syscalls", Count::Syscalls, Mode::Plain, 4.3, 4.2),
    own(7, "syscalls_mirrored", Count::Syscalls, Mode::Mirrored, 6.5, 6.2),
    latency(8, "p50_vs_envoy", Measure::P50, PLAIN, (Kind::Envoy, PLAIN), (Some(0.55), 0.45)),
    latency(8, "p50_vs_raw", Measure::P50, PLAIN, (Kind::Raw, PLAIN), (None, 1.10)),
    latency(8, "p99_vs_envoy", Measure::P99, PLAIN, (Kind::Envoy, PLAIN), (None, 0.40)),
    latency(8, "p99_vs_raw", Measure::P99, PLAIN, (Kind::Raw, PLAIN), (None, 1.25)),
    latency(9, "p99_mirrored_vs_plain", Measure::P99, MIRRORED, (Kind::Umbra, PLAIN), (Some(1.25), 1.10)),
    other(10, "isolation_p50", Source::Isolated(Measure::P50), (Some(1.05), 1.02)),
    other(10, "isolation_p99", Source::Isolated(Measure::P99), (Some(1.10), 1.05)),
    other(10, "isolation_failed", Source::Failed, (Some(0.0), 0.0)),
    other(11, "silent_mirror_growth_over_cap", Source::Grown(memory::SILENT, Unit::Cap), (Some(1.0), 1.0)),
    other(11, "silent_mirror_growth_vs_envoy", Source::Grown(memory::SILENT, Unit::Envoy), (None, 0.05)),
    other(11, "silent_mirror_connections", Source::Grown(memory::SILENT, Unit::Connections), (None, 1.0)),
    other(11, "deaf_mirror_64k_growth_over_cap", Source::Grown(memory::DEAF, Unit::Cap), (Some(1.0), 1.0)),
    Row {
        number: 12,
        metric: "rss_idle_vs_envoy",
        must: Some(0.2),
        aim: 0.12,
        source: Source::Idle(Kind::Envoy),
    },
    Row {
        number: 12,
        metric: "bytes_per_idle_connection",
        must: Some(8192.0),
        aim: 4096.0,
        source: Source::IdleConnection,
    },
    cpu(13, "h2c_many_streams_vs_envoy", (Kind::Envoy, PLAIN, MANY), Some(0.35), 0.22),
    cpu(13, "h2c_one_stream_vs_envoy", (Kind::Envoy, PLAIN, ONE), Some(0.5), 0.5),
    cpu(13, "h2c_many_streams_vs_haproxy", (Kind::Haproxy, PLAIN, MANY), None, 1.15),
    cpu(13, "h2c_one_stream_vs_haproxy", (Kind::Haproxy, PLAIN, ONE), None, 1.15),
    cpu(13, "h2c_one_stream_vs_raw", (Kind::Raw, PLAIN, ONE), None, 1.12),
    cpu(14, "cpu_64k_vs_envoy", (Kind::Envoy, Mode::Plain, LARGE), Some(0.7), 0.55),
    cpu(14, "cpu_64k_vs_haproxy", (Kind::Haproxy, Mode::Plain, LARGE), None, 0.90),
    other(16, "cpu_two_workers_vs_one", Source::Workers, (Some(1.05), 1.03)),
];

impl Row {
    /// Against whom, as `bench.json` says it; `None`: ourselves.
    pub(crate) fn peer(&self) -> Option<Kind> {
        let other = match self.source {
            Source::Timed(_, _, _, (kind, _))
            | Source::Counted(_, _, (kind, _))
            | Source::MirrorCount(_, kind) => kind,
            Source::Idle(kind) => kind,
            Source::MirrorCost => Kind::Raw,
            Source::Grown(_, Unit::Envoy) => Kind::Envoy,
            Source::Own(..)
            | Source::IdleConnection
            | Source::Workers
            | Source::Isolated(_)
            | Source::Failed
            | Source::Grown(..) => return None,
        };
        Some(other).filter(|kind| *kind != Kind::Umbra)
    }

    /// What stands in `bench.json` as the target: what must hold, or the aim where nothing must.
    pub(crate) fn target(&self) -> f64 {
        self.must.unwrap_or(self.aim)
    }
}

impl Measured {
    /// The figure of a row.
    ///
    /// # Errors
    /// Why it is missing.
    pub(crate) fn figure(&self, row: &Row) -> Result<Figure, String> {
        match row.source {
            Source::Timed(load, measure, mode, (kind, other)) => {
                self.of_rounds((load, measure), &[Kind::Umbra, kind], |of| {
                    Some(of(Kind::Umbra, mode)? / of(kind, other)?)
                })
            }
            Source::MirrorCost => {
                let cpu = (Load::Closed(SMALL), Measure::Cpu);
                self.of_rounds(cpu, &[Kind::Umbra, Kind::Raw], |of| {
                    let cost = |kind| Some(of(kind, MIRRORED)? - of(kind, PLAIN)?);
                    Some(cost(Kind::Umbra)? / cost(Kind::Raw).filter(|cost| *cost > 0.0)?)
                })
            }
            Source::Workers => self.of_rounds((Load::Workers, Measure::Cpu), &[Kind::Pair], |of| {
                Some(of(Kind::Pair, PLAIN)? / of(Kind::Umbra, PLAIN)?)
            }),
            Source::Isolated(measure) => self.worst(measure),
            Source::Failed => figure(vec![self.fared()?.map(|(_, fared)| fared.failed as f64).sum()]),
            Source::Grown(case, unit) => figure(vec![self.grown(case, unit)?]),
            Source::Idle(kind) => {
                if let Some(why) = self.absent.get(&kind) {
                    return Err(why.clone());
                }
                let bytes =
                    |kind| self.idle.get(&kind).map(|bytes| *bytes as f64).ok_or("it was not asked for");
                figure(vec![bytes(Kind::Umbra)? / bytes(kind)?])
            }
            Source::IdleConnection => {
                let bytes = self.idle_connection.get(&Kind::Umbra).ok_or("it was not asked for")?;
                figure(vec![*bytes])
            }
            Source::Own(count, mode) => figure(self.exactly(count, Kind::Umbra, mode)?.to_vec()),
            Source::Counted(count, mode, (kind, other)) => {
                let ours = self.exactly(count, Kind::Umbra, mode)?;
                figure(paired(ours, self.exactly(count, kind, other)?, |ours, theirs| ours / theirs))
            }
            Source::MirrorCount(count, kind) => {
                let cost = |kind| {
                    let (with, without) =
                        (self.exactly(count, kind, MIRRORED)?, self.exactly(count, kind, PLAIN)?);
                    Ok::<_, String>(paired(with, without, |with, without| with - without))
                };
                figure(paired(&cost(Kind::Umbra)?, &cost(kind)?, |ours, theirs| ours / theirs))
            }
        }
    }

    /// Whether the machine was too unsteady for this row's figure to prove anything.
    pub(crate) fn is_noisy(&self, row: &Row) -> bool {
        let load = match row.source {
            Source::Timed(load, ..) => load,
            Source::MirrorCost => Load::Closed(SMALL),
            Source::Workers => Load::Workers,
            Source::Isolated(_) => {
                return self.fared().is_ok_and(|mut all| all.any(|(_, fared)| !fared.is_sound()));
            }
            // Failures say nothing where there are some without a mirror, too.
            Source::Failed => {
                return self.fared().is_ok_and(|mut all| all.any(|(_, fared)| fared.failed_without > 0));
            }
            _ => return false,
        };
        self.rounds.get(&load).is_none_or(|rounds| !rounds.is_sound())
    }

    fn of_rounds(
        &self,
        (load, measure): (Load, Measure),
        kinds: &[Kind],
        value: impl Fn(&dyn Fn(Kind, Mode) -> Option<f64>) -> Option<f64>,
    ) -> Result<Figure, String> {
        if let Some(why) = kinds.iter().find_map(|kind| self.absent.get(kind)) {
            return Err(why.clone());
        }
        let rounds = self.rounds.get(&load).ok_or("it was not asked for")?;
        let values = rounds.values(|round| value(&|kind, mode| round.mean(Subject { kind, mode }, measure)));
        Figure::of(&values).ok_or_else(|| {
            let void = rounds.void.iter().find(|(subject, _)| kinds.contains(&subject.kind));
            void.map_or_else(|| "no round counts".to_owned(), |(_, why)| format!("every run is void: {why}"))
        })
    }

    /// umbra's cases, all of which were measured.
    fn fared(&self) -> Result<impl Iterator<Item = (Case, &Fared)>, String> {
        let ours = || self.isolation.iter().filter(|((_, kind), _)| *kind == Kind::Umbra);
        if ours().next().is_none() {
            return Err("it was not asked for".to_owned());
        }
        let mut all = Vec::new();
        for ((case, _), fared) in ours() {
            all.push((*case, fared.as_ref().map_err(|why| format!("{}: {why}", case.name()))?));
        }
        Ok(all.into_iter())
    }

    fn worst(&self, measure: Measure) -> Result<Figure, String> {
        let mut worst: Option<Figure> = None;
        for (case, fared) in self.fared()? {
            let void = || fared.rounds.void.first().map_or("no round counts", |(_, why)| why).to_owned();
            let ratio =
                fared.ratio(Kind::Umbra, measure).ok_or_else(|| format!("{}: {}", case.name(), void()))?;
            if worst.is_none_or(|worst| worst.value < ratio.value) {
                worst = Some(ratio);
            }
        }
        worst.ok_or_else(|| "it was not asked for".to_owned())
    }

    fn grown(&self, case: Case, unit: Unit) -> Result<f64, String> {
        let of = |kind| match self.growth.get(&(case, kind)) {
            Some(growth) => growth.clone(),
            None => Err(self.absent.get(&kind).cloned().unwrap_or_else(|| "it was not asked for".to_owned())),
        };
        let ours = of(Kind::Umbra)?;
        Ok(match unit {
            Unit::Cap => ours.bytes() / memory::CAP,
            Unit::Connections => ours.connections() / memory::CONNECTIONS,
            Unit::Envoy => ours.bytes() / of(Kind::Envoy)?.bytes(),
        })
    }

    fn exactly(&self, count: Count, kind: Kind, mode: Mode) -> Result<&[f64], String> {
        if let Some(why) = self.absent.get(&kind) {
            return Err(why.clone());
        }
        let values = self.exact.get(&(count, kind, mode)).ok_or("it was not asked for")?;
        values.as_deref().map_err(Clone::clone)
    }
}

/// By repetition; of the shorter one's length.
fn paired(these: &[f64], those: &[f64], of: impl Fn(f64, f64) -> f64) -> Vec<f64> {
    these.iter().zip(those).map(|(this, that)| of(*this, *that)).collect()
}

fn figure(values: Vec<f64>) -> Result<Figure, String> {
    Figure::of(&values).ok_or_else(|| "it is no number".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::harness::Fault;
    use crate::rounds::tests::round;

    fn row(metric: &str) -> &'static Row {
        ROWS.iter().find(|row| row.metric == metric).unwrap()
    }

    /// umbra, raw and Envoy, on a machine that is `pace` times slower.
    fn at(pace: f64) -> crate::rounds::Round {
        let visits = |cost: f64| vec![cost * pace, cost * pace];
        let all = [
            (Kind::Umbra, PLAIN, visits(12.0)),
            (Kind::Umbra, MIRRORED, visits(18.0)),
            (Kind::Raw, PLAIN, visits(10.0)),
            (Kind::Raw, MIRRORED, visits(14.0)),
            (Kind::Envoy, PLAIN, visits(30.0)),
        ];
        round(&all.each_ref().map(|(kind, mode, visits)| (*kind, *mode, visits.as_slice())))
    }

    fn measured() -> Measured {
        let rounds = Rounds { all: [1.0, 1.3, 1.7].map(at).to_vec(), void: vec![] };
        Measured { rounds: BTreeMap::from([(Load::Closed(SMALL), rounds)]), ..Measured::default() }
    }

    fn near(figure: Result<Figure, String>, want: f64) {
        let figure = figure.unwrap();
        assert!((figure.value - want).abs() < 1e-9 && (figure.high - figure.low).abs() < 1e-9, "{figure:?}");
    }

    #[test]
    fn a_machine_that_slows_down_changes_no_ratio() {
        near(measured().figure(row("cpu_vs_envoy")), 0.4);
        near(measured().figure(row("cpu_vs_raw")), 1.2);
        near(measured().figure(row("mirror_cost_vs_raw")), 1.5);
    }

    #[test]
    fn what_is_missing_says_why() {
        let mut measured = measured();
        let why = |measured: &Measured, metric| measured.figure(row(metric)).unwrap_err();
        assert_eq!(why(&measured, "cpu_64k_vs_envoy"), "it was not asked for");
        assert_eq!(why(&measured, "isolation_p50"), "it was not asked for");
        assert_eq!(why(&measured, "cpu_vs_nginx"), "no round counts");
        measured.absent.insert(Kind::Nginx, "nginx is not here".into());
        assert_eq!(why(&measured, "cpu_vs_nginx"), "nginx is not here");
        let rounds = measured.rounds.get_mut(&Load::Closed(SMALL)).unwrap();
        let subject = Subject { kind: Kind::Envoy, mode: MIRRORED };
        rounds.void.push((subject, "7 copies came, 9 are configured".into()));
        let void = "every run is void: 7 copies came, 9 are configured";
        assert_eq!(why(&measured, "cpu_mirrored_vs_envoy"), void);
    }

    #[test]
    fn counted_figures_are_paired_by_repetition() {
        let mut measured = Measured::default();
        let key = |count, mode| (count, Kind::Umbra, mode);
        measured.exact.insert(key(Count::Instructions, Mode::Unsampled), Ok(vec![101.0, 202.0]));
        measured.exact.insert(key(Count::Instructions, PLAIN), Ok(vec![100.0, 200.0]));
        measured.exact.insert(key(Count::Syscalls, PLAIN), Ok(vec![4.1]));
        measured.exact.insert(key(Count::Allocations, PLAIN), Err("valgrind is not here".into()));
        near(measured.figure(row("instructions_unsampled_mirror")), 1.01);
        near(measured.figure(row("syscalls")), 4.1);
        measured.idle_connection = BTreeMap::from([(Kind::Umbra, 4000.0)]);
        near(measured.figure(row("bytes_per_idle_connection")), 4000.0);
        measured.idle = BTreeMap::from([(Kind::Umbra, 6), (Kind::Envoy, 60)]);
        near(measured.figure(row("rss_idle_vs_envoy")), 0.1);
        assert_eq!(measured.figure(row("allocations")).unwrap_err(), "valgrind is not here");
    }

    #[test]
    fn a_mirror_s_share_of_the_instructions_is_what_it_adds() {
        let mut measured = Measured::default();
        let all = [(Kind::Umbra, PLAIN, 20.0), (Kind::Umbra, MIRRORED, 25.0)];
        for (kind, mode, value) in
            all.into_iter().chain([(Kind::Nginx, PLAIN, 20.0), (Kind::Nginx, MIRRORED, 40.0)])
        {
            measured.exact.insert((Count::Instructions, kind, mode), Ok(vec![value]));
        }
        near(measured.figure(row("instructions_vs_nginx")), 1.0);
        near(measured.figure(row("instructions_mirror_vs_nginx")), 0.25);
    }

    #[test]
    fn latencies_come_from_the_open_loop_alone() {
        let mut measured = measured();
        assert_eq!(measured.figure(row("p50_vs_envoy")).unwrap_err(), "it was not asked for");
        let closed = measured.rounds.remove(&Load::Closed(SMALL)).unwrap();
        measured.rounds.insert(Load::Open, closed);
        near(measured.figure(row("p50_vs_envoy")), 0.4);
        near(measured.figure(row("p99_mirrored_vs_plain")), 1.5);
    }

    #[test]
    fn isolation_is_that_of_the_worst_case_and_growth_that_beyond_the_start() {
        let case = |fault| (Case { fault, shape: SMALL }, Kind::Umbra);
        let fared = |mirrored: f64| {
            let visits = [(Kind::Umbra, PLAIN, [10.0; 2]), (Kind::Umbra, MIRRORED, [mirrored; 2])];
            let round =
                round(&visits.each_ref().map(|(kind, mode, visits)| (*kind, *mode, visits.as_slice())));
            Fared {
                rounds: Rounds { all: vec![round; 3], void: vec![] },
                planned: 9,
                failed: 2,
                failed_without: 0,
            }
        };
        let mut measured = Measured::default();
        measured.isolation.insert(case(Fault::Healthy), Ok(fared(10.0)));
        measured.isolation.insert(case(Fault::Silent), Ok(fared(11.0)));
        near(measured.figure(row("isolation_p50")), 1.1);
        near(measured.figure(row("isolation_failed")), 4.0);
        assert!(!measured.is_noisy(row("isolation_p50")) && !measured.is_noisy(row("isolation_failed")));
        let overloaded = Fared { failed_without: 1, ..fared(10.0) };
        measured.isolation.insert(case(Fault::Drip), Ok(overloaded));
        assert!(measured.is_noisy(row("isolation_p50")) && measured.is_noisy(row("isolation_failed")));
        measured.isolation.remove(&case(Fault::Drip));
        measured.isolation.insert(case(Fault::Deaf), Err("the mirror was never asked".into()));
        let why = measured.figure(row("isolation_p99")).unwrap_err();
        assert_eq!(why, "never_reads: the mirror was never asked");

        let growth = |more: u64| {
            let (resident, descriptors) = ((1 << 20, (1 << 20) + more), (40, 40 + 128));
            Ok(Growth { resident, descriptors, planned: 1, failed: 0 })
        };
        measured.growth.insert((memory::SILENT, Kind::Umbra), growth(8 << 20));
        measured.growth.insert((memory::SILENT, Kind::Envoy), growth(80 << 20));
        near(measured.figure(row("silent_mirror_growth_over_cap")), 0.5);
        near(measured.figure(row("silent_mirror_growth_vs_envoy")), 0.1);
        near(measured.figure(row("silent_mirror_connections")), 0.5);
        assert_eq!(
            measured.figure(row("deaf_mirror_64k_growth_over_cap")).unwrap_err(),
            "it was not asked for"
        );
    }

    #[test]
    fn metrics_are_distinct_and_rows_in_order() {
        let mut metrics: Vec<_> = ROWS.iter().map(|row| row.metric).collect();
        metrics.sort_unstable();
        metrics.dedup();
        assert_eq!(metrics.len(), ROWS.len());
        assert!(ROWS.is_sorted_by_key(|row| row.number));
    }

    #[test]
    fn no_aim_is_easier_than_what_must_hold() {
        assert!(ROWS.iter().all(|row| row.must.is_none_or(|must| row.aim <= must)));
    }
}
