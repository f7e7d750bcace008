//! The body of a request as its client sends it, whatever it speaks.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::client::{Upload, UploadError};
use crate::http2::Received;
use crate::shadow::tap::UNKNOWN_BLOCK;

/// Streamed, with its trailers. Dropped before its end, it is given up.
#[derive(Default)]
pub(crate) enum ClientBody {
    #[default]
    Empty,
    Http1(Upload),
    Http2 {
        received: Received,
        /// Bytes to come, where the head has said it; h2 sees to it that this is true.
        left: Option<u64>,
    },
}

/// The client left, or sent something else than a body.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    #[error("{0}")]
    Http1(UploadError),
    #[error("{0}")]
    Http2(h2::Error),
}

impl ClientBody {
    /// The memory that a chunk of it keeps alive, at most.
    pub(crate) fn block(&self) -> usize {
        match self {
            Self::Http1(upload) => upload.block(),
            Self::Empty | Self::Http2 { .. } => UNKNOWN_BLOCK,
        }
    }

    /// What comes next of it. Errors are final.
    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ClientError>>> {
        match self {
            Self::Empty => Poll::Ready(None),
            Self::Http1(upload) => {
                upload.poll_frame(cx).map(|next| next.map(|frame| frame.map_err(ClientError::Http1)))
            }
            Self::Http2 { received, left } => {
                let next = ready!(received.poll_frame(cx));
                if let (Some(left), Some(Ok(frame))) = (left, &next) {
                    *left = left.saturating_sub(frame.data_ref().map_or(0, |chunk| chunk.len() as u64));
                }
                Poll::Ready(next.map(|frame| frame.map_err(ClientError::Http2)))
            }
        }
    }

    /// Takes what has come out of a connection that others share, while nobody can take the next frame.
    pub(crate) fn read_ahead(&mut self, cx: &mut Context<'_>) {
        match self {
            Self::Http2 { received, .. } => received.read_ahead(cx),
            Self::Empty | Self::Http1(_) => {}
        }
    }

    /// Nothing comes any more.
    pub(crate) fn has_ended(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Http1(upload) => upload.has_ended(),
            Self::Http2 { received, .. } => received.is_end_stream(),
        }
    }

    /// How much comes, as far as its head has said.
    pub(crate) fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Http1(upload) => upload.left().map_or_else(SizeHint::default, SizeHint::with_exact),
            Self::Http2 { left, .. } => left.map_or_else(SizeHint::default, SizeHint::with_exact),
        }
    }
}
