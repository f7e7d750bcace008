//! A tap: what a request's body hands to one of its shadows without ever waiting for it.
//!
//! Takes: chunks, as the primary gets them, with the size of the block that each is a part of. Gives: a body for the copy.
//! What this keeps in memory counts against `budget` until the copy's connection has let go of it. Past it, the copy is cut.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::IoSlice;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use super::budget::{Budgets, Charge};
use crate::http2::ReadAhead;
use crate::metrics::DropReason;

/// The block of a chunk that came over HTTP/2. The `h2` crate does not say how large it is; it reads whole frames, of
/// 16 KiB at most, into blocks of less than this.
pub(crate) const UNKNOWN_BLOCK: usize = 64 * 1024;
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
    /// None for a request without a body.
    budgets: Option<Arc<Budgets>>,
    /// Bytes that the copy's connection has taken.
    handed_over: Cell<u64>,
}

/// Trailers are charged while they wait here; data as long as the copy's connection holds it.
struct Queued {
    frame: Frame<Charged>,
    _trailers: Option<Charge>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Ended,
    Cut(DropReason),
    /// Nobody reads any more.
    Abandoned,
}

/// Bytes that count against the budgets until they are dropped.
pub(crate) struct Charged {
    bytes: Bytes,
    _charge: Charge,
}

/// A tap for one copy; `budgets` are asked for where there may be a body.
pub(crate) fn tap(budgets: impl FnOnce() -> Budgets, hint: SizeHint) -> (Tap, CopyBody, BodyEnd) {
    let queue = Rc::new(Queue {
        frames: RefCell::default(),
        state: Cell::new(State::Open),
        reader: RefCell::default(),
        task: RefCell::default(),
        budgets: (hint.exact() != Some(0)).then(|| Arc::new(budgets())),
        handed_over: Cell::default(),
    });
    let body = CopyBody { queue: Rc::clone(&queue), hint };
    (Tap(Rc::clone(&queue)), body, BodyEnd(queue))
}

impl Tap {
    /// Hands on a chunk, or cuts the copy when it lags too far behind. `block`: the memory that the chunk keeps alive, its
    /// own included. A chunk of half its block or more is shared, and costs the block; a shorter one is copied, and costs
    /// what it is. So no chunk costs more than twice its bytes, and nothing that is held costs less than it takes.
    pub(crate) fn data(&self, chunk: &Bytes, block: usize) {
        if self.0.state.get() != State::Open || chunk.is_empty() {
            return;
        }
        let shares = chunk.len() >= block / 2;
        let held = if shares { block.max(chunk.len()) } else { chunk.len() };
        let Some(charge) = self.0.charge(held + FRAME_COST) else {
            return self.0.close(State::Cut(DropReason::BodyBudget));
        };
        let bytes = if shares { chunk.clone() } else { Bytes::copy_from_slice(chunk) };
        self.0.push(Queued { frame: Frame::data(Charged { bytes, _charge: charge }), _trailers: None });
    }

