//! One connection of HTTP/1 to an endpoint, and the exchange on it: the request's body goes out while the answer comes in.
//! Whoever reads the answer drives both; there is no task.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use http::{Method, Response, StatusCode};
use http_body::{Body, Frame};
use tokio::net::TcpStream;

use super::PeerError;
use super::message::Message;
use crate::descriptors::Open;
use crate::http1::head::{self, Scan};
use crate::http1::{Decoded, Decoder, Framing, Wire};
use crate::http2::ReadAhead;
use crate::recycle::Recycled;
use crate::version::RequestHead;

pub(crate) struct Link<B: Body>(RefCell<State<B>>);

struct State<B: Body> {
    wire: Wire<B::Data>,
    scan: Scan,
    /// What is left of the request's body.
    body: Option<B>,
    /// Nobody has read of it.
    untouched: bool,
    /// The body of a request that has none, in case that it is sent again.
    spare: Option<B>,
    /// The request could not be written to its end: what the peer has said may be its answer all the same.
    write_failed: bool,
    asked: Asked,
    decoder: Decoder,
    /// The peer goes on with this connection.
    keep_alive: bool,
    head_bytes: usize,
}

/// What of a request tells how its answer is to be read.
#[derive(Clone, Copy, Default)]
pub(crate) struct Asked {
    pub(super) is_head: bool,
    pub(super) to_switch: bool,
}

impl Asked {
    pub(super) fn new(head: &RequestHead<'_>) -> Self {
        Self { is_head: head.method == Method::HEAD, to_switch: head.switches }
    }
}

/// How much had passed on a connection when a request began.
#[derive(Clone, Copy)]
pub(crate) struct Begun {
    written: u64,
    received: u64,
}

