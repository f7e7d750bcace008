//! A client of HTTP/1: one connection, of which a request's body reads and to which its answer is written, at the same
//! time. Never waits for anything but this connection.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::Frame;
use tokio::net::TcpStream;

use super::client_body::ClientBody;
use crate::descriptors::Open;
use crate::http1::head::{self, Scan};
use crate::http1::wire::WrongLength;
use crate::http1::{BodyError, Decoded, Decoder, Framing, HeadError, RequestHead, Wire, write};
use crate::http2::ReadAhead;
use crate::recycle::Recycled;

/// What a client may send before its answer is read to its end, in bytes; more waits in the kernel.
const READ_AHEAD: usize = 8 * 1024;
/// Of a body that nobody wants, read for the sake of the connection.
const SKIPPED: usize = 64 * 1024;
/// How long a client is listened to that has been answered before it had sent all: closed at once, its kernel would drop
/// the answer (RFC 9112 section 9.6).
const LINGERS: Duration = Duration::from_secs(1);

/// One connection.
pub(crate) struct Client(RefCell<State>);

struct State {
    wire: Wire<Bytes>,
    scan: Scan,
    decoder: Decoder,
    body: BodyState,
    /// The client has not had leave yet to send the body.
    owes_continue: bool,
    /// Who waits for the body to be over.
    waiting: Option<Waker>,
    head_limit: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum BodyState {
    /// There is one, and somebody reads it.
    Read,
    Ended,
    /// Nobody reads it any more.
    GivenUp,
    /// It was no body, or the client has left.
    Broken,
}

/// A body cannot be read to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UploadError {
    #[error("the client left before the end of its request")]
    Left,
    #[error("{0}")]
    Framing(BodyError),
    #[error("{0}")]
    Io(io::Error),
}

