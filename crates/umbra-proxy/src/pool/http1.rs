//! HTTP/1 to endpoints: a connection for each request, kept while idle. A peer that closes idle connections teaches the
//! pool to let go of them earlier, so that a request does not meet the closing one.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Buf;
use http::{Request, Response};
use http_body::Body;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::task::AbortHandle;
use tokio_util::task::TaskTracker;

use super::{ConnectError, Dialer, Missing, PeerBody, PeerError, Unanswered};
use crate::descriptors::Sockets;
use crate::socket::Shared;
use crate::worker::Limits;

/// Idle connections kept per endpoint and worker: as many as a busy client pool holds open; each costs about 10 KiB.
const IDLE_PER_ENDPOINT: usize = 128;
/// A peer that closes sooner than this is ending, not tidying up: nothing is learnt from it.
const SHORTEST_LESSON: Duration = Duration::from_millis(100);
/// What an endpoint has taught is forgotten when it was not used for this long: it may be another pod by then.
const REMEMBERED: Duration = Duration::from_secs(600);

/// One worker's connections of HTTP/1.
pub(super) struct Connections<B> {
    endpoints: RefCell<HashMap<SocketAddr, Endpoint<B>>>,
    idle_timeout: Duration,
    head_bytes: usize,
    dialer: Rc<Dialer>,
    /// The connections' own tasks.
    tasks: TaskTracker,
}

struct Endpoint<B> {
    idle: Vec<Exclusive<B>>,
    /// What its peer has taught about idle connections.
    idle_limit: Duration,
    last_used: Instant,
}

/// A connection in use. Dropping it ends the connection; [`Connections::put`] keeps it.
pub(crate) struct Exclusive<B> {
    sender: SendRequest<B>,
    socket: Shared,
    /// It has served a request before.
    pub(super) reused: bool,
    address: SocketAddr,
    /// Set while idle; the connection's task reads it when the peer ends the connection.
    idle_since: Rc<Cell<Option<Instant>>>,
    task: Option<AbortHandle>,
}

impl<B> Exclusive<B> {
    /// Leaves the connection to itself: it was upgraded.
    pub(super) fn detach(mut self) {
        self.task = None;
    }
}

impl<B> Drop for Exclusive<B> {
    fn drop(&mut self) {
        self.idle_since.set(None);
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }
}

impl<B> Exclusive<B>
where
    B: Body + 'static,
    B::Data: Buf + Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    pub(super) fn send(
        &mut self,
        request: Request<B>,
    ) -> impl Future<Output = Result<Response<PeerBody>, Unanswered<B>>> + use<'_, B> {
        let (written, read) = (self.socket.written(), self.socket.read());
        let sending = self.sender.try_send_request(request);
        async move {
            let answer = sending.await.map_err(|error| self.unanswered(error, written, read))?;
            Ok(answer.map(PeerBody::http1))
        }
    }

    fn unanswered(&self, mut error: TrySendError<Request<B>>, written: u64, read: u64) -> Unanswered<B> {
        let request = error.take_message().map(Box::new);
        let unsent = request.is_some() || self.socket.took_nothing_since(written);
        let how = match unsent {
            true => Missing::Unsent,
            false => Missing::Closed { silent: self.socket.read() == read },
        };
        Unanswered { error: PeerError::Http1(error.into_error()), how, request }
    }
}

impl<B> Connections<B>
where
    B: Body + 'static,
    B::Data: Buf + Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    pub(super) fn new(limits: &Limits, dialer: Rc<Dialer>) -> Rc<Self> {
        let Limits { idle_timeout, head_bytes, .. } = *limits;
        let (endpoints, tasks) = (RefCell::default(), TaskTracker::new());
        Rc::new(Self { endpoints, idle_timeout, head_bytes, dialer, tasks })
    }

    /// The connection to `address` that was used last, if one is good.
    pub(super) fn reuse(&self, address: SocketAddr) -> Option<Exclusive<B>> {
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
    pub(super) async fn connect(
        self: &Rc<Self>,
        address: SocketAddr,
        sockets: &Sockets,
    ) -> Result<Exclusive<B>, ConnectError> {
        let socket = self.dialer.dial(address, sockets).await?;
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(self.head_bytes)
            .handshake(TokioIo::new(socket.clone()))
            .await
            .map_err(|error| ConnectError::Http(Rc::new(PeerError::Http1(error))))?;
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
        Ok(Exclusive { sender, socket, reused: false, address, idle_since, task })
    }

    /// Keeps a connection whose answer was read to its end.
    pub(super) fn put(&self, pooled: Exclusive<B>) {
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
    pub(super) fn sweep(&self) {
        self.endpoints.borrow_mut().retain(|_, endpoint| {
            let limit = endpoint.idle_limit;
            let young =
                |pooled: &Exclusive<B>| pooled.idle_since.get().is_some_and(|since| since.elapsed() < limit);
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
