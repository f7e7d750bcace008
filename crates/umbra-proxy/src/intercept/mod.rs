//! Interception: connections of local pods to armed services, given to the listener by the kernel.
//!
//! Takes: what is to be taken over, from whom, and whether every worker lives. Gives: the nft table `inet umbra`, owned
//! by a socket of this process, so that it is gone when the process is. Never leaves a half-made change: each is one
//! batch, acknowledged; a batch that fails is followed by one that writes all sets anew, and if that fails too the
//! thread ends, the process with it, and so the table.
//!
//! One thread owns the socket. It also beats: the rules work for three seconds after a beat, and it beats each second
//! while every worker has ticked within the last one.

mod expression;
mod netlink;
mod ruleset;
mod sources;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

pub use netlink::NetlinkError;
pub use ruleset::Target;
pub use sources::{CidrError, Sources};

use netlink::Netlink;

/// How often the dead-man element is renewed (spec/interception.md 3).
const BEAT_EVERY: Duration = Duration::from_secs(1);
/// Targets in one batch: an IPv6 element takes 36 bytes.
const TARGETS_PER_BATCH: usize = netlink::MAX_BATCH_BYTES / 40;
/// The owner of the configuration sends one command at a time; the rest are readers of the counter.
const COMMANDS: usize = 16;

/// Says whether every worker lives.
pub type Alive = Box<dyn Fn() -> bool + Send>;

/// What is to be taken over, from whom.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interception {
    /// ClusterIPs and ports.
    pub targets: BTreeSet<Target>,
    /// Local pods.
    pub sources: Sources,
}

/// Why interception is not as asked.
#[derive(Debug, thiserror::Error)]
pub enum InterceptError {
    /// The kernel, or the environment.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The thread that owns the table has ended; the process is ending, too.
    #[error("interception has ended")]
    Ended,
    /// More commands at once than the thread takes.
    #[error("interception is busy")]
    Busy,
}

/// The handle to the thread that owns the table. Clones are handles to the same.
#[derive(Clone, Debug)]
pub struct Interceptor {
    commands: SyncSender<Command>,
}

enum Command {
    Set(Interception, oneshot::Sender<Result<(), NetlinkError>>),
    Count(oneshot::Sender<Result<u64, NetlinkError>>),
}

impl Interceptor {
    /// Makes the table and starts its thread. `listeners` are the node's own addresses that connections are given to,
    /// at most one for each IP family; a family without one is left alone. The thread ends, and the table with it,
    /// when the last handle is dropped, or when the kernel's table can no longer be kept right.
    ///
    /// # Errors
    /// The kernel refuses: no right to, or a table of that name is there.
    pub fn start(
        listeners: &[SocketAddr],
        alive: Alive,
    ) -> Result<(Self, JoinHandle<Result<(), InterceptError>>), InterceptError> {
        let mut netlink = Netlink::open()?;
        netlink.commit(&ruleset::create(listeners))?;
        netlink.commit(&ruleset::beat())?;
        let (commands, inbox) = sync_channel(COMMANDS);
        let owner = Owner { netlink, current: Interception::default(), alive };
        let thread = std::thread::Builder::new()
            .name("umbra-nft".into())
            .spawn(move || owner.run(&inbox))
            .map_err(NetlinkError::Socket)?;
        Ok((Self { commands }, thread))
    }

    /// Makes the kernel take over exactly this. When it returns without an error, it does. Cancelling does not stop
    /// the change.
    ///
    /// # Errors
    /// The kernel refused: what was taken over before still is.
    pub async fn set(&self, interception: Interception) -> Result<(), InterceptError> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Set(interception, reply))?;
        Ok(answer.await.map_err(|_| InterceptError::Ended)??)
    }

    /// Connections given to the listener since the table was made.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub async fn intercepted(&self) -> Result<u64, InterceptError> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Count(reply))?;
        Ok(answer.await.map_err(|_| InterceptError::Ended)??)
    }

    fn send(&self, command: Command) -> Result<(), InterceptError> {
        self.commands.try_send(command).map_err(|error| match error {
            TrySendError::Full(_) => InterceptError::Busy,
            TrySendError::Disconnected(_) => InterceptError::Ended,
        })
    }
}

