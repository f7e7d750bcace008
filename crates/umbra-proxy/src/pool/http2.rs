//! HTTP/2 to endpoints, by prior knowledge: a few connections for all requests, each on a stream of its own.
//!
//! A connection takes requests up to what its peer allows; then another one is made, up to a bound, beyond which requests
//! wait for a stream to end. A busy endpoint has a second one long before that, which no request waits for. One whose peer
//! is ending it (GOAWAY) takes no more, and finishes what it has.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Buf;
use futures::FutureExt as _;
use futures::future::{LocalBoxFuture, Shared, WeakShared};
use h2::Reason;
use h2::client::{ResponseFuture, SendRequest};
use http::Response;
use http::uri::Authority;
use http_body::Body;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio_util::task::TaskTracker;

use super::{ConnectError, Dialer, Missing, PeerBody, PeerError, Unanswered};
use crate::clock;
use crate::descriptors::Sockets;
use crate::http2::{Chunk, Hushed, ReadAhead, pump};
use crate::socket;
use crate::version::RequestHead;
use crate::worker::Limits;

/// Requests on one connection, if its peer allows as many: what every peer should (RFC 9113 section 6.5.2), and few enough
/// that losing a connection does not lose all.
const MAX_STREAMS: usize = 100;
/// Connections per endpoint and worker; with all of them full, requests wait for each other.
const MAX_CONNECTIONS: usize = 16;
/// Connections of a busy endpoint: one lost packet then holds up half of its answers, and a server that has a thread for
/// each connection uses two.
const BUSY_CONNECTIONS: usize = 2;
/// Requests that make a connection busy: as many as hardly ever come at once from a client that has few users.
const BUSY_STREAMS: usize = 32;
/// How long an endpoint is not asked for a second connection again, whatever has become of the last one.
const ASKED_AGAIN: Duration = Duration::from_secs(1);
/// What a peer may send of one answer before it is read: a slow client costs this much, twice that if it is in small frames.
const STREAM_WINDOW: u32 = 64 * 1024;
/// Of all answers: as much as that for each, so that slow clients hold up nobody else's answer.
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * MAX_STREAMS as u32;
/// Of a request's body that waits in a connection; the rest waits in the client.
const SEND_BUFFER: usize = 64 * 1024;

/// What frames that have come may cost on a connection until their bodies are read, or it ends: each what it lacks to 256
/// bytes, which is about what the `h2` crate holds for it.
#[derive(Clone, Copy)]
pub(super) struct UnreadFrames(usize);

impl UnreadFrames {
    /// They are read when the tasks of their streams run, after the connection's has had its turn: of 128 reads at most
    /// (tokio's budget), 8 KiB each (h2's buffer), or 26 MiB if each message is one byte. This is twice that, and more.
    pub(super) const OF_ENDPOINTS: Self = Self(64 * 1024 * 1024);
    /// A quarter of what a worker's copies may hold by default: a mirror may lose its connection, but not take memory.
    pub(super) const OF_MIRRORS: Self = Self(4 * 1024 * 1024);
}

/// One worker's connections of HTTP/2.
pub(crate) struct Connections<B: Body> {
    /// Hashed quickly: nobody can choose addresses that collide.
    endpoints: RefCell<HashMap<SocketAddr, Endpoint<B>, foldhash::fast::RandomState>>,
    idle_timeout: Duration,
    head_bytes: usize,
    unread: UnreadFrames,
    dialer: Rc<Dialer>,
    /// The connections' own tasks, and those of bodies on their way.
    tasks: TaskTracker,
}

struct Endpoint<B: Body> {
    open: Vec<Rc<Connection<B>>>,
    /// Requests that need a connection at the same time wait for the same one; gone when none of them waits any more.
    connecting: Option<WeakShared<Connecting<B>>>,
    /// When a connection was last asked for that nobody waits for.
    asked: Option<Instant>,
}

type Connecting<B> = LocalBoxFuture<'static, Result<Rc<Connection<B>>, ConnectError>>;

struct Connection<B: Body> {
    sender: RefCell<SendRequest<Chunk<B::Data>>>,
    socket: socket::Shared,
    /// What it is one of.
    sockets: Sockets,
    /// What the last request on it named: the next one mostly names the same.
    named: RefCell<Option<Authority>>,
    /// Requests on it.
    streams: Cell<usize>,
    /// When it last had one.
    last_used: Cell<Instant>,
    task: Aborted,
}

/// A task that ends with this.
struct Aborted(AbortHandle);

impl Drop for Aborted {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A request's place on a connection. Dropping it before the answer's end gives the stream up.
pub(crate) struct Stream<B: Body> {
    connection: Rc<Connection<B>>,
    reused: bool,
    tasks: TaskTracker,
    /// The task that carries the request's body.
    pump: Option<Aborted>,
}

impl<B: Body> Connection<B> {
    /// It takes another request at once.
    fn has_room(&self) -> bool {
        self.streams.get() < self.sender.borrow().current_max_send_streams().min(MAX_STREAMS)
    }

