//! The thread that keeps the table.
//!
//! Takes: changes, and the time going by. Gives: a kernel that holds what `Kept` says: what changed in batches at once,
//! what is due renewed together each few seconds, so that others find quiet times to list in (`nft::beat`), all of it
//! written anew when a batch failed or somebody changed the table. Never gives up, never ends but with its handle.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tokio::sync::mpsc::Receiver;

use super::adopt::{self, Adopted};
use super::keep::{Change, Kept, Write};
use super::resets::Resets;
use super::ruleset::{self, TABLE};
use super::{Command, FallbackError, Settings};
use crate::metrics::Metrics;
use crate::nft::beat::Beats;
use crate::nft::error::NetlinkError;
use crate::nft::netlink::Netlink;
use crate::nft::table::Change as Message;

/// How often the table is looked at, without changing it.
const TICK: Duration = Duration::from_secs(1);
/// ClusterIPs and ports in one batch: 1,024 elements, some 110 KB for IPv6. The kernel applies a batch under the lock
/// that kube-proxy's batches need too; this many takes it a few milliseconds.
const TARGETS_PER_BATCH: usize = 64;
/// Entries that were there at the start are renewed for so long without a push (design: Node).
const ADOPTED_FOR: Duration = Duration::from_secs(600);
/// Pauses between attempts at a kernel that refuses: from one second to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Attempts to read the counters while no connection comes by between two of them.
const READINGS: usize = 3;

/// What the thread holds.
pub(super) struct Keeper {
    netlink: Netlink,
    beats: Beats,
    settings: Settings,
    interval: Duration,
    metrics: Arc<Metrics>,
    resets: Resets,
    /// How the kernel's table was made; `None`: there is none of ours.
    marker: Option<String>,
    kept: Kept,
    /// No push yet: what was found is renewed until then.
    adopted_until: Option<Instant>,
    /// Endpoints that may call themselves, as the kernel has them, and when that and the sources are written again.
    own: BTreeSet<IpAddr>,
    own_at: Instant,
    /// When the next entries are renewed.
    renew_at: Instant,
    failing: Option<Failing>,
    /// Connections that umbra, the fallback and kube-proxy took, as last told.
    took: [u64; 3],
}

/// A kernel that refuses.
struct Failing {
    reason: String,
    again_at: Instant,
    pause: Duration,
}

impl Keeper {
    /// For the table that was found, if any.
    pub(super) fn new(
        (mut netlink, beats): (Netlink, Beats),
        settings: Settings,
        metrics: Arc<Metrics>,
        found: Option<Adopted>,
        now: Instant,
    ) -> Self {
        let interval = settings.interval();
        let resets = Resets::of_kernel(&mut netlink);
        let (marker, kept) = found.map(|found| (found.marker, found.kept)).unzip();
        Self {
            netlink,
            beats,
            settings,
            interval,
            metrics,
            resets,
            marker,
            kept: kept.unwrap_or_default(),
            adopted_until: Some(now + ADOPTED_FOR),
            own: BTreeSet::new(),
            own_at: now,
            renew_at: now,
            failing: None,
            took: [0; 3],
        }
    }

    /// Serves until the handle is dropped.
    pub(super) fn run(mut self, mut inbox: Receiver<Command>, clock: &Runtime) {
        // At once: what was found may be about to expire.
        let mut tick_at = Instant::now();
        loop {
            if Instant::now() >= tick_at {
                tick_at = Instant::now() + TICK;
                self.tick(Instant::now());
            }
            let next = async { tokio::time::timeout_at(tick_at.into(), inbox.recv()).await };
            // The asker may have gone; what was done stays done.
            match clock.block_on(next) {
                Ok(Some(Command::Change(change, reply))) => {
                    let _gone = reply.send(self.change(&change, Instant::now()));
                }
                Ok(Some(Command::RenewAll(reply))) => {
                    let _gone = reply.send(self.renew(Instant::now() + self.interval));
                }
                Ok(None) => return,
                Err(_) => {}
            }
        }
    }

