//! What the mirror does to its copies: everything that a mirror may do and no user may notice.
//!
//! A fault is the whole mirror's, from when it is chosen until another one is. It lives in the harness's thread: what is late
//! or goes on for long is looked at each turn.

use std::collections::VecDeque;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, bind, getsockname, setsockopt, socket, sockopt,
};

use super::shape::{Text, answer};
use super::{Connection, FIRST, Harness, MIRROR, Role};
use crate::socket::listener;

/// How often an endless answer goes on.
const MORE: Duration = Duration::from_millis(100);
/// How often the slow reader takes a byte.
const DRIP: Duration = Duration::from_secs(1);
/// What the kernel keeps for a mirror that does not read, so that a body of 64 KiB does not fit.
const NARROW: usize = 4096;
const ENDLESS: &[u8] = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";

/// A mirror.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// Answers at once.
    Healthy,
    /// Answers so much later.
    Late(Duration),
    /// Accepts and reads, and never answers.
    Silent,
    /// Accepts and never reads.
    Deaf,
    /// Reads a byte a second.
    Drip,
    /// Resets each connection when it is made.
    Resets,
    /// Resets each connection in the middle of the answer.
    ResetsHalfway,
    /// Nobody listens.
    Refuses,
    /// Answers 503.
    Errors,
    /// Answers before the body has come.
    Early,
    /// Ends its side of the connection when a request comes, and reads on.
    HalfCloses,
    /// Begins an answer and goes on with it for ever: 1 KiB each 100 ms.
    Endless,
    /// Scaled to zero: it has no endpoint.
    Absent,
}

impl Fault {
    fn reads(self) -> bool {
        !matches!(self, Self::Deaf | Self::Drip)
    }

    /// How long after it has done something with a connection it goes on.
    fn again(self) -> Option<Duration> {
        match self {
            Self::Drip => Some(DRIP),
            Self::Endless => Some(MORE),
            _ => None,
        }
    }

    /// Whether a connection comes to it at all.
    pub(crate) fn is_met(self) -> bool {
        !matches!(self, Self::Refuses | Self::Absent)
    }
}

/// The mirror's state.
#[derive(Debug)]
pub(super) struct Mirror {
    fault: Fault,
    /// The port that refuses.
    refusing: Option<OwnedFd>,
    small: Text,
    error: Text,
    /// What is to be done then, on this stream of that connection. In order: a fault has one delay.
    due: VecDeque<(Instant, Place, u32)>,
}

/// A connection: where it is, and which one it was, for places are used again.
type Place = (usize, u64);

impl Mirror {
    pub(super) fn new() -> Self {
        Self {
            fault: Fault::Healthy,
            refusing: None,
            small: answer(200, 128),
            error: answer(503, 128),
            due: VecDeque::new(),
        }
    }
}

impl Harness {
    /// The mirror is another one from now on, at the address that is given; `None`: it has none. What was connected to the
    /// earlier one is cut.
    ///
    /// # Errors
    /// The kernel has no port.
    pub(crate) fn misbehave(&mut self, fault: Fault) -> Result<Option<SocketAddr>> {
        self.cut_mirror();
        self.mirror.fault = fault;
        self.mirror.refusing = None;
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        // Also where nobody is to come: then it is not told.
        let listening = listener(any)?;
        listening.set_nonblocking(true)?;
        if !fault.reads() {
            setsockopt(&listening, sockopt::RcvBuf, &NARROW)?;
        }
        self.poll.add(&listening, MIRROR)?;
        let address = listening.local_addr()?;
        self.listeners[MIRROR] = listening;
        match fault {
            Fault::Absent => Ok(None),
            Fault::Refuses => {
                let (bound, address) = not_listening()?;
                self.mirror.refusing = Some(bound);
                Ok(Some(address))
            }
            _ => Ok(Some(address)),
        }
    }

    /// Ends the mirror's connections, so that what it has kept is over.
    pub(crate) fn cut_mirror(&mut self) {
        self.mirror.due.clear();
        for slot in &mut self.connections {
            if slot.as_ref().is_some_and(|it| it.role == Role::Mirror) {
                *slot = None;
            }
        }
    }

    /// A connection to the mirror.
    pub(super) fn meet(&mut self, stream: TcpStream) -> Result<()> {
        self.counts.met += 1;
        let fault = self.mirror.fault;
        if fault == Fault::Resets {
            return reset(&stream);
        }
        let place = self.insert(stream, Role::Mirror)?;
        if !fault.reads() {
            self.with(place.0, |_, connection| {
                connection.reads = false;
                Ok(true)
            })?;
        }
        if fault == Fault::Drip {
            self.mirror.due.push_back((Instant::now() + DRIP, place, 0));
        }
        Ok(())
    }

