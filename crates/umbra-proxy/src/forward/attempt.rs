//! Attempts: finding an endpoint that takes the request.
//!
//! An endpoint that does not take a connection is followed by another of the set, each once. A reused connection that
//! turns out closed is replaced once, when the peer took nothing of the request or the request may be repeated. Both are
//! part of one attempt; a rule's retries make further ones, as long as the body was kept.

use std::rc::Rc;
use std::time::{Duration, Instant};

use http::Response;
use umbra_routing::{Attempt, Failure, RetryPolicy, grpc_status};

use super::answer::Record;
use crate::balance::{Answered, Backends, Lease, Upstream};
use crate::body::{Bodies, RequestBody};
use crate::clock;
use crate::connection::Worker;
use crate::held::Held;
use crate::metrics::Flags;
use crate::pool::{Missing, PeerBody, Pooled, Unanswered};
use crate::shadow::{Drawn, Original};
use crate::version::HttpVersion;

/// Endpoints tried for one request: bounds how long a client waits when none takes a connection.
const MAX_ENDPOINTS: usize = 5;

/// All that is needed to try again.
pub(super) struct Attempts<'a> {
    worker: &'a Rc<Worker>,
    set: &'a Backends,
    original: &'a Original,
    bodies: &'a Bodies,
    retries: Option<&'a RetryPolicy>,
    /// How often the rule has it sent again at most, and how often that was done.
    left: u32,
    again: u32,
    /// Copies wait here until the primary has its request.
    drawn: Option<Drawn>,
    /// Endpoints of earlier attempts, which the rule avoids.
    tried: Vec<Held<Upstream>>,
    /// Endpoints that took no connection in this attempt.
    refused: Vec<Held<Upstream>>,
    /// A reused connection was replaced already.
    replaced: bool,
    /// What is spoken to the set's endpoints.
    version: HttpVersion,
    /// When the endpoint that is asked now was chosen.
    now: Instant,
    /// Where an answer that has begun is put: one that is handed on and on is copied as often.
    reached: &'a mut Option<Reached>,
}

/// An answer has begun.
pub(super) struct Reached {
    pub(super) answer: Response<PeerBody<RequestBody>>,
    pub(super) pooled: Pooled<RequestBody>,
    pub(super) lease: Lease,
}

/// An attempt has no answer.
struct Missed {
    flags: Flags,
    /// Absent when there was nobody to ask.
    failure: Option<Failure>,
}

enum Failed {
    /// Another connection may do.
    Again,
    /// It is over: the request may have been processed, or only its rule may have it sent again.
    Final(Missing),
}

