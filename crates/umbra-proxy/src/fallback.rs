//! The kernel's way to the primary when this process cannot serve: dead, hung, disarmed, being replaced.
//!
//! Takes: where the slots of each governed ClusterIP and port lead (`plan`, from the configuration). Gives: the nft table
//! `inet umbra-fallback`, which nobody owns, so that it stays when the process goes; its entries end by themselves after
//! `--fallback-timeout`, unless renewed. Never removes an entry at start: what is there is adopted and renewed unchanged
//! until the first push. Never gives up: a kernel that refuses is asked again, and the process goes on without.
//!
//! One thread owns a socket of its own, so that work here never holds up the beat of `intercept`.

mod adopt;
pub(crate) mod interface;
pub(crate) mod keep;
pub(crate) mod plan;
mod ruleset;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::oneshot;

use crate::metrics::Metrics;
use crate::nft::netlink::{Netlink, NetlinkError};
use crate::nft::table::Change as Message;
use adopt::Adopted;
use keep::{Change, Kept, Write};
use ruleset::TABLE;

/// How often entries that are due are renewed, and the table is looked at.
const TICK: Duration = Duration::from_secs(1);
/// ClusterIPs and ports in one batch: 1,024 elements, some 110 KB for IPv6. The kernel applies a batch under the lock
/// that kube-proxy's batches need too; this many takes it a few milliseconds.
const TARGETS_PER_BATCH: usize = 64;
/// Entries that were there at the start are renewed for so long without a push (design: Node).
const ADOPTED_FOR: Duration = Duration::from_secs(600);
/// Pauses between attempts at a kernel that refuses: from one second to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// The owner of the configuration sends one command at a time.
const COMMANDS: usize = 4;

/// Why the kernel's fallback is not as asked; it is tried again.
#[derive(Debug, thiserror::Error)]
pub enum FallbackError {
    /// The kernel, or the environment.
    #[error("the fallback: {0}")]
    Netlink(#[from] NetlinkError),
    /// Its thread has ended; the process is ending, too.
    #[error("the fallback has ended")]
    Ended,
}

/// How the fallback is kept.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// How long entries live when nobody renews them.
    pub(crate) timeout: Duration,
    /// The listeners: where slots lead whose primary has no endpoint. 503 while the proxy lives, refused when not.
    pub(crate) listeners: Vec<SocketAddr>,
}

/// The handle to the thread that keeps the table. The thread ends when it is dropped; the table stays.
#[derive(Debug)]
pub(crate) struct Fallback {
    commands: Sender<Command>,
}

enum Command {
    Change(Change, oneshot::Sender<Result<(), FallbackError>>),
    RenewAll(oneshot::Sender<Result<(), FallbackError>>),
}

/// A fallback that has been started.
pub(crate) struct Started {
    pub(crate) fallback: Fallback,
    pub(crate) thread: JoinHandle<()>,
    /// For how long no proxy had held this node; `None`: not known.
    pub(crate) unheld: Option<Duration>,
}

impl Fallback {
    /// Adopts what is there and starts the thread.
    ///
    /// # Errors
    /// No netlink socket or no thread.
    pub(crate) fn start(settings: Settings, metrics: Arc<Metrics>) -> Result<Started, FallbackError> {
        let mut netlink = Netlink::open()?;
        let interval = settings.timeout / 3;
        let adopted = Adopted::read(&mut netlink, Instant::now(), interval);
        let unheld = adopted.as_ref().and_then(|adopted| adopted.unheld);
        let (commands, inbox) = channel(COMMANDS);
        let clock = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let clock = clock.map_err(NetlinkError::Socket)?;
        let keeper = Keeper {
            netlink,
            settings,
            interval,
            metrics,
            marker: adopted.as_ref().map(|adopted| adopted.marker.clone()),
            kept: Kept {
                entries: adopted.map(|adopted| adopted.entries).unwrap_or_default(),
                ..Kept::default()
            },
            adopted_until: Some(Instant::now() + ADOPTED_FOR),
            own_at: Instant::now(),
            failing: None,
            counted: [0; 3],
        };
        let thread = std::thread::Builder::new()
            .name("umbra-fallback".into())
            .spawn(move || keeper.run(inbox, &clock))
            .map_err(NetlinkError::Socket)?;
        Ok(Started { fallback: Self { commands }, thread, unheld })
    }

    /// Brings a change into the kernel. Cancelling does not stop it.
    ///
    /// # Errors
    /// The kernel refused; it is tried again by itself.
    pub(crate) async fn change(&self, change: Change) -> Result<(), FallbackError> {
        self.ask(|reply| Command::Change(change, reply)).await
    }

