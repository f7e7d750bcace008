//! HTTP/1 towards clients: one connection, request by request.
//!
//! Takes: a connection and what it asked for. Gives: each request to `forward`. What is not HTTP gets 400, a head that
//! is too large 431, one that stalls 408; nothing of it is forwarded and the connection ends.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use bytes::Bytes;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use umbra_routing::Client;

use crate::connection::{Arrived, Worker};
use crate::descriptors::Open;
use crate::forward;
use crate::framing::{Framing, Progress};
use crate::socket::Downstream;
use crate::tables::{Governed, ServiceRoutes};

/// Heads of more fields than this get 431; Envoy's default.
const MAX_HEADERS: usize = 100;

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
    pub(crate) progress: Arc<Progress>,
    /// The rules last used: they go on when the table loses this connection's port.
    pub(crate) last_routes: RefCell<Option<Arc<ServiceRoutes>>>,
    /// What the last request was for, where each says so itself.
    served: RefCell<Option<Arc<Governed>>>,
    busy: Rc<Cell<u32>>,
}

/// A request is being answered until this is dropped.
pub(crate) struct Busy(Rc<Cell<u32>>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Serving {
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

    pub(crate) fn busy(&self) -> Busy {
        self.busy.set(self.busy.get() + 1);
        Busy(Rc::clone(&self.busy))
    }
}

/// Serves a connection to its end. `first` was read from it already.
pub(crate) async fn http(worker: Rc<Worker>, asked: Asked, (stream, open): (TcpStream, Open), first: Bytes) {
    // One that has gone already has no address any more, and sends no request.
    let Ok(peer) = stream.peer_addr().map(|peer| peer.ip().to_canonical()) else { return };
    let progress = Arc::new(Progress::default());
    let io = TokioIo::new(Downstream::new(stream, first, Framing::new(Arc::clone(&progress)), open));
    let (last_routes, served) = (RefCell::default(), RefCell::default());
    let serving =
        Rc::new(Serving { worker, asked, peer, progress, last_routes, served, busy: Rc::default() });
    let per_request = Rc::clone(&serving);
    let service = service_fn(move |request| forward::answer(Rc::clone(&per_request), request));
    let mut connection = http1::Builder::new()
        .auto_date_header(false)
        .max_headers(MAX_HEADERS)
        .max_buf_size(serving.worker.limits.head_bytes)
        .serve_connection(io, service)
        .with_upgrades();
    let mut ending = false;
    let stalled = stalled(&serving);
    let silence_ends = serving.worker.silence_ends();
    let released = serving.worker.unwanted(|| serving.is_wanted());
    tokio::pin!(stalled, silence_ends, released);
    loop {
        tokio::select! {
            // First: a request that has arrived is served, whatever else is to be done.
            biased;
            ended = &mut connection => return report(&serving, ended),
            () = &mut silence_ends, if !ending => ending = true,
            () = &mut released, if !ending => ending = true,
            () = &mut stalled => break,
        }
        if ending {
            Pin::new(&mut connection).graceful_shutdown();
        }
    }
    serving.worker.metrics.bad_request("stalled");
    if let Some(parts) = connection.into_parts() {
        request_timeout(parts.io.into_inner().stream);
    }
}

/// Ends when one head has been under way for too long, with no answer due that would explain it.
async fn stalled(serving: &Serving) {
    let limit = serving.worker.limits.header_timeout;
    let mut interval = tokio::time::interval(serving.worker.limits.check_every());
    let mut seen: Option<(u64, Instant)> = None;
    loop {
        interval.tick().await;
        let progress = &serving.progress;
        let under_way = progress.head_begun.load(Ordering::Relaxed) && serving.busy.get() == 0;
        let head = progress.heads.load(Ordering::Relaxed);
        seen = match seen {
            Some((same, since)) if under_way && same == head => Some((same, since)),
            _ => under_way.then(|| (head, Instant::now())),
        };
        if seen.is_some_and(|(_, since)| since.elapsed() >= limit) {
            return;
        }
    }
}

/// RFC 9110 section 15.5.9. The client may not be reading: what does not fit into its socket at once is left out.
fn request_timeout(stream: TcpStream) {
    let answer = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    if let Err(error) = stream.try_write(answer) {
        tracing::debug!(%error, "a stalled client is not there to be told");
    }
}

fn report(serving: &Serving, ended: Result<(), hyper::Error>) {
    let Err(error) = ended else { return };
    let reason = if error.is_parse_too_large() {
        "too_large"
    } else if error.is_parse() {
        "malformed"
    } else if error.is_incomplete_message() {
        "incomplete"
    } else {
        tracing::debug!(%error, "a client's connection broke");
        return;
    };
    serving.worker.metrics.bad_request(reason);
}
