//! Attempts: finding an endpoint that takes the request.
//!
//! An endpoint that does not take a connection is followed by another of the set, each once. A reused connection that
//! turns out closed is replaced once, when the peer took nothing of the request or the request may be repeated.

use std::rc::Rc;
use std::sync::Arc;

use http::{Request, Response};
use hyper::body::Incoming;

use super::answer::Record;
use crate::balance::{Backends, Lease, Upstream};
use crate::body::{Bodies, RequestBody};
use crate::connection::Worker;
use crate::metrics::Flags;
use crate::pool::Pooled;
use crate::shadow::{Drawn, Original};

/// Endpoints tried for one request: bounds how long a client waits when none takes a connection.
const MAX_ENDPOINTS: usize = 5;

/// All that is needed to try again.
pub(super) struct Attempts<'a> {
    worker: &'a Rc<Worker>,
    set: &'a Backends,
    original: &'a Original,
    bodies: &'a Bodies,
    /// Copies wait here until the primary has its request.
    drawn: Option<Drawn>,
    tried: Vec<Arc<Upstream>>,
    /// A reused connection was replaced already.
    replaced: bool,
}

/// An answer has begun.
pub(super) struct Reached {
    pub(super) answer: Response<Incoming>,
    pub(super) pooled: Pooled<RequestBody>,
    pub(super) lease: Lease,
}

enum Failed {
    /// Another connection may do.
    Again,
    /// The request may have been processed.
    Final,
}

impl<'a> Attempts<'a> {
    pub(super) fn new(
        worker: &'a Rc<Worker>,
        set: &'a Backends,
        original: &'a Original,
        bodies: &'a Bodies,
        drawn: Option<Drawn>,
    ) -> Self {
        Self { worker, set, original, bodies, drawn, tried: Vec::new(), replaced: false }
    }

    /// Tries until an answer begins or nobody is left.
    pub(super) async fn run(mut self, record: &mut Record) -> Result<Reached, Flags> {
        loop {
            let lease = self.choose()?;
            record.upstream(lease.upstream());
            let Some(pooled) = self.connection(&lease).await else {
                self.tried.push(Arc::clone(lease.upstream()));
                continue;
            };
            match self.send(pooled).await {
                Ok((answer, pooled)) => {
                    self.bodies.settle();
                    return Ok(Reached { answer, pooled, lease });
                }
                Err(Failed::Again) => {
                    self.worker.metrics.replaced_connections.inc();
                    self.replaced = true;
                }
                Err(Failed::Final) => return Err(Flags::UpstreamTermination),
            }
        }
    }

    fn choose(&self) -> Result<Lease, Flags> {
        let nobody =
            if self.tried.is_empty() { Flags::NoHealthyUpstream } else { Flags::UpstreamConnectFailure };
        if self.tried.len() >= MAX_ENDPOINTS {
            return Err(nobody);
        }
        let draw = &mut |bound| self.worker.rng().u64(0..bound);
        self.set.choose(&self.tried, self.original.family, draw).ok_or(nobody)
    }

    async fn connection(&self, lease: &Lease) -> Option<Pooled<RequestBody>> {
        let address = lease.upstream().endpoint.address;
        let pool = &self.worker.primaries;
        if !self.replaced
            && let Some(pooled) = pool.reuse(address)
        {
            return Some(pooled);
        }
        match pool.connect(address).await {
            Ok(pooled) => Some(pooled),
            Err(error) => {
                tracing::debug!(%address, %error, "connecting failed");
                None
            }
        }
    }

    async fn send(
        &mut self,
        mut pooled: Pooled<RequestBody>,
    ) -> Result<(Response<Incoming>, Pooled<RequestBody>), Failed> {
        let (written, read) = (pooled.socket.written(), pooled.socket.read());
        // A new connection is not replaced, so nothing need be kept for it.
        let request = self.request(self.bodies.attempt(pooled.reused));
        let sending = pooled.sender.try_send_request(request);
        // The primary's connection is woken first, the copies' tasks come after it in this worker's queue.
        if let Some(drawn) = self.drawn.take().filter(|drawn| !drawn.is_empty()) {
            drawn.start(self.worker, self.original, self.bodies);
        }
        let error = match sending.await {
            Ok(answer) => return Ok((answer, pooled)),
            Err(error) => error,
        };
        let unsent = error.message().is_some() || pooled.socket.took_nothing_since(written);
        // RFC 9110 section 9.2.2: a proxy repeats idempotent requests only, unless it knows that nothing was processed.
        let unanswered = pooled.socket.read() == read;
        let may_repeat = unsent || (pooled.reused && unanswered && self.original.method.is_idempotent());
        tracing::debug!(error = %error.error(), unsent, may_repeat, "the primary's connection failed");
        if may_repeat && !self.replaced && self.bodies.is_repeatable() {
            Err(Failed::Again)
        } else {
            Err(Failed::Final)
        }
    }

    fn request(&self, body: RequestBody) -> Request<RequestBody> {
        let mut request = Request::new(body);
        *request.method_mut() = self.original.method.clone();
        *request.uri_mut() = self.original.uri.clone();
        *request.headers_mut() = self.original.headers.clone();
        request
    }
}
