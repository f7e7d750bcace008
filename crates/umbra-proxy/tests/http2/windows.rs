//! Peers that grant no window: what waits for them is bounded, and others on the same connections go on.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{Request, Response};
use tokio::net::TcpStream;
use umbra_routing::SpokenTo;

use crate::only;
use crate::peer::{Asked, peer};
use crate::rig::{Http2Client, Proxy, full, until, within};

const LARGE: usize = 1 << 20;
/// The window of an answer's stream (64 KiB), and what is in hand of it.
const PINNED: usize = 128 * 1024;

/// Sends a large answer, as far as the proxy takes it.
async fn large(mut asked: Asked, sent: Arc<AtomicUsize>) {
    const PIECE: usize = 16 * 1024;
    let mut body = asked.respond.send_response(Response::new(()), false).expect("a client");
    let mut left = LARGE;
    while left > 0 {
        body.reserve_capacity(left.min(PIECE));
        let Some(Ok(room)) = std::future::poll_fn(|cx| body.poll_capacity(cx)).await else { return };
        let length = room.min(left);
        left -= length;
        body.send_data(vec![b'x'; length].into(), left == 0).expect("a client");
        sent.fetch_add(length, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn a_client_that_reads_no_answer_pins_a_little_and_holds_up_nobody_elses() {
    // Few enough that nobody asks for a second connection: all share one.
    const STALLED: usize = 30;
    let (sent, connections) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
    let v1 = {
        let (sent, connections) = (Arc::clone(&sent), Arc::clone(&connections));
        peer(h2::server::Builder::new(), move |asked| {
            connections.fetch_max(asked.connection + 1, Ordering::Relaxed);
            large(asked, Arc::clone(&sent))
        })
        .await
    };
    let proxy = Proxy::start(&only(v1, SpokenTo::Http2));
    let stream = TcpStream::connect(proxy.address()).await.expect("the proxy listens");
    let mut settings = h2::client::Builder::new();
    settings.initial_window_size(0);
    let (client, connection) = settings.handshake::<_, Bytes>(stream).await.expect("a connection");
    let connection = tokio::spawn(connection);
    let mut answers = Vec::new();
    for _ in 0..STALLED {
        let mut client = client.clone().ready().await.expect("a connection");
        let request = Request::get("http://web/").body(()).expect("a request");
        let (answer, _) = client.send_request(request, true).expect("a connection");
        answers.push(within("a head", answer).await.expect("a head"));
    }
    let mut other = Http2Client::connect(proxy.address()).await;
    for round in 1..4 {
        assert_eq!(other.get("/").await.body.len(), LARGE, "round {round}");
    }
    let pinned = sent.load(Ordering::Relaxed) - 3 * LARGE;
    assert!(pinned <= STALLED * PINNED, "{pinned} bytes wait for {STALLED} answers");
    assert_eq!(connections.load(Ordering::Relaxed), 1, "all of them share it");
    connection.abort();
    let left = ["reporter=\"source\"", "response_flags=\"DC\""];
    until("all are given up", || proxy.count("istio_requests_total", &left) == STALLED as u64).await;
}

#[tokio::test]
async fn an_endpoint_that_reads_no_body_holds_up_no_other_request() {
    let mut settings = h2::server::Builder::new();
    // Its own connection's window is not to be what holds up the others.
    settings.initial_connection_window_size(1 << 24);
    let v1 = peer(settings, |mut asked: Asked| async move {
        if asked.request.uri().path() == "/stalled" {
            return std::future::pending().await;
        }
        assert_eq!((asked.connection, asked.read().await), (0, LARGE));
        asked.ok();
    })
    .await;
    let proxy = Proxy::start(&only(v1, SpokenTo::Http2));
    let client = Http2Client::connect(proxy.address()).await;
    let post = |path| {
        let mut client = client.clone();
        let request = Request::post(format!("http://web{path}")).body(full(vec![b'x'; LARGE]));
        async move { client.send(request.expect("a request")).await.status }
    };
    let stalled: Vec<_> = (0..20).map(|_| tokio::spawn(post("/stalled"))).collect();
    for round in 1..4 {
        assert_eq!(post("/").await, 200, "round {round}");
    }
    assert!(stalled.iter().all(|one| !one.is_finished()));
    stalled.iter().for_each(tokio::task::JoinHandle::abort);
}
