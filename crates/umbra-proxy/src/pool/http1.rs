//! HTTP/1 to endpoints: a connection for each request, kept while idle. A peer that closes idle connections teaches the
//! pool to let go of them earlier, so that a request does not meet the closing one.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use http::Response;
use http_body::Body;
use tokio::net::TcpStream;

use super::link::{Begun, Link};
use super::message::Message;
use super::{Carries, ConnectError, Dialer, Missing, PeerBody, PeerError, Unanswered};
use crate::descriptors::{Open, Sockets};
use crate::http2::ReadAhead;
use crate::worker::Limits;

/// Idle connections kept per endpoint and worker: as many as a busy client pool holds open; each costs less than 1 KiB.
const IDLE_PER_ENDPOINT: usize = 128;
/// A peer that closes sooner than this is ending, not tidying up: nothing is learnt from it.
const SHORTEST_LESSON: Duration = Duration::from_millis(100);
/// How much later than it happened an end may be noticed: idle connections are looked at with each tick of the worker.
const NOTICED_WITHIN: Duration = Duration::from_millis(100);
/// What an endpoint has taught is forgotten when it was not used for this long: it may be another pod by then.
const REMEMBERED: Duration = Duration::from_secs(600);

/// One worker's connections of HTTP/1.
pub(crate) struct Connections<B: Body> {
    /// Addresses come from the controller, which nobody can make choose colliding ones: a quick hash is enough.
    endpoints: RefCell<HashMap<SocketAddr, Endpoint<B>, foldhash::fast::RandomState>>,
    idle_timeout: Duration,
    head_bytes: usize,
    carries: Carries,
    dialer: Rc<Dialer>,
}

struct Endpoint<B: Body> {
    idle: Vec<Idle<B>>,
    /// What its peer has taught about idle connections.
    idle_limit: Duration,
    last_used: Instant,
}

struct Idle<B: Body> {
    link: Rc<Link<B>>,
    since: Instant,
}

/// A connection in use. Dropping it ends the connection; [`Connections::put`] keeps it.
pub(crate) struct Exclusive<B: Body> {
    link: Rc<Link<B>>,
    /// It has served a request before.
    reused: bool,
    address: SocketAddr,
}

/// Resets a connection when it is dropped, unless its exchange was [`answered`](Self::answered).
///
/// What was written for a peer that does not read would else stay in the kernel: up to 4 MiB of each connection
/// (tcp_wmem in tcp(7)), for the four minutes that it goes on asking, of the memory that all sockets of the node share.
pub(crate) struct ResetOnDrop<B: Body>(Option<Rc<Link<B>>>);

impl<B> ResetOnDrop<B>
where
    B: ReadAhead + Unpin,
    B::Data: Buf,
{
    /// The answer was read to its end: the connection goes on, or ends well. One whose peer has answered what it has not
    /// read is reset all the same.
    pub(crate) fn answered(mut self) {
        self.0.take_if(|link| link.is_over() || link.is_delivered());
    }
}

impl<B: Body> Drop for ResetOnDrop<B> {
    fn drop(&mut self) {
        if let Some(link) = &self.0 {
            link.reset_on_drop();
        }
    }
}

impl<B> Exclusive<B>
where
    B: ReadAhead + Unpin + 'static,
    B::Data: Buf,
{
    /// Sends a request; one without a body is on its way when this returns.
    pub(crate) fn begin(&mut self, head: &impl Message, body: B) -> Begun {
        self.link.begin(head, body)
    }

    /// The head of the answer to what has begun.
    pub(crate) async fn answer(&mut self, begun: Begun) -> Result<Response<PeerBody<B>>, Unanswered<B>> {
        let head = std::future::poll_fn(|cx| self.link.poll_head(cx)).await;
        head.map(|head| head.map(|()| PeerBody::http1(&self.link))).map_err(|error| {
            let how = match self.link.took_nothing(begun) {
                true => Missing::Unsent,
                false => Missing::Closed { silent: self.link.said_nothing(begun) },
            };
            Unanswered { error, how, untouched: self.link.untouched_body() }
        })
    }

    /// It has served a request before.
    pub(crate) fn is_reused(&self) -> bool {
        self.reused
    }

    /// For an exchange that may last for as long as somebody else likes: a peer that vanishes meanwhile is noticed. All
    /// connections of users' requests have this; before a mirror that ends each of its connections it would be four of a
    /// copy's fourteen system calls, and one without a body ends in time by itself.
    pub(crate) fn keep_alive(&self) {
        self.link.keep_alive();
    }

    /// For an exchange whose connection is of no use to the peer when it is given up.
    pub(crate) fn reset_on_drop(&self) -> ResetOnDrop<B> {
        ResetOnDrop(Some(Rc::clone(&self.link)))
    }

    /// The answer has ended, and the request has not.
    pub(super) fn is_sending(&self) -> bool {
        self.link.is_sending()
    }

    /// Sends the rest of the request. Cancel safe.
    ///
    /// # Errors
    /// The connection, or the body, broke.
    pub(super) async fn finish(&self) -> Result<(), PeerError> {
        std::future::poll_fn(|cx| self.link.poll_sent(cx)).await
    }

    /// The socket, with what was read behind the head: the peer speaks something else from here on.
    pub(super) fn detach(self) -> Option<(TcpStream, BytesMut, Open)> {
        Rc::into_inner(self.link).and_then(Link::into_stream)
    }
}