impl<B> Link<B>
where
    B: ReadAhead + Unpin,
    B::Data: Buf,
{
    pub(super) fn new(stream: TcpStream, open: Open, recycled: Rc<Recycled>, head_bytes: usize) -> Self {
        Self(RefCell::new(State {
            wire: Wire::new(stream, open, recycled, BytesMut::new()),
            scan: Scan::default(),
            body: None,
            untouched: true,
            spare: None,
            write_failed: false,
            asked: Asked::default(),
            decoder: Decoder::new(Framing::None, head_bytes),
            keep_alive: true,
            head_bytes,
        }))
    }

    /// Begins an exchange. A request without a body is written at once; else its head waits for the first of its body.
    pub(super) fn begin(&self, message: &impl Message, body: B) -> Begun {
        let state = &mut *self.0.borrow_mut();
        let begun = Begun { written: state.wire.written(), received: state.wire.received() };
        state.asked = message.asked();
        state.untouched = true;
        state.wire.begin(|out| message.write(out, &body));
        if !body.is_end_stream() {
            state.body = Some(body);
        } else {
            state.spare = Some(body);
            // A head that was written down when the body had not ended may have announced chunks.
            let is_whole = state.wire.end(None).is_ok();
            state.write_failed = !is_whole || state.wire.try_flush().is_err();
        }
        begun
    }

    /// Sends what can be sent, and ends with the answer's head. Informational ones are read over (RFC 9110 section 15.2).
    ///
    /// # Errors
    /// No answer comes.
    pub(super) fn poll_head(&self, cx: &mut Context<'_>) -> Poll<Result<Response<()>, PeerError>> {
        let state = &mut *self.0.borrow_mut();
        state.send(cx)?;
        loop {
            let recycled = Rc::clone(state.wire.recycled());
            let limits = (state.head_bytes, state.asked.is_head);
            let head = head::answer(&mut state.wire.input, &mut state.scan, limits, || recycled.map());
            if let Some(head) = head.map_err(PeerError::Head)? {
                let status = head.answer.status();
                if status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS {
                    recycled.put_map(head.answer.into_parts().0.headers);
                    continue;
                }
                let switches = status == StatusCode::SWITCHING_PROTOCOLS;
                if switches && !state.asked.to_switch {
                    return Poll::Ready(Err(PeerError::SwitchesUnasked));
                }
                state.decoder = Decoder::new(head.framing, state.head_bytes);
                state.keep_alive = head.keep_alive && !switches;
                return Poll::Ready(Ok(head.answer));
            }
            if ready!(state.wire.poll_fill(cx)).map_err(PeerError::Io)? == 0 {
                return Poll::Ready(Err(PeerError::Closed));
            }
        }
    }

    /// What comes next of the answer's body. Sends what can be sent meanwhile.
    pub(super) fn poll_frame(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, PeerError>>> {
        let state = &mut *self.0.borrow_mut();
        if let Err(error) = state.send(cx) {
            return Poll::Ready(Some(Err(error)));
        }
        loop {
            match state.decoder.decode(&mut state.wire.input) {
                Ok(Decoded::Data(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Ok(Decoded::Trailers(trailers)) => return Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
                Ok(Decoded::End) => return Poll::Ready(None),
                Ok(Decoded::More) => {}
                Err(error) => return Poll::Ready(Some(Err(PeerError::Body(error)))),
            }
            match ready!(state.wire.poll_fill(cx)) {
                Ok(1..) => {}
                Ok(0) if state.decoder.closed() => return Poll::Ready(None),
                Ok(0) => return Poll::Ready(Some(Err(PeerError::Closed))),
                Err(error) => return Poll::Ready(Some(Err(PeerError::Io(error)))),
            }
        }
    }

    /// Nothing of the answer is left.
    pub(super) fn has_ended(&self) -> bool {
        self.0.borrow().decoder.has_ended()
    }

    /// How much of the answer is left, where that is known.
    pub(super) fn left(&self) -> Option<u64> {
        self.0.borrow().decoder.left()
    }

    /// Something of the request is left.
    pub(super) fn is_sending(&self) -> bool {
        let state = self.0.borrow();
        state.keep_alive && !state.write_failed && (state.body.is_some() || state.wire.waits())
    }

    /// Ends when the request is sent to its end.
    ///
    /// # Errors
    /// The connection broke, or the body, or the peer has something else to say.
    pub(super) fn poll_sent(&self, cx: &mut Context<'_>) -> Poll<Result<(), PeerError>> {
        let state = &mut *self.0.borrow_mut();
        state.send(cx)?;
        if state.body.is_none() && !state.wire.waits() || state.write_failed {
            return Poll::Ready(Ok(()));
        }
        let _ = ready!(state.wire.poll_fill(cx)).map_err(PeerError::Io)?;
        Poll::Ready(Err(PeerError::Closed))
    }

    /// The exchange is over. Whether another one can follow.
    pub(super) fn is_over(&self) -> bool {
        let state = &mut *self.0.borrow_mut();
        let over = state.decoder.has_ended() && state.body.is_none() && !state.wire.waits();
        state.spare = None;
        over && state.keep_alive && !state.write_failed && state.wire.input.is_empty()
    }

    /// Gives the buffers back: the connection has been idle for a while, so nobody holds a part of them any more.
    pub(super) fn rest(&self) {
        self.0.borrow_mut().wire.rest();
    }

    pub(super) fn seems_quiet(&self) -> bool {
        self.0.borrow().wire.seems_quiet()
    }

    pub(super) fn is_quiet(&self) -> bool {
        self.0.borrow().wire.is_quiet()
    }

    /// Nothing of the exchange that began like that has reached the peer's kernel.
    pub(super) fn took_nothing(&self, begun: Begun) -> bool {
        self.0.borrow().wire.took_nothing_since(begun.written)
    }

    /// Not a byte of an answer has come since.
    pub(super) fn said_nothing(&self, begun: Begun) -> bool {
        self.0.borrow().wire.received() == begun.received
    }

    /// The request's body, if nobody has read of it.
    pub(super) fn untouched_body(&self) -> Option<B> {
        let state = &mut *self.0.borrow_mut();
        let body = state.body.take().filter(|_| state.untouched);
        state.spare.take().or(body)
    }

    /// The socket, with what was read and not used; `None`: something of the request is left, which is not to be taken for
    /// bytes of another protocol.
    pub(super) fn into_stream(self) -> Option<(TcpStream, BytesMut, Open)> {
        let State { wire, body, .. } = self.0.into_inner();
        (body.is_none() && !wire.waits()).then(|| wire.into_stream())
    }
}

impl<B: Body> Link<B> {
    /// All of the request has reached the peer's kernel.
    pub(super) fn is_delivered(&self) -> bool {
        let state = self.0.borrow();
        state.body.is_none() && !state.wire.waits() && state.wire.took_all()
    }

    /// See [`Wire::keep_alive`].
    pub(super) fn keep_alive(&self) {
        self.0.borrow_mut().wire.keep_alive();
    }

    /// See [`Wire::reset_on_drop`].
    pub(super) fn reset_on_drop(&self) {
        self.0.borrow().wire.reset_on_drop();
    }
}

impl<B> State<B>
where
    B: ReadAhead + Unpin,
    B::Data: Buf,
{
    /// Sends as much of the request as its body gives and the socket takes.
    ///
    /// # Errors
    /// The body broke. That the socket did is told by reading from it: the answer may be there.
    fn send(&mut self, cx: &mut Context<'_>) -> Result<(), PeerError> {
        if self.write_failed || self.body.is_none() && !self.wire.waits() {
            return Ok(());
        }
        loop {
            if self.body.is_none() || !self.wire.has_room() {
                match self.wire.poll_flush(cx) {
                    Poll::Ready(Ok(())) if self.body.is_none() => return Ok(()),
                    Poll::Ready(Ok(())) => {}
                    Poll::Pending => {
                        self.body.iter_mut().for_each(|body| Pin::new(body).read_ahead(cx));
                        return Ok(());
                    }
                    Poll::Ready(Err(_)) => {
                        self.write_failed = true;
                        self.body = None;
                        return Ok(());
                    }
                }
            }
            if !self.take_of_body(cx)? && self.flush_waits(cx) {
                return Ok(());
            }
        }
    }

    /// Takes the next chunk of the body; false: there is none yet.
    fn take_of_body(&mut self, cx: &mut Context<'_>) -> Result<bool, PeerError> {
        let Some(body) = &mut self.body else { return Ok(true) };
        if !body.is_end_stream() {
            let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(cx) else { return Ok(false) };
            self.untouched = false;
            let frame = frame.transpose().map_err(|_| PeerError::Request)?;
            let ended = frame.is_none();
            let frame = frame.map(Frame::into_data);
            match frame {
                Some(Ok(data)) => self.wire.data(data).map_err(|_| PeerError::Request)?,
                Some(Err(frame)) => {
                    let trailers = frame.into_trailers().ok();
                    self.wire.end(trailers.as_ref()).map_err(|_| PeerError::Request)?;
                    self.body = None;
                    return Ok(true);
                }
                None => {}
            }
            if !ended && !body.is_end_stream() {
                return Ok(true);
            }
        }
        self.wire.end(None).map_err(|_| PeerError::Request)?;
        self.body = None;
        Ok(true)
    }

    /// Writes what there is, because nothing more comes for now. Always true.
    fn flush_waits(&mut self, cx: &mut Context<'_>) -> bool {
        if let Poll::Ready(Err(_)) = self.wire.poll_flush(cx) {
            self.write_failed = true;
            self.body = None;
        }
        true
    }
}

#[cfg(test)]
mod tests;
