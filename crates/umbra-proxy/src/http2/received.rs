//! A body as it comes on a stream of HTTP/2. Its sender's window opens as fast as somebody reads.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;
use http_body::Frame;

use super::ahead::Ahead;

/// Streamed, with its trailers. Dropped before its end, it gives the stream up.
pub(crate) struct Received {
    stream: RecvStream,
    /// What came while its reader was stalled; most never are.
    ahead: Option<Box<Ahead>>,
    /// What is left in the stream are trailers.
    data_ended: bool,
    /// Nothing is left, as far as anybody has looked: each look takes the connection's lock.
    ended: bool,
}

impl Received {
    pub(crate) fn new(stream: RecvStream) -> Self {
        let ended = stream.is_end_stream();
        Self { stream, ahead: None, data_ended: false, ended }
    }

    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        let next = match self.ahead.as_mut().and_then(|ahead| ahead.take()) {
            Some(chunk) => Some(Ok(self.hand_on(chunk))),
            None => ready!(self.poll_next(cx)),
        };
        self.ended = self.ahead.as_ref().is_none_or(|ahead| ahead.is_empty()) && self.stream.is_end_stream();
        Poll::Ready(next)
    }

    /// Takes out of the connection what has come. Its sender may send no more for that.
    pub(crate) fn read_ahead(&mut self, cx: &mut Context<'_>) {
        while !self.data_ended {
            match self.stream.poll_data(cx) {
                Poll::Ready(Some(Ok(chunk))) => self.ahead.get_or_insert_default().put(chunk),
                Poll::Ready(None) => self.data_ended = true,
                // The stream tells it again to whoever has read what came before.
                Poll::Ready(Some(Err(_))) | Poll::Pending => return,
            }
        }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        while !self.data_ended {
            match ready!(self.stream.poll_data(cx)?) {
                Some(chunk) if chunk.is_empty() => {}
                Some(chunk) => return Poll::Ready(Some(Ok(self.hand_on(chunk)))),
                None => self.data_ended = true,
            }
        }
        self.stream.poll_trailers(cx).map(|trailers| trailers.transpose().map(|it| it.map(Frame::trailers)))
    }

    fn hand_on(&mut self, chunk: Bytes) -> Frame<Bytes> {
        // Only fails on a stream that is over.
        let _ = self.stream.flow_control().release_capacity(chunk.len());
        Frame::data(chunk)
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.ended
    }
}
