//! Clients, the primary and the mirror, all in one thread: so the other core has a single runnable thread, and what is
//! measured is the proxy between them.
//!
//! Takes: where a proxy is, what to ask it. Gives: how many requests were answered, and how many copies arrived. Never
//! judges: `void` does.

mod fault;
mod head;
mod http2;
mod message;
mod open;
mod patient;
mod shape;
mod wire;

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::peers::Target;
use crate::socket::{Interest, Poll, Socket, listener};
pub(crate) use fault::Fault;
use fault::Mirror;
use http2::Whole;
use open::Paced;
pub(crate) use open::Rate;
pub(crate) use patient::Suffered;
pub(crate) use shape::Shape;
use shape::Text;
use wire::Wire;

/// For the requests in flight to be answered. Far above what any peer takes, also under valgrind.
const ANSWERS: Duration = Duration::from_secs(60);
/// For copies to arrive after the last answer; then they count as missing.
const COPIES: Duration = Duration::from_secs(5);
/// How long a turn waits for something to happen.
const TURN_MS: u16 = 100;
/// Tokens of listeners.
const PRIMARY: usize = 0;
const MIRROR: usize = 1;
/// Tokens of connections.
const FIRST: usize = 2;

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
    /// How often the mirror met anything: a connection, or a copy.
    pub(crate) met: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Primary,
    Mirror,
    Client,
}

#[derive(Debug)]
struct Connection {
    /// Which one it is, for places are used again.
    id: u64,
    socket: Socket,
    role: Role,
    wire: Wire,
    interest: Interest,
    /// A mirror may not.
    reads: bool,
    /// The mirror has done what it does before a request is whole.
    has_answered: bool,
    /// When the request in flight should have gone out (open loop).
    intended: Option<Instant>,
}

