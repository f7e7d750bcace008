//! Interception: connections of local pods to armed services, given to the listener by the kernel.
//!
//! Takes: what is to be taken over, from whom, and whether every worker lives. Gives: the nft table `inet umbra`, owned
//! by a socket of this process, so that it is gone when the process is. Never leaves a half-made change: each is one
//! batch, acknowledged; a batch that fails is followed by one that writes all sets anew, and if that fails too the
//! thread ends, the process with it, and so the table.
//!
//! One thread owns the socket (`owner`). It also beats: the rules work for three seconds after a beat, and it beats each
//! second while every worker has ticked within the last one. And it watches whether what is given to the listener gets
//! there (`blocked`): when not, it empties the sets of targets, remembers what is wanted, says so, and tries again.

mod blocked;
mod canary;
pub mod cni;
mod lapses;
mod owner;
mod ruleset;
mod sets;
mod sources;
mod unseen;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::mpsc::{Sender, channel, error::TrySendError};
use tokio::sync::{oneshot, watch};

pub use crate::nft::beat::BeatError;
pub use crate::nft::error::NetlinkError;
pub use ruleset::Target;
pub use sources::{CidrError, Sources};
pub use unseen::Adopt;

use crate::metrics::Metrics;
use crate::nft::beat::Beats;
use crate::nft::netlink::Netlink;
use owner::{Owner, Say};

/// The owner of the configuration sends one command at a time; the rest are readers of the counter.
const COMMANDS: usize = 16;

/// Says whether every worker lives.
pub type Alive = Box<dyn Fn() -> bool + Send>;

/// What the thread is made with.
pub struct Setup {
    /// The node's own addresses that connections are given to, at most one for each IP family; a family without one is
    /// left alone.
    pub listeners: Vec<SocketAddr>,
    /// What becomes of connections opened before.
    pub adopt: Adopt,
    /// A ClusterIP and port, to see whether connections to one leave this node as they are; `None` does not look.
    pub canary: Option<SocketAddr>,
    /// Asked before each beat.
    pub alive: Alive,
    /// Where it counts.
    pub metrics: Arc<Metrics>,
}

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
    /// The dead-man switch cannot be held.
    #[error(transparent)]
    Beat(#[from] BeatError),
    /// The thread that owns the table has ended; the process is ending, too.
    #[error("interception has ended")]
    Ended,
    /// More questions at once than the thread takes.
    #[error("interception is busy")]
    Busy,
}

impl InterceptError {
    /// What to do when this kernel has not what it takes; `None`: it has, and the error is of another kind.
    pub(crate) fn cannot(&self) -> Option<&'static str> {
        match self {
            Self::Netlink(error) => error.cannot(),
            Self::Beat(_) | Self::Ended | Self::Busy => None,
        }
    }
}

/// The handle to the thread that owns the table. Clones are handles to the same.
#[derive(Clone, Debug)]
pub struct Interceptor {
    commands: Sender<Command>,
    blocked: watch::Receiver<bool>,
    hidden: watch::Receiver<bool>,
}

enum Command {
    Set(Interception, oneshot::Sender<Result<(), NetlinkError>>),
    Count(oneshot::Sender<Result<u64, NetlinkError>>),
}

impl Interceptor {
    /// Makes the table and starts its thread. The thread ends, and the table with it, when the last handle is dropped,
    /// or when the kernel's table can no longer be kept right.
    ///
    /// # Errors
    /// The kernel refuses: no right to, a table of that name is there, or it cannot ([`InterceptError::cannot`]).
    pub fn start(setup: Setup) -> Result<(Self, JoinHandle<Result<(), InterceptError>>), InterceptError> {
        let mut netlink = Netlink::open()?;
        netlink.commit(&ruleset::create(&setup.listeners, setup.adopt))?;
        let beats = Beats::new()?;
        beats.beat(&ruleset::LIVING)?;
        let hidden = match setup.canary {
            Some(canary) => {
                netlink.commit(&canary::create(canary))?;
                canary::is_hidden(&mut netlink, canary)?.unwrap_or(false)
            }
            None => false,
        };
        let (commands, inbox) = channel(COMMANDS);
        let (say_blocked, blocked) = watch::channel(false);
        let (say_hidden, hidden) = watch::channel(hidden);
        let clock = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let clock = clock.map_err(NetlinkError::Socket)?;
        let owner = Owner::new((netlink, beats), setup, Say { blocked: say_blocked, hidden: say_hidden });
        let thread = std::thread::Builder::new()
            .name("umbra-nft".into())
            .spawn(move || owner.run(inbox, &clock))
            .map_err(NetlinkError::Socket)?;
        Ok((Self { commands, blocked, hidden }, thread))
    }

    /// Makes the kernel take over exactly this. When it returns without an error, it does, or, while it is
    /// [`Interceptor::blocked`], will. Waits for its turn behind others' questions. Cancelling does not stop a change that was begun.
    ///
    /// # Errors
    /// The kernel refused: what was taken over before still is.
    pub async fn set(&self, interception: Interception) -> Result<(), InterceptError> {
        let (reply, answer) = oneshot::channel();
        let ended = |_| InterceptError::Ended;
        self.commands.send(Command::Set(interception, reply)).await.map_err(ended)?;
        Ok(answer.await.map_err(|_| InterceptError::Ended)??)
    }

    /// True while nothing is taken over, or only on trial, because connections that were did not arrive.
    pub fn blocked(&self) -> watch::Receiver<bool> {
        self.blocked.clone()
    }

    /// The canary left under another address, when last looked at.
    pub(crate) fn is_hidden(&self) -> bool {
        *self.hidden.borrow()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_waits_behind_questions_and_is_never_refused() {
        let (commands, mut inbox) = channel(1);
        let (reply, _asker) = oneshot::channel();
        assert!(commands.try_send(Command::Count(reply)).is_ok(), "there is room for one");
        let interceptor =
            Interceptor { commands, blocked: watch::channel(false).1, hidden: watch::channel(false).1 };
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
