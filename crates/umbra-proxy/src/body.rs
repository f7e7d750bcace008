//! A request's body on its way to the primary: streamed, kept a little where it may have to be sent again, and handed to
//! the shadows' taps as it passes. The client is read at the primary's pace, never at a mirror's.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Instant;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::clock;
use crate::http2::ReadAhead;
use crate::serve::{ClientBody, ClientError};
use crate::shadow::tap::Tap;

/// What all attempts to send one request read from.
pub(crate) struct Source {
    incoming: ClientBody,
    /// How long the body said it was before any of it was read.
    hint: SizeHint,
    /// What was read so far, while it can still be sent again.
    kept: Option<Vec<Bytes>>,
    kept_bytes: usize,
    keep_limit: usize,
    /// Bytes read so far.
    bytes: u64,
    untouched: bool,
    ended: bool,
    /// When, and who waits for it.
    ended_at: Option<Instant>,
    waiting: Option<Waker>,
    /// The client left, or sent something else than a body.
    broken: bool,
    taps: Vec<Tap>,
}

/// The body for one attempt.
pub(crate) struct RequestBody {
    /// Absent: there is none.
    source: Option<Rc<RefCell<Source>>>,
    /// How many kept chunks this attempt has sent.
    position: usize,
}

/// A handle on a request's body, from which attempts are made. A request without one costs nothing here.
#[derive(Clone)]
pub(crate) struct Bodies {
    source: Option<Rc<RefCell<Source>>>,
    /// When the request went on to its destination.
    began: Instant,
}

impl Bodies {
    pub(crate) fn new(incoming: ClientBody, keep_limit: usize, began: Instant) -> Self {
        if incoming.has_ended() {
            return Self { source: None, began };
        }
        let hint = incoming.size_hint();
        let source = Source {
            incoming,
            hint,
            kept: None,
            kept_bytes: 0,
            keep_limit,
            bytes: 0,
            untouched: true,
            ended: false,
            ended_at: None,
            waiting: None,
            broken: false,
            taps: Vec::new(),
        };
        Self { source: Some(Rc::new(RefCell::new(source))), began }
    }

    /// A body for an attempt. With `keep` another attempt may follow, as long as little was read.
    pub(crate) fn attempt(&self, keep: bool) -> RequestBody {
        if let Some(source) = &self.source {
            let mut source = source.borrow_mut();
            if keep && source.untouched {
                source.kept = Some(Vec::new());
            }
        }
        RequestBody { source: self.source.clone(), position: 0 }
    }

    /// The request has none.
    pub(crate) fn is_none(&self) -> bool {
        self.source.is_none()
    }

    /// The whole body can be sent (again).
    pub(crate) fn is_repeatable(&self) -> bool {
        self.of_source(true, |source| source.untouched || source.kept.is_some())
    }

    /// Reading it from the client failed.
    pub(crate) fn is_broken(&self) -> bool {
        self.of_source(false, |source| source.broken)
    }

    /// No attempt follows.
    pub(crate) fn settle(&self) {
        self.of_source((), |source| source.kept = None);
    }

    /// Chunks read from now on go to `tap` too.
    pub(crate) fn attach(&self, tap: Tap) {
        match &self.source {
            Some(source) if !source.borrow().ended => source.borrow_mut().taps.push(tap),
            _ => tap.end(),
        }
    }

    pub(crate) fn hint(&self) -> SizeHint {
        self.of_source(SizeHint::with_exact(0), |source| source.hint)
    }

    /// When all of it had been read from the client. One waits at a time.
    pub(crate) fn poll_ended(&self, cx: &mut Context<'_>) -> Poll<Instant> {
        self.of_source(Poll::Ready(self.began), |source| {
            if source.ended_at.is_none() {
                source.waiting = Some(cx.waker().clone());
            }
            source.ended_at.map_or(Poll::Pending, Poll::Ready)
        })
    }

    /// When all of it had been read from the client, if it has been.
    pub(crate) fn ended_at(&self) -> Option<Instant> {
        self.of_source(Some(self.began), |source| source.ended_at)
    }

    /// Bytes read so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.of_source(0, |source| source.bytes)
    }

    fn of_source<T>(&self, none: T, some: impl FnOnce(&mut Source) -> T) -> T {
        self.source.as_ref().map_or(none, |source| some(&mut source.borrow_mut()))
    }
}

impl Source {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ClientError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        self.untouched = false;
        match ready!(self.incoming.poll_frame(cx)) {
            Some(Ok(frame)) => {
                self.pass(&frame);
                Poll::Ready(Some(Ok(frame)))
            }
            // The client left: its taps, dropped, cut the copies.
            Some(Err(error)) => {
                self.taps.clear();
                self.kept = None;
                self.broken = true;
                Poll::Ready(Some(Err(error)))
            }
            None => {
                self.end();
                Poll::Ready(None)
            }
        }
    }

    fn pass(&mut self, frame: &Frame<Bytes>) {
        if let Some(chunk) = frame.data_ref() {
            self.bytes += chunk.len() as u64;
            let block = self.incoming.block();
            self.taps.iter().for_each(|tap| tap.data(chunk, block));
            self.keep(chunk);
            if self.incoming.has_ended() {
                self.end();
            }
        } else if let Some(trailers) = frame.trailers_ref() {
            self.taps.iter().for_each(|tap| tap.trailers(trailers));
            // Trailers are not kept: such a request is not repeated.
            self.kept = None;
            // Nothing follows them, and nobody asks: without this the copy would be cut as incomplete.
            self.end();
        }
    }

    fn keep(&mut self, chunk: &Bytes) {
        self.kept_bytes += chunk.len();
        if self.kept_bytes > self.keep_limit {
            self.kept = None;
        }
        if let Some(kept) = &mut self.kept {
            kept.push(chunk.clone());
        }
    }

    fn end(&mut self) {
        self.ended = true;
        self.ended_at.get_or_insert_with(clock::now);
        self.waiting.take().into_iter().for_each(Waker::wake);
        self.taps.drain(..).for_each(|tap| tap.end());
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = ClientError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ClientError>>> {
        let this = &mut *self;
        let Some(source) = &this.source else { return Poll::Ready(None) };
        let mut source = source.borrow_mut();
        if let Some(chunk) = source.kept.as_ref().and_then(|kept| kept.get(this.position)).cloned() {
            this.position += 1;
            return Poll::Ready(Some(Ok(Frame::data(chunk))));
        }
        let frame = ready!(source.poll_next(cx));
        // What was just kept was just sent.
        this.position = source.kept.as_ref().map_or(0, Vec::len);
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        let Some(source) = &self.source else { return true };
        let source = source.borrow();
        source.ended && source.kept.as_ref().is_none_or(|kept| kept.len() == self.position)
    }

    fn size_hint(&self) -> SizeHint {
        self.source.as_ref().map_or(SizeHint::with_exact(0), |source| source.borrow().hint)
    }
}

impl ReadAhead for RequestBody {
    /// Only what is handed on is kept, and goes to the taps.
    fn read_ahead(self: Pin<&mut Self>, cx: &mut Context<'_>) {
        if let Some(source) = &self.source {
            source.borrow_mut().incoming.read_ahead(cx);
        }
    }
}