impl<'a> Attempts<'a> {
    pub(super) fn new(
        worker: &'a Rc<Worker>,
        set: &'a Backends,
        original: &'a Original,
        bodies: &'a Bodies,
        (retries, drawn, now): (Option<&'a RetryPolicy>, Option<Drawn>, Instant),
        reached: &'a mut Option<Reached>,
    ) -> Self {
        let left = retries.map_or(0, |retries| retries.attempts);
        let (tried, refused) = (Vec::new(), Vec::new());
        Self {
            worker,
            set,
            original,
            bodies,
            retries,
            left,
            again: 0,
            drawn,
            tried,
            refused,
            replaced: false,
            version: original.version.towards(set.spoken_to()),
            now,
            reached,
        }
    }

    /// Tries until an answer begins that is final, which is put in its place, or nobody is left.
    pub(super) async fn run(&mut self, record: &mut Record) -> Result<(), Flags> {
        loop {
            let ended = self.within_its_time(record).await;
            let Some(pause) = self.pause_before_retry(&ended, record) else {
                self.bodies.settle();
                return ended.map_err(|missed| missed.flags);
            };
            // The answer goes, and its connection with it: nobody reads it to its end.
            *self.reached = None;
            tokio::time::sleep(pause).await;
            self.now = clock::now();
        }
    }

    /// How long to wait, when it is to be sent again.
    fn pause_before_retry(&mut self, ended: &Result<(), Missed>, record: &mut Record) -> Option<Duration> {
        let retries = self.retries.filter(|retries| retries.attempts > 0)?;
        let attempt = match ended {
            Ok(()) => {
                let answer = &self.reached.as_ref().expect("put there when it had begun").answer;
                let headers = Some(answer.headers()).filter(|_| record.is_grpc());
                let grpc_status = headers.and_then(grpc_status);
                Attempt::Answered { status: answer.status(), grpc_status }
            }
            Err(missed) => Attempt::Failed(missed.failure?),
        };
        if !retries.retries(attempt) {
            return None;
        }
        if self.left == 0 {
            record.retries_exceeded();
            return None;
        }
        if !self.bodies.is_repeatable() {
            self.worker.metrics.retries_not_repeatable.inc();
            return None;
        }
        self.worker.metrics.retries.inc();
        self.left -= 1;
        self.again += 1;
        self.replaced = false;
        let refused = std::mem::take(&mut self.refused);
        if retries.avoids_tried {
            self.tried.extend(refused);
            self.tried.extend(self.reached.iter().map(|reached| reached.lease.upstream().clone()));
        }
        Some(retries.backoff(self.again, &mut |bound| self.worker.rng().u64(0..bound)))
    }

    async fn within_its_time(&mut self, record: &mut Record) -> Result<(), Missed> {
        let Some(limit) = self.retries.and_then(|retries| retries.per_try_timeout) else {
            return self.attempt(record).await;
        };
        tokio::time::timeout(limit, self.attempt(record))
            .await
            .unwrap_or(Err(Missed { flags: Flags::UpstreamTimeout, failure: Some(Failure::PerTryTimeout) }))
    }

    async fn attempt(&mut self, record: &mut Record) -> Result<(), Missed> {
        loop {
            let mut lease = self.choose()?;
            record.upstream(lease.upstream());
            let Some(pooled) = self.connection(&lease).await else {
                // The next one is not to be blamed for the time that this one took.
                self.now = clock::now();
                lease.refused(self.now);
                self.refused.push(lease.upstream().clone());
                continue;
            };
            let avoided = self.retries.is_some_and(|retries| retries.avoids_tried && self.left > 0);
            match self.send(pooled).await {
                Ok((answer, pooled)) => {
                    let (status, headers, is_grpc) = (answer.status(), answer.headers(), record.is_grpc());
                    let asked = self.bodies.ended_at();
                    lease.answered(&Answered { status, headers, is_grpc, asked }, clock::now());
                    *self.reached = Some(Reached { answer, pooled, lease });
                    return Ok(());
                }
                Err(Failed::Again) => {
                    self.worker.metrics.replaced_connections.inc();
                    self.replaced = true;
                    self.now = clock::now();
                }
                Err(Failed::Final(how)) => {
                    // A request that its client has left unfinished says nothing of the endpoint.
                    if !self.bodies.is_broken() {
                        lease.failed(clock::now());
                    }
                    if avoided {
                        self.tried.push(lease.upstream().clone());
                    }
                    return Err(missed(how));
                }
            }
        }
    }

    fn choose(&self) -> Result<Lease, Missed> {
        let nobody = || match self.refused.is_empty() {
            true => Missed { flags: Flags::NoHealthyUpstream, failure: None },
            false => Missed { flags: Flags::UpstreamConnectFailure, failure: Some(Failure::Connect) },
        };
        if self.refused.len() >= MAX_ENDPOINTS {
            return Err(nobody());
        }
        let draw = &mut |bound| self.worker.rng().u64(0..bound);
        let (at_hand, family, now) = (&self.worker.at_hand.upstreams, self.original.family, self.now);
        if !self.tried.is_empty() {
            let avoided = [self.refused.as_slice(), self.tried.as_slice()].concat();
            if let Some(lease) = self.set.choose(at_hand, &avoided, family, now, draw) {
                return Ok(lease);
            }
        }
        self.set.choose(at_hand, &self.refused, family, now, draw).ok_or_else(nobody)
    }

    async fn connection(&self, lease: &Lease) -> Option<Pooled<RequestBody>> {
        let address = lease.upstream().endpoint.address;
        let pool = &self.worker.primaries;
        if !self.replaced
            && let Some(pooled) = pool.reuse(address, self.version, (!self.bodies.is_none(), self.now))
        {
            return Some(pooled);
        }
        // Boxed: connecting is rare, and larger than all the rest.
        match Box::pin(pool.connect(address, self.version, &self.worker.sockets)).await {
            Ok(pooled) => {
                lease.upstream().connected();
                Some(pooled)
            }
            Err(error) => {
                tracing::debug!(%address, %error, "connecting failed");
                None
            }
        }
    }

    async fn send(
        &mut self,
        mut pooled: Pooled<RequestBody>,
    ) -> Result<(Response<PeerBody<RequestBody>>, Pooled<RequestBody>), Failed> {
        // A new connection is not replaced, so nothing need be kept for it unless the rule has it sent again.
        let reused = pooled.is_reused();
        let body = self.bodies.attempt(reused || self.left > 0);
        let sending = pooled.send(&self.original.head(), body);
        // The copies' tasks run when this one waits: a body, too, goes to the primary first.
        if let Some(drawn) = self.drawn.take().filter(|drawn| !drawn.is_empty()) {
            drawn.start(self.worker, self.original, self.bodies);
        }
        let Unanswered { error, how, .. } = match sending.await {
            Ok(answer) => return Ok((answer, pooled)),
            Err(unanswered) => unanswered,
        };
        let may_repeat = match how {
            Missing::Unsent => true,
            // RFC 9110 section 9.2.2: a proxy repeats idempotent requests only, unless it knows that nothing was processed.
            Missing::Closed { silent } => reused && silent && self.original.method.is_idempotent(),
            Missing::Refused | Missing::Reset => false,
        };
        tracing::debug!(%error, ?how, may_repeat, "the primary's connection failed");
        if may_repeat && !self.replaced && self.bodies.is_repeatable() {
            Err(Failed::Again)
        } else {
            Err(Failed::Final(how))
        }
    }
}

/// What a rule's retries and the metrics make of it.
fn missed(how: Missing) -> Missed {
    let (flags, failure) = match how {
        Missing::Unsent => (Flags::UpstreamTermination, Failure::Reset { after_request: false }),
        Missing::Closed { .. } => (Flags::UpstreamTermination, Failure::Reset { after_request: true }),
        Missing::Refused => (Flags::UpstreamReset, Failure::RefusedStream),
        Missing::Reset => (Flags::UpstreamReset, Failure::Reset { after_request: true }),
    };
    Missed { flags, failure: Some(failure) }
}
