//! Frames that are small, and frames of nothing, on connections that many share: the `h2` crate counts both.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use h2::RecvStream;
use h2::client::SendRequest;
use http::{Request, Response};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use umbra_routing::SpokenTo;
use umbra_testkit::frames::{
    DATA, END_HEADERS, END_STREAM, HEADERS, INITIAL_WINDOW, PREFACE, SETTINGS, STATUS_200, fields, frame,
};

use crate::only;
use crate::peer::{Asked, peer};
use crate::raw::{Came, Raw};
use crate::rig::{Http2Client, Proxy, http2_get, raw_backend, within};

/// Answers, all on one connection: their frames are more than the proxy's h2 would leave unread on it.
const LONG: usize = 5;

/// So many bytes, no two neighbours alike.
fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|at| (at % 251) as u8).collect()
}

/// A body on this stream, each frame with so many bytes of it.
fn messages(stream: u32, body: &[u8], each: usize) -> Vec<u8> {
    body.chunks(each).flat_map(|message| frame(DATA, 0, stream, message)).collect()
}

/// Answers the first requests with messages of one byte, as many as the proxy lets it, and the next with nothing.
async fn chatty() -> SocketAddr {
    raw_backend(|connection, mut stream| async move {
        assert_eq!(connection, 0, "all of them share it");
        stream.read_exact(&mut [0; PREFACE.len()]).await.expect("a client of HTTP/2");
        let mut raw = Raw(stream);
        raw.send(&frame(SETTINGS, 0, 0, &[])).await;
        let mut asked = 0;
        while let Some((kind, _)) = raw.next().await {
            if kind != HEADERS {
                continue;
            }
            let stream = 2 * asked + 1;
            let body = if (asked as usize) < LONG { bytes(INITIAL_WINDOW) } else { Vec::new() };
            let head = frame(HEADERS, END_HEADERS, stream, &[STATUS_200]);
            let end = frame(DATA, END_STREAM, stream, &[]);
            raw.send(&[head, messages(stream, &body, 1), end].concat()).await;
            asked += 1;
        }
    })
    .await
}

/// Answers to a client that takes so much of each, until it is told to take all.
async fn begun(proxy: &Proxy, window: u32) -> (Vec<RecvStream>, oneshot::Sender<()>) {
    let stream = TcpStream::connect(proxy.address()).await.expect("the proxy listens");
    let mut settings = h2::client::Builder::new();
    settings.initial_window_size(window);
    // What this one leaves unread does not matter here.
    settings.initial_connection_window_size(1 << 24).data_frame_budget(usize::MAX);
    let (client, mut connection) = settings.handshake(stream).await.expect("a connection");
    let (read, told) = oneshot::channel();
    tokio::spawn(async move {
        tokio::select! {
            ended = &mut connection => return ended,
            told = told => told.expect("nobody leaves before"),
        }
        connection.set_initial_window_size(1 << 20)?;
        connection.await
    });
    let mut answers = Vec::new();
    for _ in 0..LONG {
        answers.push(begin(client.clone()).await);
    }
    (answers, read)
}

async fn begin(client: SendRequest<Bytes>) -> RecvStream {
    let mut client = client.ready().await.expect("a connection");
    let request = Request::get("http://web/").body(()).expect("a request");
    let (answer, _) = client.send_request(request, true).expect("a connection");
    within("a head", answer).await.expect("a head").into_body()
}

/// All of them are there.
async fn are_whole(answers: Vec<RecvStream>) {
    for mut answer in answers {
        let mut came = Vec::new();
        while let Some(chunk) = within("a whole answer", answer.data()).await {
            let chunk = chunk.expect("a whole answer");
            answer.flow_control().release_capacity(chunk.len()).expect("it was read");
            came.extend_from_slice(&chunk);
        }
        assert!(came == bytes(INITIAL_WINDOW), "{} bytes", came.len());
    }
}

#[tokio::test]
async fn small_messages_whose_clients_read_none_end_nobodys_answer_and_come_whole_later() {
    let proxy = Proxy::start(&only(chatty().await, SpokenTo::Http2));
    let (answers, read) = begun(&proxy, 0).await;
    // Its answer comes behind all that the others' clients do not read.
    assert_eq!(Http2Client::connect(proxy.address()).await.get("/").await.status, 200);
    read.send(()).expect("the connection is there");
    are_whole(answers).await;
}

#[tokio::test]
async fn small_messages_that_come_faster_than_they_are_read_end_nobodys_answer() {
    let proxy = Proxy::start(&only(chatty().await, SpokenTo::Http2));
    let (answers, _read) = begun(&proxy, 1 << 20).await;
    are_whole(answers).await;
}

#[tokio::test]
async fn small_messages_that_their_endpoint_does_not_read_do_not_end_their_clients_other_requests() {
    let mut settings = h2::server::Builder::new();
    settings.initial_window_size(0);
    let v1 = peer(settings, |asked: Asked| async move {
        match asked.request.uri().path() {
            "/stalled" => std::future::pending().await,
            _ => asked.ok(),
        }
    })
    .await;
    let proxy = Proxy::start(&only(v1, SpokenTo::Http2));
    let mut raw = Raw::begin(&proxy).await;
    let head = |method, path| {
        fields(&[(":method", method), (":scheme", "http"), (":path", path), (":authority", "web")])
    };
    // Three of them are more than the proxy's h2 would leave unread on a client's connection.
    for stream in [1, 5, 9] {
        raw.send(&frame(HEADERS, END_HEADERS, stream, &head("POST", "/stalled"))).await;
        raw.send(&messages(stream, &bytes(INITIAL_WINDOW / 2), 10)).await;
        // Behind them, and by the same way.
        raw.send(&frame(HEADERS, END_HEADERS | END_STREAM, stream + 2, &head("GET", "/"))).await;
        assert_eq!(within("an answer", raw.came()).await, Came::Served, "beside {stream}");
    }
}

#[tokio::test]
async fn frames_of_nothing_end_no_connection() {
    let connections = Arc::<AtomicUsize>::default();
    let most = Arc::clone(&connections);
    let v1 = peer(h2::server::Builder::new(), move |mut asked: Asked| {
        most.fetch_max(asked.connection + 1, Ordering::Relaxed);
        async move {
            let mut body = asked.respond.send_response(Response::new(()), false).expect("a client");
            for part in ["", "wh", "", "", "ole", ""] {
                body.send_data(part.into(), false).expect("a client");
            }
            body.send_data(Bytes::new(), true).expect("a client");
        }
    })
    .await;
    let proxy = Proxy::start(&only(v1, SpokenTo::Http2));
    let mut client = Http2Client::connect(proxy.address()).await;
    for round in 0..100 {
        let got = client.try_send(http2_get("/")).await;
        assert_eq!(got.expect("an answer").body, "whole", "round {round}");
    }
    assert_eq!(connections.load(Ordering::Relaxed), 1);
}
