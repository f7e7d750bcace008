//! One endpoint, with what is going on there; and who is there now.

use std::sync::Arc;
use std::time::Instant;

use http::{HeaderMap, StatusCode};
use umbra_routing::{Endpoint, grpc_status};

use super::load::Load;
use crate::breaker::Breaker;
use crate::clock;
use crate::held::Held;

/// One refused connection says enough: another endpoint can be had at once.
const REFUSALS: u8 = 1;

/// `INTERNAL`, `UNAVAILABLE` and `RESOURCE_EXHAUSTED`: what stands for 5xx and 429 in gRPC.
const GRPC_FAILURES: [u8; 3] = [13, 14, 8];

/// One endpoint. Its identity outlives pushes as long as the endpoint does not change.
pub(crate) struct Upstream {
    pub(crate) endpoint: Endpoint,
    pub(super) load: Load,
    /// Whether it takes users' connections. Mirrors have breakers of their own: no copy opens or closes this one.
    pub(super) breaker: Breaker,
}

impl Upstream {
    pub(crate) fn new(endpoint: Endpoint, now: Instant) -> Arc<Self> {
        Arc::new(Self { endpoint, load: Load::new(now), breaker: Breaker::new(REFUSALS, now) })
    }

    /// It took a user's connection.
    pub(crate) fn connected(&self) {
        self.breaker.connected();
    }
}

/// The head of an answer, as far as it tells how its endpoint is.
pub(crate) struct Answered<'a> {
    pub(crate) status: StatusCode,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) is_grpc: bool,
    /// When the client had sent its request's end: what came before was its own pace. Absent: it is still sending.
    pub(crate) asked: Option<Instant>,
}

impl Answered<'_> {
    /// Another endpoint may do better.
    fn is_failure(&self) -> bool {
        let by_grpc = || grpc_status(self.headers).is_some_and(|status| GRPC_FAILURES.contains(&status));
        self.status.is_server_error()
            || self.status == StatusCode::TOO_MANY_REQUESTS
            || self.is_grpc && by_grpc()
    }
}

/// A user's request is at this endpoint until this is dropped. Dropped before it was told how that went, it
/// tells the endpoint's load that there was nothing for so long: its rule's time was up, or the client left.
pub(crate) struct Lease {
    upstream: Held<Upstream>,
    since: Instant,
    waits: bool,
}

impl Lease {
    pub(super) fn new(upstream: Held<Upstream>, since: Instant) -> Self {
        upstream.load.begins();
        Self { upstream, since, waits: true }
    }

    pub(crate) fn upstream(&self) -> &Held<Upstream> {
        &self.upstream
    }

    /// It took no connection: all workers avoid it for a while, which says enough.
    pub(crate) fn refused(&mut self, now: Instant) {
        self.upstream.breaker.failed(now);
        self.waited();
    }

    /// The head of an answer has come.
    pub(crate) fn answered(&mut self, answer: &Answered<'_>, now: Instant) {
        if !self.waited() {
            return;
        }
        // Over a connection that was there before, too.
        self.upstream.connected();
        let load = &self.upstream.load;
        let asked = answer.asked.unwrap_or(self.since).max(self.since);
        let after = now.saturating_duration_since(asked);
        if answer.is_failure() {
            load.failed(after, now);
        } else {
            load.answered(after, now);
        }
    }

    /// The connection or its stream broke before there was an answer.
    pub(crate) fn failed(&mut self, now: Instant) {
        if self.waited() {
            self.upstream.load.failed(now.saturating_duration_since(self.since), now);
        }
    }

    /// Bytes pass from here on: nobody waits for an answer.
    pub(crate) fn passes_bytes(&mut self) {
        self.waited();
    }

    /// Nobody waits any more.
    pub(super) fn left(&mut self, now: Instant) {
        if self.waited() {
            self.upstream.load.silent(now.saturating_duration_since(self.since), now);
        }
    }

    /// Whether it did until now.
    fn waited(&mut self) -> bool {
        let waited = std::mem::take(&mut self.waits);
        if waited {
            self.upstream.load.has_waited();
        }
        waited
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.waits {
            self.left(clock::now());
        }
        self.upstream.load.ends();
    }
}

/// A copy is at this endpoint until this is dropped. How it fares there is nothing to users.
pub(crate) struct CopyLease(Held<Upstream>);

impl CopyLease {
    pub(super) fn new(upstream: Held<Upstream>) -> Self {
        upstream.load.copy_begins();
        Self(upstream)
    }

    pub(crate) fn upstream(&self) -> &Held<Upstream> {
        &self.0
    }
}

impl Drop for CopyLease {
    fn drop(&mut self) {
        self.0.load.copy_ends();
    }
}