    pub(crate) fn trailers(&self, trailers: &HeaderMap) {
        if self.0.state.get() != State::Open {
            return;
        }
        let bytes: usize =
            trailers.iter().map(|(name, value)| name.as_str().len() + value.len() + FRAME_COST).sum();
        match self.0.charge(bytes + FRAME_COST) {
            charge @ Some(_) => {
                self.0.push(Queued { frame: Frame::trailers(trailers.clone()), _trailers: charge });
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
    fn charge(&self, bytes: usize) -> Option<Charge> {
        self.budgets.as_ref()?.charge(bytes)
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

    /// Bytes that the copy's connection has taken so far.
    pub(crate) fn handed_over(&self) -> u64 {
        self.0.handed_over.get()
    }

    /// Why the body was cut, if it was.
    pub(crate) fn cut(&self) -> Option<DropReason> {
        match self.0.state.get() {
            State::Cut(reason) => Some(reason),
            _ => None,
        }
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

impl ReadAhead for CopyBody {
    /// What has come is here, and counts.
    fn read_ahead(self: Pin<&mut Self>, _: &mut Context<'_>) {}
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

    use super::super::budget::Used;
    use super::*;

    fn poll(body: &mut CopyBody) -> Poll<Option<Result<Frame<Charged>, CutError>>> {
        Pin::new(body).poll_frame(&mut Context::from_waker(Waker::noop()))
    }

    /// A tap whose copy may hold so much; and what its worker's copies hold.
    fn tapped(limit: usize) -> ((Tap, CopyBody, BodyEnd), Used) {
        let (mirror, worker) = (Used::default(), Used::default());
        let shared = [mirror.up_to(usize::MAX), worker.up_to(usize::MAX)];
        (tap(|| Budgets::new(limit, shared), SizeHint::default()), worker)
    }

    /// A chunk that is all of its block.
    fn whole(tap: &Tap, chunk: &'static [u8]) {
        tap.data(&Bytes::from_static(chunk), chunk.len());
    }

    #[test]
    fn bytes_count_until_they_are_let_go() {
        let ((tap, mut body, end), worker) = tapped(FRAME_COST + 10);
        whole(&tap, b"12345678");
        assert_eq!(worker.now(), 8 + FRAME_COST);
        let Poll::Ready(Some(Ok(frame))) = poll(&mut body) else { panic!("a frame is there") };
        assert_eq!(worker.now(), 8 + FRAME_COST, "the connection still has it");
        drop(frame);
        assert_eq!(worker.now(), 0);
        whole(&tap, b"12345678");
        assert_eq!(end.cut(), None);
        whole(&tap, b"123");
        assert_eq!(end.cut(), Some(DropReason::BodyBudget));
        assert_eq!(worker.now(), 0, "a cut copy holds nothing");
        assert!(matches!(poll(&mut body), Poll::Ready(Some(Err(_)))));
    }

    #[test]
    fn whichever_budget_is_used_up_first_cuts_and_the_others_get_theirs_back() {
        const PLENTY: usize = 1 << 20;
        for (at, limits) in
            [[10, PLENTY, PLENTY], [PLENTY, 10, PLENTY], [PLENTY, PLENTY, 10]].iter().enumerate()
        {
            let [own, mirror, worker] = limits.map(|limit| limit + 100 * FRAME_COST);
            let (of_mirror, of_worker) = (Used::default(), Used::default());
            let budgets = || Budgets::new(own, [of_mirror.up_to(mirror), of_worker.up_to(worker)]);
            let first = tap(budgets, SizeHint::default());
            first.0.data(&Bytes::from(vec![0; 60 * FRAME_COST]), 0);
            let second = tap(budgets, SizeHint::default());
            second.0.data(&Bytes::from(vec![0; 60 * FRAME_COST]), 0);
            let together = at > 0;
            assert_eq!(second.2.cut(), together.then_some(DropReason::BodyBudget), "{limits:?}");
            first.0.data(&Bytes::from(vec![0; 60 * FRAME_COST]), 0);
            assert_eq!(first.2.cut(), Some(DropReason::BodyBudget), "{limits:?}");
            drop((first, second));
            assert_eq!((of_mirror.now(), of_worker.now()), (0, 0), "{limits:?}");
        }
    }

    #[test]
    fn what_is_held_costs_no_less_than_the_memory_it_keeps() {
        const BLOCK: usize = 64 * 1024;
        let block = Bytes::from(vec![7; BLOCK]);
        for (bytes, shared) in [(BLOCK, true), (BLOCK / 2, true), (BLOCK / 2 - 1, false), (1, false)] {
            let ((tap, mut body, _end), worker) = tapped(BLOCK + FRAME_COST);
            let chunk = block.slice(..bytes);
            tap.data(&chunk, BLOCK);
            assert_eq!(worker.now(), if shared { BLOCK } else { bytes } + FRAME_COST, "{bytes}");
            let Poll::Ready(Some(Ok(frame))) = poll(&mut body) else { panic!("a frame is there") };
            let data = frame.into_data().unwrap_or_else(|_| panic!("data"));
            assert_eq!(
                data.bytes.as_ptr() == chunk.as_ptr(),
                shared,
                "{bytes}: the block is kept, or it is not"
            );
            assert_eq!(data.bytes, chunk);
        }
    }

    #[test]
    fn tiny_chunks_and_trailers_cost_what_they_hold() {
        let budget = 16 * FRAME_COST;
        let ((data, _body, end), _) = tapped(budget);
        (0..16).for_each(|_| whole(&data, b"x"));
        assert_eq!(end.cut(), Some(DropReason::BodyBudget), "16 bytes, and 16 frames");
        let ((tap, mut body, end), worker) = tapped(budget);
        let trailers = HeaderMap::from_iter([(http::header::ETAG, http::HeaderValue::from_static("1"))]);
        tap.trailers(&trailers);
        assert_eq!(worker.now(), 2 * FRAME_COST + 5);
        assert!(matches!(poll(&mut body), Poll::Ready(Some(Ok(_)))));
        assert_eq!(worker.now(), 0, "handed over");
        (0..16).for_each(|_| tap.trailers(&trailers));
        assert_eq!(end.cut(), Some(DropReason::BodyBudget));
    }

    #[test]
    fn a_tap_dropped_before_the_end_cuts_and_after_it_does_not() {
        let ((cut, mut body, end), _) = tapped(10);
        drop(cut);
        assert_eq!(end.cut(), Some(DropReason::Incomplete));
        assert!(matches!(poll(&mut body), Poll::Ready(Some(Err(_)))));
        let ((whole, mut body, end), _) = tapped(10);
        whole.end();
        drop(whole);
        assert_eq!(end.cut(), None);
        assert!(matches!(poll(&mut body), Poll::Ready(None)));
    }
}
