//! Answers: the primary's, streamed to the client while its connection is on loan, or a short one of our own; and the
//! record of the whole exchange, which is made exactly once.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use umbra_routing::{Client, ServiceName, grpc_status, is_grpc};

use super::attempt::Reached;
use super::deadline::Deadline;
use crate::balance::{Lease, Upstream};
use crate::body::RequestBody;
use crate::connection::Worker;
use crate::headers;
use crate::metrics::{Exchange, Flags, ResponseFlags, Spoken};
use crate::pool::{PeerBody, PeerError, Pooled};
use crate::serve::Busy;

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

enum Kind {
    Own { text: Option<Bytes>, _busy: Option<Busy> },
    Relayed(Box<Relayed>),
}

struct Relayed {
    incoming: PeerBody,
    /// What is given back when the answer has ended.
    loan: Option<(Pooled<RequestBody>, Lease)>,
    /// When the rule's time is up.
    deadline: Deadline,
    record: Record,
    worker: Rc<Worker>,
    _busy: Busy,
}

/// An exchange as the metrics see it. Counted when dropped.
pub(super) struct Record {
    worker: Rc<Worker>,
    client: Option<Arc<Client>>,
    service: Arc<ServiceName>,
    upstream: Option<Arc<Upstream>>,
    started: Instant,
    request_head: u64,
    request_body: Rc<Cell<u64>>,
    answer_bytes: u64,
    code: u16,
    is_grpc: bool,
    grpc_status: Option<u8>,
    flags: ResponseFlags,
}

/// An answer of our own.
pub(super) fn own(status: StatusCode, body: Vec<u8>, busy: Busy) -> Response<AnswerBody> {
    let text = Some(Bytes::from(body)).filter(|text| !text.is_empty());
    let mut answer = Response::new(AnswerBody(Kind::Own { text, _busy: Some(busy) }));
    *answer.status_mut() = status;
    answer
}

/// An answer of our own to HEAD has the length of its body and not the body, which hyper sees to for HTTP/1 only.
pub(super) fn to_head(answer: &mut Response<AnswerBody>) {
    if let Kind::Own { text, .. } = &mut answer.body_mut().0
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
    (mut record, busy): (Record, Busy),
) -> Response<AnswerBody> {
    let (mut head, incoming) = reached.answer.into_parts();
    // Whether the primary speaks 1.0 is between it and us.
    head.version = http::Version::HTTP_11;
    head.extensions.clear();
    record.begun(head.status, headers::wire_size(15, &head.headers));
    record.status_in(&head.headers);
    let loan = Some((reached.pooled, reached.lease));
    let mut relayed = Relayed { incoming, loan, deadline, record, worker: Rc::clone(worker), _busy: busy };
    if relayed.incoming.is_end_stream() {
        relayed.ended();
    }
    Response::from_parts(head, AnswerBody(Kind::Relayed(Box::new(relayed))))
}

impl AnswerBody {
    pub(super) fn empty() -> Self {
        Self(Kind::Own { text: None, _busy: None })
    }
}

impl Relayed {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, AnswerError>>> {
        let frame = match Pin::new(&mut self.incoming).poll_frame(cx) {
            Poll::Ready(frame) => frame.map(|frame| frame.map_err(AnswerError::Upstream)),
            Poll::Pending => {
                ready!(self.deadline.poll_passed(cx));
                self.record.flags.cause = Flags::UpstreamTimeout;
                return Poll::Ready(Some(Err(AnswerError::TimedOut)));
            }
        };
        match &frame {
            Some(Ok(frame)) => {
                self.record.answer_bytes += frame.data_ref().map_or(0, |chunk| chunk.len() as u64);
                if let Some(trailers) = frame.trailers_ref() {
                    self.record.status_in(trailers);
                    // Nothing follows them, and nobody asks.
                    self.ended();
                } else if self.incoming.is_end_stream() {
                    self.ended();
                }
            }
            Some(Err(AnswerError::Upstream(error))) if error.is_reset() => {
                self.record.flags.cause = Flags::UpstreamReset;
            }
            Some(Err(_)) => self.record.flags.cause = Flags::UpstreamTermination,
            None => self.ended(),
        }
        Poll::Ready(frame)
    }

    fn ended(&mut self) {
        if let Some((pooled, _lease)) = self.loan.take() {
            self.record.flags.cause = Flags::None;
            self.worker.primaries.put(pooled);
        }
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
            Kind::Own { text, .. } => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            Kind::Relayed(relayed) => relayed.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Own { text, .. } => text.is_none(),
            Kind::Relayed(relayed) => relayed.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Own { text, .. } => SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64)),
            Kind::Relayed(relayed) => relayed.incoming.size_hint(),
        }
    }
}

impl Record {
    pub(super) fn new(
        worker: &Rc<Worker>,
        client: Option<Arc<Client>>,
        service: Arc<ServiceName>,
        request: &Request<Incoming>,
    ) -> Self {
        let target = request.uri().path_and_query().map_or(1, |target| target.as_str().len());
        let first_line = request.method().as_str().len() + target + 12;
        Self {
            worker: Rc::clone(worker),
            client,
            service,
            upstream: None,
            started: Instant::now(),
            request_head: headers::wire_size(first_line, request.headers()),
            request_body: Rc::default(),
            answer_bytes: 0,
            code: 0,
            // Until the answer's end is seen, only the client's leaving ends the exchange.
            flags: Flags::DownstreamTermination.into(),
            is_grpc: is_grpc(request.headers()),
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
    pub(super) fn service(&mut self, service: &Arc<ServiceName>) {
        self.service = Arc::clone(service);
    }

    pub(super) fn upstream(&mut self, upstream: &Arc<Upstream>) {
        self.upstream = Some(Arc::clone(upstream));
    }

    pub(super) fn request_body(&mut self, bytes: Rc<Cell<u64>>) {
        self.request_body = bytes;
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
            client: self.client.as_ref(),
            service: &self.service,
            upstream: self.upstream.as_ref(),
            code: self.code,
            spoken: Spoken::new(self.is_grpc, self.grpc_status, self.code),
            flags: self.flags,
            shadow: false,
        };
        let request_bytes = self.request_head + self.request_body.get();
        self.worker.series(&exchange).record(self.started.elapsed(), request_bytes, self.answer_bytes);
    }
}
