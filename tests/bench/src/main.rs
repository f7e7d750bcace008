//! What a request costs, side by side: umbra-proxy, Envoy, nginx, HAProxy and a forwarder of bytes, in one run on one
//! machine. Absolute figures do not transfer; ratios within a round do.
//!
//! Takes: the programs. Gives: a table on standard output, `target/bench.json` and `target/bench.svg`. Never fills in what
//! it has not measured.
//!
//! `peers` starts the proxies on one core; `harness` is clients and backends on another; `rounds` measures CPU, `exact`
//! counts; `void` says what does not count; `ratio` and `rows` make the table, `report` writes it.

#![allow(clippy::print_stdout, reason = "what is measured is read by people")]

mod cpu;
mod exact;
mod harness;
mod peers;
mod ratio;
mod raw;
mod report;
mod rounds;
mod rows;
mod socket;
mod void;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use clap::{Args, Parser};

use crate::cpu::Cores;
use crate::exact::Count;
use crate::harness::{Harness, Rate, Shape};
use crate::peers::{Kind, Mode, Peer, Wiring};
use crate::ratio::Figure;
use crate::rounds::{Load, Measure, Round, Rounds, Subject, Visitor};
use crate::rows::Measured;

/// What a request costs, side by side with other proxies.
#[derive(Debug, Parser)]
#[command(name = "umbra-bench")]
enum Command {
    /// Fewer rounds, and no open loop: every row that can be filled but 8 and 9.
    Quick(Times),
    /// Every row that can be filled.
    Full(Times),
    /// The forwarder of bytes.
    #[command(hide = true)]
    Raw(raw::Raw),
}

/// How long it is measured.
#[derive(Clone, Copy, Debug)]
struct Effort {
    /// Steady rounds that are wanted; some more are tried.
    rounds: usize,
    /// Of one visit.
    seconds: f64,
    /// Whether latency is measured, too.
    open_loop: bool,
    /// Whether valgrind and strace count.
    counts: bool,
}

#[derive(Clone, Copy, Debug, Args)]
struct Times {
    /// Steady rounds [default: 5, full 11].
    #[arg(long)]
    rounds: Option<usize>,
    /// Seconds of one visit.
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Leave out what is counted under valgrind and strace.
    #[arg(long)]
    timed_only: bool,
}

fn main() -> Result<()> {
    let (times, rounds, open_loop) = match Command::parse() {
        Command::Raw(raw) => return raw::run(&raw),
        Command::Quick(times) => (times, 5, false),
        Command::Full(times) => (times, 11, true),
    };
    let rounds = times.rounds.unwrap_or(rounds);
    bench(Effort { rounds, seconds: times.seconds, open_loop, counts: !times.timed_only })
}

fn bench(effort: Effort) -> Result<()> {
    let began = Instant::now();
    let cores = Cores::choose()?;
    cpu::pin(cores.load)?;
    let target = Path::new("target");
    let folder = std::path::absolute(target.join("bench/run"))?;
    std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let mut harness = Harness::new()?;
    let (primary, mirror) = harness.backends()?;
    let wiring = Wiring { configs: peers::configs(), folder, primary, mirror };
    let before = load()?;
    println!("proxies on core {}, clients and backends on core {}; load {before}", cores.proxy, cores.load);

    let mut measured = Measured::default();
    let peers = start(&wiring, cores, &mut measured.absent)?;
    memory(&mut harness, &peers, &mut measured)?;
    timed(&mut harness, &peers, effort, &mut measured);
    drop(peers);
    if effort.counts {
        counted(&mut harness, &wiring, &mut measured);
    }

    println!("\n{}", report::table(&measured));
    for (load, rounds) in &measured.rounds {
        println!("{load:?}: {} rounds, {} of them steady", rounds.all.len(), rounds.steady());
        for (subject, why) in &rounds.void {
            println!("void: {} {:?}: {why}", subject.kind.name(), subject.mode);
        }
    }
    println!("load {before} before, {} after; took {} s", load()?, began.elapsed().as_secs());
    let write = |name: &str, text: String| {
        let path = target.join(name);
        std::fs::write(&path, text).with_context(|| path.display().to_string())
    };
    write("bench.json", serde_json::to_string_pretty(&report::entries(&measured))? + "\n")?;
    write("bench.svg", report::picture(&measured))?;
    let ci = std::env::var_os("CI").is_some();
    ensure!(!ci || measured.absent.is_empty(), "on CI nothing may be missing: {:?}", measured.absent);
    Ok(())
}

