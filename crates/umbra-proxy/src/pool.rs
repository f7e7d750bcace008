//! Upstream connections of one worker: made, kept while idle, and used again while they are good.
//!
//! Takes: an endpoint's address. Gives: a connection that was quiet a moment ago, or a new one. A peer that closes
//! idle connections teaches the pool to let go of them earlier, so that a request does not meet the closing one.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use http_body::Body;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio_util::task::TaskTracker;

use crate::descriptors::Sockets;
use crate::socket::{self, Shared};
use crate::worker::Limits;

/// Idle connections kept per endpoint and worker: as many as a busy client pool holds open; each costs about 10 KiB.
const IDLE_PER_ENDPOINT: usize = 128;
/// A peer that closes sooner than this is ending, not tidying up: nothing is learnt from it.
const SHORTEST_LESSON: Duration = Duration::from_millis(100);
/// What an endpoint has taught is forgotten when it was not used for this long: it may be another pod by then.
const REMEMBERED: Duration = Duration::from_secs(600);

/// One worker's connections that carry bodies `B`.
pub(crate) struct Pool<B> {
    endpoints: RefCell<HashMap<SocketAddr, Endpoint<B>>>,
    idle_timeout: Duration,
    connect_timeout: Duration,
    head_bytes: usize,
    sockets: Sockets,
    /// The connections' own tasks.
    tasks: TaskTracker,
}

struct Endpoint<B> {
    idle: Vec<Pooled<B>>,
    /// What its peer has taught about idle connections.
    idle_limit: Duration,
    last_used: Instant,
}

/// A connection in use. Dropping it ends the connection; [`Pool::put`] keeps it.
pub(crate) struct Pooled<B> {
    pub(crate) sender: SendRequest<B>,
    pub(crate) socket: Shared,
    /// It has served a request before.
    pub(crate) reused: bool,
    address: SocketAddr,
    /// Set while idle; the connection's task reads it when the peer ends the connection.
    idle_since: Rc<Cell<Option<Instant>>>,
    task: Option<AbortHandle>,
}

impl<B> Pooled<B> {
    /// Leaves the connection to itself: it was upgraded.
    pub(crate) fn detach(mut self) {
        self.task = None;
    }
}

impl<B> Drop for Pooled<B> {
    fn drop(&mut self) {
        self.idle_since.set(None);
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }
}

/// An endpoint did not take a connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("no answer in time")]
    TimedOut,
    #[error("{0}")]
    Http(#[from] hyper::Error),
}

impl<B> Pool<B>
where
    B: Body + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    pub(crate) fn new(limits: &Limits, sockets: Sockets) -> Rc<Self> {
        let Limits { idle_timeout, connect_timeout, head_bytes, .. } = *limits;
        let (endpoints, tasks) = (RefCell::default(), TaskTracker::new());
        Rc::new(Self { endpoints, idle_timeout, connect_timeout, head_bytes, sockets, tasks })
    }

    /// The connection to `address` that was used last, if one is good.
    pub(crate) fn reuse(&self, address: SocketAddr) -> Option<Pooled<B>> {
        let mut endpoints = self.endpoints.borrow_mut();
        let endpoint = endpoints.get_mut(&address)?;
        let limit = endpoint.idle_limit;
        while let Some(at) = endpoint.idle.iter().rposition(|pooled| pooled.sender.is_ready()) {
            let mut pooled = endpoint.idle.remove(at);
            let young = pooled.idle_since.get().is_some_and(|since| since.elapsed() < limit);
            if young && pooled.socket.is_quiet() {
                pooled.idle_since.set(None);
                pooled.reused = true;
                return Some(pooled);
            }
        }
        None
    }

    /// A new connection. Cancel safe: nothing is left behind.
    ///
    /// # Errors
    /// The endpoint refused or did not answer in time.
    pub(crate) async fn connect(self: &Rc<Self>, address: SocketAddr) -> Result<Pooled<B>, ConnectError> {
        let open = self.sockets.open();
        let connecting = tokio::time::timeout(self.connect_timeout, TcpStream::connect(address));
        let stream = connecting.await.map_err(|_| ConnectError::TimedOut)??;
        stream.set_nodelay(true)?;
        socket::keep_alive(&stream);
        let socket = Shared::new(stream, open);
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(self.head_bytes)
            .handshake(TokioIo::new(socket.clone()))
            .await?;
        let idle_since = Rc::new(Cell::new(None::<Instant>));
        let (pool, idle) = (Rc::downgrade(self), Rc::clone(&idle_since));
        let task = self.tasks.spawn_local(async move {
            // Its error reaches whoever waits for an answer; an idle connection has nobody to tell.
            let _ = connection.with_upgrades().await;
            if let (Some(since), Some(pool)) = (idle.get(), pool.upgrade()) {
                pool.closed_by_peer(address, since.elapsed());
            }
        });
        let task = Some(task.abort_handle());
        Ok(Pooled { sender, socket, reused: false, address, idle_since, task })
    }

    /// Keeps a connection whose answer was read to its end.
    pub(crate) fn put(&self, pooled: Pooled<B>) {
        if pooled.sender.is_closed() {
            return;
        }
        let mut endpoints = self.endpoints.borrow_mut();
        let new = || Endpoint { idle: Vec::new(), idle_limit: self.idle_timeout, last_used: Instant::now() };
        let endpoint = endpoints.entry(pooled.address).or_insert_with(new);
        endpoint.last_used = Instant::now();
        if endpoint.idle.len() < IDLE_PER_ENDPOINT {
            pooled.idle_since.set(Some(Instant::now()));
            endpoint.idle.push(pooled);
        }
    }

    /// Lets go of connections that are closed or too old, and of endpoints without any.
    pub(crate) fn sweep(&self) {
        self.endpoints.borrow_mut().retain(|_, endpoint| {
            let limit = endpoint.idle_limit;
            let young =
                |pooled: &Pooled<B>| pooled.idle_since.get().is_some_and(|since| since.elapsed() < limit);
            endpoint.idle.retain(|pooled| !pooled.sender.is_closed() && young(pooled));
            !endpoint.idle.is_empty() || endpoint.last_used.elapsed() < REMEMBERED
        });
    }

    fn closed_by_peer(&self, address: SocketAddr, age: Duration) {
        if age < SHORTEST_LESSON {
            return;
        }
        if let Some(endpoint) = self.endpoints.borrow_mut().get_mut(&address) {
            // A quarter of its patience is the margin for requests on their way.
            endpoint.idle_limit = endpoint.idle_limit.min(age * 3 / 4);
        }
    }
}
