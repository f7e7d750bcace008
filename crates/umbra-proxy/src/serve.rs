//! HTTP/1 towards clients: one connection, request by request.
//!
//! Takes: a connection and what it asked for. Gives: each request to `forward`. What is not HTTP gets 400, a head that
//! is too large 431, one that stalls 408; nothing of it is forwarded and the connection ends.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

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
use crate::tables::ServiceRoutes;
use crate::worker::Phase;

/// Heads of more fields than this get 431; Envoy's default.
const MAX_HEADERS: usize = 100;
/// A stalled head is noticed within this share of its time limit.
const CHECKS: u32 = 4;

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
    pub(crate) progress: Arc<Progress>,
    /// The rules last used: they go on when the table loses this connection's port.
    pub(crate) last_routes: RefCell<Option<Arc<ServiceRoutes>>>,
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
    pub(crate) fn busy(&self) -> Busy {
        self.busy.set(self.busy.get() + 1);
        Busy(Rc::clone(&self.busy))
    }
}

/// Serves a connection to its end. `first` was read from it already.
pub(crate) async fn http(worker: Rc<Worker>, asked: Asked, (stream, open): (TcpStream, Open), first: Bytes) {
    let progress = Arc::new(Progress::default());
    let io = TokioIo::new(Downstream::new(stream, first, Framing::new(Arc::clone(&progress)), open));
    let last_routes = RefCell::default();
    let serving = Rc::new(Serving { worker, asked, progress, last_routes, busy: Rc::default() });
    let per_request = Rc::clone(&serving);
    let service = service_fn(move |request| forward::answer(Rc::clone(&per_request), request));
    let mut connection = http1::Builder::new()
        .auto_date_header(false)
        .max_headers(MAX_HEADERS)
        .max_buf_size(serving.worker.limits.head_bytes)
        .serve_connection(io, service)
        .with_upgrades();
    let mut phase = serving.worker.phase.clone();
    let mut draining = false;
    let stalled = stalled(&serving);
    tokio::pin!(stalled);
    loop {
        tokio::select! {
            ended = &mut connection => return report(&serving, ended),
            _ = phase.wait_for(|phase| matches!(phase, Phase::Draining(_))), if !draining => {
                draining = true;
                Pin::new(&mut connection).graceful_shutdown();
            }
            () = &mut stalled => break,
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
    let mut interval = tokio::time::interval((limit / CHECKS).max(Duration::from_millis(1)));
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
