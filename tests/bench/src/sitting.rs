//! One sitting: the proxies are started, measured part by part, and the table is printed and written.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum;

use crate::cpu::{self, Cores};
use crate::exact::{self, Count};
use crate::harness::{Fault, Harness, Shape};
use crate::isolation::{self, Case};
use crate::measured::Measured;
use crate::memory;
use crate::peers::{self, Kind, Mode, Peer, Wiring};
use crate::ratio::Figure;
use crate::report;
use crate::rounds::{Load, Measure, Round, Rounds, Subject, Visitor};
use crate::workers;

/// Rounds of each isolation case, at most, unless it is asked on: there are many, and each is a ratio to its own control.
const ISOLATION_ROUNDS: usize = 11;
/// Two workers are measured in so many times the rounds: the second one shares a core with clients and backends, and its CPU
/// repeats half as well.
const WORKERS_ROUNDS: usize = 2;
/// And so is latency, which CPU's rounds are too few for: of 12,000 requests one pause of the machine holds up as many as p99
/// is decided by, and in seven rounds a p99 over another repeated within 25 %.
const LATENCY_ROUNDS: usize = 3;
/// How much longer than a visit a mirror keeps its copies (row 11): a minute.
const SILENT: f64 = 60.0;

/// How long it is measured, and what.
#[derive(Clone, Debug)]
pub(crate) struct Effort {
    /// Steady rounds that are wanted; some more are tried.
    pub(crate) rounds: usize,
    /// Of one visit.
    pub(crate) seconds: f64,
    /// In any order.
    pub(crate) parts: Vec<Part>,
    /// Part of the names of the isolation cases that are wanted; `None`: all, in fewer rounds.
    pub(crate) case: Option<String>,
    /// umbra-proxy; `None`: the one beside this program.
    pub(crate) umbra: Option<PathBuf>,
}

/// What can be measured by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// CPU of requests: rows 1 to 3, 13 and 14.
    Cpu,
    /// Latency at half of Envoy's capacity: rows 8 and 9. Needs `cpu`.
    Latency,
    /// Row 16.
    Workers,
    /// Row 12.
    Idle,
    /// Row 10.
    Isolation,
    /// Row 11.
    Silent,
    /// Instructions, allocations and system calls: rows 4 to 7.
    Counts,
}

impl Part {
    /// All of them.
    pub(crate) const ALL: [Self; 7] =
        [Self::Cpu, Self::Latency, Self::Workers, Self::Idle, Self::Isolation, Self::Silent, Self::Counts];
    /// Those of `make bench-quick`.
    pub(crate) const QUICK: [Self; 3] = [Self::Cpu, Self::Idle, Self::Counts];
}

/// What all parts share.
struct Sitting {
    harness: Harness,
    wiring: Wiring,
    cores: Cores,
    effort: Effort,
    measured: Measured,
}

impl Sitting {
    fn new(effort: &Effort) -> Result<Self> {
        let cores = Cores::choose()?;
        cpu::pin(cores.load)?;
        let folder = std::path::absolute(Path::new("target/bench/run"))?;
        std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        let harness = Harness::new()?;
        let (primary, mirror) = harness.backends()?;
        let mirror = Some(mirror);
        let wiring =
            Wiring { configs: peers::configs(), folder, primary, mirror, umbra: effort.umbra.clone() };
        println!("proxies on core {}, clients and backends on core {}", cores.proxy, cores.load);
        Ok(Self { harness, wiring, cores, effort: effort.clone(), measured: Measured::default() })
    }

    fn has(&self, part: Part) -> bool {
        self.effort.parts.contains(&part)
    }
}

/// `quick` and `full`.
///
/// # Errors
/// A proxy breaks, nothing can be written, or on CI a peer is missing.
pub(crate) fn bench(effort: &Effort) -> Result<()> {
    let began = Instant::now();
    let before = load()?;
    let mut sitting = Sitting::new(effort)?;
    sitting.side_by_side()?;
    if sitting.has(Part::Workers) {
        sitting.workers()?;
    }
    if sitting.has(Part::Isolation) {
        sitting.isolated();
    }
    if sitting.has(Part::Silent) {
        sitting.silent();
    }
    if sitting.has(Part::Counts) {
        sitting.counted()?;
    }
    let measured = sitting.measured;
    println!("\n{}", report::table(&measured));
    for (load, rounds) in &measured.rounds {
        println!("{load:?}: {} rounds, {} of them steady", rounds.all.len(), rounds.steady());
        for (subject, why) in &rounds.void {
            println!("void: {} {:?}: {why}", subject.kind.name(), subject.mode);
        }
    }
    println!("load {before} before, {} after; took {} s", load()?, began.elapsed().as_secs());
    let write = |name: &str, text: String| {
        let path = Path::new("target").join(name);
        std::fs::write(&path, text).with_context(|| path.display().to_string())
    };
    write("bench.json", serde_json::to_string_pretty(&report::entries(&measured))? + "\n")?;
    write("bench.svg", report::picture(&measured))?;
    let ci = std::env::var_os("CI").is_some();
    ensure!(!ci || measured.absent.is_empty(), "on CI nothing may be missing: {:?}", measured.absent);
    Ok(())
}

