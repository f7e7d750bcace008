//! What a change of one service costs among 10 and among 10,000: taking it in, and computing again what it touches.
//!
//! `cargo bench -p umbra-compile` prints times and their ratio, by the kind of object that changes. That they are alike is
//! held by `tests/recompile`, which counts instead.

#![allow(clippy::print_stdout, reason = "it says what it has measured")]

#[path = "../tests/recompile/cluster.rs"]
mod cluster;

use std::time::{Duration, Instant};

use umbra_index::Index;

/// Of each change, one half there and one half back.
const TIMES: u32 = 400;

/// The median: other work on the machine has no say.
fn time(index: &mut Index, change: cluster::Changing) -> Duration {
    let mut times: Vec<Duration> = (0..TIMES)
        .map(|number| {
            let event = change("s00007", number % 2 == 0);
            let begun = Instant::now();
            cluster::recompute(index, event);
            begun.elapsed()
        })
        .collect();
    times.sort();
    times[times.len() / 2]
}

fn main() {
    let (mut few, mut many) = (cluster::of(10), cluster::of(10_000));
    for (kind, change) in cluster::CHANGES {
        let (few, many) = (time(&mut few, change), time(&mut many, change));
        let ratio = many.as_secs_f64() / few.as_secs_f64();
        println!("{kind}: of 10 services {few:?}, of 10000 {many:?}, ratio {ratio:.1}");
    }
}
