//! How long a request may take, counted from the end of its body, with all its retries (spec/istio.md 1A, timeout).

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::time::Instant;
use umbra_routing::{grpc_timeout, grpc_timeout_text};

use crate::body::Bodies;
use crate::recycle::{Recycled, Timer};

const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// The end of a request's time. By default there is none.
#[derive(Default)]
pub(super) struct Deadline(Option<Limit>);

struct Limit {
    after: Duration,
    bodies: Bodies,
    recycled: Rc<Recycled>,
    /// Runs once the body has ended.
    timer: Option<Timer>,
}

impl Deadline {
    /// Of the rule's timeout and of what a gRPC client says, the shorter; with both, the backend is told (4.5).
    pub(super) fn new(
        rule: Option<Duration>,
        (headers, is_grpc): (&mut HeaderMap, bool),
        (bodies, recycled): (&Bodies, &Rc<Recycled>),
    ) -> Self {
        let client = if is_grpc { grpc_timeout(headers) } else { None };
        let after = rule.into_iter().chain(client).min();
        if let (Some(_), Some(_), Some(after)) = (rule, client, after)
            && let Ok(text) = HeaderValue::try_from(grpc_timeout_text(after))
        {
            headers.insert(GRPC_TIMEOUT, text);
        }
        let limit =
            |after| Limit { after, bodies: bodies.clone(), recycled: Rc::clone(recycled), timer: None };
        Self(after.map(limit))
    }

    /// Ends when the time is up; never when there is no limit. Cancel safe.
    pub(super) async fn passed(&mut self) {
        std::future::poll_fn(|cx| self.poll_passed(cx)).await;
    }

    /// The same, polled: the body may go on after the answer has begun. One asks at a time.
    pub(super) fn poll_passed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(limit) = &mut self.0 else { return Poll::Pending };
        let timer = match &mut limit.timer {
            Some(timer) => timer,
            none => {
                let ended = Instant::from_std(ready!(limit.bodies.poll_ended(cx)));
                none.insert(limit.recycled.timer(ended + limit.after))
            }
        };
        Pin::new(timer).poll(cx)
    }
}
