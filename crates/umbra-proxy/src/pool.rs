//! Upstream connections of one worker: made, kept while idle, and used again while they are good.
//!
//! Takes: an endpoint's address and what is spoken there. Gives: a place for one request on a connection: one of its own
//! with HTTP/1, a stream among others with HTTP/2.

mod dial;
mod http1;
mod http2;
mod link;
mod message;
mod peer_body;

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

use bytes::{Buf, BytesMut};
use futures::future::Either;
use http::Response;
use http_body::Body;
use tokio::net::TcpStream;

use crate::descriptors::{Open, Sockets};
use crate::http2::ReadAhead;
use crate::recycle::Recycled;
use crate::version::{HttpVersion, RequestHead};
use crate::worker::Limits;
use dial::Dialer;
use http2::UnreadFrames;

pub(crate) use dial::ConnectError;
pub(crate) use http1::{Exclusive, ResetOnDrop};
pub(crate) use http2::Stream;
pub(crate) use message::Written;
pub(crate) use peer_body::{PeerBody, PeerError};

/// One worker's connections that carry bodies `B`.
pub(crate) struct Pool<B: Body> {
    pub(crate) http1: Rc<http1::Connections<B>>,
    pub(crate) http2: Rc<http2::Connections<B>>,
}

/// What a pool's requests are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Carries {
    /// Users': they wait for as long as they like, and so do their connections.
    Requests,
    /// Each has its timeout once it is sent, and costs no more than it must.
    Copies,
}

/// A place for one request. Dropping it ends the exchange; [`Pool::put`] keeps the connection.
pub(crate) enum Pooled<B: Body> {
    Http1(http1::Exclusive<B>),
    Http2(http2::Stream<B>),
}

/// A request got no answer.
pub(crate) struct Unanswered<B> {
    pub(crate) error: PeerError,
    pub(crate) how: Missing,
    /// The request's body, if nothing of it was read.
    pub(crate) untouched: Option<B>,
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

impl<B> Pool<B>
where
    B: ReadAhead + Unpin + 'static,
    B::Data: Buf,
{
    pub(crate) fn new(limits: &Limits, carries: Carries, recycled: &Rc<Recycled>) -> Self {
        let recycled = Rc::clone(recycled);
        let dialer = Rc::new(Dialer { connect_timeout: limits.connect_timeout, recycled });
        let unread = match carries {
            Carries::Requests => UnreadFrames::OF_ENDPOINTS,
            Carries::Copies => UnreadFrames::OF_MIRRORS,
        };
        Self {
            http1: http1::Connections::new(limits, carries, Rc::clone(&dialer)),
            http2: http2::Connections::new(limits, unread, dialer),
        }
    }

    /// A connection to `address` that has been there for a while, if one is good. `surely`: what is to be sent may not be
    /// sent again, so that a look into the kernel is worth its cost.
    pub(crate) fn reuse(
        &self,
        address: SocketAddr,
        version: HttpVersion,
        (surely, now): (bool, Instant),
    ) -> Option<Pooled<B>> {
        match version {
            HttpVersion::Http1 => self.http1.reuse(address, (surely, now)).map(Pooled::Http1),
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
    pub(crate) fn put(&self, pooled: Pooled<B>, now: Instant) {
        match pooled {
            Pooled::Http1(connection) => self.http1.put(connection, now),
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
    B: ReadAhead + Unpin + 'static,
    B::Data: Buf,
{
    /// Its connection has served a request before.
    pub(crate) fn is_reused(&self) -> bool {
        match self {
            Self::Http1(connection) => connection.is_reused(),
            Self::Http2(stream) => stream.is_reused(),
        }
    }

    /// Sends a request; one without a body is on its way when this returns, the head of another with the first of its body.
    /// The future waits for the head of the answer.
    pub(crate) fn send(
        &mut self,
        head: &RequestHead<'_>,
        body: B,
    ) -> impl Future<Output = Result<Response<PeerBody<B>>, Unanswered<B>>> + use<'_, B> {
        match self {
            Self::Http1(connection) => {
                let begun = connection.begin(head, body);
                Either::Left(connection.answer(begun))
            }
            Self::Http2(stream) => Either::Right(stream.send(head, body)),
        }
    }

    /// The answer has ended, and the request has not.
    pub(crate) fn is_sending(&self) -> bool {
        match self {
            Self::Http1(connection) => connection.is_sending(),
            // Its peer may end the stream with its answer.
            Self::Http2(_) => false,
        }
    }

    /// Sends the rest of the request. Cancel safe.
    ///
    /// # Errors
    /// The connection, or the body, broke.
    pub(crate) async fn finish(&self) -> Result<(), PeerError> {
        match self {
            Self::Http1(connection) => connection.finish().await,
            Self::Http2(_) => Ok(()),
        }
    }

    /// The socket, with what was read behind the answer's head: the peer has switched protocols, which only HTTP/1 does.
    /// Nothing else may hold the connection.
    pub(crate) fn detach(self) -> Option<(TcpStream, BytesMut, Open)> {
        match self {
            Self::Http1(connection) => connection.detach(),
            Self::Http2(_) => None,
        }
    }
}
