//! One node's task: brings the node from what it has to what it should have, and keeps it there.
//!
//! Takes: the newest snapshot (latest wins: nothing queues). Gives: the node's acknowledgement.
//! Never has more than one request in flight, never sends a delta against something the node has not acknowledged.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use umbra_routing::{CONFIG_PATH, Digest, Key, NodeView, Refusal, Reply, STATE_PATH, ServiceTable, State};

use super::backoff::Backoff;
use super::connection::{Connection, ConnectionError, Outgoing};
use super::{Ack, Node, Shared};
use crate::metrics::{BytesLabels, NodeLabels, Outcome, PushKind, PushLabels};
use crate::publish::Published;

/// Between two looks at a node that is as it should be: the heartbeat. The node stops its shadows after 10 minutes
/// without one, so a score of them may be lost.
const HEARTBEAT: Duration = Duration::from_secs(30);
/// Between the first two looks at a node that has not armed everything yet; it doubles up to the heartbeat.
const FIRST_LOOK: Duration = Duration::from_millis(250);

/// Why a node does not have what it should have. Texts are fixed, without figures that move.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum PushError {
    /// It cannot be asked.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    /// It has seen a newer controller: this one is not the leader any more, or its epoch went back.
    #[error("refused: the node follows a newer controller (epoch)")]
    Superseded,
    /// This controller does not lead any more. Another one does, or will.
    #[error("not sent: this controller does not lead any more")]
    TermOver,
    /// It said no, with its word for the reason.
    #[error("refused: {reason}: {message}")]
    Refused {
        /// As in [`Refusal`].
        reason: String,
        /// For people.
        message: String,
    },
    /// It knows no such path: it speaks another version of the push API.
    #[error(
        "the node's proxy speaks another version of the push API: run umbra-proxy and umbra-controller of one release"
    )]
    Wire,
    /// An answer that is not the push API's. Something else listens there, or versions differ too much.
    #[error("not understood: {0}")]
    Answer(String),
    /// Both ends applied the same push and do not hold the same. A bug of one of them.
    #[error("the node's digest differs after a full push")]
    Digest,
}

pub(super) struct NodeTask {
    node: Node,
    shared: Arc<Shared>,
    published: watch::Receiver<Option<Arc<Published>>>,
    connection: Option<Connection>,
    /// What the node has for certain.
    acked: Option<NodeView>,
    /// Of the proxy's process, as last heard.
    boot_id: String,
    backoff: Backoff,
    /// The last attempt failed: a new snapshot must not shorten the pause, which is for the node's sake.
    failed: bool,
    look: Duration,
    stop: CancellationToken,
}

/// Why the task woke up.
enum Wake {
    Published,
    Look,
    Closed,
    Stop,
}

impl NodeTask {
    pub(super) fn new(
        node: Node,
        shared: Arc<Shared>,
        published: watch::Receiver<Option<Arc<Published>>>,
        stop: CancellationToken,
    ) -> Self {
        Self {
            node,
            shared,
            published,
            connection: None,
            acked: None,
            boot_id: String::new(),
            backoff: Backoff::default(),
            failed: false,
            look: FIRST_LOOK,
            stop,
        }
    }

    /// Runs until stopped, and finishes the request in flight; gives the node's name.
    pub(super) async fn run(mut self) -> String {
        let mut look_due = false;
        loop {
            let target = self.published.borrow_and_update().clone();
            let pause = match &target {
                None => HEARTBEAT,
                Some(target) => self.step(target, look_due).await,
            };
            look_due = match self.wait(pause).await {
                Wake::Stop => return self.node.name,
                Wake::Look => true,
                Wake::Published | Wake::Closed => false,
            };
        }
    }

    /// One attempt; gives the time until the next one, should nothing happen before.
    async fn step(&mut self, target: &Published, look_due: bool) -> Duration {
        match self.converge(target, look_due).await {
            Ok(()) => {
                self.failed = false;
                self.backoff.reset();
                self.ack(|ack| ack.failing = None);
                self.next_look(target)
            }
            Err(error) => {
                tracing::warn!(node = %self.node.name, address = %self.node.address, %error, "push failed");
                self.failed = true;
                self.connection = None;
                self.ack(|ack| ack.failing = Some(error.to_string()));
                self.backoff.next(fastrand::f64())
            }
        }
    }

