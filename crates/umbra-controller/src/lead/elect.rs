//! Leading by a Lease.
//!
//! Takes: the Lease `umbra-controller`, read again and again. Gives: the term, while this replica leads. Every write
//! names the resourceVersion it was made against, so that of two replicas one wins. Never leads longer than
//! [`lease::RENEW_DEADLINE`] after the start of a renewal, whatever the API server does.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, ObjectMeta, PostParams};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::lease::{DURATION, Election, Lost, RETRY, Record, Step};
use super::{EpochError, Term, parsed};
use crate::metrics::Metrics;

/// The Lease's name.
pub const NAME: &str = "umbra-controller";
/// For one question or write: as long as to the next one, so that four that hang fit into the deadline.
const ANSWER_LIMIT: Duration = RETRY;
/// Attempts to give the Lease back: one, and one more after somebody else's write.
const RELEASES: usize = 2;

/// Why a look at the Lease, or a write, came to nothing. It is tried again.
#[derive(Debug, thiserror::Error)]
enum TurnError {
    /// The API server refuses, or is not there. Look at the Role umbra-controller in umbra-system if it refuses.
    #[error(transparent)]
    Api(#[from] kube::Error),
    /// The API server's fault, or the network's.
    #[error("the API server has not answered within {ANSWER_LIMIT:?}")]
    Timeout,
    /// Nothing that umbra works with.
    #[error(transparent)]
    Epoch(#[from] EpochError),
}

/// This replica's name in the Lease: the Pod's, and something random, for a Pod's container starts anew.
pub fn identity() -> String {
    let of = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let name = of("UMBRA_POD_NAME").or_else(|| of("HOSTNAME")).unwrap_or_else(|| NAME.to_owned());
    format!("{name}_{:016x}", fastrand::u64(..))
}

/// Runs until `stop`, and then gives the Lease back, so that a standby need not wait for its end: what was done by the
/// term has to be finished before.
///
/// # Errors
/// The API server is of a kind that has no comparable versions.
pub async fn run(
    client: Client,
    namespace: &str,
    terms: watch::Sender<Option<Term>>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) -> Result<(), EpochError> {
    let api = Api::namespaced(client, namespace);
    let mut candidate = Candidate::new(api, identity(), terms, metrics);
    loop {
        let began = Instant::now();
        // A turn that is cut may have written: what the Lease says is not known then.
        let over = candidate.election.until().unwrap_or(began + Duration::from_secs(3600));
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep_until(over) => candidate.held = None,
            turn = candidate.turn() => match turn {
                Ok(()) => {}
                Err(TurnError::Epoch(error)) => return Err(error),
                Err(error) => {
                    candidate.held = None;
                    tracing::warn!(lease = NAME, %error, "neither read nor renewed");
                }
            },
        }
        candidate.look_at_age();
        let next = tokio::time::sleep_until(began + candidate.pause());
        tokio::select! {
            () = stop.cancelled() => break,
            () = next => {}
        }
    }
    candidate.release().await;
    Ok(())
}

struct Candidate {
    api: Api<Lease>,
    election: Election,
    /// The Lease as last read or written; `None` when it has to be read first.
    held: Option<Lease>,
    term: Option<Term>,
    terms: watch::Sender<Option<Term>>,
    metrics: Arc<Metrics>,
}

impl Candidate {
    fn new(
        api: Api<Lease>,
        identity: String,
        terms: watch::Sender<Option<Term>>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { api, election: Election::new(identity), held: None, term: None, terms, metrics }
    }

    /// Looks at the Lease unless it is known to be ours, and writes what is to be written.
    async fn turn(&mut self) -> Result<(), TurnError> {
        self.look_at_age();
        if self.term.is_none() || self.held.is_none() {
            self.read().await?;
        }
        match self.election.step(Instant::now()) {
            Step::StandBy => Ok(()),
            Step::Create | Step::Take | Step::Renew => self.write().await,
        }
    }

    async fn read(&mut self) -> Result<(), TurnError> {
        self.held = None;
        let read = bounded(self.api.get_opt(NAME)).await?;
        let lost = self.election.observe(read.as_ref().map(record), Instant::now());
        self.held = read;
        self.end(lost);
        Ok(())
    }

