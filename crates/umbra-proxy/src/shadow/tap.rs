//! A tap: what a request's body hands to one of its shadows without ever waiting for it.
//!
//! Takes: chunks, as the primary gets them. Gives: a body for the copy. Bytes are shared, not copied, and counted
//! against two budgets until the copy's connection has let go of them; past either, the copy is cut.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::IoSlice;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use hyper::HeaderMap;

use crate::metrics::DropReason;

/// A slice of a read block keeps the whole block alive. Shorter ones are copied, so that the blocks kept alive are not
/// many times what the budget says: blocks are at most `Limits::head_bytes`, and mostly one slice each.
const SHARED_FROM: usize = 4096;
/// What a frame takes besides its bytes: its place in the queue (about 100 bytes, twice that while the queue grows) and
/// the allocation of a copied chunk. Without it, a body of one-byte chunks would cost a hundred times its budget.
pub(crate) const FRAME_COST: usize = 256;

/// The body was cut; the copy's connection ends.
#[derive(Debug, thiserror::Error)]
#[error("the copy was cut: {}", .0.as_str())]
pub(crate) struct CutError(DropReason);

/// The writing end, held by the primary's body. Dropped before [`Tap::end`], it cuts the copy.
pub(crate) struct Tap(Rc<Queue>);

/// The reading end, for the copy's connection.
pub(crate) struct CopyBody {
    queue: Rc<Queue>,
    hint: SizeHint,
}

/// Tells the shadow's task how the body ended.
#[derive(Clone)]
pub(crate) struct BodyEnd(Rc<Queue>);

struct Queue {
    frames: RefCell<VecDeque<Queued>>,
    state: Cell<State>,
    /// Woken by new frames.
    reader: RefCell<Option<Waker>>,
    /// Woken by the end.
    task: RefCell<Option<Waker>>,
    budgets: [Budget; 2],
    /// Bytes that the copy's connection has taken.
    handed_over: Rc<Cell<u64>>,
}

/// Trailers are charged while they wait here; data as long as the copy's connection holds it.
struct Queued {
    frame: Frame<Charged>,
    _trailers: Option<[Charge; 2]>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Ended,
    Cut(DropReason),
    /// Nobody reads any more.
    Abandoned,
}

/// Bytes that may be held.
#[derive(Clone)]
pub(crate) struct Budget {
    used: Arc<AtomicUsize>,
    limit: usize,
}

impl Budget {
    pub(crate) fn new(limit: usize) -> Self {
        Self { used: Arc::default(), limit }
    }

    #[cfg(test)]
    fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    fn charge(&self, bytes: usize) -> Option<Charge> {
        let more = |used: usize| used.checked_add(bytes).filter(|used| *used <= self.limit);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Charge { used: Arc::clone(&self.used), bytes })
    }
}

struct Charge {
    used: Arc<AtomicUsize>,
    bytes: usize,
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Bytes that count against the budgets until they are dropped.
pub(crate) struct Charged {
    bytes: Bytes,
    _charges: [Charge; 2],
}

/// A tap for one copy. `own` is this copy's budget, `worker` all copies'.
pub(crate) fn tap(own: Budget, worker: Budget, hint: SizeHint) -> (Tap, CopyBody, BodyEnd) {
    let queue = Rc::new(Queue {
        frames: RefCell::default(),
        state: Cell::new(State::Open),
        reader: RefCell::default(),
        task: RefCell::default(),
        budgets: [own, worker],
        handed_over: Rc::default(),
    });
    let body = CopyBody { queue: Rc::clone(&queue), hint };
    (Tap(Rc::clone(&queue)), body, BodyEnd(queue))
}

impl Tap {
    /// Hands on a chunk, or cuts the copy when it lags too far behind.
    pub(crate) fn data(&self, chunk: &Bytes) {
        if self.0.state.get() != State::Open || chunk.is_empty() {
            return;
        }
        let Some(charges) = self.0.charge(chunk.len() + FRAME_COST) else {
            return self.0.close(State::Cut(DropReason::BodyBudget));
        };
        let bytes = if chunk.len() < SHARED_FROM { Bytes::copy_from_slice(chunk) } else { chunk.clone() };
        self.0.push(Queued { frame: Frame::data(Charged { bytes, _charges: charges }), _trailers: None });
    }

    pub(crate) fn trailers(&self, trailers: &HeaderMap) {
        if self.0.state.get() != State::Open {
            return;
        }
        let bytes: usize =
            trailers.iter().map(|(name, value)| name.as_str().len() + value.len() + FRAME_COST).sum();
        match self.0.charge(bytes + FRAME_COST) {
            Some(charges) => {
                self.0.push(Queued { frame: Frame::trailers(trailers.clone()), _trailers: Some(charges) });
            }
            None => self.0.close(State::Cut(DropReason::BodyBudget)),
        }
    }

    /// The body is whole.
    pub(crate) fn end(&self) {
        self.0.close(State::Ended);
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.0.close(State::Cut(DropReason::Incomplete));
    }
}

impl Queue {
    fn charge(&self, bytes: usize) -> Option<[Charge; 2]> {
        let [own, worker] = &self.budgets;
        own.charge(bytes).and_then(|own| Some([own, worker.charge(bytes)?]))
    }

    fn push(&self, frame: Queued) {
        self.frames.borrow_mut().push_back(frame);
        wake(&self.reader);
    }