    /// Gives every entry its full time: nobody will renew it for a while.
    ///
    /// # Errors
    /// The kernel refused.
    pub(crate) async fn renew_all(&self) -> Result<(), FallbackError> {
        self.ask(Command::RenewAll).await
    }

    async fn ask(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<(), FallbackError>>) -> Command,
    ) -> Result<(), FallbackError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| FallbackError::Ended)?;
        answer.await.map_err(|_| FallbackError::Ended)?
    }
}

/// Deletes both of umbra's tables of this node, if they are there. A table that a running proxy owns stays: the kernel
/// refuses, and so does this.
///
/// # Errors
/// The kernel refuses.
pub fn cleanup() -> Result<(), NetlinkError> {
    let mut netlink = Netlink::open()?;
    for table in [crate::nft::table::Table("umbra"), TABLE] {
        // Deleting what is not there would fail the batch: so it is made first.
        let none = netlink_packet_netfilter::nftables::TableFlags::empty();
        netlink.commit(&[table.create(none, 0), table.remove()])?;
    }
    Ok(())
}

/// What the thread holds.
struct Keeper {
    netlink: Netlink,
    settings: Settings,
    interval: Duration,
    metrics: Arc<Metrics>,
    /// How the kernel's table was made; `None`: there is none of ours.
    marker: Option<String>,
    kept: Kept,
    /// No push yet: what was found is renewed until then.
    adopted_until: Option<Instant>,
    /// When the endpoints that may call themselves are to be renewed.
    own_at: Instant,
    failing: Option<Failing>,
    /// The kernel's counters as last read: connections, fallback, kube-proxy.
    counted: [u64; 3],
}

/// A kernel that refuses.
struct Failing {
    again_at: Instant,
    pause: Duration,
}

impl Keeper {
    fn run(mut self, mut inbox: Receiver<Command>, clock: &Runtime) {
        let mut tick_at = Instant::now() + TICK;
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
        if self.marker.as_ref() != Some(&ruleset::marker(&self.kept.origin)) {
            return self.made_anew(now);
        }
        if first.is_empty() && writes.is_empty() {
            return Ok(());
        }
        first.extend(self.own(now));
        let written = self.write(first, &writes);
        self.or_rebuilt(written, now)
    }

    /// Each batch has whole ClusterIPs and ports.
    fn write(&mut self, first: Vec<Message>, writes: &[Write]) -> Result<(), NetlinkError> {
        self.netlink.commit(&first)?;
        for some in writes.chunks(TARGETS_PER_BATCH) {
            let messages = self.messages(some);
            self.netlink.commit(&messages)?;
        }
        Ok(())
    }

    fn messages(&self, writes: &[Write]) -> Vec<Message> {
        let mut messages = Vec::new();
        for v4 in [true, false] {
            let writes = || writes.iter().filter(move |write| write.target.is_ipv4() == v4);
            let (map, known) = (ruleset::map_of(v4), ruleset::known_of(v4));
            let gone: Vec<_> =
                writes().filter(|w| w.had).flat_map(|w| ruleset::slot_keys(&w.target)).collect();
            messages.extend(TABLE.delete(map, &gone));
            let new = writes().filter_map(|w| Some((w.target, w.entry??)));
            let new: Vec<_> = new.flat_map(|(target, slots)| self.elements(&target, &slots)).collect();
            messages.extend(TABLE.add(map, &new));
            let left = writes().filter(|w| w.known && w.entry.is_none());
            messages.extend(
                TABLE.delete(known, &left.map(|w| ruleset::known_element(&w.target)).collect::<Vec<_>>()),
            );
            let come = writes().filter(|w| !w.known && w.entry.is_some());
            messages.extend(
                TABLE.add(known, &come.map(|w| ruleset::known_element(&w.target)).collect::<Vec<_>>()),
            );
        }
        messages
    }

    fn elements(&self, target: &SocketAddr, slots: &umbra_routing::Slots) -> Vec<crate::nft::table::Element> {
        let v4 = target.is_ipv4();
        let nowhere = self.settings.listeners.iter().find(|listener| listener.is_ipv4() == v4);
        // A node without an address of this family: port 1 of nobody's address, where nothing can listen.
        let unspecified: IpAddr =
            if v4 { [192, 0, 2, 1].into() } else { [0x2001, 0xdb8, 0, 0, 0, 0, 0, 1].into() };
        let nowhere = nowhere.copied().unwrap_or_else(|| SocketAddr::new(unspecified, 1));
        ruleset::slots(target, slots, nowhere, millis(self.settings.timeout))
    }

