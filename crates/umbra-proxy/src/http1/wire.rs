//! One end of a connection: its socket, what was read and not used, and what is to be written.
//!
//! Takes: heads, and bodies chunk by chunk. Gives: bytes on the socket, in as few system calls as it can: a head goes out
//! with the first of its body, and small chunks are put together. Holds one chunk at most, so that a body is read no
//! faster than the peer takes it; holds no buffer while nothing is under way.

use std::io::{self, IoSlice};
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use http::HeaderMap;
use tokio::net::TcpStream;

use super::{Framing, write};
use crate::acked;
use crate::descriptors::Open;
use crate::recycle::{BLOCK, LARGE_BLOCK, Recycled};
use crate::socket;

/// Chunks up to this are copied behind their head: one buffer is written faster than two (14.9 against 15.3 us for 128
/// bytes, and slower at 4 KiB; spec/data-plane.md 2).
const COPIED: usize = 2048;
/// Room for the next read; below it another block is taken.
const LEAST_ROOM: usize = 1024;
/// Pieces of one write: what was put together, a chunk of one or two slices, its end.
const SLICES: usize = 4;

/// One end of a connection whose bodies come in chunks `D`.
pub(crate) struct Wire<D> {
    stream: TcpStream,
    /// Read, and not used yet.
    pub(crate) input: BytesMut,
    /// The last read filled its block: there is much to come.
    is_flooded: bool,
    /// How large the block is that `input` is a part of.
    block: usize,
    output: Vec<u8>,
    /// How much of `output` is written.
    written_out: usize,
    /// Written behind `output`: data too large to be copied.
    chunk: Option<D>,
    /// Written behind `chunk`.
    tail: Vec<u8>,
    /// What the body under way may still have, when its length was said.
    framing: Framing,
    /// Bytes written and read so far.
    written: u64,
    received: u64,
    /// The kernel has said so: nothing is left of the connection.
    is_broken: bool,
    /// The kernel notices when the peer vanishes.
    is_looked_after: bool,
    recycled: Rc<Recycled>,
    _open: Open,
}

/// A body that is longer or shorter than its head says.
#[derive(Debug, thiserror::Error)]
#[error("the body is not as long as its head says")]
pub(crate) struct WrongLength;

impl<D: Buf> Wire<D> {
    /// `input` was read already.
    pub(crate) fn new(stream: TcpStream, open: Open, recycled: Rc<Recycled>, input: BytesMut) -> Self {
        Self {
            stream,
            input,
            is_flooded: false,
            block: BLOCK,
            output: Vec::new(),
            written_out: 0,
            chunk: None,
            tail: Vec::new(),
            framing: Framing::None,
            written: 0,
            received: 0,
            is_broken: false,
            is_looked_after: false,
            recycled,
            _open: open,
        }
    }

