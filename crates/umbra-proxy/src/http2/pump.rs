//! A body on its way into a stream of HTTP/2.
//!
//! Takes: a body. Gives: frames, as fast as the peer's windows let it; one chunk at most waits, here or, the last one, in the
//! connection. Ends early when the peer has given up the stream; a body that breaks off gives it up.

use std::future::poll_fn;
use std::io::IoSlice;
use std::pin::{Pin, pin};
use std::task::Poll;

use bytes::Buf;
use h2::{Reason, SendStream};
use http_body::Frame;

use super::ReadAhead;

/// What a stream carries: a chunk, or the end that nobody foresaw with the last one.
pub(crate) struct Chunk<D>(Option<D>);

impl<D: Buf> Buf for Chunk<D> {
    fn remaining(&self) -> usize {
        self.0.as_ref().map_or(0, Buf::remaining)
    }

    fn chunk(&self) -> &[u8] {
        self.0.as_ref().map_or(&[], Buf::chunk)
    }

    fn advance(&mut self, count: usize) {
        if let Some(data) = &mut self.0 {
            data.advance(count);
        }
    }

    fn chunks_vectored<'a>(&'a self, into: &mut [IoSlice<'a>]) -> usize {
        self.0.as_ref().map_or(0, |data| data.chunks_vectored(into))
    }
}

/// Carries `body` to its end. Dropped before that, it gives the stream up; the peer hears `broken` of a body that breaks off.
pub(crate) async fn pump<B: ReadAhead>(body: B, mut stream: SendStream<Chunk<B::Data>>, broken: Reason) {
    let mut body = pin!(body);
    loop {
        let next = poll_fn(|cx| match stream.poll_reset(cx) {
            Poll::Ready(_) => Poll::Ready(None),
            Poll::Pending => body.as_mut().poll_frame(cx).map(Some),
        });
        let Some(frame) = next.await else { return };
        let ended = match frame {
            None => stream.send_data(Chunk(None), true).map(|()| true),
            Some(Err(_)) => return stream.send_reset(broken),
            Some(Ok(frame)) => match split(frame) {
                Split::Data(data) => {
                    let end = body.is_end_stream();
                    match data.has_remaining() {
                        // The last one waits in the connection: nothing comes behind it.
                        true if !end && !has_room(&mut stream, body.as_mut()).await => return,
                        false if !end => Ok(false),
                        _ => stream.send_data(Chunk(Some(data)), end).map(|()| end),
                    }
                }
                Split::Trailers(trailers) => stream.send_trailers(trailers).map(|()| true),
                Split::Unknown => Ok(false),
            },
        };
        // An error: the stream is over, and whoever waits for its answer hears why.
        if ended.unwrap_or(true) {
            return;
        }
    }
}

enum Split<D> {
    Data(D),
    Trailers(http::HeaderMap),
    Unknown,
}

fn split<D>(frame: Frame<D>) -> Split<D> {
    match frame.into_data() {
        Ok(data) => Split::Data(data),
        Err(frame) => frame.into_trailers().map_or(Split::Unknown, Split::Trailers),
    }
}

/// Waits until the peer takes something. A chunk is in hand by then: room that is reserved before would be kept from the
/// connection's other streams by a body that has nothing to say. What comes of the body meanwhile waits in it. False: the
/// stream is over.
async fn has_room<B: ReadAhead>(stream: &mut SendStream<Chunk<B::Data>>, mut body: Pin<&mut B>) -> bool
where
    B::Data: Buf,
{
    stream.reserve_capacity(1);
    while stream.capacity() == 0 {
        let room = poll_fn(|cx| {
            let room = stream.poll_capacity(cx);
            if room.is_pending() {
                body.as_mut().read_ahead(cx);
            }
            room
        });
        if !matches!(room.await, Some(Ok(_))) {
            return false;
        }
    }
    true
}
