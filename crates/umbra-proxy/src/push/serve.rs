//! Serves the push port's connections, and ends those at rest when the controller should ask what has changed.
//!
//! The protocol has no way to speak first. But a controller keeps its connection, and one that is closed it opens anew,
//! asking for `/v1/state`: so a closed connection is the word that there is something to ask.

use axum::extract::ConnectInfo;
use axum::serve::Listener as _;
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::PushListener;
use super::listener::{Peer, Stream};

/// Serves until `stopping`, then finishes the requests in flight. Each time `unprompted` moves, connections at rest are
/// closed, and the others after the answer that is under way.
pub(crate) async fn serve(
    mut listener: PushListener,
    router: &Router,
    unprompted: watch::Receiver<u64>,
    stopping: CancellationToken,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stopping.cancelled() => break,
            (stream, peer) = listener.accept() => {
                let mut unprompted = unprompted.clone();
                // What moved before it came, it will learn by its own first question.
                unprompted.mark_unchanged();
                let end = stopping.clone();
                let router = router.clone();
                connections.spawn(connection(stream, peer, router, unprompted, end));
            }
            // A panic has ended the process already.
            Some(_ended) = connections.join_next() => {}
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn connection(
    stream: Stream,
    peer: Peer,
    router: Router,
    mut unprompted: watch::Receiver<u64>,
    stopping: CancellationToken,
) {
    let service = TowerToHyperService::new(router.layer(Extension(ConnectInfo(peer))));
    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        _ = unprompted.changed() => None,
        () = stopping.cancelled() => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "push port: a connection ended");
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::Arc;

    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::Notify;

    use super::super::PushMetrics;
    use super::*;

    /// `/state` answers at once, `/push` when it is let to, having said that it has begun.
    struct Served {
        address: SocketAddr,
        unprompted: watch::Sender<u64>,
        begun: Arc<Notify>,
        finish: Arc<Notify>,
        stopping: CancellationToken,
        task: tokio::task::JoinHandle<()>,
    }

    impl Served {
        async fn start() -> Self {
            let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = tcp.local_addr().unwrap();
            let (begun, finish) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
            let (says, may) = (Arc::clone(&begun), Arc::clone(&finish));
            let push = async move || {
                says.notify_one();
                may.notified().await;
                "pushed"
            };
            let router = Router::new().route("/state", get(async || "state")).route("/push", get(push));
            let (unprompted, moved) = watch::channel(0);
            let stopping = CancellationToken::new();
            let end = stopping.clone();
            let listener = PushListener::new(tcp, None, PushMetrics::default());
            let task = tokio::spawn(async move { serve(listener, &router, moved, end).await });
            Self { address, unprompted, begun, finish, stopping, task }
        }

        async fn connect(&self) -> TcpStream {
            TcpStream::connect(self.address).await.unwrap()
        }
    }

    async fn ask(stream: &mut TcpStream, path: &str) {
        stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.unwrap();
    }

    async fn answer(stream: &mut TcpStream, ends_with: &str) -> String {
        let mut text = Vec::new();
        while !text.ends_with(ends_with.as_bytes()) {
            assert!(stream.read_buf(&mut text).await.unwrap() > 0, "closed");
        }
        String::from_utf8(text).unwrap()
    }

    #[tokio::test]
    async fn connections_at_rest_are_closed_when_something_changed_and_new_ones_are_served() {
        let served = Served::start().await;
        let mut at_rest = served.connect().await;
        ask(&mut at_rest, "/state").await;
        let first = answer(&mut at_rest, "state").await;
        assert!(!first.contains("connection: close"), "{first}");
        served.unprompted.send_modify(|moved| *moved += 1);
        assert_eq!(at_rest.read(&mut [0]).await.unwrap(), 0, "closed without a word");
        let mut again = served.connect().await;
        ask(&mut again, "/state").await;
        let first = answer(&mut again, "state").await;
        assert!(!first.contains("connection: close"), "what moved before does not close it: {first}");
    }

    #[tokio::test]
    async fn a_request_under_way_is_answered_first() {
        let served = Served::start().await;
        let mut busy = served.connect().await;
        ask(&mut busy, "/push").await;
        served.begun.notified().await;
        served.unprompted.send_modify(|moved| *moved += 1);
        // The task has seen it when another connection, made later, was served.
        let mut other = served.connect().await;
        ask(&mut other, "/state").await;
        answer(&mut other, "state").await;
        served.finish.notify_one();
        let text = answer(&mut busy, "pushed").await;
        assert!(text.starts_with("HTTP/1.1 200") && text.contains("connection: close"), "{text}");
        assert_eq!(busy.read(&mut [0]).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn the_end_waits_for_requests_under_way() {
        let served = Served::start().await;
        let mut busy = served.connect().await;
        ask(&mut busy, "/push").await;
        served.begun.notified().await;
        served.stopping.cancel();
        served.finish.notify_one();
        answer(&mut busy, "pushed").await;
        served.task.await.unwrap();
        assert!(TcpStream::connect(served.address).await.is_err(), "the port is free");
    }
}
