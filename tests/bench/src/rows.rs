//! The table: which figure stands in which row, against whom, and what it has to be. `measured` makes the figures.

use crate::exact::Count;
use crate::harness::Shape;
use crate::isolation::{self, Case};
use crate::memory;
use crate::peers::{Kind, Mode};
use crate::rounds::{Load, Measure};

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
    /// CPU of a request of umbra's with two workers, over that with one; divided by the same of raw's, to which the machine
    /// does the same.
    Workers,
    /// The same as it is.
    WorkersAlone,
    /// Before a faulty mirror, over the same without it: the worst of all cases.
    Isolated(Measure),
    /// Without a mirror over the same without it, the worst of all cases: what chance makes of the row's figures.
    Control(Measure),
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

pub(crate) const SMALL: Shape = Shape::Small;
const LARGE: Shape = Shape::Large;
pub(crate) const PLAIN: Mode = Mode::Plain;
pub(crate) const MIRRORED: Mode = Mode::Mirrored;
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
    other(10, "isolation_p50", Source::Isolated(Measure::P50), (Some(isolation::MOST[0].1), 1.02)),
    other(10, "isolation_p99", Source::Isolated(Measure::P99), (Some(isolation::MOST[1].1), 1.05)),
    other(10, "isolation_failed", Source::Failed, (Some(0.0), 0.0)),
    other(10, "isolation_p50_no_mirror", Source::Control(Measure::P50), (None, isolation::MOST[0].1)),
    other(10, "isolation_p99_no_mirror", Source::Control(Measure::P99), (None, isolation::MOST[1].1)),
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
    other(16, "cpu_two_workers_vs_one_alone", Source::WorkersAlone, (None, 1.03)),
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
            | Source::WorkersAlone
            | Source::Isolated(_)
            | Source::Control(_)
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

#[cfg(test)]
mod tests {
    use super::*;

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