    /// It takes requests: neither end is ending it, and as far as anybody knows its peer is there.
    fn is_usable(&self, idle_timeout: Duration) -> bool {
        let cx = &mut Context::from_waker(Waker::noop());
        !self.task.0.is_finished()
            && matches!(self.sender.borrow_mut().poll_ready(cx), Poll::Ready(Ok(())))
            && (self.streams.get() > 0
                || (self.last_used.get().elapsed() < idle_timeout && !self.socket.has_ended()))
    }
}

impl<B: Body> Drop for Stream<B> {
    fn drop(&mut self) {
        self.connection.streams.set(self.connection.streams.get() - 1);
        self.connection.last_used.set(clock::now());
    }
}

impl<B> Connections<B>
where
    B: ReadAhead + Unpin + 'static,
    B::Data: Buf,
{
    pub(super) fn new(limits: &Limits, unread: UnreadFrames, dialer: Rc<Dialer>) -> Rc<Self> {
        let Limits { idle_timeout, head_bytes, .. } = *limits;
        let (endpoints, tasks) = (RefCell::default(), TaskTracker::new());
        Rc::new(Self { endpoints, idle_timeout, head_bytes, unread, dialer, tasks })
    }

    /// A place on a connection that is there; `None`: another one can be made.
    pub(crate) fn reuse(self: &Rc<Self>, address: SocketAddr) -> Option<Stream<B>> {
        let mut endpoints = self.endpoints.borrow_mut();
        let Endpoint { open, .. } = endpoints.get_mut(&address)?;
        let emptiest = loop {
            let all = open.iter().enumerate();
            let (at, emptiest) = all.min_by_key(|(_, connection)| connection.streams.get())?;
            if emptiest.is_usable(self.idle_timeout) {
                break &open[at];
            }
            open.swap_remove(at);
        };
        if !emptiest.has_room() && open.len() < MAX_CONNECTIONS {
            return None;
        }
        let is_busy = open.len() < BUSY_CONNECTIONS && emptiest.streams.get() >= BUSY_STREAMS;
        let stream = self.stream(emptiest, true);
        drop(endpoints);
        if is_busy {
            self.widen(address, &stream.connection.sockets);
        }
        Some(stream)
    }

    /// Has another connection made, for requests to come.
    fn widen(self: &Rc<Self>, address: SocketAddr, sockets: &Sockets) {
        let now = Instant::now();
        let is_new = |asked: &Instant| now.saturating_duration_since(*asked) < ASKED_AGAIN;
        match self.endpoints.borrow_mut().get_mut(&address) {
            Some(endpoint) if !endpoint.asked.as_ref().is_some_and(is_new) => endpoint.asked = Some(now),
            _ => return,
        }
        let connecting = self.connecting(address, sockets);
        self.tasks.spawn_local(async move {
            if let Err(error) = connecting.await {
                tracing::debug!(%address, %error, "a second connection was not made");
            }
        });
    }

    /// A place on a connection that is new, or that was when the request began to wait for it.
    pub(crate) async fn connect(
        self: &Rc<Self>,
        address: SocketAddr,
        sockets: &Sockets,
    ) -> Result<Stream<B>, ConnectError> {
        loop {
            let connection = self.connecting(address, sockets).await?;
            if connection.has_room() {
                return Ok(self.stream(&connection, false));
            }
            // Those who waited, too, were more than it takes.
            if let Some(stream) = self.reuse(address) {
                return Ok(stream);
            }
        }
    }

    fn stream(&self, connection: &Rc<Connection<B>>, reused: bool) -> Stream<B> {
        connection.streams.set(connection.streams.get() + 1);
        Stream { connection: Rc::clone(connection), reused, tasks: self.tasks.clone(), pump: None }
    }

    fn connecting(self: &Rc<Self>, address: SocketAddr, sockets: &Sockets) -> Shared<Connecting<B>> {
        let mut endpoints = self.endpoints.borrow_mut();
        let endpoint = endpoints.entry(address).or_insert_with(|| Endpoint {
            open: Vec::new(),
            connecting: None,
            asked: None,
        });
        if let Some(under_way) = endpoint.connecting.as_ref().and_then(WeakShared::upgrade) {
            return under_way;
        }
        let (pool, sockets) = (Rc::clone(self), sockets.clone());
        let connecting = async move {
            let connected = pool.open(address, &sockets).await;
            if let Some(endpoint) = pool.endpoints.borrow_mut().get_mut(&address) {
                endpoint.connecting = None;
                endpoint.open.extend(connected.iter().map(Rc::clone));
            }
            connected
        };
        let connecting = connecting.boxed_local().shared();
        endpoint.connecting = connecting.downgrade();
        connecting
    }

    async fn open(&self, address: SocketAddr, sockets: &Sockets) -> Result<Rc<Connection<B>>, ConnectError> {
        let (stream, open) = self.dialer.dial(address, sockets).await?;
        socket::keep_alive(&stream);
        let socket = socket::Shared::new(stream, open);
        let (sender, connection) = h2::client::Builder::new()
            .enable_push(false)
            // Until the peer has said how many it takes.
            .initial_max_send_streams(0)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buffer_size(SEND_BUFFER)
            .max_header_list_size(self.head_bytes.try_into().unwrap_or(u32::MAX))
            .data_frame_budget(self.unread.0)
            .handshake(Hushed::new(socket.clone()))
            .await
            .map_err(|error| ConnectError::Http(Rc::new(PeerError::Http2(error))))?;
        let (ready, is_ready) = oneshot::channel();
        let task = self.tasks.spawn_local(drive(connection, ready)).abort_handle();
        let guard = Aborted(task);
        match tokio::time::timeout(self.dialer.connect_timeout, is_ready).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(ConnectError::NotHttp2),
            Err(_) => return Err(ConnectError::Silent),
        }
        Ok(Rc::new(Connection {
            sender: RefCell::new(sender),
            socket,
            sockets: sockets.clone(),
            named: RefCell::default(),
            streams: Cell::new(0),
            last_used: Cell::new(Instant::now()),
            task: guard,
        }))
    }

