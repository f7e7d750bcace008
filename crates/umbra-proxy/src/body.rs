//! A request's body on its way to the primary: streamed, kept a little where it may have to be sent again, and handed to
//! the shadows' taps as it passes. The client is read at the primary's pace, never at a mirror's.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Instant;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use crate::shadow::tap::{Tap, UNKNOWN_BLOCK};

/// What all attempts to send one request read from.
pub(crate) struct Source {
    incoming: Incoming,
    /// How long the body said it was before any of it was read.
    hint: SizeHint,
    /// What was read so far, while it can still be sent again.
    kept: Option<Vec<Bytes>>,
    kept_bytes: usize,
    keep_limit: usize,
    /// Bytes read so far.
    bytes: Rc<Cell<u64>>,
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
    source: Rc<RefCell<Source>>,
    /// How many kept chunks this attempt has sent.
    position: usize,
}

/// A handle on a request's body, from which attempts are made.
#[derive(Clone)]
pub(crate) struct Bodies(Rc<RefCell<Source>>);

impl Bodies {
    pub(crate) fn new(incoming: Incoming, keep_limit: usize) -> Self {
        let (hint, ended) = (incoming.size_hint(), incoming.is_end_stream());
        Self(Rc::new(RefCell::new(Source {
            incoming,
            hint,
            kept: None,
            kept_bytes: 0,
            keep_limit,
            bytes: Rc::default(),
            untouched: true,
            ended,
            ended_at: ended.then(Instant::now),
            waiting: None,
            broken: false,
            taps: Vec::new(),
        })))
    }

    /// A body for an attempt. With `keep` another attempt may follow, as long as little was read.
    pub(crate) fn attempt(&self, keep: bool) -> RequestBody {
        let mut source = self.0.borrow_mut();
        if keep && source.untouched {
            source.kept = Some(Vec::new());
        }
        RequestBody { source: Rc::clone(&self.0), position: 0 }
    }

    /// The whole body can be sent (again).
    pub(crate) fn is_repeatable(&self) -> bool {
        let source = self.0.borrow();
        source.untouched || source.kept.is_some()
    }

    /// Reading it from the client failed.
    pub(crate) fn is_broken(&self) -> bool {
        self.0.borrow().broken
    }

    /// No attempt follows.
    pub(crate) fn settle(&self) {
        self.0.borrow_mut().kept = None;
    }

    /// Chunks read from now on go to `tap` too.
    pub(crate) fn attach(&self, tap: Tap) {
        let mut source = self.0.borrow_mut();
        if source.ended {
            tap.end();
        } else {
            source.taps.push(tap);
        }
    }

    pub(crate) fn hint(&self) -> SizeHint {
        self.0.borrow().hint
    }

    /// When all of it had been read from the client. One waits at a time.
    pub(crate) fn poll_ended(&self, cx: &mut Context<'_>) -> Poll<Instant> {
        let mut source = self.0.borrow_mut();
        if source.ended_at.is_none() {
            source.waiting = Some(cx.waker().clone());
        }
        source.ended_at.map_or(Poll::Pending, Poll::Ready)
    }

    /// Goes on counting the bytes that are read.
    pub(crate) fn bytes(&self) -> Rc<Cell<u64>> {
        Rc::clone(&self.0.borrow().bytes)
    }
}

impl Source {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        self.untouched = false;
        match ready!(Pin::new(&mut self.incoming).poll_frame(cx)) {
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
            self.bytes.set(self.bytes.get() + chunk.len() as u64);
            self.taps.iter().for_each(|tap| tap.data(chunk, UNKNOWN_BLOCK));
            self.keep(chunk);
            if self.incoming.is_end_stream() {
                self.end();
            }
        } else if let Some(trailers) = frame.trailers_ref() {
            self.taps.iter().for_each(|tap| tap.trailers(trailers));
            // Trailers are not kept: such a request is not repeated.
            self.kept = None;
            // Nothing follows them, and hyper does not ask: without this the copy would be cut as incomplete.
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
        self.ended_at.get_or_insert_with(Instant::now);
        self.waiting.take().into_iter().for_each(Waker::wake);
        self.taps.drain(..).for_each(|tap| tap.end());
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = &mut *self;
        let mut source = this.source.borrow_mut();
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
        let source = self.source.borrow();
        source.ended && source.kept.as_ref().is_none_or(|kept| kept.len() == self.position)
    }

    fn size_hint(&self) -> SizeHint {
        self.source.borrow().hint
    }
}