    fn change(&mut self, change: &Change, now: Instant) -> Result<(), FallbackError> {
        self.adopted_until = None;
        let mut first = Vec::new();
        if let Some(origin) = change.origin.as_ref().filter(|origin| **origin != self.kept.origin) {
            self.kept.origin = origin.clone();
            first = ruleset::replace_sources(origin);
        }
        let writes = self.kept.take(change, now, self.interval);
        let as_made = self.marker.as_ref() == Some(&ruleset::marker(&self.kept.origin, self.resets));
        if !as_made || self.failing.is_some() {
            return self.made_anew(now);
        }
        let own = self.kept.own();
        if own != self.own {
            first.extend(self.write_own(own, now));
        }
        let written = self.write(first, &writes);
        self.or_rebuilt(written, now)
    }

    /// Each batch has whole ClusterIPs and ports; `first` goes with the first of them.
    fn write(&mut self, first: Vec<Message>, writes: &[Write]) -> Result<(), NetlinkError> {
        let (some, rest) = writes.split_at(writes.len().min(TARGETS_PER_BATCH));
        let mut messages = first;
        messages.extend(self.messages(some));
        self.netlink.commit(&messages)?;
        for some in rest.chunks(TARGETS_PER_BATCH) {
            let messages = self.messages(some);
            self.netlink.commit(&messages)?;
        }
        Ok(())
    }

    fn messages(&self, writes: &[Write]) -> Vec<Message> {
        ruleset::written(writes, &self.settings.listeners, self.settings.timeout)
    }

    /// A batch that fails is followed by one that writes all of it.
    fn or_rebuilt(&mut self, written: Result<(), NetlinkError>, now: Instant) -> Result<(), FallbackError> {
        let Err(error) = written else { return Ok(()) };
        tracing::warn!(%error, "the fallback's entries are written anew");
        let mut messages = ruleset::flush_services();
        messages.extend(self.everything(now));
        match self.netlink.commit(&messages) {
            Ok(()) => {
                self.rebuilt();
                Ok(())
            }
            Err(_) => self.made_anew(now),
        }
    }

    /// The whole table, in one batch with its entries: there is no moment without.
    fn made_anew(&mut self, now: Instant) -> Result<(), FallbackError> {
        let existed = self.marker.is_some();
        // Its counters begin at nothing; what they have is not to be lost.
        self.count();
        let mut messages = ruleset::anew(&self.kept.origin, self.resets);
        messages.extend(self.everything(now));
        if let Err(error) = self.netlink.commit(&messages) {
            self.failed(&error, now);
            return Err(error.into());
        }
        self.marker = Some(ruleset::marker(&self.kept.origin, self.resets));
        self.took = [0; 3];
        self.beat();
        match existed {
            true => self.rebuilt(),
            false => self.recovered(),
        }
        Ok(())
    }

    /// For a table without elements.
    fn everything(&mut self, now: Instant) -> Vec<Message> {
        let mut messages = ruleset::replace_sources(&self.kept.origin);
        let own = self.kept.own();
        messages.extend(self.write_own(own, now));
        let all = self.kept.all(now, self.interval);
        messages.extend(self.messages(&all));
        messages
    }

    fn write_own(&mut self, own: BTreeSet<IpAddr>, now: Instant) -> Vec<Message> {
        self.own_at = now + self.interval;
        self.own = own;
        ruleset::replace_own(&self.own, self.settings.timeout)
    }

    fn rebuilt(&mut self) {
        self.metrics.kernel.rebuilt.inc();
        self.recovered();
    }

    fn recovered(&mut self) {
        if self.failing.take().is_some() {
            tracing::info!("the fallback is as it should be again");
        }
        self.metrics.kernel.failing.set(0);
    }

