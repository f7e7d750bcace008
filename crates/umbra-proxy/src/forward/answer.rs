//! Answers: the primary's, streamed to the client while its connection is on loan, or a short one of our own; and the
//! record of the whole exchange, which is made exactly once.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use umbra_routing::{Client, ServiceName, grpc_status, is_grpc};

use super::attempt::Reached;
use super::choose::Subject;
use super::deadline::Deadline;
use crate::balance::{Backends, Lease, Upstream};
use crate::body::{Bodies, RequestBody};
use crate::clock;
use crate::connection::Worker;
use crate::headers::{self, Noticed};
use crate::held::Held;
use crate::http2::ReadAhead;
use crate::metrics::{Exchange, Flags, ResponseFlags, Spoken};
use crate::pool::{PeerBody, PeerError, Pooled};
use crate::serve::ClientBody;
use crate::tables::Governed;
use crate::upgrade::Switched;

/// Why an answer ends before its end; the client's connection ends with it, or its stream.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AnswerError {
    /// The primary's connection or stream broke.
    #[error("{0}")]
    Upstream(PeerError),
    /// The rule's timeout.
    #[error("the answer was not whole within the rule's timeout")]
    TimedOut,
}

/// What a client gets.
pub(crate) struct AnswerBody(Kind);

#[expect(
    clippy::large_enum_variant,
    reason = "nearly all are relayed, and a box would be an allocation for each"
)]
enum Kind {
    Own {
        text: Option<Bytes>,
        /// Whoever sends such requests is not listened to any longer.
        is_last: bool,
    },
    Relayed(Relayed),
    /// None: the primary speaks something else now.
    Switched(Box<Switched>),
}

struct Relayed {
    incoming: PeerBody<RequestBody>,
    /// What is given back when the answer has ended.
    loan: Option<(Pooled<RequestBody>, Lease)>,
    /// When the rule's time is up.
    deadline: Deadline,
    /// Absent when the answer has ended: counted before the client can know its end.
    record: Option<Record>,
    worker: Rc<Worker>,
}

/// An exchange as the metrics see it. Counted when dropped.
pub(super) struct Record {
    worker: Rc<Worker>,
    client: Option<Held<Client>>,
    service: Service,
    upstream: Option<Held<Upstream>>,
    started: Instant,
    /// When it ended, if somebody has looked at the clock.
    ended: Option<Instant>,
    request_head: u64,
    request_body: Option<Bodies>,
    answer_bytes: u64,
    code: u16,
    is_grpc: bool,
    grpc_status: Option<u8>,
    flags: ResponseFlags,
}

/// Whose requests an exchange is counted among.
enum Service {
    /// What the client asked for.
    Asked(Held<Governed>),
    /// What its rule chose.
    Chosen(Held<Backends>),
}

impl Service {
    fn name(&self) -> &Arc<ServiceName> {
        match self {
            Self::Asked(governed) => &governed.service,
            Self::Chosen(set) => &set.service,
        }
    }
}

/// An answer of our own.
pub(super) fn own(status: StatusCode, body: Vec<u8>) -> Response<AnswerBody> {
    let text = Some(Bytes::from(body)).filter(|text| !text.is_empty());
    let mut answer = Response::new(AnswerBody(Kind::Own { text, is_last: false }));
    *answer.status_mut() = status;
    answer
}

/// The same, after which a connection of HTTP/1 ends: what came was no request that can be acted on.
pub(super) fn last(status: StatusCode, body: Vec<u8>) -> Response<AnswerBody> {
    let mut answer = own(status, body);
    if let Kind::Own { is_last, .. } = &mut answer.body_mut().0 {
        *is_last = true;
    }
    answer
}

/// An answer of our own to HEAD has the length of its body and not the body.
pub(super) fn to_method(is_head: bool, answer: &mut Response<AnswerBody>) {
    if is_head
        && let Kind::Own { text, .. } = &mut answer.body_mut().0
        && let Some(text) = text.take()
    {
        answer.headers_mut().insert(header::CONTENT_LENGTH, text.len().into());
    }
}

