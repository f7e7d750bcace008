//! Towards clients: one connection, request by request, in the version of HTTP that its client speaks.
//!
//! Takes: a connection and what it asked for. Gives: each request to `forward`. What is not HTTP is answered here, and
//! nothing of it is forwarded.

mod client;
mod client_body;
mod http1;
mod http2;

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use tokio::net::TcpStream;
use umbra_routing::Client;

use crate::connection::{Arrived, Worker};
use crate::descriptors::Open;
use crate::held::Held;
use crate::tables::{Governed, ServiceRoutes};
use crate::version::HttpVersion;

pub(crate) use client_body::{ClientBody, ClientError};

/// How a connection's service is known.
pub(crate) enum Asked {
    /// By its original destination.
    Intercepted(Arrived),
    /// By each request's Host header.
    ByHost { client: Option<Held<Client>> },
}

/// A client's connection, as its requests see it.
pub(crate) struct Serving {
    pub(crate) worker: Rc<Worker>,
    pub(crate) asked: Asked,
    /// The client's address.
    pub(crate) peer: IpAddr,
    version: HttpVersion,
    /// The rules last used: they go on when the table loses this connection's port.
    pub(crate) last_routes: RefCell<Option<Arc<ServiceRoutes>>>,
    /// What the last request was for, where each says so itself.
    served: RefCell<Option<Named>>,
    /// Requests so far, and those that wait for their answers.
    begun: Cell<u64>,
    waiting: Cell<u32>,
}

/// A request that has not been answered yet.
pub(crate) struct Waiting<'a>(&'a Cell<u32>);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// A service, by the host that named it in the tables as they were.
struct Named {
    host: String,
    generation: u64,
    governed: Held<Governed>,
}

impl Serving {
    fn new(worker: Rc<Worker>, asked: Asked, peer: IpAddr, version: HttpVersion) -> Rc<Self> {
        let (last_routes, served) = (RefCell::default(), RefCell::default());
        let (begun, waiting) = (Cell::default(), Cell::default());
        Rc::new(Self { worker, asked, peer, version, last_routes, served, begun, waiting })
    }

    pub(crate) fn version(&self) -> HttpVersion {
        self.version
    }

    /// The service that a host names. A client's requests mostly name the same one, which is looked for once.
    pub(crate) fn named(&self, host: &str) -> Option<Held<Governed>> {
        let tables = &self.worker.tables;
        let generation = tables.generation();
        let mut served = self.served.borrow_mut();
        if let Some(named) = &*served
            && named.generation == generation
            && named.host == host
        {
            return Some(named.governed.clone());
        }
        let governed = self.worker.at_hand.governed.get(&tables.by_host(host)?);
        *served = Some(Named { host: host.to_owned(), generation, governed: governed.clone() });
        Some(governed)
    }

    /// The service of the latest request is governed here; when not, its client is told to close.
    pub(crate) fn is_in_force(&self) -> bool {
        match &self.asked {
            Asked::Intercepted(arrived) => arrived.is_in_force(),
            Asked::ByHost { .. } => {
                self.served.borrow().as_ref().is_none_or(|served| served.governed.is_in_force())
            }
        }
    }

    /// The connection may stay: its service is governed here.
    fn is_wanted(&self) -> bool {
        match &self.asked {
            Asked::Intercepted(arrived) => arrived.is_in_force(),
            Asked::ByHost { .. } => true,
        }
    }

    /// A request has come, which waits for its answer until what this gives is dropped.
    pub(crate) fn begins(&self) -> Waiting<'_> {
        self.begun.set(self.begun.get() + 1);
        self.waiting.set(self.waiting.get() + 1);
        Waiting(&self.waiting)
    }

    /// Ends when the client has asked for nothing for too long (`Limits::client_idle_timeout`).
    async fn idles(&self) {
        loop {
            let begun = self.begun.get();
            tokio::time::sleep(self.worker.limits.client_idle_timeout).await;
            if self.begun.get() == begun && self.waiting.get() == 0 {
                return;
            }
        }
    }
}

/// Serves a connection to its end. `first` was read from it already.
pub(crate) async fn http(
    worker: Rc<Worker>,
    asked: Asked,
    (stream, open): (TcpStream, Open),
    (version, first): (HttpVersion, Bytes),
) {
    // One that has gone already has no address any more, and sends no request.
    let Ok(peer) = stream.peer_addr().map(|peer| peer.ip().to_canonical()) else { return };
    match version {
        HttpVersion::Http1 => http1::serve(worker, asked, peer, (stream, first, open)).await,
        HttpVersion::Http2 => http2::serve(worker, asked, peer, (stream, first, open)).await,
    }
}
