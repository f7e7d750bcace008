//! Upstream connections of one worker: made, kept while idle, and used again while they are good.
//!
//! Takes: an endpoint's address and what is spoken there. Gives: a place for one request on a connection: one of its own
//! with HTTP/1, a stream among others with HTTP/2.

mod http1;
mod http2;
mod peer_body;
mod pump;

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Buf;
use futures::future::Either;
use http::{Request, Response};
use http_body::Body;
use tokio::net::TcpStream;

use crate::descriptors::Sockets;
use crate::socket::{self, Shared};
use crate::version::HttpVersion;
use crate::worker::Limits;

pub(crate) use peer_body::{PeerBody, PeerError};

/// One worker's connections that carry bodies `B`.
pub(crate) struct Pool<B: Body> {
    http1: Rc<http1::Connections<B>>,
    http2: Rc<http2::Connections<B>>,
}

/// A place for one request. Dropping it ends the exchange; [`Pool::put`] keeps the connection.
pub(crate) enum Pooled<B: Body> {
    Http1(http1::Exclusive<B>),
    Http2(http2::Stream<B>),
}

/// There is no connection.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("{0}")]
    Io(Rc<io::Error>),
    #[error("no answer in time")]
    TimedOut,
    /// Nobody was asked.
    #[error("there are as many connections as are allowed")]
    TooMany,
    #[error("it does not speak HTTP/2; does its Service's port say so, by appProtocol or its name?")]
    NotHttp2,
    #[error("{0}")]
    Http(Rc<PeerError>),
}

/// A request got no answer.
pub(crate) struct Unanswered<B> {
    pub(crate) error: PeerError,
    pub(crate) how: Missing,
    /// The request, where none of it has left this process.
    pub(crate) request: Option<Box<Request<B>>>,
}

/// How an answer came not to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    /// The peer has nothing of the request, or says that it will do nothing with it because its connection is ending.
    Unsent,
    /// The peer refused it, and did nothing with it.
    Refused,
    /// The peer gave it up.
    Reset,
    /// The connection ended.
    Closed {
        /// Not a byte of an answer had come.
        silent: bool,
    },
}

/// What a connection begins with.
struct Dialer {
    connect_timeout: Duration,
}

impl Dialer {
    async fn dial(&self, address: SocketAddr, sockets: &Sockets) -> Result<Shared, ConnectError> {
        let open = sockets.try_open().ok_or(ConnectError::TooMany)?;
        let io_error = |error| ConnectError::Io(Rc::new(error));
        let connecting = tokio::time::timeout(self.connect_timeout, TcpStream::connect(address));
        let stream = connecting.await.map_err(|_| ConnectError::TimedOut)?.map_err(io_error)?;
        stream.set_nodelay(true).map_err(io_error)?;
        socket::keep_alive(&stream);
        Ok(Shared::new(stream, open))
    }
}

impl<B> Pool<B>
where
    B: Body + 'static,
    B::Data: Buf + Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    pub(crate) fn new(limits: &Limits) -> Self {
        let dialer = Rc::new(Dialer { connect_timeout: limits.connect_timeout });
        Self {
            http1: http1::Connections::new(limits, Rc::clone(&dialer)),
            http2: http2::Connections::new(limits, dialer),
        }
    }

    /// A connection to `address` that has been there for a while, if one is good.
    pub(crate) fn reuse(&self, address: SocketAddr, version: HttpVersion) -> Option<Pooled<B>> {
        match version {
            HttpVersion::Http1 => self.http1.reuse(address).map(Pooled::Http1),
            HttpVersion::Http2 => self.http2.reuse(address).map(Pooled::Http2),
        }
    }

    /// A new connection, one of `sockets`. Cancel safe: nothing is left behind.
    ///
    /// # Errors
    /// The endpoint refused or did not answer in time, or `sockets` has no more.
    pub(crate) async fn connect(
        &self,
        address: SocketAddr,
        version: HttpVersion,
        sockets: &Sockets,
    ) -> Result<Pooled<B>, ConnectError> {
        match version {
            HttpVersion::Http1 => self.http1.connect(address, sockets).await.map(Pooled::Http1),
            HttpVersion::Http2 => self.http2.connect(address, sockets).await.map(Pooled::Http2),
        }
    }

    /// Takes back the place of a request whose answer was read to its end.
    pub(crate) fn put(&self, pooled: Pooled<B>) {
        match pooled {
            Pooled::Http1(connection) => self.http1.put(connection),
            // Its connection is in the pool all the time.
            Pooled::Http2(stream) => drop(stream),
        }
    }

    /// Lets go of connections that are closed or too old.
    pub(crate) fn sweep(&self) {
        self.http1.sweep();
        self.http2.sweep();
    }
}

impl<B> Pooled<B>
where
    B: Body + 'static,
    B::Data: Buf + Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// Its connection has served a request before.
    pub(crate) fn is_reused(&self) -> bool {
        match self {
            Self::Http1(connection) => connection.reused,
            Self::Http2(stream) => stream.is_reused(),
        }
    }

    /// Sends a request that was made for this connection's version ([`HttpVersion::request`]). It is on its way when this
    /// returns; the future waits for the head of the answer.
    pub(crate) fn send(
        &mut self,
        request: Request<B>,
    ) -> impl Future<Output = Result<Response<PeerBody>, Unanswered<B>>> + use<'_, B> {
        match self {
            Self::Http1(connection) => Either::Left(connection.send(request)),
            Self::Http2(stream) => Either::Right(stream.send(request)),
        }
    }

    /// Leaves the connection to itself: it was upgraded, which only HTTP/1 does.
    pub(crate) fn detach(self) {
        if let Self::Http1(connection) = self {
            connection.detach();
        }
    }
}