    async fn wait(&mut self, pause: Duration) -> Wake {
        let Self { connection, published, failed, stop, .. } = self;
        let due = tokio::time::sleep(pause);
        let closed = async {
            match connection {
                Some(connection) => connection.closed().await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(due, closed);
        let mut listening = !*failed;
        loop {
            tokio::select! {
                () = stop.cancelled() => return Wake::Stop,
                () = &mut closed => return Wake::Closed,
                () = &mut due => return Wake::Look,
                changed = published.changed(), if listening => match changed {
                    Ok(()) => return Wake::Published,
                    // The publisher has ended; `stop` follows.
                    Err(_) => listening = false,
                },
            }
        }
    }

    fn next_look(&mut self, target: &Published) -> Duration {
        let settled = self.shared.acks.borrow().get(&self.node.name).is_some_and(|ack| {
            // What a node refuses it may still take: a busy kernel passes. The looks become rare by themselves.
            let taken = |key: &Key| match target.left_alone.contains(key) {
                true => !ack.armed.contains(key),
                false => ack.armed.contains(key) && !ack.refused.contains_key(key),
            };
            ack.held.is_empty() && target.services().all(taken)
        });
        let look = if settled { HEARTBEAT } else { self.look };
        self.look = if settled { FIRST_LOOK } else { (look * 2).min(HEARTBEAT) };
        // A quarter either way, so that nodes do not march in step.
        look.mul_f64(0.75 + fastrand::f64() / 2.0)
    }

    async fn converge(&mut self, target: &Published, look_due: bool) -> Result<(), PushError> {
        let view = target.snapshot.node(&self.node.name);
        if self.connection.as_ref().is_none_or(Connection::is_closed) {
            self.connection = Some(Connection::open(&self.node.address, self.shared.tls.as_ref()).await?);
            self.reconcile(&view).await?;
        } else if look_due {
            self.reconcile(&view).await?;
        }
        let done = match self.acked.clone() {
            Some(base) => base.is_same(&view) || self.patch(&base, &view).await?,
            None => false,
        };
        if !done {
            self.acked = None;
            self.put(&view).await?;
        }
        self.acknowledged(view);
        Ok(())
    }

    /// Asks what the node has, and believes it.
    async fn reconcile(&mut self, view: &NodeView) -> Result<(), PushError> {
        let answer = self.send(PushKind::state, Method::GET, STATE_PATH, view.version, Bytes::new).await?;
        let state: State = answer.map_err(|refusal| self.refused(refusal))?;
        if state.epoch.parse::<u128>().is_ok_and(|theirs| theirs > self.shared.term.epoch()) {
            return Err(PushError::Superseded);
        }
        // A node that has nothing always gets a push, even when there is nothing to say: it waits for its first one.
        // And one that holds something: only a push says whether it still should.
        let has_all =
            state.digest == view.digest() && state.digest != Digest::default() && state.held.is_empty();
        let same = state.boot_id == self.boot_id
            && self.acked.as_ref().is_some_and(|acked| acked.digest() == state.digest);
        if has_all {
            self.acked = Some(view.clone());
        } else if !same {
            self.acked = None;
            self.ack(|ack| {
                if ack.version.take().is_some() {
                    ack.since = Instant::now();
                }
            });
        }
        self.heard(&state);
        Ok(())
    }

    /// False: the node has another base (or does not understand the delta) and needs all.
    async fn patch(&mut self, base: &NodeView, view: &NodeView) -> Result<bool, PushError> {
        let body = || encode(&view.patch_from(base));
        match self.send(PushKind::patch, Method::PATCH, CONFIG_PATH, view.version, body).await? {
            Ok(reply) => {
                self.heard(&reply);
                let agrees = reply.digest == view.digest();
                if !agrees {
                    self.count_refusal("digest");
                }
                Ok(agrees)
            }
            Err((StatusCode::PRECONDITION_FAILED | StatusCode::BAD_REQUEST, refusal)) => {
                self.count_refusal(&refusal.reason);
                Ok(false)
            }
            Err(refusal) => Err(self.refused(refusal)),
        }
    }

    async fn put(&mut self, view: &NodeView) -> Result<(), PushError> {
        let body = || encode(&view.put());
        let answer = self.send(PushKind::put, Method::PUT, CONFIG_PATH, view.version, body).await?;
        let reply = answer.map_err(|refusal| self.refused(refusal))?;
        self.heard(&reply);
        if reply.digest != view.digest() {
            self.count_refusal("digest");
            return Err(PushError::Digest);
        }
        Ok(())
    }

    /// One request. The outer error: no answer; the inner: the node said no. The body is made when there is a place
    /// to send it from: those who wait hold none.
    async fn send(
        &mut self,
        kind: PushKind,
        method: Method,
        path: &'static str,
        version: u64,
        body: impl FnOnce() -> Bytes,
    ) -> Result<Result<Reply, (StatusCode, Refusal)>, PushError> {
        let _permit = self.shared.permits.acquire().await.expect("the semaphore is never closed");
        let body = body();
        let node = self.node.name.clone();
        let bytes = BytesLabels { node: node.clone(), kind };
        self.shared.metrics.push_bytes.get_or_create(&bytes).inc_by(body.len() as u64);
        let connection = self.connection.as_mut().ok_or(ConnectionError::Lost)?;
        // Last, and without a pause to the sending: this process may have stood still until now.
        if !self.shared.term.is_valid(Instant::now()) {
            return Err(PushError::TermOver);
        }
        let outgoing = Outgoing { method, path, epoch: self.shared.term.epoch(), version, body };
        let answer = connection.request(outgoing).await;
        let result = match &answer {
            Ok(answer) if answer.status == StatusCode::OK => Outcome::ok,
            Ok(_) => Outcome::refused,
            Err(_) => Outcome::failed,
        };
        self.shared.metrics.pushes.get_or_create(&PushLabels { node, kind, result }).inc();
        let answer = answer?;
        let unreadable = |error: serde_json::Error| PushError::Answer(error.to_string());
        if answer.status == StatusCode::NOT_FOUND {
            self.count_refusal("wire");
            return Err(PushError::Wire);
        }
        if answer.status == StatusCode::OK {
            return Ok(Ok(serde_json::from_slice(&answer.body).map_err(unreadable)?));
        }
        let refusal = serde_json::from_slice(&answer.body).unwrap_or_else(|_| Refusal {
            reason: "other".into(),
            message: format!("status {}", answer.status.as_u16()),
        });
        Ok(Err((answer.status, refusal)))
    }

    fn refused(&self, (status, refusal): (StatusCode, Refusal)) -> PushError {
        self.count_refusal(&refusal.reason);
        match status {
            StatusCode::CONFLICT => PushError::Superseded,
            _ => PushError::Refused { reason: refusal.reason, message: refusal.message },
        }
    }

    fn count_refusal(&self, reason: &str) {
        self.shared.metrics.push_refused(&self.node.name, reason);
    }

    fn heard(&mut self, reply: &Reply) {
        self.boot_id.clone_from(&reply.boot_id);
        self.ack(|ack| ack.observe(reply));
        self.recover(reply);
    }

    /// Hands on what the node holds. Waits for nobody: what finds no room comes again with the node's next answer.
    fn recover(&self, reply: &Reply) {
        let node = &self.node.name;
        for (key, table) in &reply.held {
            let table = match serde_json::from_value::<ServiceTable>(table.clone()) {
                Ok(table) => table,
                Err(error) => {
                    tracing::warn!(%node, %key, %error, "held there, and not understood: the rules stay as they are");
                    continue;
                }
            };
            if self.shared.recovered.try_send(table).is_err() {
                self.shared.metrics.held_tables_dropped.inc();
            }
        }
    }

    fn acknowledged(&mut self, view: NodeView) {
        if self.acked.as_ref().is_none_or(|acked| !acked.is_same(&view)) {
            self.look = FIRST_LOOK;
        }
        let labels = NodeLabels { node: self.node.name.clone() };
        let version = view.version;
        self.shared
            .metrics
            .acked_version
            .get_or_create(&labels)
            .set(i64::try_from(version).unwrap_or(i64::MAX));
        self.ack(|ack| ack.version = Some(version));
        self.acked = Some(view);
    }

    fn ack(&self, change: impl FnOnce(&mut Ack)) {
        self.shared.acks.send_if_modified(|acks| {
            // A node that is no longer live has no entry; one that was replaced has its successor's.
            let Some(ack) = acks.get_mut(&self.node.name).filter(|_| !self.stop.is_cancelled()) else {
                return false;
            };
            let before = ack.clone();
            change(ack);
            *ack != before
        });
    }
}

fn encode(body: &impl serde::Serialize) -> Bytes {
    serde_json::to_vec(body).expect("maps of raw JSON serialise").into()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::collections::BTreeMap;

    use tokio::sync::{Semaphore, mpsc};
    use umbra_routing::{Encoded, Key, Snapshot};

    use super::*;
    use crate::lead::Term;

    #[tokio::test]
    async fn a_body_is_made_when_there_is_a_place_to_send_it_from() {
        let (acks, _) = watch::channel(BTreeMap::new());
        let permits = Semaphore::new(0);
        let (recovered, _) = mpsc::channel(1);
        let term = Term::endless(1);
        let shared = Arc::new(Shared { term, tls: None, metrics: Arc::default(), acks, recovered, permits });
        let node = Node { name: "node1".into(), address: String::new(), uid: String::new() };
        let (_publish, published) = watch::channel(None);
        let mut task = NodeTask::new(node, Arc::clone(&shared), published, CancellationToken::new());
        let made = Cell::new(false);
        let body = || {
            made.set(true);
            Bytes::new()
        };
        let send = task.send(PushKind::put, Method::PUT, CONFIG_PATH, 1, body);
        tokio::pin!(send);
        assert!(polled_once(send.as_mut()).await.is_none() && !made.get(), "all places are taken");
        shared.permits.add_permits(1);
        assert_eq!(send.await.unwrap_err(), PushError::Connection(ConnectionError::Lost));
        assert!(made.get());
    }

    #[tokio::test]
    async fn a_service_that_is_to_be_left_alone_is_not_waited_for() {
        let key: Key = "service/default/a".parse().expect("a key");
        let table = serde_json::from_value(serde_json::json!({
            "service": {"namespace": "default", "name": "a"}, "addresses": [], "ports": []}));
        let shared_resources = [Encoded::service(&table.expect("a table"))].into_iter().collect();
        let snapshot = Snapshot { shared: Arc::new(shared_resources), ..Snapshot::default() };
        let mut target = Published { snapshot, left_alone: Arc::default(), objects: Arc::default() };
        let refused = BTreeMap::from([(key.clone(), "not armed: left alone".to_owned())]);
        let ack = Ack { refused: Arc::new(refused), ..Ack::new(Instant::now()) };
        let (acks, _) = watch::channel(BTreeMap::from([("node1".to_owned(), ack)]));
        let permits = Semaphore::new(1);
        let (recovered, _) = mpsc::channel(1);
        let shared = Arc::new(Shared {
            term: Term::endless(1),
            tls: None,
            metrics: Arc::default(),
            acks,
            recovered,
            permits,
        });
        let node = Node { name: "node1".into(), address: String::new(), uid: String::new() };
        let (_publish, published) = watch::channel(None);
        let mut task = NodeTask::new(node, shared, published, CancellationToken::new());
        assert!(task.next_look(&target) < HEARTBEAT / 2, "it may arm it the next time");
        target.left_alone = Arc::new([key].into());
        assert!(task.next_look(&target) > HEARTBEAT / 2);
    }

    async fn polled_once<F: Future + Unpin>(future: F) -> Option<F::Output> {
        tokio::select! {
            biased;
            output = future => Some(output),
            () = std::future::ready(()) => None,
        }
    }
}
