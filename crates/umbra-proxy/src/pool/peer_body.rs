//! The body of an answer as its peer sends it, whatever it speaks.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h2::{Reason, RecvStream};
use http_body::{Body, Frame, SizeHint};

use super::link::Link;
use crate::http1::{BodyError, HeadError};
use crate::http2::{ReadAhead, Received};

/// Streamed, with its trailers. Dropped before its end, it gives the answer up.
pub(crate) enum PeerBody<B: Body> {
    /// It has ended: the connection may serve others by now.
    Ended,
    Http1(Rc<Link<B>>),
    Http2(Received),
}

/// Why an answer is missing or incomplete. Sources are not told on: a peer's reason for ending a stream says nothing about
/// the client's.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PeerError {
    #[error("{0}")]
    Io(io::Error),
    #[error("the peer ended the connection")]
    Closed,
    #[error("the answer: {0}")]
    Head(HeadError),
    #[error("the answer: {0}")]
    Body(BodyError),
    #[error("the peer switches protocols unasked")]
    SwitchesUnasked,
    #[error("the request's body broke off")]
    Request,
    #[error("{0}")]
    Http2(h2::Error),
}

impl PeerError {
    /// The peer gave up this exchange alone.
    pub(crate) fn is_reset(&self) -> bool {
        matches!(self, Self::Http2(error) if error.is_reset() && error.is_remote())
    }
}

impl<B> PeerBody<B>
where
    B: ReadAhead + Unpin,
    B::Data: Buf,
{
    /// Of the answer whose head was read last.
    pub(super) fn http1(link: &Rc<Link<B>>) -> Self {
        if link.has_ended() { Self::Ended } else { Self::Http1(Rc::clone(link)) }
    }

    pub(super) fn http2(stream: RecvStream) -> Self {
        Self::Http2(Received::new(stream))
    }
}

impl<B> ReadAhead for PeerBody<B>
where
    B: ReadAhead + Unpin,
    B::Data: Buf,
{
    fn read_ahead(mut self: Pin<&mut Self>, cx: &mut Context<'_>) {
        match &mut *self {
            Self::Http2(received) => received.read_ahead(cx),
            // Its connection is its own: what waits there waits in the kernel.
            Self::Ended | Self::Http1(_) => {}
        }
    }
}

/// A peer that has answered may end the stream like this when it does not want the rest of the request (RFC 9113 section
/// 8.1).
fn end_or<T>(error: h2::Error) -> Option<Result<T, PeerError>> {
    (error.reason() != Some(Reason::NO_ERROR)).then_some(Err(PeerError::Http2(error)))
}

impl<B> Body for PeerBody<B>
where
    B: ReadAhead + Unpin,
    B::Data: Buf,
{
    type Data = Bytes;
    type Error = PeerError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, PeerError>>> {
        match &mut *self {
            Self::Ended => Poll::Ready(None),
            Self::Http1(link) => {
                let next = ready!(link.poll_frame(cx));
                if link.has_ended() {
                    *self = Self::Ended;
                }
                Poll::Ready(next)
            }
            Self::Http2(received) => received
                .poll_frame(cx)
                .map(|next| next.and_then(|frame| frame.map_or_else(end_or, |it| Some(Ok(it))))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Ended => true,
            Self::Http1(_) => false,
            Self::Http2(received) => received.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Ended => SizeHint::with_exact(0),
            Self::Http1(link) => link.left().map_or_else(SizeHint::default, SizeHint::with_exact),
            // The head says it, if anybody does.
            Self::Http2(_) => SizeHint::default(),
        }
    }
}
