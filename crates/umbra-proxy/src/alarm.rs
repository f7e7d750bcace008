//! Futures beside a connection that hardly ever have anything to say: they are polled when they have, and not with every
//! request.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures::task::AtomicWaker;

/// One future in a task that is polled for other reasons all the time.
pub(crate) struct Alarm<F> {
    future: F,
    bell: Arc<Bell>,
    waker: Waker,
}

/// Rung by what the future waits for.
struct Bell {
    has_rung: AtomicBool,
    task: AtomicWaker,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.has_rung.store(true, Ordering::Release);
        self.task.wake();
    }
}

impl<F: Future + Unpin> Alarm<F> {
    pub(crate) fn new(future: F) -> Self {
        // The first poll starts it.
        let bell = Arc::new(Bell { has_rung: AtomicBool::new(true), task: AtomicWaker::new() });
        Self { future, waker: Waker::from(Arc::clone(&bell)), bell }
    }
}

/// Polled again once it has ended, as the future is.
impl<F: Future + Unpin> Future for Alarm<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.bell.task.register(cx.waker());
        if !self.bell.has_rung.swap(false, Ordering::AcqRel) {
            return Poll::Pending;
        }
        let Self { future, waker, .. } = &mut *self;
        Pin::new(future).poll(&mut Context::from_waker(waker))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn what_has_nothing_to_say_is_not_asked() {
        let (asked, inner) = (Cell::new(0), Cell::new(None::<Waker>));
        let future = std::future::poll_fn(|cx| {
            asked.set(asked.get() + 1);
            inner.set(Some(cx.waker().clone()));
            if asked.get() < 3 { Poll::Pending } else { Poll::Ready(()) }
        });
        let (mut alarm, cx) = (Alarm::new(future), &mut Context::from_waker(Waker::noop()));
        for expected in [1, 2] {
            for _ in 0..3 {
                assert!(Pin::new(&mut alarm).poll(cx).is_pending());
                assert_eq!(asked.get(), expected);
            }
            inner.take().expect("it waits").wake();
        }
        assert!(Pin::new(&mut alarm).poll(cx).is_ready());
    }
}
