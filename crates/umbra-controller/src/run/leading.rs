//! What a controller does only while it leads: fill and read the Secrets, push, write status.
//!
//! Takes: terms, snapshots and live nodes. Gives: all of it at work during a term, and nothing of it between terms.
//! Losing a term ends no process: the next one starts it all again, from what is stored and what nodes say.

use std::sync::Arc;
use std::time::SystemTime;

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use tokio::sync::{mpsc, watch as value};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use umbra_routing::ServiceTable;

use super::{NAMESPACE, RunError};
use crate::Failure;
use crate::args::Args;
use crate::lead::Term;
use crate::metrics::Metrics;
use crate::publish::Published;
use crate::push::{self, Acks, Nodes, client_config};
use crate::status::write;
use crate::trust::{self, Trusted};

/// What leading works with.
pub(super) struct Leading {
    pub(super) client: Client,
    pub(super) args: Args,
    pub(super) metrics: Arc<Metrics>,
    pub(super) observed: Observed,
}

/// What every replica knows, leading or not.
pub(super) struct Observed {
    pub(super) published: value::Receiver<Option<Arc<Published>>>,
    pub(super) nodes: value::Receiver<Nodes>,
    /// Takes the tables of invalid objects that nodes hold.
    pub(super) recover: mpsc::Sender<ServiceTable>,
}

impl Leading {
    /// Runs until `stop`; pushes in flight are finished then (at most 5 s), and so are writes.
    ///
    /// # Errors
    /// No certificates, or a task has died.
    pub(super) async fn run(
        self,
        mut terms: value::Receiver<Option<Term>>,
        stop: CancellationToken,
    ) -> Result<(), RunError> {
        loop {
            let begun = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                term = terms.wait_for(Option::is_some) => term.ok().and_then(|term| term.clone()),
            };
            let Some(term) = begun else {
                // Whoever gives terms has ended; `stop` follows.
                stop.cancelled().await;
                return Ok(());
            };
            let edge = stop.child_token();
            let over = other_than(term.epoch(), &mut terms);
            tokio::pin!(over);
            let work = self.serve(term, edge.clone());
            tokio::pin!(work);
            tokio::select! {
                ended = &mut work => ended?,
                () = &mut over => {
                    edge.cancel();
                    work.await?;
                }
            }
            self.metrics.acked_version.clear();
        }
    }

    /// One term, until `stop`.
    async fn serve(&self, term: Term, stop: CancellationToken) -> Result<(), RunError> {
        let trusted = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            trusted = self.trusted() => trusted?,
        };
        let tls = trusted.map(|trusted| client_config(&trusted.identity)).transpose()?;
        let (acknowledge, acks) = value::channel(Acks::new());
        let mut tasks = JoinSet::new();
        tasks.spawn(push::run(
            self.observed.published.clone(),
            self.observed.nodes.clone(),
            acknowledge,
            self.observed.recover.clone(),
            Arc::clone(&self.metrics),
            push::Options { term: term.clone(), tls },
            stop.clone(),
        ));
        let sources = write::Sources {
            published: self.observed.published.clone(),
            nodes: self.observed.nodes.clone(),
            acks,
        };
        tasks.spawn(write::run(self.client.clone(), sources, Arc::clone(&self.metrics), term, stop.clone()));
        while let Some(ended) = tasks.join_next().await {
            ended.and_then(|ended| ended).map_err(Failure::Died)?;
            if !stop.is_cancelled() {
                return Err(Failure::Ended.into());
            }
        }
        Ok(())
    }

    /// `None`: by hand and without certificates, good for loopback only.
    async fn trusted(&self) -> Result<Option<Trusted>, RunError> {
        let now = SystemTime::now();
        let trusted = if let Some(dir) = &self.args.tls_dir {
            trust::files::complete(dir, now)?
        } else if self.args.proxy.is_empty() {
            let secrets = Api::<Secret>::namespaced(self.client.clone(), NAMESPACE);
            trust::secrets::complete(&secrets, now).await?
        } else {
            return Ok(None);
        };
        trust::record_expiry(&self.metrics, "ca", &trusted.identity.ca);
        trust::record_expiry(&self.metrics, "controller", &trusted.identity.certificate);
        trust::record_expiry(&self.metrics, "proxy", &trusted.proxy);
        Ok(Some(trusted))
    }
}

/// Returns when the term of this epoch is not the one in force any more: `None` between two may be missed.
async fn other_than(epoch: u128, terms: &mut value::Receiver<Option<Term>>) {
    let other = |term: &Option<Term>| term.as_ref().is_none_or(|term| term.epoch() != epoch);
    if terms.wait_for(other).await.is_err() {
        std::future::pending::<()>().await;
    }
}
