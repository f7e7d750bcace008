//! How long a request may take, counted from the end of its body, with all its retries (spec/istio.md 1A, timeout).

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::time::Instant;
use umbra_routing::{grpc_timeout, grpc_timeout_text};

use crate::body::Bodies;

const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// The end of a request's time.
pub(super) struct Deadline {
    after: Option<Duration>,
    bodies: Bodies,
}

impl Deadline {
    /// Of the rule's timeout and of what a gRPC client says, the shorter; with both, the backend is told (4.5).
    pub(super) fn new(rule: Option<Duration>, headers: &mut HeaderMap, bodies: &Bodies) -> Self {
        let client = grpc_timeout(headers);
        let after = rule.into_iter().chain(client).min();
        if let (Some(_), Some(_), Some(after)) = (rule, client, after)
            && let Ok(text) = HeaderValue::try_from(grpc_timeout_text(after))
        {
            headers.insert(GRPC_TIMEOUT, text);
        }
        Self { after, bodies: bodies.clone() }
    }

    /// Ends when the time is up; never when there is no limit.
    pub(super) async fn passed(&self) {
        let Some(after) = self.after else { return std::future::pending().await };
        let ended = self.bodies.ended().await;
        tokio::time::sleep_until(Instant::from_std(ended) + after).await;
    }

    /// When it is up, as far as that is known: a body that has not ended yet has all the time.
    pub(super) fn at(&self) -> Option<Instant> {
        Some(Instant::from_std(self.bodies.ended_at()?) + self.after?)
    }
}
