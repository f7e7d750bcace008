//! HTTP/2 without TLS towards clients, by prior knowledge. A request that is none has its stream reset, a head that is too
//! large gets 431, and frames that are none end the connection. Whoever is to leave is told with GOAWAY.

mod lanes;

use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use futures::StreamExt as _;
use futures::future::Either;
use futures::stream::FuturesUnordered;
use h2::server::{Connection, SendResponse};
use h2::{Reason, RecvStream};
use http::{HeaderMap, Method, Request, Response, header};
use http_body::Body as _;
use tokio::net::TcpStream;

use lanes::{Lane, Lanes};

use super::{Asked, ClientBody, Serving};
use crate::connection::Worker;
use crate::descriptors::Open;
use crate::forward::{self, AnswerBody};
use crate::headers;
use crate::http2::{Chunk, Received, pump};
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
/// Streams of one connection that may be reset for what their client did wrong; h2's default.
const MAX_RESETS_FOR_ERRORS: usize = 1024;

/// Serves a connection to its end. Its requests are futures of its own task: what has come by one read is asked for
/// together, and answers that are ready together leave in one write. All of them end with their connection.
pub(super) async fn serve(
    worker: Rc<Worker>,
    asked: Asked,
    peer: IpAddr,
    (stream, first, open): (TcpStream, Bytes, Open),
) {
    let serving = Serving::new(worker, asked, peer, HttpVersion::Http2);
    let begun = settings(&serving).handshake(Downstream::new(stream, first, open));
    // As long as a head of HTTP/1 may take.
    let Ok(begun) = tokio::time::timeout(serving.worker.limits.header_timeout, begun).await else { return };
    let ended = match begun {
        Ok(connection) => run(&serving, connection).await,
        Err(error) => Err(error),
    };
    report(&serving, ended);
}

fn settings(serving: &Serving) -> h2::server::Builder {
    let mut settings = h2::server::Builder::new();
    settings
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(serving.worker.limits.head_bytes.try_into().unwrap_or(u32::MAX))
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER)
        .max_pending_accept_reset_streams(MAX_RESETS_UNSEEN)
        .max_local_error_reset_streams(Some(MAX_RESETS_FOR_ERRORS));
    settings
}

/// What a connection's task has to do beside its frames has come to an end.
enum Done {
    /// A lane that is not needed any more.
    Lane,
    /// Its time: the client is to leave.
    Stay,
}

async fn run(
    serving: &Rc<Serving>,
    mut connection: Connection<Downstream, Chunk<Bytes>>,
) -> Result<(), h2::Error> {
    let lanes = Lanes::new();
    let (mut work, mut told) = (FuturesUnordered::new(), false);
    work.push(Either::Left(stay(serving, told)));
    poll_fn(|cx| {
        loop {
            // Answers that are ready leave with this turn's frames. Lanes that are given something meanwhile run below:
            // nobody need be woken for them.
            let mut leaves = run_ready(&mut work, &mut Context::from_waker(Waker::noop()));
            while let Poll::Ready(next) = connection.poll_accept(cx) {
                let Some(next) = next else { return Poll::Ready(Ok(())) };
                if let Some(lane) = lanes.give(next?) {
                    work.push(Either::Right(run_lane(serving, &lanes, lane)));
                }
            }
            leaves |= run_ready(&mut work, cx);
            if !leaves {
                // With what requests have to say now, they have woken this task.
                return Poll::Pending;
            }
            if told && work.len() == lanes.resting() {
                // It answers nothing any more, and nothing of its is under way.
                return Poll::Ready(Ok(()));
            }
            // GOAWAY tells without a race which requests are still served, so nobody waits for a quiet moment.
            connection.graceful_shutdown();
            told = true;
            work.push(Either::Left(stay(serving, told)));
        }
    })
    .await
}

/// Runs what can go on; true: the client is to leave.
fn run_ready(work: &mut FuturesUnordered<impl Future<Output = Done>>, cx: &mut Context<'_>) -> bool {
    let mut leaves = false;
    while let Poll::Ready(Some(done)) = work.poll_next_unpin(cx) {
        leaves |= matches!(done, Done::Stay);
    }
    leaves
}

/// Ends when the client is to leave. `told`: it has been told, and has gone on for too long.
async fn stay(serving: &Serving, told: bool) -> Done {
    let worker = &serving.worker;
    tokio::select! {
        () = worker.drains(), if !told => {}
        () = worker.unwanted(|| serving.is_in_force()), if !told => {}
        () = serving.idles() => {}
    }
    Done::Stay
}

type Respond = SendResponse<Chunk<Bytes>>;
/// A request, and where its answer goes.
type Next = (Request<RecvStream>, Respond);

/// Serves one request after the other, as long as the lane is needed.
async fn run_lane(serving: &Rc<Serving>, lanes: &Lanes<Next>, lane: Rc<Lane<Next>>) -> Done {
    loop {
        exchange(serving, lane.next().await).await;
        if !lanes.rest(&lane) {
            return Done::Lane;
        }
    }
}

async fn exchange(serving: &Rc<Serving>, (request, mut respond): Next) {
    // Without an answer, the client has given the request up.
    let Some(answer) = answer(serving, request, &mut respond).await else { return };
    let (mut head, body) = answer.into_parts();
    // A rule may have put in what HTTP/2 has not.
    headers::answer_hop(&mut head.headers);
    let ended = body.is_end_stream();
    if !ended && let Some(length) = body.size_hint().exact() {
        head.headers.entry(header::CONTENT_LENGTH).or_insert_with(|| length.into());
    }
    match respond.send_response(Response::from_parts(head, ()), ended) {
        Ok(_) if ended => {}
        Ok(stream) => pump(body, stream, Reason::INTERNAL_ERROR).await,
        Err(error) => {
            tracing::debug!(%error, "an answer that cannot be sent");
            respond.send_reset(Reason::INTERNAL_ERROR);
        }
    }
}

/// `None`: the client has given the request up.
async fn answer(
    serving: &Rc<Serving>,
    request: Request<RecvStream>,
    respond: &mut Respond,
) -> Option<Response<AnswerBody>> {
    let (head, stream) = request.into_parts();
    let body = match head.method {
        // What follows is no body (RFC 9113 section 8.5), and tunnels are none of ours.
        Method::CONNECT => ClientBody::Empty,
        _ if stream.is_end_stream() => ClientBody::Empty,
        _ => ClientBody::Http2 { received: Received::new(stream), left: length(&head.headers) },
    };
    let (mut request, mut answer) = (Request::from_parts(head, body), None);
    {
        let mut answering = pin!(forward::answer(serving, &mut request, &mut answer));
        poll_fn(|cx| match answering.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Some(())),
            Poll::Pending => respond.poll_reset(cx).map(|_| None),
        })
        .await?;
    }
    answer
}

/// Of the body, where the head says it.
fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn report(serving: &Serving, ended: Result<(), h2::Error>) {
    let Err(error) = ended else { return };
    // What this end ended the connection for: frames that are none, or too many of a kind.
    if error.is_go_away() && !error.is_remote() {
        serving.worker.metrics.bad_request("malformed");
    }
    tracing::debug!(%error, "a client's connection broke");
}
