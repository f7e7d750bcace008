//! HTTP/1 towards clients. What is not HTTP gets 400, a head that is too large 431, one that stalls 408, and the connection
//! ends.

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

use super::{Asked, MAX_HEADERS, Serving, Speaks};
use crate::connection::Worker;
use crate::descriptors::Open;
use crate::forward;
use crate::framing::{Framing, Progress};
use crate::socket::Downstream;

/// Serves a connection to its end.
pub(super) async fn serve(
    worker: Rc<Worker>,
    asked: Asked,
    peer: IpAddr,
    (stream, first, open): (TcpStream, Bytes, Open),
) {
    let progress = Arc::new(Progress::default());
    let framing = Framing::new(Arc::clone(&progress));
    let io = TokioIo::new(Downstream::new(stream, first, Some(framing), open));
    let serving = Serving::new(worker, asked, peer, Speaks::Http1(Arc::clone(&progress)));
    let per_request = Rc::clone(&serving);
    let service = service_fn(move |request| forward::answer(Rc::clone(&per_request), request));
    let mut connection = http1::Builder::new()
        .auto_date_header(false)
        .max_headers(MAX_HEADERS)
        .max_buf_size(serving.worker.limits.head_bytes)
        .serve_connection(io, service)
        .with_upgrades();
    let mut ending = false;
    let stalled = stalled(&serving, &progress);
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
async fn stalled(serving: &Serving, progress: &Progress) {
    let limit = serving.worker.limits.header_timeout;
    let mut interval = tokio::time::interval(serving.worker.limits.check_every());
    let mut seen: Option<(u64, Instant)> = None;
    loop {
        interval.tick().await;
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
