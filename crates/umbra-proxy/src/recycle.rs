//! What requests leave behind for the next ones of their worker: header maps, blocks that sockets are read into, encoded
//! heads, timers. A request in a steady stream of them allocates none of these.
//!
//! Everything kept is empty and bounded: [`Recycled`] never holds a byte of anybody's request.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use http::HeaderMap;
use tokio::time::{Instant, Sleep};

/// What a socket is read into at first: most heads with what follows them fit.
pub(crate) const BLOCK: usize = 8 * 1024;
/// What it is read into when blocks come full: a large body then takes a system call for each of these.
pub(crate) const LARGE_BLOCK: usize = 64 * 1024;
/// Kept of each kind: as many as are in use at a time on a busy worker. All kept blocks together are 1.25 MiB at most.
const KEPT: usize = 64;
const LARGE_KEPT: usize = 12;
/// A header map or head that has grown beyond this is not kept: one huge request must not cost for ever.
const LARGEST_MAP: usize = 64;
const LARGEST_HEAD: usize = 8 * 1024;

/// One worker's.
#[derive(Default)]
pub(crate) struct Recycled {
    blocks: RefCell<Vec<BytesMut>>,
    large_blocks: RefCell<Vec<BytesMut>>,
    maps: RefCell<Vec<HeaderMap>>,
    heads: RefCell<Vec<Vec<u8>>>,
    timers: RefCell<Vec<Pin<Box<Sleep>>>>,
}

impl Recycled {
    /// An empty block to read into.
    pub(crate) fn block(&self) -> BytesMut {
        self.blocks.borrow_mut().pop().unwrap_or_else(|| BytesMut::with_capacity(BLOCK))
    }

    /// A larger one.
    pub(crate) fn large_block(&self) -> BytesMut {
        self.large_blocks.borrow_mut().pop().unwrap_or_else(|| BytesMut::with_capacity(LARGE_BLOCK))
    }

    /// Takes a block back, unless somebody still holds a part of it.
    pub(crate) fn put_block(&self, mut block: BytesMut) {
        block.clear();
        let (kept, most, size) = match block.try_reclaim(LARGE_BLOCK) {
            true => (&self.large_blocks, LARGE_KEPT, LARGE_BLOCK),
            false => (&self.blocks, KEPT, BLOCK),
        };
        let mut kept = kept.borrow_mut();
        if kept.len() < most && block.try_reclaim(size) {
            kept.push(block);
        }
    }

    /// An empty header map.
    pub(crate) fn map(&self) -> HeaderMap {
        self.maps.borrow_mut().pop().unwrap_or_default()
    }

    pub(crate) fn put_map(&self, mut map: HeaderMap) {
        let mut kept = self.maps.borrow_mut();
        if (1..=LARGEST_MAP).contains(&map.capacity()) && kept.len() < KEPT {
            map.clear();
            kept.push(map);
        }
    }

    /// An empty buffer for a head.
    pub(crate) fn head(&self) -> Vec<u8> {
        self.heads.borrow_mut().pop().unwrap_or_default()
    }

    pub(crate) fn put_head(&self, mut head: Vec<u8>) {
        let mut kept = self.heads.borrow_mut();
        if (1..=LARGEST_HEAD).contains(&head.capacity()) && kept.len() < KEPT {
            head.clear();
            kept.push(head);
        }
    }

    /// A timer that ends at `at`. One at hand that runs already, and is due before that, is set again only when it is due: so
    /// timers that hardly ever end cost next to nothing.
    pub(crate) fn timer(self: &Rc<Self>, at: Instant) -> Timer {
        let sleep = match self.timers.borrow_mut().pop() {
            None => Box::pin(tokio::time::sleep_until(at)),
            Some(mut sleep) => {
                if sleep.is_elapsed() || sleep.deadline() > at {
                    sleep.as_mut().reset(at);
                }
                sleep
            }
        };
        Timer { at, sleep: Some(sleep), recycled: Rc::clone(self) }
    }

    fn put_sleep(&self, sleep: Pin<Box<Sleep>>) {
        let mut kept = self.timers.borrow_mut();
        if kept.len() < KEPT {
            kept.push(sleep);
        }
    }
}

/// Ends at its time. Whoever dropped it before may be woken once more for nothing.
pub(crate) struct Timer {
    at: Instant,
    /// Absent when dropped.
    sleep: Option<Pin<Box<Sleep>>>,
    recycled: Rc<Recycled>,
}

impl Future for Timer {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let at = self.at;
        let Some(sleep) = &mut self.sleep else { return Poll::Ready(()) };
        loop {
            ready!(sleep.as_mut().poll(cx));
            if Instant::now() >= at {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(at);
        }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.sleep.take().into_iter().for_each(|sleep| self.recycled.put_sleep(sleep));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn blocks_come_back_when_nobody_holds_a_part_of_them() {
        let recycled = Recycled::default();
        let mut block = recycled.block();
        block.extend_from_slice(b"head");
        let (at, part) = (block.as_ptr(), block.split().freeze());
        recycled.put_block(block);
        assert!(recycled.blocks.borrow().is_empty(), "somebody reads it");
        drop(part);
        let mut block = recycled.block();
        assert!(block.as_ptr() != at || block.is_empty());
        block.extend_from_slice(b"head");
        let at = block.as_ptr();
        drop(block.split());
        recycled.put_block(block);
        let again = recycled.block();
        assert_eq!((again.as_ptr(), again.len(), again.capacity()), (at, 0, BLOCK));
    }

    #[test]
    fn large_blocks_are_kept_apart() {
        let recycled = Recycled::default();
        recycled.put_block(recycled.large_block());
        assert_eq!(recycled.block().capacity(), BLOCK);
        assert_eq!(recycled.large_block().capacity(), LARGE_BLOCK);
    }

    #[tokio::test]
    async fn a_timer_at_hand_ends_no_sooner_and_no_later_than_asked() {
        let recycled = Rc::new(Recycled::default());
        let now = Instant::now();
        let [soon, late] = [2, 4_000].map(|milliseconds| now + Duration::from_millis(milliseconds));
        let due = |timer: &Timer| timer.sleep.as_ref().map(|sleep| sleep.deadline());
        drop(recycled.timer(late));
        let timer = recycled.timer(soon);
        assert_eq!(due(&timer), Some(soon), "sooner than the one at hand");
        drop(timer);
        let later = now + Duration::from_millis(6);
        let mut timer = recycled.timer(later);
        assert_eq!(due(&timer), Some(soon), "it runs as it is");
        (&mut timer).await;
        assert!(Instant::now() >= later);
        drop(timer);
        assert_eq!(due(&recycled.timer(late)), Some(late), "one that has ended is set");
        assert_eq!(recycled.timers.borrow().len(), 1, "it was one all the time");
    }
}
