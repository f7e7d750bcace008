//! What the owner of the configuration is asked, and how it says no.

use tokio::sync::oneshot;
use umbra_routing::{ConfigError, Patch, Put, Reply, State};

/// A push, read and parsed.
#[derive(Debug)]
pub(crate) struct Push {
    /// The controller's epoch.
    pub(crate) epoch: u128,
    /// The snapshot's version.
    pub(crate) version: u64,
    /// What is in it.
    pub(crate) body: Body,
}

/// Everything, or what changes.
#[derive(Debug)]
pub(crate) enum Body {
    /// `PUT`
    Put(Put),
    /// `PATCH`
    Patch(Patch),
}

/// A push that was not applied: the controller's fault. Nothing has changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApplyError {
    /// Another controller has pushed meanwhile.
    #[error("epoch {epoch} is older than {in_force}, which this node has seen")]
    Epoch {
        /// The push's.
        epoch: u128,
        /// The node's.
        in_force: u128,
    },
    /// Not what this node has, or not understood.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

/// What the owner is asked.
pub(crate) enum Command {
    /// Apply this.
    Push(Push, oneshot::Sender<Result<Reply, ApplyError>>),
    /// What is in force? Asked by a controller of this epoch, this is its heartbeat, too.
    Heartbeat(Option<u128>, oneshot::Sender<Result<State, ApplyError>>),
    /// What is in force? For people.
    State(oneshot::Sender<State>),
    /// All resources, for people.
    Dump(oneshot::Sender<serde_json::Value>),
    /// The process ends: take over nothing from now on.
    Disarm(oneshot::Sender<()>),
}
