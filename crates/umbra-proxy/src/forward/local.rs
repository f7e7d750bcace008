//! Answers of our own: redirects, direct responses, aborts, preflights, and the statuses of what went wrong. Each body of
//! the last kind says in one line what is wrong and where to look.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use umbra_routing::{ABORT_MESSAGE, Aborted, LocalAnswer, ServiceName, grpc_message, grpc_status_of};

use super::answer::{self, AnswerBody, Record};
use crate::body::Bodies;
use crate::metrics::Flags;

/// `grpc-status` UNAVAILABLE, for a request whose time was up (spec/istio.md 4.5).
const GRPC_UNAVAILABLE: u8 = 14;
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// A request that gets no primary, or no answer from it, and why.
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) flags: Flags,
    pub(super) text: String,
}

/// An answer before it is sent: rules may change its headers.
pub(super) struct Own {
    pub(super) status: StatusCode,
    pub(super) flags: Flags,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

impl Own {
    fn new(status: StatusCode, flags: Flags, body: Vec<u8>) -> Self {
        let mut headers = HeaderMap::new();
        if !body.is_empty() {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        }
        Self { status, flags, headers, body }
    }

    pub(super) fn refused(refusal: Refusal, is_grpc: bool) -> Self {
        Self::said(refusal.status, refusal.flags, refusal.text.into_bytes(), is_grpc)
    }

    /// A redirect or direct response of a rule.
    pub(super) fn of_rule(answer: &LocalAnswer<'_>, is_grpc: bool) -> Self {
        match answer {
            LocalAnswer::Direct { status, body } => Self::said(*status, Flags::None, body.to_vec(), is_grpc),
            LocalAnswer::Redirect { status, location } => {
                let mut own = Self::said(*status, Flags::None, Vec::new(), is_grpc);
                // Its parts were checked at the push, and the rest came as a header or a target.
                if let Ok(location) = HeaderValue::from_str(location) {
                    own.headers.insert(header::LOCATION, location);
                }
                own
            }
        }
    }

    pub(super) fn preflight() -> Self {
        Self::new(StatusCode::OK, Flags::None, Vec::new())
    }

    pub(super) fn aborted(aborted: Aborted) -> Self {
        match aborted.grpc_status {
            Some(status) => Self::grpc(status, ABORT_MESSAGE.as_bytes(), Flags::FaultInjected),
            None => Self::new(aborted.status, Flags::FaultInjected, ABORT_MESSAGE.into()),
        }
    }

    /// The time of the rule was up.
    pub(super) fn timed_out(service: &ServiceName, is_grpc: bool) -> Self {
        if is_grpc {
            return Self::grpc(GRPC_UNAVAILABLE, b"upstream request timeout", Flags::UpstreamTimeout);
        }
        let text = format!("service {service} did not answer within the rule's timeout\n");
        Self::new(StatusCode::GATEWAY_TIMEOUT, Flags::UpstreamTimeout, text.into_bytes())
    }

    /// In the client's language: gRPC has a status of its own, and its text is a header.
    fn said(status: StatusCode, flags: Flags, text: Vec<u8>, is_grpc: bool) -> Self {
        match is_grpc {
            true => Self::grpc(grpc_status_of(status), text.trim_ascii_end(), flags),
            false => Self::new(status, flags, text),
        }
    }

    fn grpc(status: u8, message: &[u8], flags: Flags) -> Self {
        let mut own = Self::new(StatusCode::OK, flags, Vec::new());
        own.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        own.headers.insert(GRPC_STATUS, u16::from(status).into());
        if !message.is_empty() {
            own.headers.insert(GRPC_MESSAGE, grpc_message(message));
        }
        own
    }

    /// Ends the exchange.
    pub(super) fn send(self, mut record: Record) -> Response<AnswerBody> {
        record.status_in(&self.headers);
        record.ended(self.status, self.flags, self.body.len() as u64);
        let mut answer = answer::own(self.status, self.body);
        *answer.headers_mut() = self.headers;
        answer
    }
}

/// What to say of a request that no endpoint answered.
pub(super) fn failure(bodies: &Bodies, flags: Flags, service: &ServiceName) -> Refusal {
    if bodies.is_broken() {
        let text = "the request's body is not what its head says\n".into();
        return Refusal { status: StatusCode::BAD_REQUEST, flags: Flags::DownstreamTermination, text };
    }
    let what = match flags {
        Flags::NoHealthyUpstream => "has no ready endpoint",
        Flags::UpstreamConnectFailure => "has no endpoint that takes a connection",
        Flags::UpstreamReset => "gave up the request before it answered",
        _ => "ended the connection before it answered",
    };
    Refusal { status: StatusCode::SERVICE_UNAVAILABLE, flags, text: format!("service {service} {what}\n") }
}
