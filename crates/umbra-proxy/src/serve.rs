//! Towards clients: one connection, request by request, in the version of HTTP that its client speaks.
//!
//! Takes: a connection and what it asked for. Gives: each request to `forward`. What is not HTTP is answered here, and
//! nothing of it is forwarded.

mod http1;
mod http2;

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use tokio::net::TcpStream;
use umbra_routing::Client;

use crate::connection::{Arrived, Worker};
use crate::descriptors::Open;
use crate::framing::Progress;
use crate::tables::{Governed, ServiceRoutes};
use crate::version::HttpVersion;

/// Heads of more fields than this get 431; Envoy's default.
pub(crate) const MAX_HEADERS: usize = 100;

/// How a connection's service is known.
pub(crate) enum Asked {
    /// By its original destination.
    Intercepted(Arrived),
    /// By each request's Host header.
    ByHost { client: Option<Arc<Client>> },
}

/// A client's connection, as its requests see it.
pub(crate) struct Serving {
    pub(crate) worker: Rc<Worker>,
    pub(crate) asked: Asked,
    /// The client's address.
    pub(crate) peer: IpAddr,
    speaks: Speaks,
    /// The rules last used: they go on when the table loses this connection's port.
    pub(crate) last_routes: RefCell<Option<Arc<ServiceRoutes>>>,
    /// What the last request was for, where each says so itself.
    served: RefCell<Option<Arc<Governed>>>,
    busy: Rc<Cell<u32>>,
    /// Requests so far.
    begun: Cell<u64>,
}

/// What a client speaks, with what only that has.
enum Speaks {
    Http1(Arc<Progress>),
    Http2,
}

/// A request is being answered until this is dropped.
pub(crate) struct Busy(Rc<Cell<u32>>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Serving {
    fn new(worker: Rc<Worker>, asked: Asked, peer: IpAddr, speaks: Speaks) -> Rc<Self> {
        let (last_routes, served) = (RefCell::default(), RefCell::default());
        let (busy, begun) = (Rc::default(), Cell::default());
        Rc::new(Self { worker, asked, peer, speaks, last_routes, served, busy, begun })
    }

    pub(crate) fn version(&self) -> HttpVersion {
        match self.speaks {
            Speaks::Http1(_) => HttpVersion::Http1,
            Speaks::Http2 => HttpVersion::Http2,
        }
    }

    /// What follows on this connection is not HTTP.
    pub(crate) fn becomes_tunnel(&self) {
        if let Speaks::Http1(progress) = &self.speaks {
            progress.tunnel.store(true, Ordering::Relaxed);
        }
    }

    /// A request for this service is being answered.
    pub(crate) fn serves(&self, governed: &Arc<Governed>) {
        if let Asked::ByHost { .. } = self.asked {
            *self.served.borrow_mut() = Some(Arc::clone(governed));
        }
    }

    /// The service of the latest request is governed here; when not, its client is told to close.
    pub(crate) fn is_in_force(&self) -> bool {
        match &self.asked {
            Asked::Intercepted(arrived) => arrived.is_in_force(),
            Asked::ByHost { .. } => self.served.borrow().as_ref().is_none_or(|served| served.is_in_force()),
        }
    }

    /// The connection is in use, or may stay: its service is governed here.
    fn is_wanted(&self) -> bool {
        match &self.asked {
            Asked::Intercepted(arrived) => self.busy.get() > 0 || arrived.is_in_force(),
            Asked::ByHost { .. } => true,
        }
    }

    /// Ends when the client has asked for nothing for too long (`Limits::client_idle_timeout`).
    async fn idles(&self) {
        loop {
            let begun = self.begun.get();
            tokio::time::sleep(self.worker.limits.client_idle_timeout).await;
            if self.busy.get() == 0 && self.begun.get() == begun {
                return;
            }
        }
    }

    pub(crate) fn busy(&self) -> Busy {
        self.begun.set(self.begun.get() + 1);
        self.busy.set(self.busy.get() + 1);
        Busy(Rc::clone(&self.busy))
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
