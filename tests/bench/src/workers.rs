//! Two workers: what a request costs with them (row 16), and how evenly the kernel spreads clients over their listeners.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use umbra_testkit::wait_for;

use crate::cpu::{self, Cores};
use crate::harness::{Harness, Rate, Shape};
use crate::peers::{Kind, Mode, Peer, Wiring};

/// umbra and the forwarder of bytes with one worker on the first core, and with two on the first and the second.
///
/// # Errors
/// One does not start.
pub(crate) fn start(wiring: &Wiring, cores: Cores) -> Result<[Peer; 4]> {
    let (one, two) = (Cores::pinned(&[cores.proxy]), Cores::pinned(&[cores.proxy, cores.second]));
    Ok([
        Peer::start(Kind::Raw, wiring, &one)?,
        Peer::start(Kind::Umbra, wiring, &one)?,
        Peer::start(Kind::Pair, wiring, &two)?,
        Peer::start(Kind::RawPair, wiring, &two)?,
    ])
}

/// For threads to begin.
const STARTS: Duration = Duration::from_secs(60);
/// How many clients connect at once: few, as one pod has, and many.
const CLIENTS: [usize; 4] = [4, 8, 64, 512];

/// Requests a second: well below what one worker can do, for one may get them all.
const PER_SECOND: f64 = 4_000.0;

/// The busiest worker's share of the work of both, in each of several runs: 0.5 is even, 1 is a worker that has nothing to
/// do. Sorted.
fn shares(
    harness: &mut Harness,
    peer: &Peer,
    clients: usize,
    (runs, seconds): (usize, f64),
) -> Result<Vec<f64>> {
    let target = peer.target(Mode::Plain, Shape::Small).context("everybody forwards")?;
    let mut shares = Vec::new();
    for _ in 0..runs {
        harness.open(&target, Shape::Small, clients)?;
        let before = workers(peer)?;
        // Each client asks in turn, so that a worker's share is that of its clients.
        harness.run_open(Rate { per_second: PER_SECOND, seconds }, 0)?;
        let used: Vec<u64> =
            workers(peer)?.iter().zip(&before).map(|(after, before)| after - before).collect();
        let (all, most) = (used.iter().sum::<u64>(), used.iter().max().copied().unwrap_or(0));
        ensure!(all > 0, "no worker did anything");
        shares.push(most as f64 / all as f64);
        harness.close();
    }
    shares.sort_by(f64::total_cmp);
    Ok(shares)
}

/// What each worker has used, in their order.
fn workers(peer: &Peer) -> Result<Vec<u64>> {
    let mut threads = cpu::by_thread(peer.process())?;
    threads.retain(|(name, _)| name.starts_with("worker-"));
    threads.sort();
    ensure!(threads.len() == 2, "two workers, not {threads:?}");
    Ok(threads.into_iter().map(|(_, used)| used).collect())
}

/// `umbra-bench accept`: how evenly two workers are used when the kernel chooses (SO_REUSEPORT), for few clients and for many.
///
/// # Errors
/// umbra does not start or breaks.
pub(crate) fn accept(
    harness: &mut Harness,
    wiring: &Wiring,
    cores: Cores,
    effort: (usize, f64),
) -> Result<String> {
    let peer = Peer::start(Kind::Pair, wiring, &Cores::pinned(&[cores.proxy, cores.second]))?;
    // It takes a push before its workers have begun.
    wait_for("both workers run", STARTS, || workers(&peer))?;
    let mut text = format!(
        "the busier of two workers' share of their CPU, {} runs each: 0.50 is even, 1.00 leaves one idle\nclients   \
         least  median    most   runs above 0.75\n",
        effort.0
    );
    for clients in CLIENTS {
        let shares = shares(harness, &peer, clients, effort)?;
        let (least, median, most) = (shares[0], shares[shares.len() / 2], shares[shares.len() - 1]);
        let uneven = shares.iter().filter(|share| **share > 0.75).count();
        writeln!(
            text,
            "{clients:>7}   {least:>5.2}   {median:>5.2}   {most:>5.2}   {uneven} of {}",
            shares.len()
        )?;
    }
    Ok(text)
}
