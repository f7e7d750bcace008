//! An endpoint's connection without its DATA frames of nothing.
//!
//! They say nothing unless they end their stream, and the `h2` crate ends a connection at the 101st of its life, with all
//! that is on it. It leaves frames of unknown kinds alone (RFC 9113 section 5.5): here, such a frame becomes one of them
//! where it lies, by its kind. Takes what a socket gives, and gives as many bytes; nothing is moved. That bound of h2's is
//! for clients, which nobody has chosen, and stays for them: an endpoint has other ways to keep a connection busy.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A frame's kind (section 6.1), and its flag that it ends its stream.
const DATA: u8 = 0;
const END_STREAM: u8 = 0x1;
/// A kind that stays nobody's: for experiments (section 11.2).
const UNKNOWN: u8 = 0xff;
/// A frame's head begins with three bytes of length, the kind, and the flags; its stream's four follow.
const KIND_AT: u8 = 3;
const FLAGS_AT: u8 = 4;
const STREAM_BYTES: usize = 4;

/// What is written passes as it is.
pub(crate) struct Hushed<T> {
    io: T,
    place: Place,
    held: Held,
}

/// Between two reads.
enum Held {
    Nothing,
    /// A kind whose frame's flags have not come: nobody knows yet whether it says something.
    Kind,
    /// Flags that were read to know the kind before them.
    Flags(u8),
}

/// How far the frames have been read.
#[derive(Default)]
struct Place {
    /// Bytes of the next frame's head that were seen, up to its flags.
    seen: u8,
    /// That frame's, as far as they were seen.
    length: usize,
    kind: u8,
    /// What comes before it of the one before.
    skip: usize,
}

impl<T> Hushed<T> {
    pub(crate) fn new(io: T) -> Self {
        Self { io, place: Place::default(), held: Held::Nothing }
    }
}

impl Place {
    /// Goes on over `bytes`, and makes frames of nothing unknown ones. True: the last byte is a kind that may have to be.
    fn pass(&mut self, bytes: &mut [u8]) -> bool {
        let mut at = 0;
        loop {
            let skipped = self.skip.min(bytes.len() - at);
            at += skipped;
            self.skip -= skipped;
            let Some(&byte) = bytes.get(at) else { break };
            match self.seen {
                ..KIND_AT => self.length = self.length << 8 | usize::from(byte),
                KIND_AT => self.kind = byte,
                FLAGS_AT.. => {
                    if self.says_nothing(byte) {
                        bytes[at - 1] = UNKNOWN;
                    }
                    *self = Self { skip: STREAM_BYTES + self.length, ..Self::default() };
                    at += 1;
                    continue;
                }
            }
            self.seen += 1;
            at += 1;
        }
        self.seen == FLAGS_AT && self.says_nothing(0)
    }

    fn says_nothing(&self, flags: u8) -> bool {
        self.length == 0 && self.kind == DATA && flags & END_STREAM == 0
    }
}

impl<T: AsyncRead + Unpin> Hushed<T> {
    /// Reads the flags that decide on the kind that is held, and no more: `into` may have no more room than for that.
    fn poll_kind(&mut self, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut flags = [0];
        let mut buf = ReadBuf::new(&mut flags);
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut buf))?;
        if let [flags] = *buf.filled() {
            into.put_slice(&[if self.place.says_nothing(flags) { UNKNOWN } else { DATA }]);
            self.place = Place { skip: STREAM_BYTES, ..Place::default() };
            self.held = Held::Flags(flags);
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Hushed<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        match this.held {
            Held::Nothing => {}
            Held::Kind => return this.poll_kind(cx, into),
            Held::Flags(flags) => {
                this.held = Held::Nothing;
                into.put_slice(&[flags]);
                return Poll::Ready(Ok(()));
            }
        }
        let before = into.filled().len();
        ready!(Pin::new(&mut this.io).poll_read(cx, into))?;
        if !this.place.pass(&mut into.filled_mut()[before..]) {
            return Poll::Ready(Ok(()));
        }
        this.held = Held::Kind;
        into.set_filled(into.filled().len() - 1);
        // To give nothing would be to say that the peer has ended.
        if into.filled().len() > before { Poll::Ready(Ok(())) } else { this.poll_kind(cx, into) }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Hushed<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use tokio::io::AsyncReadExt as _;
    use umbra_testkit::frames::{HEADERS, SETTINGS, frame};

    use super::*;

    /// Gives its bytes in reads of these sizes, again and again.
    struct InReads(VecDeque<u8>, Vec<usize>);

    impl AsyncRead for InReads {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            into: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            self.1.rotate_left(1);
            let count = self.1[0].min(into.remaining()).min(self.0.len());
            self.0.drain(..count).for_each(|byte| into.put_slice(&[byte]));
            Poll::Ready(Ok(()))
        }
    }

    /// What comes of `bytes`, read into `room` bytes at a time.
    async fn hushed(bytes: &[u8], reads: Vec<usize>, room: usize) -> Vec<u8> {
        let mut hushed = Hushed::new(InReads(bytes.iter().copied().collect(), reads));
        let (mut all, mut part) = (Vec::new(), vec![0; room]);
        while let count @ 1.. = hushed.read(&mut part).await.expect("it gives what it has") {
            all.extend_from_slice(&part[..count]);
        }
        all
    }

    #[tokio::test]
    async fn frames_of_nothing_become_unknown_and_all_else_is_as_it_was_however_it_is_read() {
        const PADDED: u8 = 0x8;
        let nothing = frame(DATA, 0, 1, &[]);
        let looks_like_it = nothing.repeat(3);
        let frames = [
            frame(SETTINGS, 0, 0, &[]),
            frame(HEADERS, END_STREAM, 1, b"fields"),
            nothing.clone(),
            frame(DATA, 0, 1, &looks_like_it),
            nothing.clone(),
            nothing.clone(),
            frame(DATA, PADDED, 1, &[0]),
            frame(DATA, 0, 1, &[7; 300]),
            nothing.clone(),
            frame(DATA, END_STREAM, 1, &[]),
            nothing.clone(),
        ];
        let unknown = frame(UNKNOWN, 0, 1, &[]);
        let expected = frames.each_ref().map(|one| if *one == nothing { &unknown } else { one });
        let (bytes, expected) = (frames.concat(), expected.map(Vec::as_slice).concat());
        for size in 1..=bytes.len() {
            for room in [1, 2, 5, bytes.len()] {
                assert!(hushed(&bytes, vec![size], room).await == expected, "reads of {size} into {room}");
            }
        }
        for first in 1..bytes.len() {
            assert!(hushed(&bytes, vec![bytes.len(), first], bytes.len()).await == expected, "{first}");
        }
    }

    #[tokio::test]
    async fn an_end_in_the_middle_of_a_head_is_an_end() {
        let nothing = frame(DATA, 0, 1, &[]);
        for length in 0..nothing.len() {
            let all = hushed(&nothing[..length], vec![length.max(1)], 16).await;
            assert!(all.len() == length || length == 4 && all.len() == 3, "{length}: {all:?}");
        }
    }
}
