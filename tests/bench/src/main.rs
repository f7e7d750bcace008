//! What a request costs, side by side: umbra-proxy, Envoy, nginx, HAProxy and a forwarder of bytes, in one run on one
//! machine. Absolute figures do not transfer; ratios within a round do.
//!
//! Takes: the programs. Gives: a table on standard output, `target/bench.json` and `target/bench.svg`. Never fills in what
//! it has not measured.
//!
//! `peers` starts the proxies on one core; `harness` is clients and backends on another; `rounds` measures CPU and latency,
//! `exact` counts, `isolation`, `memory` and `workers` measure what their names say; `void` says what does not count;
//! `sitting` does all of it in order; `ratio`, `measured` and `rows` make the table, `report` writes it. `gates` holds counts to limits.

#![allow(clippy::print_stdout, reason = "what is measured is read by people")]

mod cpu;
mod exact;
mod gates;
mod harness;
mod isolation;
mod measured;
mod memory;
mod peers;
mod ratio;
mod raw;
mod report;
mod rounds;
mod rows;
mod sitting;
mod socket;
mod void;
mod workers;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Parser};

use crate::sitting::{Effort, Part};

/// What a request costs, side by side with other proxies.
#[derive(Debug, Parser)]
#[command(name = "umbra-bench")]
enum Command {
    /// Fewer rounds of what a request costs: rows 1 to 7 and 12 to 14.
    Quick(Times),
    /// Every row.
    Full(Times),
    /// What a request of umbra's may cost in instructions, allocations and system calls.
    Gates(gates::Gates),
    /// How evenly two workers are used, for few clients and for many.
    Accept(Times),
    /// The forwarder of bytes.
    #[command(hide = true)]
    Raw(raw::Raw),
}

#[derive(Clone, Debug, Args)]
struct Times {
    /// Steady rounds, or runs [default: 5, full 11, accept 20].
    #[arg(long)]
    rounds: Option<usize>,
    /// Seconds of one visit.
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Leave out what is counted under valgrind and strace.
    #[arg(long)]
    timed_only: bool,
    /// These parts alone.
    #[arg(long, value_enum)]
    only: Vec<Part>,
    /// Of row 10 the cases with this text in their name alone, and in as many rounds as the other parts [default: all, in
    /// 11 at most; one that is not clear then in 4 times as many].
    #[arg(long)]
    case: Option<String>,
    /// umbra-proxy as it is deployed, for all but allocations: memcheck sees none in a static program [default: the one
    /// beside this program].
    #[arg(long)]
    release: Option<PathBuf>,
}

impl Times {
    /// So much, of these parts unless it is told which.
    fn effort(self, rounds: usize, parts: &[Part]) -> Effort {
        let mut parts = if self.only.is_empty() { parts.to_vec() } else { self.only };
        parts.retain(|part| !self.timed_only || *part != Part::Counts);
        let rounds = self.rounds.unwrap_or(rounds);
        Effort { rounds, seconds: self.seconds, parts, case: self.case, umbra: self.release }
    }
}

fn main() -> Result<()> {
    match Command::parse() {
        Command::Raw(raw) => raw::run(&raw),
        Command::Gates(gates) => gates::check(&gates, gates::folder()?),
        Command::Accept(times) => sitting::accept(&times.effort(20, &[])),
        Command::Quick(times) => sitting::bench(&times.effort(5, &Part::QUICK)),
        Command::Full(times) => sitting::bench(&times.effort(11, &Part::ALL)),
    }
}