/// All proxies that are here, on their core; why the others are not.
fn start(wiring: &Wiring, cores: Cores, absent: &mut BTreeMap<Kind, String>) -> Result<Vec<Peer>> {
    let mut peers = Vec::new();
    for kind in Kind::ALL {
        if let Err(error) = kind.program() {
            println!("missing: {error:#}");
            absent.insert(kind, format!("{error:#}"));
            continue;
        }
        println!("{:<8} {}", kind.name(), kind.version()?);
        let pinned = ["taskset", "-c", &cores.proxy.to_string()].map(str::to_owned);
        peers.push(Peer::start(kind, wiring, &pinned)?);
    }
    Ok(peers)
}

/// Memory of proxies that have nothing to do, first without a client and then with idle ones.
fn memory(harness: &mut Harness, peers: &[Peer], measured: &mut Measured) -> Result<()> {
    /// Fewer than the 1,024 descriptors that a process may open by default.
    const CLIENTS: usize = 500;
    // As many requests as clients: each is asked on once, one after the other, so that no memory is that of a rush.
    let rate = Rate { per_second: 1_000.0, seconds: 0.5 };
    for peer in peers {
        measured.idle.insert(peer.kind, cpu::resident(peer.process())?);
        let target = peer.target(Mode::Plain).context("everybody forwards")?;
        let mut with = |clients| {
            harness.open(&target, Shape::Small, clients)?;
            harness.run_open(rate, 0)?;
            cpu::resident(peer.process())
        };
        let (few, many) = (with(1)?, with(1 + CLIENTS)?);
        let each = (many as f64 - few as f64) / CLIENTS as f64;
        measured.idle_connection.insert(peer.kind, each);
        harness.close();
    }
    Ok(())
}

/// CPU and latency of requests, in rounds.
fn timed(harness: &mut Harness, peers: &[Peer], times: Effort, measured: &mut Measured) {
    let of = |modes: &[Mode]| {
        let all = modes.iter().flat_map(|mode| peers.iter().map(|peer| (peer, *mode)));
        let can = all.filter(|(peer, mode)| peer.target(*mode).is_some());
        can.map(|(peer, mode)| Subject { kind: peer.kind, mode }).collect::<Vec<_>>()
    };
    let (plain, both) = (of(&[Mode::Plain]), of(&[Mode::Plain, Mode::Mirrored]));
    let mut visitor = Visitor { harness, peers, seconds: times.seconds };
    for (shape, subjects) in [(Shape::Small, &both), (Shape::Large, &plain)] {
        let load = Load::Closed(shape);
        let visit = |subject| visitor.closed(subject, shape);
        let rounds = Rounds::measure(times.rounds, subjects, visit, say(load, Measure::Cpu, subjects));
        measured.rounds.insert(load, rounds);
    }
    if !times.open_loop {
        return;
    }
    let Some(capacity) = capacity(measured, Kind::Envoy) else {
        println!("no open loop: its rate is half of Envoy's capacity, which is not known");
        return;
    };
    // Envoy with a mirror is left out: it may be past what it can do, and then each request waits longer than the last.
    let open: Vec<_> =
        both.into_iter().filter(|it| (it.kind, it.mode) != (Kind::Envoy, Mode::Mirrored)).collect();
    println!("open loop: {:.0} requests/s, half of what Envoy can do", capacity / 2.0);
    let visit = |subject| visitor.open(subject, capacity / 2.0);
    let rounds = Rounds::measure(times.rounds, &open, visit, say(Load::Open, Measure::P50, &open));
    measured.rounds.insert(Load::Open, rounds);
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

/// Instructions, allocations and system calls of requests.
fn counted(harness: &mut Harness, wiring: &Wiring, measured: &mut Measured) {
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
        if measured.absent.contains_key(&kind) {
            continue;
        }
        let one = |_| exact::count(harness, wiring, count, (kind, mode));
        let values: Result<Vec<f64>> = (0..repetitions).map(one).collect();
        let values = values.map_err(|error| format!("{error:#}"));
        println!("{} {} {mode:?}: {values:?}", kind.name(), count.name());
        measured.exact.insert((count, kind, mode), values);
    }
}

/// How busy the machine is: of the last minute.
fn load() -> Result<String> {
    let text = std::fs::read_to_string("/proc/loadavg").context("/proc/loadavg")?;
    Ok(text.split(' ').next().unwrap_or_default().to_owned())
}
