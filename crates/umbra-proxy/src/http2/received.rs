//! A body as it comes on a stream of HTTP/2. Its sender's window opens as fast as somebody reads.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;
use http_body::Frame;

/// Streamed, with its trailers. Dropped before its end, it gives the stream up.
pub(crate) struct Received {
    stream: RecvStream,
    /// What is left are trailers.
    data_ended: bool,
    /// Nothing is left, as far as anybody has looked: each look takes the connection's lock.
    ended: bool,
}

impl Received {
    pub(crate) fn new(stream: RecvStream) -> Self {
        let ended = stream.is_end_stream();
        Self { stream, data_ended: false, ended }
    }

    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        let next = ready!(self.poll_next(cx));
        self.ended = self.stream.is_end_stream();
        Poll::Ready(next)
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        while !self.data_ended {
            match ready!(self.stream.poll_data(cx)?) {
                Some(chunk) => {
                    // Only fails on a stream that is over.
                    let _ = self.stream.flow_control().release_capacity(chunk.len());
                    if !chunk.is_empty() {
                        return Poll::Ready(Some(Ok(Frame::data(chunk))));
                    }
                }
                None => self.data_ended = true,
            }
        }
        self.stream.poll_trailers(cx).map(|trailers| trailers.transpose().map(|it| it.map(Frame::trailers)))
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.ended
    }
}
