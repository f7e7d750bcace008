//! What has come of a body and waits for whoever reads it.
//!
//! The `h2` crate has an entry for each frame that nobody has read, however little is in it, and ends a connection that
//! has too many: a stream of small messages whose reader has stopped would end all others on its connection. Taken out in
//! time and joined here, what waits takes little more than its bytes, and those are its window's at most: the window opens
//! again when they are handed on.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::Context;

use bytes::Bytes;
use http_body::Body;

/// A chunk from here on is kept as it came: h2 counts frames that are shorter.
const SMALL: usize = 256;
/// Small ones become chunks of up to this, a frame's usual size. What they wait in is less than twice as large.
const JOINED: usize = 16 * 1024;

/// A body that need not wait in the connection that it comes on.
pub(crate) trait ReadAhead: Body {
    /// Takes what has come, as far as the sender's window lets it, and has `cx` woken for more. Called while nobody can
    /// take the next frame, which is the same as before.
    fn read_ahead(self: Pin<&mut Self>, cx: &mut Context<'_>);
}

/// Chunks in the order in which they came, small ones joined.
#[derive(Default)]
pub(super) struct Ahead {
    chunks: VecDeque<Bytes>,
    /// Behind them: what others still join.
    small: Vec<u8>,
}

impl Ahead {
    pub(super) fn put(&mut self, chunk: Bytes) {
        if chunk.len() >= SMALL || self.small.len() + chunk.len() > JOINED {
            self.close();
        }
        match chunk.len() {
            SMALL.. => self.chunks.push_back(chunk),
            _ => self.small.extend_from_slice(&chunk),
        }
    }

    pub(super) fn take(&mut self) -> Option<Bytes> {
        if self.chunks.is_empty() {
            self.close();
        }
        self.chunks.pop_front()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.chunks.is_empty() && self.small.is_empty()
    }

    fn close(&mut self) {
        if !self.small.is_empty() {
            self.chunks.push_back(std::mem::take(&mut self.small).into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_chunks_are_joined_large_ones_kept_and_none_overtakes_another() {
        let (mut ahead, large) = (Ahead::default(), Bytes::from(vec![b'x'; SMALL]));
        (0..3).for_each(|_| ahead.put(Bytes::from_static(b"abc")));
        ahead.put(large.clone());
        ahead.put(Bytes::new());
        ahead.put(Bytes::from_static(b"d"));
        assert!(!ahead.is_empty());
        assert_eq!(ahead.take().expect("three"), "abcabcabc");
        let kept = ahead.take().expect("one");
        assert_eq!((kept.as_ptr(), kept.len()), (large.as_ptr(), SMALL), "not copied");
        assert_eq!(ahead.take().expect("one"), "d");
        assert!(ahead.is_empty() && ahead.take().is_none());
    }

    #[test]
    fn what_is_joined_waits_in_less_than_twice_its_bytes_and_in_frames() {
        let mut ahead = Ahead::default();
        for _ in 0..3 * JOINED / 10 {
            ahead.put(Bytes::from_static(b"ten bytes."));
            assert!(ahead.small.capacity() <= 2 * ahead.small.len().max(8), "{}", ahead.small.capacity());
        }
        let taken: Vec<_> = std::iter::from_fn(|| ahead.take()).collect();
        assert_eq!(taken.len(), 4);
        assert!(taken.iter().all(|chunk| chunk.len() <= JOINED));
        assert_eq!(taken.concat(), b"ten bytes.".repeat(3 * JOINED / 10));
    }
}