    /// Says each reason once.
    fn failed(&mut self, error: &NetlinkError, now: Instant) {
        let reason = error.to_string();
        let before = self.failing.take();
        if before.as_ref().is_none_or(|before| before.reason != reason) {
            tracing::error!(
                %error,
                "the kernel refuses the fallback: a crash would leave users to kube-proxy; it is tried again"
            );
        }
        let pause = before.map_or(TICK, |before| (before.pause * 2).min(LONGEST_PAUSE));
        self.failing = Some(Failing { reason, again_at: now + pause, pause });
        self.metrics.kernel.failing.set(1);
    }

    fn tick(&mut self, now: Instant) {
        if self.adopted_until.is_some_and(|until| now >= until) {
            tracing::warn!("no push for 10 min: the fallback's entries of before are left to end");
            self.adopted_until = None;
            self.kept.entries.clear();
        }
        // What fails has its own words in the log, and is tried again.
        if let Some(failing) = &self.failing {
            if now >= failing.again_at {
                let _ = self.made_anew(now);
            }
            return;
        }
        let Some(marker) = &self.marker else {
            // Nothing of ours is there, and nothing has been pushed.
            return;
        };
        if !adopt::is_whole(&mut self.netlink, marker, self.resets) {
            tracing::warn!("somebody has changed table inet umbra-fallback: it is made anew");
            let _ = self.made_anew(now);
            return;
        }
        self.beat();
        if now >= self.renew_at {
            self.renew_at = now + self.settings.gathered();
            self.renew_own(now);
            let _ = self.renew(self.renew_at);
        }
        self.count();
    }

    /// Only a packet: see `nft::beat`. What looks at the table each second finds out what keeps it from being heard.
    fn beat(&self) {
        if let Err(error) = self.beats.beat(&ruleset::HOLDING) {
            tracing::debug!(%error, "how long this node is without a proxy will be overestimated");
        }
    }

    fn renew_own(&mut self, now: Instant) {
        if now < self.own_at {
            return;
        }
        let mut messages = ruleset::replace_sources(&self.kept.origin);
        let own = self.kept.own();
        messages.extend(self.write_own(own, now));
        let written = self.netlink.commit(&messages);
        // What fails has its own words in the log, and is tried again.
        let _ = self.or_rebuilt(written, now);
    }

    /// Renews what is due by then.
    fn renew(&mut self, by: Instant) -> Result<(), FallbackError> {
        let now = Instant::now();
        // Later than `by`, which is an interval away at most: or it would be due again at once.
        let next = now + self.interval + TICK;
        while self.marker.is_some() && self.failing.is_none() {
            let due = self.kept.due(by, next, TARGETS_PER_BATCH);
            if due.is_empty() {
                break;
            }
            let written = self.write(Vec::new(), &due);
            self.or_rebuilt(written, now)?;
        }
        Ok(())
    }

    /// Reads the kernel's counters. A connection that comes by between two readings could be told as umbra's although
    /// it is another's: so the others' are read on both sides of the sum, and if they do not stand still, the next
    /// second will do.
    fn count(&mut self) {
        for _ in 0..READINGS {
            let Ok(before) = self.others() else { return };
            let Ok(connections) = self.netlink.counter(TABLE, ruleset::CONNECTIONS) else { return };
            let Ok(others) = self.others() else { return };
            if before == others {
                // One that is counted and not bound yet looks like ours for a moment: never take it back.
                let umbra = connections.saturating_sub(others[0] + others[1]).max(self.took[0]);
                let took = [umbra, others[0], others[1]];
                self.metrics.kernel.took(self.took, took);
                self.took = took;
                return;
            }
        }
    }

    fn others(&mut self) -> Result<[u64; 2], NetlinkError> {
        let fallback = self.netlink.counter(TABLE, ruleset::FALLBACK)?;
        let kube_proxy = self.netlink.counter(TABLE, ruleset::KUBE_PROXY)?;
        Ok([fallback, kube_proxy])
    }
}