/// `accept`.
///
/// # Errors
/// umbra breaks.
pub(crate) fn accept(effort: &Effort) -> Result<()> {
    let Sitting { mut harness, wiring, cores, .. } = Sitting::new(effort)?;
    println!("{}", workers::accept(&mut harness, &wiring, cores, (effort.rounds, effort.seconds))?);
    Ok(())
}

impl Sitting {
    /// What all proxies do beside each other.
    fn side_by_side(&mut self) -> Result<()> {
        let peers = self.start()?;
        if self.has(Part::Idle) {
            for peer in &peers {
                let (before, each) = memory::idle(&mut self.harness, peer)?;
                self.measured.idle.insert(peer.kind, before);
                self.measured.idle_connection.insert(peer.kind, each);
            }
        }
        if self.has(Part::Cpu) {
            for shape in [Shape::Small, Shape::Large, Shape::ManyStreams, Shape::OneStream] {
                self.closed(&peers, shape);
            }
        }
        if self.has(Part::Latency) {
            self.open(&peers);
        }
        Ok(())
    }

    /// All proxies that are here, on their core; why the others are not.
    fn start(&mut self) -> Result<Vec<Peer>> {
        let mut peers = Vec::new();
        for kind in Kind::ALL {
            if let Err(error) = kind.program() {
                println!("missing: {error:#}");
                self.measured.absent.insert(kind, format!("{error:#}"));
                continue;
            }
            println!("{:<8} {}", kind.name(), kind.version()?);
            peers.push(Peer::start(kind, &self.wiring, &Cores::pinned(&[self.cores.proxy]))?);
        }
        Ok(peers)
    }

    /// CPU of requests, in rounds. With a mirror only where a row asks for it.
    fn closed(&mut self, peers: &[Peer], shape: Shape) {
        let modes: &[Mode] =
            if shape == Shape::Small { &[Mode::Plain, Mode::Mirrored] } else { &[Mode::Plain] };
        let subjects = subjects(peers, modes, shape);
        let load = Load::Closed(shape);
        let mut visitor = Visitor { harness: &mut self.harness, peers, seconds: self.effort.seconds };
        let visit = |subject| visitor.closed(subject, shape);
        let said = say(load, Measure::Cpu, &subjects);
        let rounds = Rounds::measure(self.effort.rounds, &subjects, visit, said);
        self.measured.rounds.insert(load, rounds);
    }

    /// Latency at a rate that all of them can do.
    fn open(&mut self, peers: &[Peer]) {
        let Some(capacity) = capacity(&self.measured, Kind::Envoy) else {
            println!("no open loop: its rate is half of Envoy's capacity, which is not known");
            return;
        };
        // Envoy with a mirror is left out: it may be past what it can do, and then each request waits longer than the last.
        let mut subjects = subjects(peers, &[Mode::Plain, Mode::Mirrored], Shape::Small);
        subjects.retain(|it| (it.kind, it.mode) != (Kind::Envoy, Mode::Mirrored));
        println!("open loop: {:.0} requests/s, half of what Envoy can do", capacity / 2.0);
        let mut visitor = Visitor { harness: &mut self.harness, peers, seconds: self.effort.seconds };
        let visit = |subject| visitor.open(subject, capacity / 2.0);
        let said = say(Load::Open, Measure::P50, &subjects);
        let rounds = Rounds::measure(LATENCY_ROUNDS * self.effort.rounds, &subjects, visit, said);
        self.measured.rounds.insert(Load::Open, rounds);
    }

    fn workers(&mut self) -> Result<()> {
        let peers = workers::start(&self.wiring, self.cores)?;
        let subjects = subjects(&peers, &[Mode::Plain], Shape::Small);
        let mut visitor = Visitor { harness: &mut self.harness, peers: &peers, seconds: self.effort.seconds };
        let visit = |subject| visitor.closed(subject, Shape::Small);
        let said = say(Load::Workers, Measure::Cpu, &subjects);
        let rounds = Rounds::measure(WORKERS_ROUNDS * self.effort.rounds, &subjects, visit, said);
        self.measured.rounds.insert(Load::Workers, rounds);
        Ok(())
    }

