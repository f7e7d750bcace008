//! umbra-proxy without interception on loopback, and what it is pushed: a service `web` whose v1 answers and whose v2,
//! if there is one, gets copies.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use umbra_routing::{Put, Rule};
use umbra_testkit::table::{self, Copies, Shadowed};
use umbra_testkit::{Process, Samples, Shadows, claim_address, http, program, wait_for};

/// For what takes milliseconds to seconds on an idle machine.
pub(crate) const CEILING: Duration = Duration::from_secs(120);

/// A running umbra-proxy with two workers; it ends when dropped.
pub(crate) struct Proxy {
    process: Process,
    traffic: SocketAddr,
    push: SocketAddr,
    metrics: SocketAddr,
    version: u64,
}

/// Resident memory of a process, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    /// Now.
    pub(crate) now: u64,
    /// At most, since its start.
    pub(crate) most: u64,
}

impl Proxy {
    /// Starts it with nothing to do yet.
    pub(crate) fn start() -> Result<Self> {
        Self::start_with(&[])
    }

    /// The same with further flags.
    pub(crate) fn start_with(flags: &[&str]) -> Result<Self> {
        let (traffic, push, metrics) = (claim_address()?, claim_address()?, claim_address()?);
        let mut command = Command::new(program("umbra-proxy")?);
        // Copies are counted, however late the machine makes a worker.
        command.env("UMBRA_SHADOW_MAX_LAG", "60m");
        command.args(["--node", "n1", "--intercept=off", "--workers=2", "--admin-listen", "127.0.0.1:0"]);
        command.args(flags);
        for (flag, address) in [("--listen", traffic), ("--push-listen", push), ("--metrics-listen", metrics)]
        {
            command.arg(flag).arg(address.to_string());
        }
        let mut process = Process::start("umbra-proxy", &command, &log())?;
        wait_for("the proxy answers", CEILING, || {
            if let Err(dead) = process.alive() {
                return Ok(Err(dead));
            }
            http::get(metrics, "/livez").map(|_| Ok(()))
        })??;
        Ok(Self { process, traffic, push, metrics, version: 0 })
    }

    /// Pushes `web`, as the controller does: v1 there, and copies for a v2 if there is one.
    pub(crate) fn route(&mut self, v1: SocketAddr, v2: Option<SocketAddr>) -> Result<()> {
        self.version += 1;
        let all = v2.map(|v2| Copies { endpoint: Some(v2), per_million: 1_000_000 });
        table::push(self.push, self.version, &[Shadowed { name: "web", v1, v2: all, rule: Rule::default() }])
    }

    /// Pushes this, and nothing else is there any more.
    pub(crate) fn put(&mut self, put: &Put) -> Result<()> {
        self.version += 1;
        table::push_put(self.push, self.version, put)
    }

    /// Where users come.
    pub(crate) fn traffic(&self) -> SocketAddr {
        self.traffic
    }

    /// Its memory.
    pub(crate) fn memory(&self) -> Result<Memory> {
        let path = format!("/proc/{}/status", self.process.id());
        let status = std::fs::read_to_string(&path).with_context(|| path.clone())?;
        let kibibytes = |field: &str| -> Result<u64> {
            let value = status.lines().find_map(|line| line.strip_prefix(field)?.trim().strip_suffix(" kB"));
            Ok(value.with_context(|| format!("{field} in {path}"))?.parse::<u64>()? * 1024)
        };
        Ok(Memory { now: kibibytes("VmRSS:")?, most: kibibytes("VmHWM:")? })
    }

    /// From now on [`Memory::most`] is what there was at most since now (`clear_refs` in proc(5)).
    pub(crate) fn forget_peak(&self) -> Result<()> {
        let path = format!("/proc/{}/clear_refs", self.process.id());
        std::fs::write(&path, "5").with_context(|| path.clone())
    }

    /// Open file descriptors.
    pub(crate) fn descriptors(&self) -> Result<usize> {
        let path = format!("/proc/{}/fd", self.process.id());
        Ok(std::fs::read_dir(&path).with_context(|| path.clone())?.count())
    }

    /// Its threads.
    pub(crate) fn threads(&self) -> Result<usize> {
        let path = format!("/proc/{}/task", self.process.id());
        Ok(std::fs::read_dir(&path).with_context(|| path.clone())?.count())
    }

    /// Its counters.
    pub(crate) fn samples(&self) -> Result<Samples> {
        Samples::of(self.metrics)
    }

    /// It has not ended by itself.
    pub(crate) fn alive(&mut self) -> Result<()> {
        self.process.alive()
    }

    /// Copies dropped for this reason.
    pub(crate) fn dropped(&self, reason: &str) -> Result<u64> {
        Ok(count(&self.samples()?, "umbra_shadow_dropped_total", &[("reason", reason)]))
    }

    /// Waits until this many requests were eligible and no copy is in flight: then the sums must add up.
    pub(crate) fn settled(&self, eligible: u64) -> Result<Shadows> {
        self.settled_with(&[], eligible)
    }

    /// The same of the copies that are counted with these labels.
    pub(crate) fn settled_with(&self, labels: &[(&str, &str)], eligible: u64) -> Result<Shadows> {
        wait_for("eligible = sent + dropped, sent = answered + timed_out + failed", CEILING, || {
            let shadows = Shadows::of(&self.samples()?, labels);
            shadows.settled()?;
            ensure!(shadows.eligible == eligible, "{eligible} requests, {shadows:?}");
            Ok(shadows)
        })
    }
}

/// Counters of some requests: whole numbers far below 2^53.
fn count(samples: &Samples, name: &str, labels: &[(&str, &str)]) -> u64 {
    samples.sum(name, labels) as u64
}

fn log() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("umbra-proxy-{}-{number}.log", std::process::id()))
}