/// An answer cannot be written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RelayError {
    #[error("{0}")]
    Client(#[from] io::Error),
    #[error("{0}")]
    Length(#[from] WrongLength),
    #[error("{0}")]
    Answer(Box<dyn std::error::Error>),
    #[error("the client left")]
    Left,
}

/// The body of a request under way.
pub(crate) struct Upload(Rc<Client>);

impl Client {
    /// `first` was read already.
    pub(super) fn new(
        stream: TcpStream,
        first: &[u8],
        open: Open,
        (recycled, head_limit): (Rc<Recycled>, usize),
    ) -> Rc<Self> {
        let mut input = recycled.block();
        input.extend_from_slice(first);
        Rc::new(Self(RefCell::new(State {
            wire: Wire::new(stream, open, recycled, input),
            scan: Scan::default(),
            decoder: Decoder::new(Framing::None, head_limit),
            body: BodyState::Ended,
            owes_continue: false,
            waiting: None,
            head_limit,
        })))
    }

    /// The next request's head, if it has been read.
    ///
    /// # Errors
    /// What was read is no head.
    pub(super) fn head(&self) -> Result<Option<RequestHead<ClientBody>>, HeadError> {
        let State { wire, scan, head_limit, .. } = &mut *self.0.borrow_mut();
        let recycled = Rc::clone(wire.recycled());
        head::request(&mut wire.input, scan, *head_limit, || recycled.map())
    }

    /// No byte of another request has come.
    pub(super) fn is_idle(&self) -> bool {
        self.0.borrow().wire.input.is_empty()
    }

    /// Gives the buffers back while nothing is under way.
    pub(super) fn rest(&self) {
        self.0.borrow_mut().wire.rest();
    }

    /// Reads more; 0: the client has ended its side. Cancel safe.
    pub(super) async fn fill(&self) -> io::Result<usize> {
        std::future::poll_fn(|cx| self.0.borrow_mut().wire.poll_fill(cx)).await
    }

    /// The body of the request whose head was read last.
    pub(super) fn body(self: &Rc<Self>, framing: Framing, expects_continue: bool) -> ClientBody {
        let state = &mut *self.0.borrow_mut();
        state.decoder = Decoder::new(framing, state.head_limit);
        if state.decoder.has_ended() {
            state.body = BodyState::Ended;
            return ClientBody::Empty;
        }
        state.body = BodyState::Read;
        // Who sends without waiting needs no leave.
        state.owes_continue = expects_continue && state.wire.input.is_empty();
        ClientBody::Http1(Upload(Rc::clone(self)))
    }

    /// The client still waits for leave to send its body; without it, nobody knows what it sends next.
    pub(super) fn owes_continue(&self) -> bool {
        self.0.borrow().owes_continue
    }

    /// What came as a body was none, and nobody knows where the next request begins.
    pub(super) fn is_broken(&self) -> bool {
        self.0.borrow().body == BodyState::Broken
    }

    /// What `future` gives, unless the client leaves before.
    pub(super) async fn unless_gone<T>(&self, mut future: Pin<&mut impl Future<Output = T>>) -> Option<T> {
        std::future::poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(value) => Poll::Ready(Some(value)),
            Poll::Pending => self.poll_gone(cx).map(|()| None),
        })
        .await
    }

    /// Ends when the client has left; what it sends ahead is kept for later. While its body is read, that tells.
    fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<()> {
        let State { wire, body, .. } = &mut *self.0.borrow_mut();
        while *body == BodyState::Ended && wire.input.len() < READ_AHEAD {
            match ready!(wire.poll_fill(cx)) {
                Ok(0) | Err(_) => return Poll::Ready(()),
                Ok(_) => {}
            }
        }
        Poll::Pending
    }

    /// Puts an answer's head behind what is to be written.
    pub(super) fn begin(&self, head: impl FnOnce(&mut Vec<u8>) -> Framing) {
        self.0.borrow_mut().wire.begin(head);
    }

    /// Writes an answer's body, at the client's pace.
    ///
    /// # Errors
    /// The client has not got it whole: its connection has to end.
    pub(super) async fn relay<B>(&self, body: &mut B) -> Result<(), RelayError>
    where
        B: ReadAhead<Data = Bytes> + Unpin,
        B::Error: std::error::Error + 'static,
    {
        std::future::poll_fn(|cx| self.poll_relay(body, cx)).await
    }

    fn poll_relay<B>(&self, body: &mut B, cx: &mut Context<'_>) -> Poll<Result<(), RelayError>>
    where
        B: ReadAhead<Data = Bytes> + Unpin,
        B::Error: std::error::Error + 'static,
    {
        while !body.is_end_stream() {
            if !self.0.borrow().wire.has_room() && self.poll_flush(cx)?.is_pending() {
                Pin::new(&mut *body).read_ahead(cx);
                return Poll::Pending;
            }
            match Pin::new(&mut *body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    let ended = self.frame(frame)?;
                    if ended {
                        return self.poll_flush(cx);
                    }
                }
                Poll::Ready(Some(Err(error))) => {
                    return Poll::Ready(Err(RelayError::Answer(Box::new(error))));
                }
                Poll::Ready(None) => break,
                Poll::Pending => {
                    let _ = self.poll_flush(cx)?;
                    return self.poll_gone(cx).map(|()| Err(RelayError::Left));
                }
            }
        }
        self.0.borrow_mut().wire.end(None)?;
        self.poll_flush(cx)
    }

    /// True: it was the last one.
    fn frame(&self, frame: Frame<Bytes>) -> Result<bool, RelayError> {
        let wire = &mut self.0.borrow_mut().wire;
        match frame.into_data() {
            Ok(data) => wire.data(data)?,
            Err(frame) => {
                if let Ok(trailers) = frame.into_trailers() {
                    wire.end(Some(&trailers))?;
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<Result<(), RelayError>> {
        Poll::Ready(Ok(ready!(self.0.borrow_mut().wire.poll_flush(cx))?))
    }

    /// Writes what is left.
    pub(super) async fn flush(&self) -> Result<(), RelayError> {
        std::future::poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// Waits until the request's body has been read, or nobody reads it any more. Whether another request can follow.
    pub(super) async fn body_is_over(&self) -> bool {
        std::future::poll_fn(|cx| {
            let state = &mut *self.0.borrow_mut();
            if state.body == BodyState::Read {
                state.waiting = Some(cx.waker().clone());
                return Poll::Pending;
            }
            Poll::Ready(())
        })
        .await;
        let state = &mut *self.0.borrow_mut();
        state.body == BodyState::Ended || state.body == BodyState::GivenUp && state.skip()
    }

    /// Closes, so that a client that is still sending gets the answer.
    pub(super) async fn close(&self) {
        let said_all = {
            let state = self.0.borrow();
            state.body == BodyState::Ended && state.wire.input.is_empty()
        };
        if said_all {
            return;
        }
        self.0.borrow().wire.shut_down();
        let listening = async {
            while matches!(self.fill().await, Ok(1..)) {
                self.0.borrow_mut().wire.input.clear();
            }
        };
        // It has had its time.
        let _ = tokio::time::timeout(LINGERS, listening).await;
    }

    /// The socket, with what was read and not used.
    pub(super) fn into_stream(self: Rc<Self>) -> Option<(TcpStream, BytesMut, Open)> {
        Rc::into_inner(self).map(|client| client.0.into_inner().wire.into_stream())
    }

    pub(super) fn recycled(&self) -> Rc<Recycled> {
        Rc::clone(self.0.borrow().wire.recycled())
    }
}

impl State {
    /// Reads over what has come of a body that nobody wants. True: that was all of it.
    fn skip(&mut self) -> bool {
        let cx = &mut Context::from_waker(Waker::noop());
        let mut skipped = 0;
        while skipped < SKIPPED {
            match self.decoder.decode(&mut self.wire.input) {
                Ok(Decoded::Data(data)) => skipped += data.len(),
                Ok(Decoded::Trailers(_) | Decoded::End) => {
                    self.body = BodyState::Ended;
                    return true;
                }
                Ok(Decoded::More) if matches!(self.wire.poll_fill(cx), Poll::Ready(Ok(1..))) => {}
                Ok(Decoded::More) | Err(_) => return false,
            }
        }
        false
    }

    fn over(&mut self, body: BodyState) {
        self.body = body;
        self.waiting.take().into_iter().for_each(Waker::wake);
    }
}

impl Upload {
    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        let state = &mut *self.0.0.borrow_mut();
        let next = match ready!(state.poll_next(cx)) {
            Ok(Decoded::Data(data)) => {
                if state.decoder.has_ended() {
                    state.over(BodyState::Ended);
                }
                Some(Ok(Frame::data(data)))
            }
            Ok(Decoded::Trailers(trailers)) => {
                state.over(BodyState::Ended);
                Some(Ok(Frame::trailers(trailers)))
            }
            Ok(Decoded::End | Decoded::More) => {
                state.over(BodyState::Ended);
                None
            }
            Err(error) => {
                state.over(BodyState::Broken);
                Some(Err(error))
            }
        };
        Poll::Ready(next)
    }

    pub(super) fn has_ended(&self) -> bool {
        self.0.0.borrow().decoder.has_ended()
    }

    /// The memory that a chunk keeps alive.
    pub(super) fn block(&self) -> usize {
        self.0.0.borrow().wire.block()
    }

    pub(super) fn left(&self) -> Option<u64> {
        self.0.0.borrow().decoder.left()
    }
}

impl State {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Decoded, UploadError>> {
        if std::mem::take(&mut self.owes_continue) {
            self.wire.raw(write::CONTINUE);
            self.wire.try_flush().map_err(UploadError::Io)?;
        }
        loop {
            match self.decoder.decode(&mut self.wire.input).map_err(UploadError::Framing)? {
                Decoded::More => match ready!(self.wire.poll_fill(cx)) {
                    Ok(0) => return Poll::Ready(Err(UploadError::Left)),
                    Ok(_) => {}
                    Err(error) => return Poll::Ready(Err(UploadError::Io(error))),
                },
                decoded => return Poll::Ready(Ok(decoded)),
            }
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let state = &mut *self.0.0.borrow_mut();
        if state.body == BodyState::Read {
            state.over(BodyState::GivenUp);
        }
    }
}

#[cfg(test)]
mod tests;