    fn isolated(&mut self) {
        let Effort { rounds, case: wanted, .. } = &self.effort;
        let rounds = if wanted.is_some() { *rounds } else { (*rounds).min(ISOLATION_ROUNDS) };
        let is_wanted = |case: Case| wanted.as_ref().is_none_or(|wanted| case.name().contains(wanted));
        for (case, kind) in Case::all().filter(|(case, _)| is_wanted(*case)) {
            if self.measured.absent.contains_key(&kind) {
                continue;
            }
            let effort = (self.cores, rounds, self.effort.seconds);
            let fared = isolation::measure(&mut self.harness, &self.wiring, effort, (case, kind));
            let fared = fared.map_err(|error| format!("{error:#}"));
            println!("isolation: {}", report::isolated((case, kind), &fared));
            self.measured.isolation.insert((case, kind), fared);
        }
    }

    fn silent(&mut self) {
        let seconds = (SILENT * self.effort.seconds) as usize;
        for (case, kind) in [memory::SILENT, memory::DEAF]
            .into_iter()
            .flat_map(|case| [(case, Kind::Umbra), (case, Kind::Envoy)])
        {
            if self.measured.absent.contains_key(&kind) {
                continue;
            }
            let growth = memory::growth(&mut self.harness, &self.wiring, (self.cores, seconds), (case, kind));
            println!("{} {}, {seconds} s: {growth:?}", kind.name(), case.name());
            self.measured.growth.insert((case, kind), growth.map_err(|error| format!("{error:#}")));
        }
    }

    /// Instructions, allocations and system calls of requests.
    fn counted(&mut self) -> Result<()> {
        // Isolation has had mirrors of its own.
        self.wiring.mirror = self.harness.misbehave(Fault::Healthy)?;
        /// Instructions hardly differ between repetitions; how far, the interval shows.
        const REPETITIONS: usize = 3;
        let ours = [
            (Count::Instructions, Mode::Plain, REPETITIONS),
            (Count::Instructions, Mode::Mirrored, 1),
            (Count::Instructions, Mode::Unsampled, REPETITIONS),
            (Count::Allocations, Mode::Plain, 1),
            (Count::Allocations, Mode::Mirrored, 1),
        ];
        let ours = ours.map(|(count, mode, repetitions)| (count, Kind::Umbra, mode, repetitions));
        let both = |count, kind: Kind| {
            let can = [Mode::Plain, Mode::Mirrored].into_iter().filter(move |mode| kind.can(*mode));
            can.map(move |mode| (count, kind, mode, 1))
        };
        let syscalls = Kind::ALL.into_iter().flat_map(|kind| both(Count::Syscalls, kind));
        for (count, kind, mode, repetitions) in
            ours.into_iter().chain(both(Count::Instructions, Kind::Nginx)).chain(syscalls)
        {
            if self.measured.absent.contains_key(&kind) {
                continue;
            }
            let one = |_| exact::count(&mut self.harness, &self.wiring, count, (kind, mode, Shape::Small));
            let values: Result<Vec<f64>> = (0..repetitions).map(one).collect();
            let values = values.map_err(|error| format!("{error:#}"));
            println!("{} {} {mode:?}: {values:?}", kind.name(), count.name());
            self.measured.exact.insert((count, kind, mode), values);
        }
        Ok(())
    }
}

/// Who of these can do that.
fn subjects(peers: &[Peer], modes: &[Mode], shape: Shape) -> Vec<Subject> {
    let all = modes.iter().flat_map(|mode| peers.iter().map(|peer| (peer, *mode)));
    let can = all.filter(|(peer, mode)| peer.target(*mode, shape).is_some());
    can.map(|(peer, mode)| Subject { kind: peer.kind, mode }).collect()
}

/// Requests a second that one core of it can forward.
fn capacity(measured: &Measured, kind: Kind) -> Option<f64> {
    let rounds = measured.rounds.get(&Load::Closed(Shape::Small))?;
    let costs = rounds.values(|round| round.mean(Subject { kind, mode: Mode::Plain }, Measure::Cpu));
    Some(1e9 / Figure::of(&costs)?.value)
}

/// Prints each round as it comes.
fn say(load: Load, measure: Measure, subjects: &[Subject]) -> impl FnMut(&Round) {
    move |round| {
        let cost = |subject: &Subject| {
            let name = subject.kind.name();
            let mirrored = if subject.mode == Mode::Mirrored { "+m" } else { "" };
            let cost =
                round.mean(*subject, measure).map_or("void".to_owned(), |cost| format!("{:.1}", cost / 1e3));
            format!("{name}{mirrored} {cost}")
        };
        let steady = if round.is_steady() { "" } else { " (unsteady)" };
        let costs = subjects.iter().map(cost).collect::<Vec<_>>().join(", ");
        println!("{load:?} {measure:?}{steady}, us: {costs}");
    }
}

/// How busy the machine is: of the last minute.
fn load() -> Result<String> {
    let text = std::fs::read_to_string("/proc/loadavg").context("/proc/loadavg")?;
    Ok(text.split(' ').next().unwrap_or_default().to_owned())
}
