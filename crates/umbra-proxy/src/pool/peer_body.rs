//! The body of an answer as its peer sends it, whatever it speaks.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, RecvStream};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

/// Streamed, with its trailers. Dropped before its end, it gives the answer up.
pub(crate) enum PeerBody {
    Http1(Incoming),
    Http2(Received),
}

/// Of one stream of HTTP/2.
pub(crate) struct Received {
    stream: RecvStream,
    /// What is left are trailers.
    data_ended: bool,
}

/// Why an answer is missing or incomplete. Its source is not told on: a peer's reason for ending a stream says nothing
/// about the client's.
#[derive(Debug)]
pub(crate) enum PeerError {
    Http1(hyper::Error),
    Http2(h2::Error),
}

impl fmt::Display for PeerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http1(error) => error.fmt(f),
            Self::Http2(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for PeerError {}

impl PeerError {
    /// The peer gave up this exchange alone.
    pub(crate) fn is_reset(&self) -> bool {
        matches!(self, Self::Http2(error) if error.is_reset() && error.is_remote())
    }
}

impl PeerBody {
    pub(super) fn http1(incoming: Incoming) -> Self {
        Self::Http1(incoming)
    }

    pub(super) fn http2(stream: RecvStream) -> Self {
        Self::Http2(Received { stream, data_ended: false })
    }
}

impl Received {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        while !self.data_ended {
            match ready!(self.stream.poll_data(cx)) {
                Some(Ok(chunk)) => {
                    // The window opens as fast as somebody reads. Only fails on a stream that is over.
                    let _ = self.stream.flow_control().release_capacity(chunk.len());
                    if !chunk.is_empty() {
                        return Poll::Ready(Some(Ok(Frame::data(chunk))));
                    }
                }
                Some(Err(error)) => return Poll::Ready(end_or(error)),
                None => self.data_ended = true,
            }
        }
        match ready!(self.stream.poll_trailers(cx)) {
            Ok(trailers) => Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers)))),
            Err(error) => Poll::Ready(end_or(error)),
        }
    }
}

/// A peer that has answered may end the stream like this when it does not want the rest of the request (RFC 9113 section
/// 8.1).
fn end_or<T>(error: h2::Error) -> Option<Result<T, h2::Error>> {
    (error.reason() != Some(Reason::NO_ERROR)).then_some(Err(error))
}

impl Body for PeerBody {
    type Data = Bytes;
    type Error = PeerError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, PeerError>>> {
        match &mut *self {
            Self::Http1(incoming) => Pin::new(incoming)
                .poll_frame(cx)
                .map(|next| next.map(|frame| frame.map_err(PeerError::Http1))),
            Self::Http2(received) => {
                received.poll_frame(cx).map(|next| next.map(|frame| frame.map_err(PeerError::Http2)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1(incoming) => incoming.is_end_stream(),
            Self::Http2(received) => received.stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1(incoming) => incoming.size_hint(),
            // The head says it, if anybody does.
            Self::Http2(_) => SizeHint::default(),
        }
    }
}