/// The primary's answer.
pub(super) fn relay(
    worker: &Rc<Worker>,
    reached: Reached,
    deadline: Deadline,
    mut record: Record,
) -> Response<AnswerBody> {
    let (mut head, incoming) = reached.answer.into_parts();
    // Whether the primary speaks 1.0 is between it and us.
    head.version = http::Version::HTTP_11;
    head.extensions.clear();
    record.begun(head.status, headers::wire_size(15, &head.headers));
    record.status_in(&head.headers);
    let loan = Some((reached.pooled, reached.lease));
    let mut relayed = Relayed { incoming, loan, deadline, record: Some(record), worker: Rc::clone(worker) };
    if relayed.incoming.is_end_stream() {
        relayed.ended();
    }
    Response::from_parts(head, AnswerBody(Kind::Relayed(relayed)))
}

impl AnswerBody {
    pub(super) fn switched(switched: Switched) -> Self {
        Self(Kind::Switched(Box::new(switched)))
    }

    /// The connection of HTTP/1 ends with it.
    pub(crate) fn is_last(&self) -> bool {
        matches!(self.0, Kind::Own { is_last: true, .. })
    }

    /// The primary, if it has switched protocols. Nothing is left then.
    pub(crate) fn take_switched(&mut self) -> Option<Switched> {
        match std::mem::replace(&mut self.0, Kind::Own { text: None, is_last: false }) {
            Kind::Switched(switched) => Some(*switched),
            _ => None,
        }
    }
}

impl Relayed {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, AnswerError>>> {
        let frame = match Pin::new(&mut self.incoming).poll_frame(cx) {
            Poll::Ready(frame) => frame.map(|frame| frame.map_err(AnswerError::Upstream)),
            Poll::Pending => {
                ready!(self.deadline.poll_passed(cx));
                self.failed(Flags::UpstreamTimeout);
                return Poll::Ready(Some(Err(AnswerError::TimedOut)));
            }
        };
        match &frame {
            Some(Ok(frame)) => {
                if let Some(record) = &mut self.record {
                    record.answer_bytes += frame.data_ref().map_or(0, |chunk| chunk.len() as u64);
                    frame.trailers_ref().into_iter().for_each(|trailers| record.status_in(trailers));
                }
                if frame.is_trailers() {
                    // Nothing follows them, and nobody asks.
                    self.ended();
                } else if self.incoming.is_end_stream() {
                    self.ended();
                }
            }
            Some(Err(AnswerError::Upstream(error))) if error.is_reset() => {
                self.failed(Flags::UpstreamReset);
            }
            Some(Err(_)) => self.failed(Flags::UpstreamTermination),
            None => self.ended(),
        }
        Poll::Ready(frame)
    }

    fn failed(&mut self, how: Flags) {
        if let Some(record) = &mut self.record {
            record.flags.cause = how;
        }
    }

    fn ended(&mut self) {
        self.failed(Flags::None);
        let now = clock::now();
        if let Some(mut record) = self.record.take() {
            record.ended = Some(now);
        }
        if let Some((pooled, lease)) = self.loan.take() {
            match pooled.is_sending() {
                true => self.finish(pooled, lease),
                false => self.worker.primaries.put(pooled, now),
            }
        }
    }