    /// A batch that fails is followed by one that writes all of it.
    fn or_rebuilt(&mut self, written: Result<(), NetlinkError>, now: Instant) -> Result<(), FallbackError> {
        let Err(error) = written else { return Ok(()) };
        tracing::warn!(%error, "the fallback's entries are written anew");
        let mut messages = ruleset::flush_services();
        messages.extend(ruleset::replace_sources(&self.kept.origin));
        messages.extend(self.own(now));
        let all = self.kept.all(now, self.interval);
        messages.extend(self.messages(&all));
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
        let mut messages = ruleset::anew(&self.kept.origin);
        messages.extend(ruleset::replace_sources(&self.kept.origin));
        messages.extend(self.own(now));
        let all = self.kept.all(now, self.interval);
        messages.extend(self.messages(&all));
        messages.extend(ruleset::beat());
        match self.netlink.commit(&messages) {
            Ok(()) => {
                self.marker = Some(ruleset::marker(&self.kept.origin));
                self.counted = [0; 3];
                if existed {
                    self.rebuilt();
                } else {
                    self.recovered();
                }
                Ok(())
            }
            Err(error) => {
                self.failed(&error, now);
                Err(error.into())
            }
        }
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

    fn failed(&mut self, error: &NetlinkError, now: Instant) {
        let pause = self.failing.as_ref().map_or(TICK, |failing| (failing.pause * 2).min(LONGEST_PAUSE));
        tracing::error!(%error, ?pause, "the kernel refuses the fallback: a crash would leave users to kube-proxy; it is tried again");
        self.failing = Some(Failing { again_at: now + pause, pause });
        self.metrics.kernel.failing.set(1);
    }

    fn own(&mut self, now: Instant) -> Vec<Message> {
        self.own_at = now + self.interval;
        ruleset::replace_own(&self.kept.own(), millis(self.settings.timeout))
    }

    fn tick(&mut self, now: Instant) {
        if self.adopted_until.is_some_and(|until| now >= until) {
            tracing::warn!("no push for 10 min: the fallback's entries of before are left to end");
            self.adopted_until = None;
            self.kept.entries.clear();
        }
        let Some(marker) = self.marker.clone() else {
            // Nothing of ours is there, and nothing has been pushed; or the kernel refused it.
            if self.failing.as_ref().is_some_and(|failing| now >= failing.again_at) {
                // Its own words are in the log.
                let _ = self.made_anew(now);
            }
            return;
        };
        if self.failing.as_ref().is_some_and(|failing| now < failing.again_at) {
            return;
        }
        let whole = adopt::is_whole(&mut self.netlink, &marker);
        if self.failing.is_some() || !whole {
            if !whole {
                tracing::warn!("somebody has changed table inet umbra-fallback: it is made anew");
            }
            // Its own words are in the log.
            let _ = self.made_anew(now);
            return;
        }
        let held = self.netlink.commit(&ruleset::beat());
        let own = if now >= self.own_at { self.own(now) } else { Vec::new() };
        let own = held.and_then(|()| self.netlink.commit(&own));
        let _ = self.or_rebuilt(own, now);
        let _ = self.renew(now);
        self.count();
    }

    /// Renews what is due by then.
    fn renew(&mut self, by: Instant) -> Result<(), FallbackError> {
        let now = Instant::now();
        // Later than `by`, which is an interval away at most: or it would be due again at once.
        let next = now + self.interval + TICK;
        loop {
            let due = self.kept.due(by, next, TARGETS_PER_BATCH);
            if due.is_empty() || self.marker.is_none() {
                return Ok(());
            }
            let written = self.write(Vec::new(), &due);
            self.or_rebuilt(written, now)?;
        }
    }

    /// Reads the kernel's counters. Those that come by while it does are in one of them and not yet in the other: it
    /// reads until the parts stand still, and if they do not, the next second will do.
    fn count(&mut self) {
        for _ in 0..3 {
            let Ok(before) = self.parts() else { return };
            let Ok(connections) = self.netlink.counter(TABLE, ruleset::CONNECTIONS) else { return };
            let Ok(after) = self.parts() else { return };
            let now = [connections, after[0], after[1]];
            // What umbra took is the rest, and never becomes less.
            let rest = |[all, fallback, kube_proxy]: [u64; 3]| all.checked_sub(fallback + kube_proxy);
            if before == after && rest(now) >= rest(self.counted) {
                self.metrics.kernel.counted(self.counted, now);
                self.counted = now;
                return;
            }
        }
    }

    fn parts(&mut self) -> Result<[u64; 2], NetlinkError> {
        let fallback = self.netlink.counter(TABLE, ruleset::FALLBACK)?;
        Ok([fallback, self.netlink.counter(TABLE, ruleset::KUBE_PROXY)?])
    }
}

fn millis(duration: Duration) -> u64 {
    duration.as_millis().try_into().unwrap_or(u64::MAX)
}
