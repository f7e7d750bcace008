//! Clients, the primary and the mirror, all in one thread: so the other core has a single runnable thread, and what is
//! measured is the proxy between them.
//!
//! Takes: where a proxy is, what to ask it. Gives: how many requests were answered, and how many copies arrived. Never
//! judges: `void` does.

mod message;
mod open;

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::peers::Target;
use crate::socket::{Interest, Poll, Socket, listener};
use message::Reader;
use open::Paced;
pub(crate) use open::Rate;

/// For the requests in flight to be answered. Far above what any peer takes, also under valgrind.
const ANSWERS: Duration = Duration::from_secs(60);
/// For copies to arrive after the last answer; then they count as missing.
const COPIES: Duration = Duration::from_secs(5);
/// How long a turn waits for something to happen.
const TURN_MS: u16 = 100;
/// Tokens below are listeners: primary, mirror.
const FIRST: usize = 2;

/// What is asked and answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Shape {
    /// GET with four headers, an answer of 128 bytes, 32 clients.
    Small,
    /// 64 KiB there and back, 16 clients.
    Large,
}

impl Shape {
    /// Bytes of the request's body and of the answer's.
    pub(crate) fn bodies(self) -> (usize, usize) {
        match self {
            Self::Small => (0, 128),
            Self::Large => (64 * 1024, 64 * 1024),
        }
    }

    /// Connections at once.
    pub(crate) fn clients(self) -> usize {
        match self {
            Self::Small => 32,
            Self::Large => 16,
        }
    }

    fn request(self, host: &str) -> Vec<u8> {
        let rest = "user-agent: umbra-bench\r\naccept: */*\r\naccept-encoding: identity\r\n";
        match self.bodies().0 {
            0 => format!("GET / HTTP/1.1\r\nhost: {host}\r\n{rest}\r\n").into_bytes(),
            size => {
                let head = format!("POST / HTTP/1.1\r\nhost: {host}\r\n{rest}content-length: {size}\r\n\r\n");
                [head.into_bytes(), vec![b'x'; size]].concat()
            }
        }
    }
}

fn answer(size: usize) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {size}\r\n\r\n");
    [head.into_bytes(), vec![b'y'; size]].concat()
}

/// When clients stop asking.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Until {
    /// From then on.
    Time(Instant),
    /// After so many requests.
    Requests(u64),
}

/// What was seen between the first request and the last answer or copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Requests answered.
    pub(crate) answered: u64,
    /// Requests that reached the primary.
    pub(crate) primary: u64,
    /// Copies that reached the mirror.
    pub(crate) copies: u64,
    /// Of all of these, those with another status or length than they should have.
    pub(crate) wrong: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Primary,
    Mirror,
    Client,
}

struct Connection {
    socket: Socket,
    role: Role,
    reader: Reader,
    interest: Interest,
    /// When the request in flight should have gone out (open loop).
    intended: Option<Instant>,
}

/// The thread's state.
pub(crate) struct Harness {
    poll: Poll,
    listeners: [TcpListener; 2],
    connections: Vec<Option<Connection>>,
    scratch: Vec<u8>,
    tokens: Vec<usize>,
    shape: Shape,
    request: Vec<u8>,
    answer: Vec<u8>,
    copy_answer: Vec<u8>,
    asked: u64,
    until: Until,
    paced: Paced,
    counts: Counts,
}

impl Harness {
    /// Binds the two backends.
    pub(crate) fn new() -> Result<Self> {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let listeners = [listener(any)?, listener(any)?];
        let poll = Poll::new()?;
        for (token, listener) in listeners.iter().enumerate() {
            listener.set_nonblocking(true)?;
            poll.add(listener, token)?;
        }
        Ok(Self {
            poll,
            listeners,
            connections: Vec::new(),
            scratch: vec![0; 256 * 1024],
            tokens: Vec::new(),
            shape: Shape::Small,
            request: Vec::new(),
            answer: Vec::new(),
            copy_answer: answer(128),
            asked: 0,
            until: Until::Requests(0),
            paced: Paced::default(),
            counts: Counts::default(),
        })
    }

    /// Where the primary and the mirror are.
    pub(crate) fn backends(&self) -> Result<(SocketAddr, SocketAddr)> {
        Ok((self.listeners[0].local_addr()?, self.listeners[1].local_addr()?))
    }

    /// Connects `clients` to a proxy; they ask what `shape` says. Earlier clients leave.
    pub(crate) fn open(&mut self, target: &Target, shape: Shape, clients: usize) -> Result<()> {
        self.close();
        self.shape = shape;
        self.request = shape.request(target.host);
        self.answer = answer(shape.bodies().1);
        for _ in 0..clients {
            let stream = TcpStream::connect(target.address).with_context(|| target.address.to_string())?;
            self.insert(stream, Role::Client)?;
            // Connections upstream that this one has caused.
            self.turn(0)?;
        }
        Ok(())
    }

    /// The clients leave; connections of the proxy to the backends stay, as the proxy likes.
    pub(crate) fn close(&mut self) {
        for slot in &mut self.connections {
            if slot.as_ref().is_some_and(|it| it.role == Role::Client) {
                *slot = None;
            }
        }
    }