/// The thread's state.
pub(crate) struct Harness {
    poll: Poll,
    listeners: [TcpListener; 2],
    connections: Vec<Option<Connection>>,
    made: u64,
    scratch: Vec<u8>,
    out: Vec<u8>,
    tokens: Vec<usize>,
    /// Where clients connect.
    proxy: SocketAddr,
    shape: Shape,
    request: Text,
    answer: Text,
    mirror: Mirror,
    asked: u64,
    until: Until,
    paced: Paced,
    /// Turns in a row in which the mirror had to wait.
    deferred: u32,
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
            made: 0,
            scratch: vec![0; 256 * 1024],
            out: Vec::new(),
            tokens: Vec::new(),
            proxy: any,
            shape: Shape::Small,
            request: Shape::Small.request("nobody"),
            answer: Shape::Small.answer(),
            mirror: Mirror::new(),
            asked: 0,
            until: Until::Requests(0),
            paced: Paced::default(),
            deferred: 0,
            counts: Counts::default(),
        })
    }

    /// Where the primary and the mirror are.
    pub(crate) fn backends(&self) -> Result<(SocketAddr, SocketAddr)> {
        Ok((self.listeners[PRIMARY].local_addr()?, self.listeners[MIRROR].local_addr()?))
    }

    /// Connects `clients` to a proxy; they ask what `shape` says. Earlier clients leave.
    pub(crate) fn open(&mut self, target: &Target, shape: Shape, clients: usize) -> Result<()> {
        self.close();
        self.shape = shape;
        self.proxy = target.address;
        self.request = shape.request(target.host);
        self.answer = shape.answer();
        for _ in 0..clients {
            self.connect_at(self.free())?;
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
        self.paced = Paced::default();
        for at in 0..self.connections.len() {
            if self.connections[at].as_ref().is_some_and(|it| it.role == Role::Client) {
                self.with(at, |harness, client| {
                    for _ in 0..harness.shape.streams() {
                        if harness.asks_on() {
                            harness.ask(client)?;
                        }
                    }
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
        let mirror_waits = self.mirror_waits(&tokens);
        for &token in &tokens {
            if mirror_waits && self.is_mirrors(token) {
                // It is ready the next time, too.
                continue;
            }
            match token {
                PRIMARY => {
                    while let Ok((stream, _)) = self.listeners[PRIMARY].accept() {
                        self.insert(stream, Role::Primary)?;
                    }
                }
                MIRROR => {
                    while let Ok((stream, _)) = self.listeners[MIRROR].accept() {
                        self.meet(stream)?;
                    }
                }
                _ => {
                    let at = token - FIRST;
                    self.with(at, |harness, connection| harness.step(at, connection))?;
                }
            }
        }
        self.tokens = tokens;
        if mirror_waits { Ok(()) } else { self.mirror_turn() }
    }

    /// The first place without a connection.
    fn free(&self) -> usize {
        self.connections.iter().position(Option::is_none).unwrap_or(self.connections.len())
    }

    fn insert(&mut self, stream: TcpStream, role: Role) -> Result<(usize, u64)> {
        let at = self.free();
        self.put(at, stream, role, Wire::New)?;
        Ok((at, self.made))
    }

    /// A client's connection.
    fn connect_at(&mut self, at: usize) -> Result<()> {
        let stream = TcpStream::connect(self.proxy).with_context(|| self.proxy.to_string())?;
        let mut first = Vec::new();
        let wire = Wire::client(self.shape.is_http2(), &mut first);
        self.put(at, stream, Role::Client, wire)?;
        self.with(at, |_, client| client.socket.send(&first).map(|()| true))
    }

    fn put(&mut self, at: usize, stream: TcpStream, role: Role, wire: Wire) -> Result<()> {
        let socket = Socket::new(stream)?;
        self.poll.add(&socket, FIRST + at)?;
        self.made += 1;
        if at == self.connections.len() {
            self.connections.push(None);
        }
        self.connections[at] = Some(Connection {
            id: self.made,
            socket,
            role,
            wire,
            interest: Interest::READ,
            reads: true,
            has_answered: false,
            intended: None,
        });
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
        if !matches!(goes_on, Ok(true)) {
            self.out.clear();
            return match connection.role {
                // A proxy closes idle connections to backends as it likes; those of its clients it must not.
                Role::Client if self.paced.is_patient => self.replace(at, connection),
                Role::Client => {
                    let why =
                        goes_on.err().map_or("the proxy closed it".to_owned(), |error| error.to_string());
                    bail!("a client's connection broke: {why}")
                }
                Role::Primary | Role::Mirror => Ok(()),
            };
        }
        let interest = Interest { read: connection.reads, write: !connection.socket.is_drained() };
        if connection.interest != interest {
            self.poll.change(&connection.socket, FIRST + at, interest)?;
            connection.interest = interest;
        }
        self.connections[at] = Some(connection);
        Ok(())
    }

    /// Whether the connection goes on.
    fn step(&mut self, at: usize, connection: &mut Connection) -> std::io::Result<bool> {
        if !connection.reads {
            // Nothing was asked for: it is an end.
            return Ok(false);
        }
        connection.socket.flush()?;
        let Some(count) = connection.socket.receive(&mut self.scratch)? else { return Ok(true) };
        let mut whole = Vec::new();
        connection
            .wire
            .feed(&self.scratch[..count], &mut self.out, |one| whole.push(one))
            .map_err(std::io::Error::other)?;
        if connection.role == Role::Mirror && count > 0 {
            self.copy_begins(connection)?;
        }
        for one in whole {
            if !self.came(at, connection, one)? {
                return Ok(false);
            }
        }
        self.send_out(&mut connection.socket)?;
        Ok(count > 0)
    }

    /// A whole message. Whether the connection goes on.
    fn came(&mut self, at: usize, connection: &mut Connection, whole: Whole) -> std::io::Result<bool> {
        let (request, answer) = self.shape.bodies();
        let want = if connection.role == Role::Client { (Some(200), answer) } else { (None, request) };
        self.counts.wrong += u64::from((whole.message.status, whole.message.body) != want);
        let Connection { socket, wire, .. } = connection;
        match connection.role {
            Role::Mirror => return self.copy_came(at, connection, whole.stream),
            Role::Primary => {
                self.counts.primary += 1;
                wire.answer(whole.stream, &self.answer, socket, &mut self.out)?;
            }
            Role::Client => {
                self.counts.answered += 1;
                if let Some(intended) = connection.intended.take() {
                    self.paced.answered(at, intended);
                } else if self.asks_on() {
                    wire.ask(&self.request, socket, &mut self.out)?;
                }
            }
        }
        Ok(true)
    }

    fn ask(&mut self, client: &mut Connection) -> std::io::Result<()> {
        client.wire.ask(&self.request, &mut client.socket, &mut self.out)?;
        self.send_out(&mut client.socket)
    }

    /// What has gathered for this connection.
    fn send_out(&mut self, socket: &mut Socket) -> std::io::Result<()> {
        if !self.out.is_empty() {
            socket.send(&self.out)?;
            self.out.clear();
        }
        Ok(())
    }
}