    /// The first close counts.
    fn close(&self, state: State) {
        if self.state.get() != State::Open {
            return;
        }
        self.state.set(state);
        if state != State::Ended {
            self.frames.borrow_mut().clear();
        }
        wake(&self.reader);
        wake(&self.task);
    }
}

fn wake(waker: &RefCell<Option<Waker>>) {
    if let Some(waker) = waker.borrow_mut().take() {
        waker.wake();
    }
}

impl BodyEnd {
    /// Waits until the body is whole (`None`) or was cut. Cancel safe; one waiter at a time.
    pub(crate) async fn wait(&self) -> Option<DropReason> {
        std::future::poll_fn(|cx| match self.0.state.get() {
            State::Open => {
                *self.0.task.borrow_mut() = Some(cx.waker().clone());
                Poll::Pending
            }
            State::Ended | State::Abandoned => Poll::Ready(None),
            State::Cut(reason) => Poll::Ready(Some(reason)),
        })
        .await
    }

    /// Why the body was cut, if it was.
    pub(crate) fn cut(&self) -> Option<DropReason> {
        match self.0.state.get() {
            State::Cut(reason) => Some(reason),
            _ => None,
        }
    }
}

impl CopyBody {
    /// Goes on counting the bytes that the copy's connection takes.
    pub(crate) fn handed_over(&self) -> Rc<Cell<u64>> {
        Rc::clone(&self.queue.handed_over)
    }
}

impl Body for CopyBody {
    type Data = Charged;
    type Error = CutError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Charged>, CutError>>> {
        if let Some(Queued { frame, .. }) = self.queue.frames.borrow_mut().pop_front() {
            let taken = frame.data_ref().map_or(0, |data| data.bytes.len() as u64);
            self.queue.handed_over.set(self.queue.handed_over.get() + taken);
            return Poll::Ready(Some(Ok(frame)));
        }
        match self.queue.state.get() {
            State::Open => {
                *self.queue.reader.borrow_mut() = Some(cx.waker().clone());
                Poll::Pending
            }
            State::Ended | State::Abandoned => Poll::Ready(None),
            State::Cut(reason) => Poll::Ready(Some(Err(CutError(reason)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.queue.state.get() == State::Ended && self.queue.frames.borrow().is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        self.hint
    }
}

impl Drop for CopyBody {
    fn drop(&mut self) {
        self.queue.close(State::Abandoned);
        self.queue.frames.borrow_mut().clear();
    }
}

impl Buf for Charged {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
    }

    fn chunks_vectored<'a>(&'a self, into: &mut [IoSlice<'a>]) -> usize {
        self.bytes.chunks_vectored(into)
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    fn poll(body: &mut CopyBody) -> Poll<Option<Result<Frame<Charged>, CutError>>> {
        Pin::new(body).poll_frame(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn bytes_count_until_they_are_let_go() {
        let worker = Budget::new(1_000);
        let (tap, mut body, end) = tap(Budget::new(FRAME_COST + 10), worker.clone(), SizeHint::default());
        tap.data(&Bytes::from_static(b"12345678"));
        assert_eq!(worker.used(), 8 + FRAME_COST);
        let Poll::Ready(Some(Ok(frame))) = poll(&mut body) else { panic!("a frame is there") };
        assert_eq!(worker.used(), 8 + FRAME_COST, "the connection still has it");
        drop(frame);
        assert_eq!(worker.used(), 0);
        tap.data(&Bytes::from_static(b"12345678"));
        assert_eq!(end.cut(), None);
        tap.data(&Bytes::from_static(b"123"));
        assert_eq!(end.cut(), Some(DropReason::BodyBudget));
        assert_eq!(worker.used(), 0, "a cut copy holds nothing");
        assert!(matches!(poll(&mut body), Poll::Ready(Some(Err(_)))));
    }

    #[test]
    fn tiny_chunks_and_trailers_cost_what_they_hold() {
        let budget = 16 * FRAME_COST;
        let (data, _body, end) = tap(Budget::new(budget), Budget::new(budget), SizeHint::default());
        (0..16).for_each(|_| data.data(&Bytes::from_static(b"x")));
        assert_eq!(end.cut(), Some(DropReason::BodyBudget), "16 bytes, and 16 frames");
        let worker = Budget::new(budget);
        let (tap, mut body, end) = tap(Budget::new(budget), worker.clone(), SizeHint::default());
        let trailers = HeaderMap::from_iter([(http::header::ETAG, http::HeaderValue::from_static("1"))]);
        tap.trailers(&trailers);
        assert_eq!(worker.used(), 2 * FRAME_COST + 5);
        assert!(matches!(poll(&mut body), Poll::Ready(Some(Ok(_)))));
        assert_eq!(worker.used(), 0, "handed over");
        (0..16).for_each(|_| tap.trailers(&trailers));
        assert_eq!(end.cut(), Some(DropReason::BodyBudget));
    }

    #[test]
    fn a_tap_dropped_before_the_end_cuts_and_after_it_does_not() {
        let (cut, mut body, end) = tap(Budget::new(10), Budget::new(10), SizeHint::default());
        drop(cut);
        assert_eq!(end.cut(), Some(DropReason::Incomplete));
        assert!(matches!(poll(&mut body), Poll::Ready(Some(Err(_)))));
        let (whole, mut body, end) = tap(Budget::new(10), Budget::new(10), SizeHint::default());
        whole.end();
        drop(whole);
        assert_eq!(end.cut(), None);
        assert!(matches!(poll(&mut body), Poll::Ready(None)));
    }
}