    /// Reads more behind `input`; 0: the peer has ended its side. Cancel safe.
    ///
    /// # Errors
    /// The connection broke.
    pub(crate) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.stream.poll_read_ready(cx))?;
            self.make_room();
            let room = self.input.capacity() - self.input.len();
            match self.stream.try_read_buf(&mut self.input) {
                Ok(count) => {
                    self.is_flooded = count == room;
                    if (1..room).contains(&count) {
                        socket::read_dry(&self.stream);
                    }
                    self.received += count as u64;
                    return Poll::Ready(Ok(count));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => {
                    self.is_broken = true;
                    return Poll::Ready(Err(error));
                }
            }
        }
    }

    fn make_room(&mut self) {
        if self.input.capacity() == 0 {
            self.input = if self.is_flooded { self.recycled.large_block() } else { self.recycled.block() };
        } else if self.input.is_empty() && self.is_flooded && !self.input.try_reclaim(LARGE_BLOCK) {
            let small = std::mem::replace(&mut self.input, self.recycled.large_block());
            self.recycled.put_block(small);
        } else if self.input.capacity() - self.input.len() < LEAST_ROOM {
            self.input.reserve(if self.is_flooded { LARGE_BLOCK } else { BLOCK });
        } else {
            return;
        }
        self.block = self.input.capacity();
    }

    /// How large the block is that was read into last: what a part of it keeps alive.
    pub(crate) fn block(&self) -> usize {
        self.block
    }

    /// Begins a message: `head` writes it, and says how its body is framed.
    pub(crate) fn begin(&mut self, head: impl FnOnce(&mut Vec<u8>) -> Framing) {
        self.framing = head(self.text());
    }

    /// Where text goes: behind all that waits.
    fn text(&mut self) -> &mut Vec<u8> {
        let text = if self.chunk.is_none() { &mut self.output } else { &mut self.tail };
        if text.capacity() == 0 {
            *text = self.recycled.head();
        }
        text
    }

    /// There is room for another chunk.
    pub(crate) fn has_room(&self) -> bool {
        self.chunk.is_none() && self.output.len() < COPIED
    }

    /// Puts a chunk of the body behind what waits. Only while there is room.
    ///
    /// # Errors
    /// The head has said another length.
    pub(crate) fn data(&mut self, data: D) -> Result<(), WrongLength> {
        let size = data.remaining();
        if size == 0 {
            return Ok(());
        }
        let is_chunked = match &mut self.framing {
            Framing::None => return Err(WrongLength),
            Framing::Length(left) => {
                *left = left.checked_sub(size as u64).ok_or(WrongLength)?;
                false
            }
            Framing::Chunked => {
                write::chunk_size(self.text(), size);
                true
            }
            Framing::UntilClose => false,
        };
        if size > COPIED {
            self.chunk = Some(data);
        } else {
            copy(self.text(), data);
        }
        if is_chunked {
            self.text().extend_from_slice(write::CHUNK_END);
        }
        Ok(())
    }

    /// Ends the body.
    ///
    /// # Errors
    /// The head has said another length.
    pub(crate) fn end(&mut self, trailers: Option<&HeaderMap>) -> Result<(), WrongLength> {
        match (std::mem::replace(&mut self.framing, Framing::None), trailers) {
            (Framing::Length(1..), _) => Err(WrongLength),
            (Framing::Chunked, Some(trailers)) => {
                write::trailers(self.text(), trailers);
                Ok(())
            }
            (Framing::Chunked, None) => {
                self.text().extend_from_slice(write::LAST_CHUNK);
                Ok(())
            }
            // Nobody can be sent trailers elsewhere.
            _ => Ok(()),
        }
    }

    /// Puts bytes that are no part of a message behind what waits.
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.text().extend_from_slice(bytes);
    }

    /// Writes what the socket takes at once. True: nothing waits any more.
    ///
    /// # Errors
    /// The connection broke.
    pub(crate) fn try_flush(&mut self) -> io::Result<bool> {
        while self.waits() {
            match self.try_write() {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => self.wrote(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => {
                    self.is_broken = true;
                    return Err(error);
                }
            }
        }
        Ok(true)
    }

    /// Writes all that waits. Cancel safe.
    ///
    /// # Errors
    /// The connection broke.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.try_flush()? {
            ready!(self.stream.poll_write_ready(cx))?;
        }
        Poll::Ready(Ok(()))
    }

    /// Something is to be written.
    pub(crate) fn waits(&self) -> bool {
        self.written_out < self.output.len() || self.chunk.is_some()
    }

    fn try_write(&self) -> io::Result<usize> {
        let out = &self.output[self.written_out..];
        let Some(data) = &self.chunk else { return self.stream.try_write(out) };
        let mut slices = [IoSlice::new(&[]); SLICES];
        slices[0] = IoSlice::new(out);
        let mut count = 1 + data.chunks_vectored(&mut slices[1..SLICES - 1]);
        let of_data: usize = slices[1..count].iter().map(|slice| slice.len()).sum();
        if of_data == data.remaining() {
            slices[count] = IoSlice::new(&self.tail);
            count += 1;
        }
        self.stream.try_write_vectored(&slices[..count])
    }

    fn wrote(&mut self, count: usize) {
        self.written += count as u64;
        let of_output = count.min(self.output.len() - self.written_out);
        self.written_out += of_output;
        if self.written_out < self.output.len() {
            return;
        }
        self.output.clear();
        self.written_out = 0;
        let Some(data) = &mut self.chunk else { return };
        let of_data = (count - of_output).min(data.remaining());
        data.advance(of_data);
        if !data.has_remaining() {
            self.chunk = None;
            std::mem::swap(&mut self.output, &mut self.tail);
            self.written_out = count - of_output - of_data;
            if self.written_out == self.output.len() {
                self.output.clear();
                self.written_out = 0;
            }
        }
    }

    /// Nothing is under way: gives the buffers back.
    pub(crate) fn rest(&mut self) {
        if self.input.is_empty() && self.input.capacity() > 0 {
            self.recycled.put_block(std::mem::take(&mut self.input));
            self.is_flooded = false;
        }
        if !self.waits() {
            self.recycled.put_head(std::mem::take(&mut self.output));
            self.recycled.put_head(std::mem::take(&mut self.tail));
        }
    }

    /// The peer has said nothing on this idle connection, as far as this process knows: no system call.
    pub(crate) fn seems_quiet(&self) -> bool {
        let cx = &mut Context::from_waker(Waker::noop());
        self.input.is_empty() && self.stream.poll_read_ready(cx).is_pending()
    }

    /// The same, asking the kernel: the runtime may not have looked since.
    pub(crate) fn is_quiet(&self) -> bool {
        let peeked = socket2::SockRef::from(&self.stream).peek(&mut [std::mem::MaybeUninit::uninit()]);
        self.input.is_empty() && matches!(peeked, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// None of what was written after the first `before` bytes has reached the peer's kernel.
    pub(crate) fn took_nothing_since(&self, before: u64) -> bool {
        self.written == before || acked::bytes_acked(&self.stream).is_some_and(|acked| acked <= before)
    }

    /// All that was written has reached the peer's kernel, as far as ours says.
    pub(crate) fn took_all(&self) -> bool {
        acked::bytes_acked(&self.stream).is_none_or(|acked| acked >= self.written)
    }

    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    pub(crate) fn recycled(&self) -> &Rc<Recycled> {
        &self.recycled
    }

    /// Tells the peer that nothing more comes.
    pub(crate) fn shut_down(&self) {
        // Only fails on a dead socket, which has nobody to tell.
        let _ = socket2::SockRef::from(&self.stream).shutdown(std::net::Shutdown::Write);
    }

    /// From now on the kernel notices when the peer vanishes; see [`socket::keep_alive`].
    pub(crate) fn keep_alive(&mut self) {
        if !std::mem::replace(&mut self.is_looked_after, true) {
            socket::keep_alive(&self.stream);
        }
    }

    /// When it is dropped, the peer gets a reset, and the kernel keeps nothing of what was written.
    pub(crate) fn reset_on_drop(&self) {
        if self.is_broken {
            // It costs a call for each copy to a mirror that resets, for nothing.
            return;
        }
        // Only fails on a dead socket, of which nothing is kept.
        let _ = socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
    }

    /// The socket, with what was read and not used: what follows is not HTTP.
    pub(crate) fn into_stream(self) -> (TcpStream, BytesMut, Open) {
        (self.stream, self.input, self._open)
    }
}

fn copy(text: &mut Vec<u8>, mut data: impl Buf) {
    while data.has_remaining() {
        let part = data.chunk();
        text.extend_from_slice(part);
        let taken = part.len();
        data.advance(taken);
    }
}
