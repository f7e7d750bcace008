//! HTTP/2 without TLS towards clients, by prior knowledge. A request that is none has its stream reset, a head that is too
//! large gets 431, and frames that are none end the connection. Whoever is to leave is told with GOAWAY.

use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;

use bytes::Bytes;
use http::Request;
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::{Asked, ClientBody, Serving};
use crate::connection::Worker;
use crate::descriptors::Open;
use crate::forward;
use crate::socket::Downstream;
use crate::version::HttpVersion;

/// Requests of one connection at a time; more wait in their client. A client without umbra would have what its server
/// allows: 100 to 250 with most.
const MAX_STREAMS: u32 = 256;
/// What a client may send of one request before its primary takes it.
const STREAM_WINDOW: u32 = 64 * 1024;
/// Of all requests of one connection: what a client can make this process hold. 64 of its uploads may stall before they
/// hold up its others.
const CONNECTION_WINDOW: u32 = 64 * STREAM_WINDOW;
/// Of one answer that waits in a connection; the rest waits in the primary.
const SEND_BUFFER: usize = 64 * 1024;
/// Streams that a client may open and reset before this process has looked at them (CVE-2023-44487); h2's default.
const MAX_RESETS_UNSEEN: usize = 20;
/// Streams of one connection that may be reset for what their client did wrong; hyper's default.
const MAX_RESETS_FOR_ERRORS: usize = 1024;

/// Runs the connection's requests on this worker's thread. Each ends with its stream, and all with their connection.
#[derive(Clone, Copy)]
struct OnThisThread;

impl<F: Future + 'static> Executor<F> for OnThisThread {
    fn execute(&self, request: F) {
        tokio::task::spawn_local(request);
    }
}

/// Serves a connection to its end.
pub(super) async fn serve(
    worker: Rc<Worker>,
    asked: Asked,
    peer: IpAddr,
    (stream, first, open): (TcpStream, Bytes, Open),
) {
    let io = TokioIo::new(Downstream::new(stream, first, open));
    let serving = Serving::new(worker, asked, peer, HttpVersion::Http2);
    let per_request = Rc::clone(&serving);
    let service = service_fn(move |request: Request<Incoming>| {
        let serving = Rc::clone(&per_request);
        async move { Ok::<_, Infallible>(forward::answer(&serving, request.map(ClientBody::Http2)).await) }
    });
    let head_bytes = serving.worker.limits.head_bytes.try_into().unwrap_or(u32::MAX);
    let connection = http2::Builder::new(OnThisThread)
        .auto_date_header(false)
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(head_bytes)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_pending_accept_reset_streams(MAX_RESETS_UNSEEN)
        .max_local_error_reset_streams(MAX_RESETS_FOR_ERRORS)
        .serve_connection(io, service);
    // GOAWAY tells without a race which requests are still served, so nobody waits for a quiet moment.
    let drains = serving.worker.drains();
    let released = serving.worker.unwanted(|| serving.is_in_force());
    let idles = serving.idles();
    tokio::pin!(connection, drains, released, idles);
    let mut ending = false;
    loop {
        tokio::select! {
            biased;
            ended = &mut connection => return report(&serving, ended),
            () = &mut drains, if !ending => ending = true,
            () = &mut released, if !ending => ending = true,
            () = &mut idles, if !ending => ending = true,
        }
        Pin::as_mut(&mut connection).graceful_shutdown();
    }
}

fn report(serving: &Serving, ended: Result<(), hyper::Error>) {
    let Err(error) = ended else { return };
    let source = std::error::Error::source(&error).and_then(|source| source.downcast_ref::<h2::Error>());
    // What this end ended the connection for: frames that are none, or too many of a kind.
    if source.is_some_and(|error| error.is_go_away() && !error.is_remote()) {
        serving.worker.metrics.bad_request("malformed");
    }
    tracing::debug!(%error, "a client's connection broke");
}
