//! Lanes: what the requests of one connection run in, one after the other.
//!
//! Takes: requests, as they come. Gives: each to a lane that rests, or says that another lane is needed. A request's future
//! takes some KiB, which a lane has once: they are neither allocated nor moved for each request.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

/// Lanes that rest. As many as a busy client has requests at a time; more than these end when they are done, so that one
/// burst does not cost memory for as long as its connection lasts.
const RESTING: usize = 32;

/// Those of one connection that have nothing to do; the one that rested last is used first.
pub(super) struct Lanes<T>(RefCell<Vec<Rc<Lane<T>>>>);

/// One of them: where its next request is put.
pub(super) struct Lane<T> {
    next: RefCell<Option<T>>,
    waker: RefCell<Waker>,
}

impl<T> Lanes<T> {
    pub(super) fn new() -> Self {
        Self(RefCell::default())
    }

    /// Gives a request to a lane that rests, which is woken; without one, a new lane with it.
    pub(super) fn give(&self, request: T) -> Option<Rc<Lane<T>>> {
        let resting = self.0.borrow_mut().pop();
        match resting {
            Some(lane) => {
                *lane.next.borrow_mut() = Some(request);
                lane.waker.borrow().wake_by_ref();
                None
            }
            None => {
                let (next, waker) = (RefCell::new(Some(request)), RefCell::new(Waker::noop().clone()));
                Some(Rc::new(Lane { next, waker }))
            }
        }
    }

    /// How many rest.
    pub(super) fn resting(&self) -> usize {
        self.0.borrow().len()
    }

    /// Whether a lane that is done may wait for more.
    pub(super) fn rest(&self, lane: &Rc<Lane<T>>) -> bool {
        let mut resting = self.0.borrow_mut();
        let few = resting.len() < RESTING;
        if few {
            resting.push(Rc::clone(lane));
        }
        few
    }
}

impl<T> Lane<T> {
    /// Its next request. Cancel safe.
    pub(super) async fn next(&self) -> T {
        poll_fn(|cx| match self.next.borrow_mut().take() {
            Some(request) => Poll::Ready(request),
            None => {
                self.waker.borrow_mut().clone_from(cx.waker());
                Poll::Pending
            }
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn a_lane_that_rests_is_used_again() {
        let lanes = Lanes::new();
        let lane = lanes.give(1).expect("none rests");
        assert_eq!(lane.next().now_or_never(), Some(1));
        assert!(lanes.give(2).is_some(), "the first is busy");
        assert!(lanes.rest(&lane));
        assert!(lanes.give(3).is_none());
        assert_eq!(lane.next().now_or_never(), Some(3));
        assert_eq!(lane.next().now_or_never(), None);
    }

    #[tokio::test]
    async fn a_lane_that_waits_is_woken() {
        let lanes = Lanes::new();
        let lane = lanes.give(1).expect("none rests");
        assert_eq!(lane.next().await, 1);
        assert!(lanes.rest(&lane));
        let (request, new) = futures::join!(lane.next(), async { lanes.give(2).is_some() });
        assert_eq!((request, new), (2, false));
    }

    #[test]
    fn no_more_rest_than_are_kept() {
        let lanes = Lanes::new();
        let all: Vec<_> = (0..=RESTING).map(|request| lanes.give(request).expect("none rests")).collect();
        let rested = all.iter().filter(|lane| lanes.rest(lane)).count();
        assert_eq!(rested, RESTING);
    }
}