    async fn write(&mut self) -> Result<(), TurnError> {
        let started = Instant::now();
        let lease = self.wanted(self.election.identity());
        let post = PostParams::default();
        let written = match self.held.take() {
            None => bounded(self.api.create(&post, &lease)).await,
            Some(_) => bounded(self.api.replace(NAME, &post, &lease)).await,
        };
        match written {
            Ok(lease) => self.wrote(lease, started),
            // Somebody else has written: read again at the next turn, and stay what we are until then.
            Err(TurnError::Api(kube::Error::Api(status))) if status.is_conflict() => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn wrote(&mut self, lease: Lease, started: Instant) -> Result<(), TurnError> {
        let version = parsed(lease.metadata.resource_version.clone())?;
        self.election.wrote(record(&lease), started);
        self.held = Some(lease);
        // An answer that came too late, to a process that stood still, begins nothing.
        self.look_at_age();
        let Some(until) = self.election.until() else { return Ok(()) };
        match &self.term {
            Some(term) => term.extend(until),
            None => self.begin(Term::new(version, until)),
        }
        Ok(())
    }

    /// The Lease as it was read, with this holder.
    fn wanted(&self, holder: &str) -> Lease {
        let now = Some(MicroTime(Timestamp::now()));
        let mut lease = self.held.clone().unwrap_or_else(|| Lease {
            metadata: ObjectMeta { name: Some(NAME.into()), ..ObjectMeta::default() },
            ..Lease::default()
        });
        let before = lease.spec.take().unwrap_or_default();
        let same = before.holder_identity.as_deref() == Some(holder);
        lease.spec = Some(LeaseSpec {
            acquire_time: if same && self.term.is_some() { before.acquire_time } else { now.clone() },
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            lease_transitions: Some(self.election.transitions()),
            renew_time: now,
            ..before
        });
        lease
    }

    fn begin(&mut self, term: Term) {
        tracing::info!(epoch = term.epoch(), identity = self.election.identity(), "leading: a term begins");
        self.metrics.leader.set(1);
        self.metrics.terms.inc();
        self.term = Some(term.clone());
        self.terms.send_replace(Some(term));
    }

    fn end(&mut self, lost: Option<Lost>) {
        let Some(reason) = lost else { return };
        let Some(term) = self.term.take() else { return };
        tracing::warn!(epoch = term.epoch(), %reason, "standing by: the term has ended");
        self.metrics.leader.set(0);
        self.terms.send_replace(None);
    }

    fn look_at_age(&mut self) {
        let lost = self.election.look_at_age(Instant::now());
        self.end(lost);
    }

    /// Those who stand by do not all come at the same time.
    fn pause(&self) -> Duration {
        if self.term.is_some() { RETRY } else { RETRY.mul_f64(1.0 + fastrand::f64() / 5.0) }
    }

    /// Empties the Lease if it is ours. When that fails, a standby waits for its end.
    async fn release(&mut self) {
        let lost = self.election.lose(Lost::Released);
        self.end(lost);
        for _ in 0..RELEASES {
            match self.empty().await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => tracing::warn!(lease = NAME, %error, "not given back"),
            }
        }
    }

    /// False: somebody else wrote in between.
    async fn empty(&mut self) -> Result<bool, TurnError> {
        if self.held.is_none() {
            self.read().await?;
        }
        let ours = |lease: &Lease| record(lease).holder == self.election.identity();
        if !self.held.as_ref().is_some_and(ours) {
            return Ok(true);
        }
        let lease = self.wanted("");
        self.held = None;
        match bounded(self.api.replace(NAME, &PostParams::default(), &lease)).await {
            Ok(_) => Ok(true),
            Err(TurnError::Api(kube::Error::Api(status))) if status.is_conflict() => Ok(false),
            Err(error) => Err(error),
        }
    }
}

async fn bounded<T>(call: impl Future<Output = Result<T, kube::Error>>) -> Result<T, TurnError> {
    Ok(tokio::time::timeout(ANSWER_LIMIT, call).await.map_err(|_| TurnError::Timeout)??)
}

fn record(lease: &Lease) -> Record {
    let spec = lease.spec.clone().unwrap_or_default();
    Record {
        holder: spec.holder_identity.unwrap_or_default(),
        renewed: spec.renew_time.map(|time| time.0.to_string()).unwrap_or_default(),
        transitions: spec.lease_transitions.unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests;