impl<B> Connections<B>
where
    B: ReadAhead + Unpin + 'static,
    B::Data: Buf,
{
    pub(super) fn new(limits: &Limits, carries: Carries, dialer: Rc<Dialer>) -> Rc<Self> {
        let Limits { idle_timeout, head_bytes, .. } = *limits;
        Rc::new(Self { endpoints: RefCell::default(), idle_timeout, head_bytes, carries, dialer })
    }

    /// The connection to `address` that was used last, if one is good. `surely`: the kernel is asked, because what is to be
    /// sent may not be sent again.
    pub(crate) fn reuse(&self, address: SocketAddr, (surely, now): (bool, Instant)) -> Option<Exclusive<B>> {
        let mut endpoints = self.endpoints.borrow_mut();
        let endpoint = endpoints.get_mut(&address)?;
        while let Some(Idle { link, since }) = endpoint.idle.pop() {
            let age = now.saturating_duration_since(since);
            let quiet = link.seems_quiet() && (!surely || link.is_quiet());
            if quiet && age < endpoint.idle_limit {
                return Some(Exclusive { link, reused: true, address });
            }
            if !quiet {
                endpoint.closed_by_peer(age);
            }
        }
        None
    }

    /// A new connection. Cancel safe: nothing is left behind.
    ///
    /// # Errors
    /// The endpoint refused or did not answer in time.
    pub(crate) async fn connect(
        &self,
        address: SocketAddr,
        sockets: &Sockets,
    ) -> Result<Exclusive<B>, ConnectError> {
        let (stream, open) = self.dialer.dial(address, sockets).await?;
        let link = Link::new(stream, open, Rc::clone(&self.dialer.recycled), self.head_bytes);
        if self.carries == Carries::Requests {
            link.keep_alive();
        }
        Ok(Exclusive { link: Rc::new(link), reused: false, address })
    }

    /// Keeps a connection whose answer was read to its end.
    pub(super) fn put(&self, Exclusive { link, address, .. }: Exclusive<B>, now: Instant) {
        if !link.is_over() {
            return;
        }
        let mut endpoints = self.endpoints.borrow_mut();
        let new = || Endpoint { idle: Vec::new(), idle_limit: self.idle_timeout, last_used: now };
        let endpoint = endpoints.entry(address).or_insert_with(new);
        endpoint.last_used = now;
        if endpoint.idle.len() < IDLE_PER_ENDPOINT {
            endpoint.idle.push(Idle { link, since: now });
        }
    }

    /// Lets go of connections that are closed or too old, and of endpoints without any.
    pub(super) fn sweep(&self) {
        self.endpoints.borrow_mut().retain(|_, endpoint| {
            endpoint.sweep();
            !endpoint.idle.is_empty() || endpoint.last_used.elapsed() < REMEMBERED
        });
    }
}

impl<B> Endpoint<B>
where
    B: ReadAhead + Unpin + 'static,
    B::Data: Buf,
{
    fn sweep(&mut self) {
        let closed = self.idle.extract_if(.., |idle| !idle.link.seems_quiet());
        let ages: Vec<Duration> = closed.map(|idle| idle.since.elapsed()).collect();
        ages.into_iter().for_each(|age| self.closed_by_peer(age));
        let limit = self.idle_limit;
        self.idle.retain(|idle| idle.since.elapsed() < limit);
        self.idle.iter().for_each(|idle| idle.link.rest());
    }

    fn closed_by_peer(&mut self, noticed: Duration) {
        let age = noticed.saturating_sub(NOTICED_WITHIN);
        if age >= SHORTEST_LESSON {
            // A quarter of its patience is the margin for requests on their way.
            self.idle_limit = self.idle_limit.min(age * 3 / 4);
        }
    }
}
