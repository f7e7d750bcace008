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
mod keeper;
pub(crate) mod plan;
mod resets;
mod ruleset;

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{Sender, channel};
use tokio::sync::oneshot;

use crate::metrics::Metrics;
use crate::nft::beat::{BeatError, Beats};
use crate::nft::error::NetlinkError;
use crate::nft::netlink::Netlink;
use adopt::Adopted;
use keep::Change;
use keeper::Keeper;
use ruleset::TABLE;

/// The owner of the configuration sends one command at a time.
const COMMANDS: usize = 4;

/// Between two renewals.
const LONGEST_QUIET: Duration = Duration::from_secs(10);

/// Why the kernel's fallback is not as asked; it is tried again.
#[derive(Debug, thiserror::Error)]
pub enum FallbackError {
    /// The kernel, or the environment.
    #[error("the fallback: {0}")]
    Netlink(#[from] NetlinkError),
    /// No socket to beat with.
    #[error(transparent)]
    Beat(#[from] BeatError),
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
    /// The interface of the node's own address.
    pub(crate) interface: Option<String>,
}

impl Settings {
    /// An entry is renewed so often: two renewals may fail before it ends.
    fn interval(&self) -> Duration {
        self.timeout / 3
    }

    /// What is due within so long is renewed at once: every commit starts others' listings anew (`nft::beat`), and ten
    /// seconds are enough for one of 5,000 services.
    fn gathered(&self) -> Duration {
        (self.interval() / 10).min(LONGEST_QUIET)
    }
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
        let now = Instant::now();
        let found = Adopted::read(&mut netlink, &settings, now);
        let unheld = found.as_ref().and_then(|found| found.unheld);
        let (commands, inbox) = channel(COMMANDS);
        let clock = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let clock = clock.map_err(NetlinkError::Socket)?;
        let keeper = Keeper::new((netlink, Beats::new()?), settings, metrics, found, now);
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

#[cfg(test)]
impl Fallback {
    /// One that asks `kernel` in place of the kernel: about a change, or (`None`) about renewing all.
    pub(crate) fn faked(
        kernel: impl Fn(Option<&Change>) -> Result<(), FallbackError> + Send + 'static,
    ) -> Self {
        let (commands, mut inbox) = channel(COMMANDS);
        std::thread::spawn(move || {
            while let Some(command) = inbox.blocking_recv() {
                let (answer, reply) = match command {
                    Command::Change(change, reply) => (kernel(Some(&change)), reply),
                    Command::RenewAll(reply) => (kernel(None), reply),
                };
                let _gone = reply.send(answer);
            }
        });
        Self { commands }
    }
}