    /// Lets go of connections that are ending or were idle for too long, and of endpoints without any.
    pub(super) fn sweep(&self) {
        self.endpoints.borrow_mut().retain(|_, endpoint| {
            endpoint.open.retain(|connection| connection.is_usable(self.idle_timeout));
            let connecting = endpoint.connecting.as_ref().and_then(WeakShared::upgrade).is_some();
            connecting || !endpoint.open.is_empty()
        });
    }
}

/// Runs a connection. `ready` hears when the peer has said what it takes, which it does unasked (RFC 9113 section 3.4): what
/// is sent before may be more than that, or go to a peer that speaks something else.
async fn drive<D: Buf>(
    mut connection: h2::client::Connection<Hushed<socket::Shared>, D>,
    ready: oneshot::Sender<()>,
) {
    let mut ready = Some(ready);
    let ended = std::future::poll_fn(|cx| {
        let ended = Pin::new(&mut connection).poll(cx);
        if ready.is_some()
            && connection.max_concurrent_send_streams() > 0
            && let Some(ready) = ready.take()
        {
            // Nobody waits any more when the request has gone.
            let _ = ready.send(());
        }
        ended
    });
    if let Err(error) = ended.await {
        tracing::debug!(%error, "a connection of HTTP/2 broke");
    }
}

impl<B> Stream<B>
where
    B: ReadAhead + Unpin + 'static,
    B::Data: Buf,
{
    pub(crate) fn is_reused(&self) -> bool {
        self.reused
    }

    pub(crate) fn send(
        &mut self,
        head: &RequestHead<'_>,
        body: B,
    ) -> impl Future<Output = Result<Response<PeerBody<B>>, Unanswered<B>>> + use<'_, B> {
        let written = self.connection.socket.written();
        let begun = self.begin(head, body);
        async move {
            match begun?.await {
                Ok(answer) => Ok(answer.map(PeerBody::http2)),
                Err(error) => Err(self.unanswered(error, written)),
            }
        }
    }

    fn begin(&mut self, head: &RequestHead<'_>, body: B) -> Result<ResponseFuture, Unanswered<B>> {
        // Each clone waits for its own stream only; how many there are is counted here.
        let mut sender = self.connection.sender.borrow().clone();
        let cx = &mut Context::from_waker(Waker::noop());
        if let Poll::Ready(Err(error)) = sender.poll_ready(cx) {
            let error = PeerError::Http2(error);
            return Err(Unanswered { error, how: Missing::Unsent, untouched: Some(body) });
        }
        let ended = body.is_end_stream();
        let request = head.for_http2(&mut self.connection.named.borrow_mut());
        let (answer, stream) = sender.send_request(request, ended).map_err(|error| Unanswered {
            error: PeerError::Http2(error),
            how: Missing::Unsent,
            untouched: None,
        })?;
        if !ended {
            self.pump =
                Some(Aborted(self.tasks.spawn_local(pump(body, stream, Reason::CANCEL)).abort_handle()));
        }
        Ok(answer)
    }

    fn unanswered(&self, error: h2::Error, written: u64) -> Unanswered<B> {
        let how = if error.is_go_away() && error.is_remote() {
            // Streams that the peer began to serve are not told of its leave (RFC 9113 section 6.8).
            Missing::Unsent
        } else if error.is_reset() {
            match error.reason() {
                Some(Reason::REFUSED_STREAM) if error.is_remote() => Missing::Refused,
                _ => Missing::Reset,
            }
        } else if self.connection.socket.took_nothing_since(written) {
            Missing::Unsent
        } else {
            Missing::Closed { silent: true }
        };
        Unanswered { error: PeerError::Http2(error), how, untouched: None }
    }
}
