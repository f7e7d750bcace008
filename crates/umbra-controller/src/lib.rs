//! Watch, publish, push, status: from objects to nodes, and back to the objects' status.
//!
//! Takes: [`publish::Input`]s from the API server (`watch`, feature `kubernetes`) or from files (`umbra up`), and the
//! live nodes. Gives: every node's configuration, kept up to date, and each object's conditions. Configuration flows
//! one way; acknowledgements flow back, and, to a controller that has just started, the rules of objects that are
//! invalid now. Never serves users' traffic: when it is dead, nodes go on.
//!
//! The stops of the flow are one file each: `watch`, [`publish`], [`push`], [`status`]; `trust` makes the push
//! channel's certificates, `lead` says which controller's word counts.

#[cfg(feature = "kubernetes")]
pub mod admin;
#[cfg(feature = "kubernetes")]
pub mod args;
pub mod compile_args;
pub mod lead;
pub mod metrics;
pub mod publish;
pub mod push;
#[cfg(feature = "kubernetes")]
pub mod run;
pub mod status;
#[cfg(feature = "kubernetes")]
pub mod trust;
#[cfg(feature = "kubernetes")]
pub mod watch;

use std::sync::Arc;

use tokio::sync::{mpsc, watch as value};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use metrics::Metrics;
use publish::{Input, Published, Windows};
use push::{Acks, Nodes};

/// Inputs that wait to be applied. A full channel slows the watches down; nothing is lost. A relist is one input, so
/// this is about single changes: a rollout of 1,000 pods fits.
pub const INPUT_QUEUE: usize = 1024;
/// Tables that nodes hold and that wait to be taken up. A full channel is no loss: nodes show them again.
const RECOVERED_QUEUE: usize = 1024;

/// How a controller works.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// What compiling may do.
    pub compile: umbra_compile::Options,
    /// How changes are gathered.
    pub windows: Windows,
    /// How nodes are reached.
    pub push: push::Options,
}

/// Publisher and pusher, running as tasks of the current runtime.
pub struct Controller {
    /// The newest snapshot; `None` until every kind of object has been listed once.
    pub published: value::Receiver<Option<Arc<Published>>>,
    /// What live nodes have acknowledged.
    pub acks: value::Receiver<Acks>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    tasks: JoinSet<Result<(), Failure>>,
    stop: CancellationToken,
}

/// A task of the controller has ended before its time. The process must end: half a controller lies.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A bug; its message is on stderr.
    #[error("a task of the controller has died: {0}")]
    Died(#[from] tokio::task::JoinError),
    /// It returned, which it never does by itself.
    #[error("a task of the controller has ended")]
    Ended,
}

impl Controller {
    /// Starts both. When the source of `inputs` ends, what is published stays.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start(
        options: Options,
        metrics: Arc<Metrics>,
        inputs: mpsc::Receiver<Input>,
        nodes: value::Receiver<Nodes>,
    ) -> Self {
        let (publish, published) = value::channel(None);
        let (acknowledge, acks) = value::channel(Acks::new());
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let (recover, recovered) = mpsc::channel(RECOVERED_QUEUE);
        let publisher = publish::run(
            inputs,
            recovered,
            publish,
            options.compile,
            options.windows,
            Arc::clone(&metrics),
            stop.child_token(),
        );
        tasks.spawn(async move {
            publisher.await;
            Ok(())
        });
        let pusher = push::run(
            published.clone(),
            nodes,
            acknowledge,
            recover,
            Arc::clone(&metrics),
            options.push,
            stop.child_token(),
        );
        tasks.spawn(async move { Ok(pusher.await?) });
        Self { published, acks, metrics, tasks, stop }
    }

    /// Returns when a task has died; never otherwise. Cancel safe.
    pub async fn failed(&mut self) -> Failure {
        match self.tasks.join_next().await {
            Some(Ok(Err(failure))) => failure,
            Some(Ok(Ok(()))) => Failure::Ended,
            Some(Err(error)) => Failure::Died(error),
            None => std::future::pending().await,
        }
    }

    /// Takes no more work, finishes pushes in flight (at most 5 s) and joins every task.
    ///
    /// # Errors
    /// A task has died.
    pub async fn stop(mut self) -> Result<(), Failure> {
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended??;
        }
        Ok(())
    }
}