    /// A closed loop: each client asks again when it is answered. Returns when all are answered and `copies_each` copies
    /// of each request have come, or no more are to be expected.
    pub(crate) fn run(&mut self, until: Until, copies_each: u64) -> Result<Counts> {
        self.counts = Counts::default();
        self.until = until;
        self.asked = 0;
        for token in 0..self.connections.len() {
            if self.connections[token].as_ref().is_some_and(|it| it.role == Role::Client) && self.asks_on() {
                self.with(token, |harness, client| {
                    client.socket.send(&harness.request)?;
                    Ok(true)
                })?;
            }
        }
        self.settle(copies_each)
    }

    /// Waits for what is in flight.
    fn settle(&mut self, copies_each: u64) -> Result<Counts> {
        self.turn_while(ANSWERS, |harness| harness.counts.answered < harness.asked)?;
        if self.counts.answered < self.asked {
            bail!("{} of {} requests were not answered", self.asked - self.counts.answered, self.asked);
        }
        self.turn_while(COPIES, |harness| harness.counts.copies < copies_each * harness.counts.answered)?;
        Ok(self.counts)
    }

    /// Whether one request more may go out; counts it.
    fn asks_on(&mut self) -> bool {
        let on = match self.until {
            Until::Time(end) => Instant::now() < end,
            Until::Requests(count) => self.asked < count,
        };
        self.asked += u64::from(on);
        on
    }

    fn turn_while(&mut self, limit: Duration, goes_on: impl Fn(&Self) -> bool) -> Result<()> {
        let mut quiet_since = None;
        while goes_on(self) {
            self.turn(TURN_MS)?;
            if !self.tokens.is_empty() {
                quiet_since = None;
            } else if quiet_since.get_or_insert_with(Instant::now).elapsed() > limit {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Everything that has happened by now, or happens within so many milliseconds.
    fn turn(&mut self, milliseconds: u16) -> Result<()> {
        let mut tokens = std::mem::take(&mut self.tokens);
        self.poll.wait(milliseconds, &mut tokens)?;
        for &token in &tokens {
            match token {
                0 => self.accept(0, Role::Primary)?,
                1 => self.accept(1, Role::Mirror)?,
                _ => {
                    let at = token - FIRST;
                    self.with(at, |harness, connection| harness.step(at, connection))?;
                }
            }
        }
        self.tokens = tokens;
        Ok(())
    }

    fn accept(&mut self, listener: usize, role: Role) -> Result<()> {
        while let Ok((stream, _)) = self.listeners[listener].accept() {
            self.insert(stream, role)?;
        }
        Ok(())
    }

    fn insert(&mut self, stream: TcpStream, role: Role) -> Result<()> {
        let at = self.connections.iter().position(Option::is_none).unwrap_or(self.connections.len());
        let socket = Socket::new(stream)?;
        self.poll.add(&socket, FIRST + at)?;
        let connection =
            Connection { socket, role, reader: Reader::default(), interest: Interest::READ, intended: None };
        if at == self.connections.len() {
            self.connections.push(None);
        }
        self.connections[at] = Some(connection);
        Ok(())
    }

    /// Does something with a connection, drops it when it has ended, and watches for what it waits for now.
    fn with(
        &mut self,
        at: usize,
        work: impl FnOnce(&mut Self, &mut Connection) -> std::io::Result<bool>,
    ) -> Result<()> {
        // An event of a connection that an earlier one of this batch has ended.
        let Some(mut connection) = self.connections.get_mut(at).and_then(Option::take) else { return Ok(()) };
        let goes_on = work(self, &mut connection);
        if connection.role == Role::Client {
            // A proxy closes idle connections to backends as it likes; those of its clients it must not.
            let goes_on = goes_on.context("a client's connection broke")?;
            anyhow::ensure!(goes_on, "the proxy closed a client's connection");
        } else if !matches!(goes_on, Ok(true)) {
            return Ok(());
        }
        let interest = Interest { read: true, write: !connection.socket.is_drained() };
        if connection.interest != interest {
            self.poll.change(&connection.socket, FIRST + at, interest)?;
            connection.interest = interest;
        }
        self.connections[at] = Some(connection);
        Ok(())
    }

    fn step(&mut self, at: usize, connection: &mut Connection) -> std::io::Result<bool> {
        connection.socket.flush()?;
        let Some(count) = connection.socket.receive(&mut self.scratch)? else { return Ok(true) };
        let (request, answer) = self.shape.bodies();
        let want = if connection.role == Role::Client { (Some(200), answer) } else { (None, request) };
        let (mut whole, mut wrong) = (0, 0);
        let fed = connection.reader.feed(&self.scratch[..count], |message| {
            whole += 1;
            wrong += u64::from((message.status, message.body) != want);
        });
        fed.map_err(std::io::Error::other)?;
        self.counts.wrong += wrong;
        for _ in 0..whole {
            match connection.role {
                Role::Primary => {
                    self.counts.primary += 1;
                    connection.socket.send(&self.answer)?;
                }
                Role::Mirror => {
                    self.counts.copies += 1;
                    connection.socket.send(&self.copy_answer)?;
                }
                Role::Client => {
                    self.counts.answered += 1;
                    if let Some(intended) = connection.intended.take() {
                        self.paced.answered(at, intended);
                    } else if self.asks_on() {
                        connection.socket.send(&self.request)?;
                    }
                }
            }
        }
        Ok(count > 0)
    }
}