    /// Bytes of a request have come to the mirror, perhaps not all of them.
    pub(super) fn copy_begins(&mut self, connection: &mut Connection) -> std::io::Result<()> {
        match self.mirror.fault {
            Fault::Early if !connection.has_answered => {
                connection.has_answered = true;
                connection.socket.send(&self.mirror.small.http1)
            }
            Fault::HalfCloses if !connection.has_answered => {
                connection.has_answered = true;
                connection.socket.half_close()
            }
            _ => Ok(()),
        }
    }

    /// A whole request has come to the mirror. Whether the connection goes on.
    pub(super) fn copy_came(
        &mut self,
        at: usize,
        connection: &mut Connection,
        stream: u32,
    ) -> std::io::Result<bool> {
        self.counts.copies += 1;
        self.counts.met += 1;
        let Connection { socket, wire, id, .. } = connection;
        match self.mirror.fault {
            Fault::Healthy => wire.answer(stream, &self.mirror.small, socket, &mut self.out)?,
            Fault::Errors => wire.answer(stream, &self.mirror.error, socket, &mut self.out)?,
            Fault::Late(by) => self.mirror.due.push_back((Instant::now() + by, (at, *id), stream)),
            Fault::Early => connection.has_answered = false,
            Fault::Endless => {
                socket.send(ENDLESS)?;
                self.mirror.due.push_back((Instant::now() + MORE, (at, *id), stream));
            }
            Fault::ResetsHalfway => {
                let all = &self.mirror.small.http1;
                socket.send(&all[..all.len() - 64])?;
                reset(socket).map_err(std::io::Error::other)?;
                return Ok(false);
            }
            Fault::Silent | Fault::HalfCloses => {}
            Fault::Deaf | Fault::Drip | Fault::Resets | Fault::Refuses | Fault::Absent => {}
        }
        Ok(true)
    }

    /// Whether the mirror has its turn later. Where users are timed, what it costs this thread to be the mirror must not be
    /// charged to the proxy: on a node that is another machine. It waits while there is anything else to do, some turns at
    /// most.
    pub(super) fn mirror_waits(&mut self, tokens: &[usize]) -> bool {
        const MOST: u32 = 16;
        let users = self.paced.is_timed && tokens.iter().any(|token| !self.is_mirrors(*token));
        self.deferred = if users && self.deferred < MOST { self.deferred + 1 } else { 0 };
        self.deferred > 0
    }

    pub(super) fn is_mirrors(&self, token: usize) -> bool {
        let connection = token.checked_sub(FIRST).and_then(|at| self.connections.get(at)?.as_ref());
        token == MIRROR || connection.is_some_and(|it| it.role == Role::Mirror)
    }

    /// One thing that the mirror does and that is due by now: the next turn has the next one, so that users are not kept
    /// waiting by all of them.
    pub(super) fn mirror_turn(&mut self) -> Result<()> {
        let is_due = self.mirror.due.front().is_some_and(|(due, ..)| *due <= Instant::now());
        if !is_due {
            return Ok(());
        }
        let Some((due, place, stream)) = self.mirror.due.pop_front() else { return Ok(()) };
        if !self.is_there(place) {
            return Ok(());
        }
        let fault = self.mirror.fault;
        if let Some(again) = fault.again() {
            self.mirror.due.push_back((due + again, place, stream));
        }
        self.with(place.0, |harness, Connection { socket, wire, .. }| match fault {
            Fault::Drip => Ok(socket.receive(&mut [0])? != Some(0)),
            Fault::Endless if socket.is_drained() => {
                socket.send(&[b"400\r\n", [b'x'; 1024].as_slice(), b"\r\n"].concat())?;
                Ok(true)
            }
            Fault::Late(_) => {
                wire.answer(stream, &harness.mirror.small, socket, &mut harness.out)?;
                harness.send_out(socket)?;
                Ok(true)
            }
            _ => Ok(true),
        })
    }

    fn is_there(&self, (at, id): Place) -> bool {
        self.connections.get(at).and_then(Option::as_ref).is_some_and(|it| it.id == id)
    }
}

/// Closing it sends a reset.
fn reset(socket: &impl std::os::fd::AsFd) -> Result<()> {
    let now = nix::libc::linger { l_onoff: 1, l_linger: 0 };
    Ok(setsockopt(socket, sockopt::Linger, &now)?)
}