/// What the thread holds.
struct Owner {
    netlink: Netlink,
    /// What the kernel has.
    current: Interception,
    alive: Alive,
}

impl Owner {
    fn run(mut self, inbox: &Receiver<Command>) -> Result<(), InterceptError> {
        let mut beat_at = Instant::now() + BEAT_EVERY;
        loop {
            // First, so that commands, however many, never keep it from beating.
            if Instant::now() >= beat_at {
                beat_at = Instant::now() + BEAT_EVERY;
                self.beat()?;
            }
            match inbox.recv_timeout(beat_at.saturating_duration_since(Instant::now())) {
                Ok(Command::Set(wanted, reply)) => self.set_and_reply(wanted, reply)?,
                Ok(Command::Count(reply)) => {
                    // The asker may have gone; that is no fault of the table.
                    let _gone = reply.send(self.netlink.counter(ruleset::INTERCEPTED));
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
        }
    }

    fn beat(&mut self) -> Result<(), NetlinkError> {
        if (self.alive)() {
            return self.netlink.commit(&ruleset::beat());
        }
        tracing::warn!(
            "a worker has not ticked for a second: no beat; after three, the kernel lets connections pass"
        );
        Ok(())
    }

    /// A change that only adds may fail: nothing is worse than before. One that takes away must not.
    fn set_and_reply(
        &mut self,
        wanted: Interception,
        reply: oneshot::Sender<Result<(), NetlinkError>>,
    ) -> Result<(), InterceptError> {
        let only_adds =
            self.current.targets.is_subset(&wanted.targets) && self.current.sources == wanted.sources;
        let result = self.change_to(&wanted).or_else(|error| {
            tracing::warn!(%error, "writing all sets anew");
            self.write_all(&wanted)
        });
        match result {
            Err(error) if !only_adds => Err(error.into()),
            result => {
                // The asker may have gone; what was done stays done.
                let _gone = reply.send(result);
                Ok(())
            }
        }
    }

    fn change_to(&mut self, wanted: &Interception) -> Result<(), NetlinkError> {
        let gone: Vec<Target> = self.current.targets.difference(&wanted.targets).copied().collect();
        let new: Vec<Target> = wanted.targets.difference(&self.current.targets).copied().collect();
        for some in gone.chunks(TARGETS_PER_BATCH) {
            self.netlink.commit(&ruleset::delete_targets(some))?;
            self.current.targets.retain(|target| some.binary_search(target).is_err());
        }
        if self.current.sources != wanted.sources {
            self.netlink.commit(&ruleset::replace_sources(&wanted.sources))?;
            self.current.sources = wanted.sources.clone();
        }
        for some in new.chunks(TARGETS_PER_BATCH) {
            self.netlink.commit(&ruleset::add_targets(some))?;
            self.current.targets.extend(some);
        }
        Ok(())
    }

    /// Whatever the sets hold, they hold `wanted` afterwards.
    fn write_all(&mut self, wanted: &Interception) -> Result<(), NetlinkError> {
        let mut changes = ruleset::flush_targets();
        changes.extend(ruleset::replace_sources(&wanted.sources));
        let targets: Vec<Target> = wanted.targets.iter().copied().collect();
        let (first, rest) = targets.split_at(targets.len().min(TARGETS_PER_BATCH / 2));
        changes.extend(ruleset::add_targets(first));
        self.netlink.commit(&changes)?;
        self.current =
            Interception { targets: first.iter().copied().collect(), sources: wanted.sources.clone() };
        for some in rest.chunks(TARGETS_PER_BATCH) {
            self.netlink.commit(&ruleset::add_targets(some))?;
            self.current.targets.extend(some);
        }
        Ok(())
    }
}
