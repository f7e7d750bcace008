//! Sockets in one thread: what could not be written waits, and epoll says when to go on. No bytes are looked at here.

use std::io::{ErrorKind, Read as _, Result, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::sockopt::{ReuseAddr, ReusePort};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, listen, setsockopt, socket,
};

/// Events taken from the kernel at once.
const EVENTS: usize = 256;

/// A connection, and what is still to be written to it.
#[derive(Debug)]
pub(crate) struct Socket {
    stream: TcpStream,
    pending: Vec<u8>,
    written: usize,
}

impl Socket {
    /// Takes over a connected stream: from now on nothing on it blocks.
    pub(crate) fn new(stream: TcpStream) -> Result<Self> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, pending: Vec::new(), written: 0 })
    }

    /// Writes, and keeps what the kernel does not take.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> Result<()> {
        let gone = if self.is_drained() { some(self.stream.write(bytes))?.unwrap_or(0) } else { 0 };
        self.pending.extend_from_slice(&bytes[gone..]);
        Ok(())
    }

    /// Goes on with what was kept.
    pub(crate) fn flush(&mut self) -> Result<()> {
        if !self.is_drained() {
            self.written += some(self.stream.write(&self.pending[self.written..]))?.unwrap_or(0);
            if self.written == self.pending.len() {
                self.pending.clear();
                self.written = 0;
            }
        }
        Ok(())
    }

    /// No more will be sent.
    pub(crate) fn half_close(&self) -> Result<()> {
        self.stream.shutdown(Shutdown::Write)
    }

    /// Whether everything sent is the kernel's now.
    pub(crate) fn is_drained(&self) -> bool {
        self.pending.is_empty()
    }

    /// How many bytes came; 0 is the end, `None` nothing yet.
    pub(crate) fn receive(&mut self, into: &mut [u8]) -> Result<Option<usize>> {
        some(self.stream.read(into))
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// One of several on the same address, among which the kernel spreads clients (SO_REUSEPORT).
pub(crate) fn one_of_several(address: SocketAddr) -> Result<TcpListener> {
    let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&socket, ReuseAddr, &true)?;
    setsockopt(&socket, ReusePort, &true)?;
    bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
    listen(&socket, Backlog::MAXCONN)?;
    Ok(socket.into())
}

/// A listener whose queue is as long as the kernel allows: the standard library's 128 is less than there are clients that
/// connect at once, and who waits for a place in a queue here may be waited for elsewhere.
pub(crate) fn listener(address: SocketAddr) -> Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    listen(&listener, Backlog::MAXCONN)?;
    Ok(listener)
}

fn some(result: Result<usize>) -> Result<Option<usize>> {
    match result {
        Ok(count) => Ok(Some(count)),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(None),
        Err(error) => Err(error),
    }
}

/// What a socket waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Interest {
    /// Bytes to read, or the end.
    pub(crate) read: bool,
    /// Room to write.
    pub(crate) write: bool,
}

impl Interest {
    /// Bytes to read alone.
    pub(crate) const READ: Self = Self { read: true, write: false };

    fn event(self, token: usize) -> EpollEvent {
        let mut flags = EpollFlags::empty();
        flags.set(EpollFlags::EPOLLIN, self.read);
        flags.set(EpollFlags::EPOLLOUT, self.write);
        EpollEvent::new(flags, token as u64)
    }
}

/// One epoll instance, level-triggered. Dropping a socket takes it out.
#[derive(Debug)]
pub(crate) struct Poll {
    epoll: Epoll,
    events: Vec<EpollEvent>,
}

impl Poll {
    /// An empty one.
    pub(crate) fn new() -> Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        Ok(Self { epoll, events: vec![EpollEvent::empty(); EVENTS] })
    }

    /// Watches `socket` under `token`.
    pub(crate) fn add(&self, socket: impl AsFd, token: usize) -> Result<()> {
        Ok(self.epoll.add(socket, Interest::READ.event(token))?)
    }

    /// Watches for something else from now on.
    pub(crate) fn change(&self, socket: impl AsFd, token: usize, interest: Interest) -> Result<()> {
        Ok(self.epoll.modify(socket, &mut interest.event(token))?)
    }

    /// Tokens of what has happened, within `milliseconds`.
    pub(crate) fn wait(&mut self, milliseconds: u16, tokens: &mut Vec<usize>) -> Result<()> {
        tokens.clear();
        let count = match self.epoll.wait(&mut self.events, EpollTimeout::from(milliseconds)) {
            Ok(count) => count,
            Err(Errno::EINTR) => 0,
            Err(error) => return Err(error.into()),
        };
        tokens.extend(self.events[..count].iter().filter_map(|event| usize::try_from(event.data()).ok()));
        Ok(())
    }
}