    /// The primary has answered before it had the whole request: it gets the rest all the same, as long as it takes it.
    fn finish(&self, pooled: Pooled<RequestBody>, lease: Lease) {
        let worker = Rc::clone(&self.worker);
        self.worker.connections.spawn_local(async move {
            let _lease = lease;
            match pooled.finish().await {
                Ok(()) => worker.primaries.put(pooled, clock::now()),
                Err(error) => tracing::debug!(%error, "the rest of an answered request was not sent"),
            }
        });
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = AnswerError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, AnswerError>>> {
        match &mut self.0 {
            Kind::Switched(_) => Poll::Ready(None),
            Kind::Own { text, .. } => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            Kind::Relayed(relayed) => relayed.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Switched(_) => true,
            Kind::Own { text, .. } => text.is_none(),
            Kind::Relayed(relayed) => relayed.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Switched(_) => SizeHint::with_exact(0),
            Kind::Own { text, .. } => SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64)),
            Kind::Relayed(relayed) => relayed.incoming.size_hint(),
        }
    }
}

impl ReadAhead for AnswerBody {
    fn read_ahead(mut self: Pin<&mut Self>, cx: &mut Context<'_>) {
        if let Kind::Relayed(relayed) = &mut self.0 {
            Pin::new(&mut relayed.incoming).read_ahead(cx);
        }
    }
}

impl Record {
    pub(super) fn new(
        worker: &Rc<Worker>,
        subject: &Subject,
        (request, noticed): (&Request<ClientBody>, Noticed),
    ) -> Self {
        let target = request.uri().path_and_query().map_or(1, |target| target.as_str().len());
        let first_line = request.method().as_str().len() + target + 12;
        Self {
            worker: Rc::clone(worker),
            client: subject.client.clone(),
            service: Service::Asked(subject.governed.clone()),
            upstream: None,
            started: clock::now(),
            ended: None,
            request_head: headers::wire_size(first_line, request.headers()),
            request_body: None,
            answer_bytes: 0,
            code: 0,
            // Until the answer's end is seen, only the client's leaving ends the exchange.
            flags: Flags::DownstreamTermination.into(),
            is_grpc: noticed.has_content_type && is_grpc(request.headers()),
            grpc_status: None,
        }
    }

    /// A fault makes it wait.
    pub(super) fn delayed(&mut self) {
        self.flags.delayed = true;
    }

    /// It would have been sent again, had its rule not had enough of that.
    pub(super) fn retries_exceeded(&mut self) {
        self.flags.retries_exceeded = true;
    }

    /// The request is one of gRPC.
    pub(super) fn is_grpc(&self) -> bool {
        self.is_grpc
    }

    /// An answer's head or trailers may say how gRPC ended.
    pub(super) fn status_in(&mut self, headers: &HeaderMap) {
        if self.is_grpc {
            self.grpc_status = grpc_status(headers).or(self.grpc_status);
        }
    }

    /// The host that the rule chose.
    pub(super) fn chosen(&mut self, set: &Held<Backends>) {
        self.service = Service::Chosen(set.clone());
    }

    pub(super) fn upstream(&mut self, upstream: &Held<Upstream>) {
        self.upstream = Some(upstream.clone());
    }

    /// When the request's head had come.
    pub(super) fn started(&self) -> Instant {
        self.started
    }

    pub(super) fn request_body(&mut self, bodies: &Bodies) {
        self.request_body = Some(bodies.clone());
    }

    fn begun(&mut self, status: StatusCode, head_bytes: u64) {
        self.code = status.as_u16();
        self.answer_bytes = head_bytes;
    }

    /// The whole answer is known.
    pub(super) fn ended(&mut self, status: StatusCode, flags: Flags, bytes: u64) {
        self.begun(status, bytes);
        self.flags.cause = flags;
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let exchange = Exchange {
            client: self.client.as_ref().map(Held::shared),
            service: self.service.name(),
            upstream: self.upstream.as_ref().map(Held::shared),
            code: self.code,
            spoken: Spoken::new(self.is_grpc, self.grpc_status, self.code),
            flags: self.flags,
            shadow: false,
        };
        let took = self.ended.unwrap_or_else(Instant::now) - self.started;
        let request_bytes = self.request_head + self.request_body.as_ref().map_or(0, Bodies::bytes);
        self.worker.series(&exchange).record(took, request_bytes, self.answer_bytes);
    }
}