/// A port of ours on which nobody listens: connects are refused for as long as it is held.
fn not_listening() -> Result<(OwnedFd, SocketAddr)> {
    let bound = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    let fd = std::os::fd::AsRawFd::as_raw_fd(&bound);
    bind(fd, &SockaddrIn::new(127, 0, 0, 1, 0)).context("a port that refuses")?;
    let address: SockaddrIn = getsockname(fd)?;
    Ok((bound, SocketAddr::from((address.ip(), address.port()))))
}

#[cfg(test)]
mod tests {
    use super::super::{Rate, Shape, Suffered};
    use super::*;
    use crate::peers::Target;

    /// Clients that ask the mirror itself: they see what a proxy sees.
    fn asked(fault: Fault, shape: Shape, requests: f64) -> Suffered {
        let mut harness = Harness::new().unwrap();
        let address = harness.misbehave(fault).unwrap().unwrap();
        harness.open(&Target { address, host: "web" }, shape, 4).unwrap();
        harness.run_patiently(Rate { per_second: 1_000.0, seconds: requests / 1_000.0 }, 0).unwrap()
    }

    #[test]
    fn mirrors_that_answer_are_answers_to_users_of_any_version() {
        for fault in [Fault::Healthy, Fault::Late(Duration::from_millis(10))] {
            for shape in [Shape::Small, Shape::OneStream] {
                let suffered = asked(fault, shape, 40.0);
                assert_eq!((suffered.planned, suffered.failed), (40, 0), "{fault:?} {shape:?}");
                assert_eq!((suffered.counts.answered, suffered.counts.copies), (40, 40));
            }
        }
        let late = asked(Fault::Late(Duration::from_millis(10)), Shape::Small, 20.0);
        assert!(late.latencies.is_sorted() && late.latencies[0] >= Duration::from_millis(10));
    }

    #[test]
    fn mirrors_that_fail_are_failed_requests_and_no_error() {
        for fault in [Fault::Errors, Fault::ResetsHalfway, Fault::HalfCloses, Fault::Endless] {
            let suffered = asked(fault, Shape::Small, 20.0);
            assert_eq!((suffered.planned, suffered.failed), (20, 20), "{fault:?}");
            assert!(suffered.counts.met > 0, "{fault:?}");
        }
    }

    #[test]
    fn who_is_never_answered_is_given_up_in_time() {
        for (fault, copies) in [(Fault::Silent, 2), (Fault::Deaf, 0)] {
            let suffered = asked(fault, Shape::Small, 2.0);
            assert_eq!((suffered.failed, suffered.counts.copies, suffered.latencies.len()), (2, copies, 2));
        }
    }

    #[test]
    fn an_early_answer_comes_before_the_body_has() {
        let mut harness = Harness::new().unwrap();
        let address = harness.misbehave(Fault::Early).unwrap().unwrap();
        let mut client = TcpStream::connect(address).unwrap();
        let head = b"POST / HTTP/1.1\r\nhost: web\r\ncontent-length: 5\r\n\r\n";
        std::io::Write::write_all(&mut client, head).unwrap();
        client.set_nonblocking(true).unwrap();
        let mut answer = [0; 1024];
        let came = umbra_testkit::wait_for("an answer", Duration::from_secs(60), || {
            harness.turn(10)?;
            Ok::<_, anyhow::Error>(std::io::Read::read(&mut client, &mut answer)?)
        });
        assert!(answer[..came.unwrap()].starts_with(b"HTTP/1.1 200 "));
        assert_eq!(harness.counts.copies, 0);
    }

    #[test]
    fn a_connection_that_is_reset_at_once_was_met() {
        let mut harness = Harness::new().unwrap();
        let address = harness.misbehave(Fault::Resets).unwrap().unwrap();
        let mut client = TcpStream::connect(address).unwrap();
        while harness.counts.met == 0 {
            harness.turn(10).unwrap();
        }
        let reset = std::io::Read::read(&mut client, &mut [0]).unwrap_err();
        assert_eq!(reset.kind(), std::io::ErrorKind::ConnectionReset);
    }

    #[test]
    fn nobody_listens_where_connects_are_refused() {
        let mut harness = Harness::new().unwrap();
        let address = harness.misbehave(Fault::Refuses).unwrap().unwrap();
        let refused = TcpStream::connect(address).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
        assert_eq!(harness.misbehave(Fault::Absent).unwrap(), None);
    }
}
