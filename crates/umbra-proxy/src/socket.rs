//! Sockets as HTTP/2 reads and writes them: with the bytes read ahead put back in front, or with what is needed to know
//! whether a pooled connection is still good.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

use crate::acked;
use crate::descriptors::Open;

/// A peer that has vanished (its node lost power) is noticed after two minutes of silence: a minute before the first
/// probe, then six, 10 s apart. Under the 350 s after which the most impatient load balancers and NATs forget a silent
/// connection, and far under Linux's own two hours, for which a tunnel would be kept for nobody.
pub(crate) const KEEPALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_secs(60))
    .with_interval(Duration::from_secs(10))
    .with_retries(6);

/// Has the kernel look after the peer of an idle connection.
pub(crate) fn keep_alive(stream: &TcpStream) {
    // Only fails on a dead socket, which the next read tells as well.
    let _ = SockRef::from(stream).set_tcp_keepalive(&KEEPALIVE);
}

/// A client's connection.
pub(crate) struct Downstream {
    pub(crate) stream: TcpStream,
    first: Bytes,
    _open: Open,
}

impl Downstream {
    /// `first` was read already and is read again.
    pub(crate) fn new(stream: TcpStream, first: Bytes, open: Open) -> Self {
        Self { stream, first, _open: open }
    }
}

impl AsyncRead for Downstream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.first.is_empty() {
            ready!(poll_read_dry(&this.stream, cx, buf))?;
        } else {
            let count = this.first.len().min(buf.remaining());
            buf.put_slice(&this.first[..count]);
            this.first.advance(count);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Downstream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// An upstream connection of HTTP/2: the pool keeps one handle, the connection's task the other.
#[derive(Clone)]
pub(crate) struct Shared {
    stream: Arc<TcpStream>,
    written: Arc<AtomicU64>,
    _open: Arc<Open>,
}

impl Shared {
    pub(crate) fn new(stream: TcpStream, open: Open) -> Self {
        Self { stream: Arc::new(stream), written: Arc::default(), _open: Arc::new(open) }
    }

    /// Bytes written so far.
    pub(crate) fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// None of what was written after the first `before` bytes has reached the peer's kernel.
    pub(crate) fn took_nothing_since(&self, before: u64) -> bool {
        self.written() == before || acked::bytes_acked(&*self.stream).is_some_and(|acked| acked <= before)
    }

    /// Asks the kernel whether the peer has ended or reset this connection, and nothing else is to be read first.
    pub(crate) fn has_ended(&self) -> bool {
        match self.peek() {
            Ok(count) => count == 0,
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        }
    }

    fn peek(&self) -> io::Result<usize> {
        SockRef::from(&*self.stream).peek(&mut [std::mem::MaybeUninit::uninit()])
    }
}

impl AsyncRead for Shared {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        poll_read_dry(&self.stream, cx, buf)
    }
}

/// A short read has emptied the socket: the next one waits for the kernel's word instead of asking in vain, which is a
/// system call less per message. What arrives later is announced anew (epoll's edges), so nothing is missed.
pub(crate) fn read_dry(stream: &TcpStream) {
    let would_block = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
    // The error is the message itself.
    let _ = stream.try_io(Interest::READABLE, would_block);
}

fn poll_read_dry(stream: &TcpStream, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
    loop {
        ready!(stream.poll_read_ready(cx))?;
        let room = buf.remaining();
        match stream.try_read_buf(buf) {
            Ok(count) => {
                if (1..room).contains(&count) {
                    read_dry(stream);
                }
                return Poll::Ready(Ok(()));
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Poll::Ready(Err(error)),
        }
    }
}

impl Shared {
    fn poll_try_write(
        &self,
        cx: &mut Context<'_>,
        write: impl Fn(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.stream.poll_write_ready(cx))?;
            match write(&self.stream) {
                Ok(count) => {
                    self.written.fetch_add(count as u64, Ordering::Relaxed);
                    return Poll::Ready(Ok(count));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Shared {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_try_write(cx, |stream| stream.try_write(buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_try_write(cx, |stream| stream.try_write_vectored(bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match SockRef::from(&*self.stream).shutdown(std::net::Shutdown::Write) {
            Err(error) if error.kind() != io::ErrorKind::NotConnected => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(())),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn assert_looked_after(stream: &TcpStream) {
        let socket = SockRef::from(stream);
        assert!(socket.keepalive().expect("a socket"));
        assert_eq!(socket.tcp_keepalive_time().expect("a socket"), Duration::from_secs(60));
        assert_eq!(socket.tcp_keepalive_interval().expect("a socket"), Duration::from_secs(10));
        assert_eq!(socket.tcp_keepalive_retries().expect("a socket"), 6);
    }

    #[tokio::test]
    async fn a_silent_peer_is_looked_after() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let ours = TcpStream::connect(listener.local_addr().expect("bound")).await.expect("it listens");
        keep_alive(&ours);
        assert_looked_after(&ours);
    }
}
