//! Serves the push port's connections, and ends those at rest when the controller should ask what has changed.
//!
//! The protocol has no way to speak first. But a controller keeps its connection, and one that is closed it opens anew,
//! asking for `/v1/state`: so a closed connection is the word that there is something to ask.

use std::convert::Infallible;

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
            Some(ended) = connections.join_next() => {
                let _never: Result<(), Infallible> = ended.unwrap_or(Ok(()));
            }
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
) -> Result<(), Infallible> {
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
    Ok(())
}
