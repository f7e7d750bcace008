//! A copy's head, kept in the form that its endpoint's version of HTTP takes, until a connection of that version is there.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

use http::{HeaderMap, HeaderName, Method, Response, Uri};
use http_body::Body as _;

use super::tap::CopyBody;
use crate::descriptors::Sockets;
use crate::headers;
use crate::pool::{
    ConnectError, Exclusive, PeerBody, Pool, Pooled, ResetOnDrop, Stream, Unanswered, Written,
};
use crate::recycle::Recycled;
use crate::version::{HttpVersion, RequestHead};

/// The head of a copy. What its endpoint is spoken to is what this is for.
pub(crate) enum Head {
    Http1(Written),
    Http2(Box<Kept>),
}

/// What HTTP/2 makes its own of.
pub(crate) struct Kept {
    method: Method,
    scheme: &'static str,
    uri: Uri,
    headers: HeaderMap,
    mark: Option<HeaderName>,
}

/// A place on a connection, with the head that is sent there.
pub(super) enum Place<'h> {
    Http1(Exclusive<CopyBody>, &'h Written),
    Http2(Stream<CopyBody>, &'h Kept),
}

impl Head {
    pub(crate) fn new(
        head: &RequestHead<'_>,
        version: HttpVersion,
        body: &CopyBody,
        recycled: &Rc<Recycled>,
    ) -> Self {
        match version {
            HttpVersion::Http1 => Self::Http1(Written::new(head, body, recycled)),
            HttpVersion::Http2 => Self::Http2(Box::new(Kept {
                method: head.method.clone(),
                scheme: head.scheme,
                uri: head.uri.clone(),
                headers: head.headers.clone(),
                mark: head.mark.cloned(),
            })),
        }
    }

    /// A place on a connection that is there; see [`Pool::reuse`].
    pub(super) fn reuse(
        &self,
        pool: &Pool<CopyBody>,
        address: SocketAddr,
        how: (bool, Instant),
    ) -> Option<Place<'_>> {
        match self {
            Self::Http1(written) => Some(Place::Http1(pool.http1.reuse(address, how)?, written)),
            Self::Http2(kept) => Some(Place::Http2(pool.http2.reuse(address)?, kept)),
        }
    }

    /// A place on a new connection; see [`Pool::connect`].
    pub(super) async fn connect(
        &self,
        pool: &Pool<CopyBody>,
        address: SocketAddr,
        sockets: &Sockets,
    ) -> Result<Place<'_>, ConnectError> {
        match self {
            Self::Http1(written) => Ok(Place::Http1(pool.http1.connect(address, sockets).await?, written)),
            Self::Http2(kept) => Ok(Place::Http2(pool.http2.connect(address, sockets).await?, kept)),
        }
    }

    /// It has a connection to itself while it is there.
    pub(super) fn is_alone(&self) -> bool {
        matches!(self, Self::Http1(_))
    }

    /// In bytes, for the metrics.
    pub(super) fn size(&self) -> u64 {
        match self {
            Self::Http1(written) => written.size() as u64,
            Self::Http2(kept) => {
                let target = kept.uri.path_and_query().map_or(1, |target| target.as_str().len());
                headers::wire_size(kept.method.as_str().len() + target + 12, &kept.headers)
            }
        }
    }
}

impl Kept {
    fn head(&self) -> RequestHead<'_> {
        let Self { method, scheme, uri, headers, mark } = self;
        RequestHead { method, scheme, uri, headers, switches: false, mark: mark.as_ref() }
    }
}

impl Place<'_> {
    /// Its connection has served a request before.
    pub(super) fn is_reused(&self) -> bool {
        match self {
            Self::Http1(connection, _) => connection.is_reused(),
            Self::Http2(stream, _) => stream.is_reused(),
        }
    }

    /// Its connection was made for this copy, and nobody else is on it.
    pub(super) fn is_fresh(&self) -> bool {
        matches!(self, Self::Http1(connection, _) if !connection.is_reused())
    }

    /// For as long as the copy is on its way. A connection that others are on goes on.
    pub(super) fn reset_on_drop(&self) -> Option<ResetOnDrop<CopyBody>> {
        match self {
            Self::Http1(connection, _) => Some(connection.reset_on_drop()),
            Self::Http2(..) => None,
        }
    }

    /// Sends the copy; ends with the head of the answer.
    pub(super) async fn send(
        &mut self,
        body: CopyBody,
    ) -> Result<Response<PeerBody<CopyBody>>, Unanswered<CopyBody>> {
        match self {
            Self::Http1(connection, written) => {
                if !body.is_end_stream() {
                    // Its timeout counts from the body's end, which may be hours away.
                    connection.keep_alive();
                }
                let begun = connection.begin(*written, body);
                connection.answer(begun).await
            }
            Self::Http2(stream, kept) => stream.send(&kept.head(), body).await,
        }
    }

    /// For the pool, which does not need the head.
    pub(super) fn into_pooled(self) -> Pooled<CopyBody> {
        match self {
            Self::Http1(connection, _) => Pooled::Http1(connection),
            Self::Http2(stream, _) => Pooled::Http2(stream),
        }
    }
}
