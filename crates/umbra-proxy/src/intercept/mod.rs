//! Interception: connections of local pods to armed services, given to the listener by the kernel.
//!
//! Takes: what is to be taken over, from whom, and whether every worker lives. Gives: the nft table `inet umbra`, owned
//! by a socket of this process, so that it is gone when the process is. Never leaves a half-made change: each is one
//! batch, acknowledged; a batch that fails is followed by one that writes all sets anew, and if that fails too the
//! thread ends, the process with it, and so the table.
//!
//! One thread owns the socket. It also beats: the rules work for three seconds after a beat, and it beats each second
//! while every worker has ticked within the last one.

mod ruleset;
mod sources;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tokio::sync::mpsc::{Receiver, Sender, channel, error::TrySendError};
use tokio::sync::oneshot;

pub use crate::nft::netlink::NetlinkError;
pub use ruleset::Target;
pub use sources::{CidrError, Sources};

use crate::nft::netlink::{MAX_BATCH_BYTES, Netlink};

/// How often the dead-man element is renewed (spec/interception.md 3).
const BEAT_EVERY: Duration = Duration::from_secs(1);
/// Targets in one batch: an IPv6 element takes 36 bytes.
const TARGETS_PER_BATCH: usize = MAX_BATCH_BYTES / 40;
/// Beats that may fail in a row. The rules work for three seconds after one; from then on connections pass by, and a
/// kernel that still refuses is not one whose table can be kept right.
const FAILED_BEATS: u32 = 3;
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
    /// More questions at once than the thread takes.
    #[error("interception is busy")]
    Busy,
}

/// The handle to the thread that owns the table. Clones are handles to the same.
#[derive(Clone, Debug)]
pub struct Interceptor {
    commands: Sender<Command>,
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
        let (commands, inbox) = channel(COMMANDS);
        let clock = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let clock = clock.map_err(NetlinkError::Socket)?;
        let owner = Owner { netlink, current: Interception::default(), alive, failed_beats: 0 };
        let thread = std::thread::Builder::new()
            .name("umbra-nft".into())
            .spawn(move || owner.run(inbox, &clock))
            .map_err(NetlinkError::Socket)?;
        Ok((Self { commands }, thread))
    }

    /// Makes the kernel take over exactly this. When it returns without an error, it does. Waits for its turn behind
    /// others' questions. Cancelling does not stop a change that was begun.
    ///
    /// # Errors
    /// The kernel refused: what was taken over before still is.
    pub async fn set(&self, interception: Interception) -> Result<(), InterceptError> {
        let (reply, answer) = oneshot::channel();
        let ended = |_| InterceptError::Ended;
        self.commands.send(Command::Set(interception, reply)).await.map_err(ended)?;
        Ok(answer.await.map_err(|_| InterceptError::Ended)??)
    }

    /// Connections given to the listener since the table was made.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub async fn intercepted(&self) -> Result<u64, InterceptError> {
        let (reply, answer) = oneshot::channel();
        self.commands.try_send(Command::Count(reply)).map_err(|error| match error {
            TrySendError::Full(_) => InterceptError::Busy,
            TrySendError::Closed(_) => InterceptError::Ended,
        })?;
        Ok(answer.await.map_err(|_| InterceptError::Ended)??)
    }
}

/// A beat that fails is tried again the next second; too many in a row end the thread.
fn tolerated(failed: &mut u32, beaten: Result<(), NetlinkError>) -> Result<(), NetlinkError> {
    let Err(error) = beaten else {
        *failed = 0;
        return Ok(());
    };
    *failed += 1;
    if *failed >= FAILED_BEATS {
        return Err(error);
    }
    tracing::warn!(%error, "a beat failed; it is tried again in a second");
    Ok(())
}

/// What the thread holds.
struct Owner {
    netlink: Netlink,
    /// What the kernel has.
    current: Interception,
    alive: Alive,
    /// In a row.
    failed_beats: u32,
}

impl Owner {
    fn run(mut self, mut inbox: Receiver<Command>, clock: &Runtime) -> Result<(), InterceptError> {
        let mut beat_at = Instant::now() + BEAT_EVERY;
        loop {
            // First, so that commands, however many, never keep it from beating.
            if Instant::now() >= beat_at {
                beat_at = Instant::now() + BEAT_EVERY;
                self.beat()?;
            }
            let next = async { tokio::time::timeout_at(beat_at.into(), inbox.recv()).await };
            match clock.block_on(next) {
                Ok(Some(Command::Set(wanted, reply))) => self.set_and_reply(wanted, reply)?,
                Ok(Some(Command::Count(reply))) => {
                    // The asker may have gone; that is no fault of the table.
                    let _gone = reply.send(self.netlink.counter(ruleset::TABLE, ruleset::INTERCEPTED));
                }
                Ok(None) => return Ok(()),
                Err(_) => {}
            }
        }
    }

    fn beat(&mut self) -> Result<(), NetlinkError> {
        if (self.alive)() {
            let beaten = self.netlink.commit(&ruleset::beat());
            return tolerated(&mut self.failed_beats, beaten);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_beat_is_tried_again_and_three_in_a_row_are_the_end() {
        let mut failed = 0;
        let mut beat = |result| tolerated(&mut failed, result).is_ok();
        assert!(beat(Err(NetlinkError::Silent)) && beat(Err(NetlinkError::Silent)));
        assert!(beat(Ok(())), "and forgotten");
        assert!(beat(Err(NetlinkError::Silent)) && beat(Err(NetlinkError::Silent)));
        assert!(!beat(Err(NetlinkError::Silent)));
    }

    #[test]
    fn a_change_waits_behind_questions_and_is_never_refused() {
        let (commands, mut inbox) = channel(1);
        let (reply, _asker) = oneshot::channel();
        assert!(commands.try_send(Command::Count(reply)).is_ok(), "there is room for one");
        let interceptor = Interceptor { commands };
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let serve = async {
            while let Some(command) = inbox.recv().await {
                if let Command::Set(_, reply) = command {
                    return reply.send(Ok(())).expect("the caller waits");
                }
            }
        };
        let set = interceptor.set(Interception::default());
        let (result, ()) = runtime.block_on(async { tokio::join!(biased; set, serve) });
        assert!(result.is_ok(), "{result:?}");
    }
}
