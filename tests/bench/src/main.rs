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
use crate::harness::{Harness, Shape};
use crate::peers::{Kind, Mode, Peer, Wiring};
use crate::rounds::{Effort, Round, Rounds, Subject};
use crate::rows::Measured;

/// What a request costs, side by side with other proxies.
#[derive(Debug, Parser)]
#[command(name = "umbra-bench")]
enum Command {
    /// Few rounds, for development: rows 1 to 4, 6, 7 and 14.
    Quick(Times),
    /// The same rows with more rounds.
    Full(Times),
    /// The forwarder of bytes.
    #[command(hide = true)]
    Raw(raw::Raw),
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
    let (times, rounds) = match Command::parse() {
        Command::Raw(raw) => return raw::run(&raw),
        Command::Quick(times) => (times, 5),
        Command::Full(times) => (times, 11),
    };
    let effort = Effort { rounds: times.rounds.unwrap_or(rounds), seconds: times.seconds };
    bench(effort, !times.timed_only)
}

fn bench(effort: Effort, counts: bool) -> Result<()> {
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
    timed(&mut harness, &peers, effort, &mut measured);
    drop(peers);
    if counts {
        counted(&mut harness, &wiring, &mut measured);
    }

    println!("\n{}", report::table(&measured));
    for (shape, rounds) in &measured.rounds {
        println!("{shape:?}: {} rounds, {} of them steady", rounds.all.len(), rounds.steady());
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

/// CPU of requests, in rounds.
fn timed(harness: &mut Harness, peers: &[Peer], effort: Effort, measured: &mut Measured) {
    let of = |shape, mode| {
        let can = peers.iter().filter(move |peer| peer.target(mode).is_some());
        can.map(move |peer| Subject { kind: peer.kind, mode, shape })
    };
    let small: Vec<_> = of(Shape::Small, Mode::Plain).chain(of(Shape::Small, Mode::Mirrored)).collect();
    let large: Vec<_> = of(Shape::Large, Mode::Plain).collect();
    for (shape, subjects) in [(Shape::Small, small), (Shape::Large, large)] {
        let say = |round: &Round| {
            let cost = |subject: &Subject| {
                let name = subject.kind.name();
                let mirrored = if subject.mode == Mode::Mirrored { "+m" } else { "" };
                let cost =
                    round.mean(*subject).map_or("void".to_owned(), |cost| format!("{:.1}", cost / 1e3));
                format!("{name}{mirrored} {cost}")
            };
            let steady = if round.is_steady() { "" } else { " (unsteady)" };
            let costs = subjects.iter().map(cost).collect::<Vec<_>>().join(", ");
            println!("{shape:?} round{steady}, us: {costs}");
        };
        let rounds = Rounds::measure(harness, peers, &subjects, effort, say);
        measured.rounds.insert(shape, rounds);
    }
}

/// Instructions, allocations and system calls of umbra's requests.
fn counted(harness: &mut Harness, wiring: &Wiring, measured: &mut Measured) {
    /// Instructions hardly differ between repetitions; how far, the interval shows.
    const REPETITIONS: usize = 3;
    let wanted = [
        (Count::Instructions, Mode::Plain, REPETITIONS),
        (Count::Instructions, Mode::Mirrored, 1),
        (Count::Instructions, Mode::Unsampled, REPETITIONS),
        (Count::Allocations, Mode::Plain, 1),
        (Count::Allocations, Mode::Mirrored, 1),
        (Count::Syscalls, Mode::Plain, 1),
        (Count::Syscalls, Mode::Mirrored, 1),
    ];
    for (count, mode, repetitions) in wanted {
        let one = |_| exact::count(harness, wiring, count, (Kind::Umbra, mode));
        let values: Result<Vec<f64>> = (0..repetitions).map(one).collect();
        let values = values.map_err(|error| format!("{error:#}"));
        println!("{} {mode:?}: {values:?}", count.name());
        measured.exact.insert((count, Kind::Umbra, mode), values);
    }
}

/// How busy the machine is: of the last minute.
fn load() -> Result<String> {
    let text = std::fs::read_to_string("/proc/loadavg").context("/proc/loadavg")?;
    Ok(text.split(' ').next().unwrap_or_default().to_owned())
}
