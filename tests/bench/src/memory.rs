//! Memory: of a proxy that has nothing to do, and of one whose mirror keeps what it is given.

use anyhow::{Context as _, Result};

use crate::cpu::{self, Cores};
use crate::harness::{Fault, Harness, Rate, Shape};
use crate::isolation::Case;
use crate::peers::{Kind, Mode, Peer, Wiring};

/// Fewer than the 1,024 descriptors that a process may open by default.
const CLIENTS: usize = 500;
/// What umbra may hold for copies on each worker, as `ShadowLimits` has it by default, with the blocks that it is held in.
pub(crate) const CAP: f64 = 16.0 * 1024.0 * 1024.0;
/// Copies in flight to one mirror, each on a connection of its own: `--shadow-max-in-flight` by default.
pub(crate) const CONNECTIONS: f64 = 256.0;
/// Requests a second before a mirror that keeps its copies.
const PER_SECOND: f64 = 1_000.0;

/// Row 11: a mirror that never answers.
pub(crate) const SILENT: Case = Case { fault: Fault::Silent, shape: Shape::Small };
/// And one that does not even read, so that bodies are what piles up.
pub(crate) const DEAF: Case = Case { fault: Fault::Deaf, shape: Shape::Large };

/// What a proxy took, before its mirror began to keep copies and at most since.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Growth {
    /// Resident bytes.
    pub(crate) resident: (u64, u64),
    /// Open descriptors.
    pub(crate) descriptors: (u64, u64),
    /// Users' requests that were planned, and failed.
    pub(crate) planned: u64,
    pub(crate) failed: u64,
}

impl Growth {
    /// Bytes more than before.
    pub(crate) fn bytes(self) -> f64 {
        self.resident.1.saturating_sub(self.resident.0) as f64
    }

    /// Descriptors more than before.
    pub(crate) fn connections(self) -> f64 {
        self.descriptors.1.saturating_sub(self.descriptors.0) as f64
    }
}

/// Resident before the first request, and what each client's connection adds that has been asked on once.
///
/// # Errors
/// The proxy breaks.
pub(crate) fn idle(harness: &mut Harness, peer: &Peer) -> Result<(u64, f64)> {
    // As many requests as clients: each is asked on once, one after the other, so that no memory is that of a rush.
    let rate = Rate { per_second: 1_000.0, seconds: 0.5 };
    let before = cpu::resident(peer.process())?;
    let target = peer.target(Mode::Plain, Shape::Small).context("everybody forwards")?;
    let mut with = |clients| {
        harness.open(&target, Shape::Small, clients)?;
        harness.run_open(rate, 0)?;
        cpu::resident(peer.process())
    };
    let (few, many) = (with(1)?, with(1 + CLIENTS)?);
    harness.close();
    Ok((before, (many as f64 - few as f64) / CLIENTS as f64))
}

/// What a mirror that keeps its copies costs, over so many seconds: after some of the same load without a mirror.
///
/// # Errors
/// The proxy does not start, or ends.
pub(crate) fn growth(
    harness: &mut Harness,
    wiring: &Wiring,
    (cores, seconds): (Cores, usize),
    (case, kind): (Case, Kind),
) -> Result<Growth> {
    const EARLIER: usize = 2;
    let mirror = harness.misbehave(case.fault)?;
    let peer = Peer::start(kind, &Wiring { mirror, ..wiring.clone() }, &Cores::pinned(&[cores.proxy]))?;
    let now = || Ok::<_, anyhow::Error>((cpu::resident(peer.process())?, cpu::descriptors(peer.process())?));
    let mut load = |mode, seconds| {
        let target = peer.target(mode, case.shape).context("it cannot do that")?;
        harness.open(&target, case.shape, case.shape.clients())?;
        let (mut most, mut planned, mut failed) = (now()?, 0, 0);
        for _ in 0..seconds {
            let suffered = harness.run_patiently(Rate { per_second: PER_SECOND, seconds: 1.0 }, 0)?;
            planned += suffered.planned;
            failed += suffered.failed;
            let (resident, descriptors) = now()?;
            most = (most.0.max(resident), most.1.max(descriptors));
        }
        Ok::<_, anyhow::Error>((most, planned, failed))
    };
    let (before, ..) = load(Mode::Plain, EARLIER)?;
    let (most, planned, failed) = load(Mode::Mirrored, seconds)?;
    harness.close();
    harness.cut_mirror();
    Ok(Growth { resident: (before.0, most.0), descriptors: (before.1, most.1), planned, failed })
}
