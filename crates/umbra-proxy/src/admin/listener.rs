//! Connections to the metrics and administration ports: so many, and the newest wins.
//!
//! Any pod may connect to the metrics port. When all places are taken the oldest connection ends, so that whoever holds
//! them for nothing keeps neither Prometheus nor the kubelet's probes out.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

/// Connections at once, per port: Prometheus in two replicas, the kubelet and people need about ten.
pub(crate) const CONNECTIONS: usize = 64;

/// A listener that serves at most so many connections at once.
pub(crate) struct Bounded {
    tcp: TcpListener,
    limit: usize,
    /// The oldest first; dropping one ends its connection.
    held: VecDeque<oneshot::Sender<()>>,
}

/// A connection, until it is the oldest of too many.
pub(crate) struct Held {
    stream: TcpStream,
    /// `None`: it has ended.
    place: Option<oneshot::Receiver<()>>,
}

impl Bounded {
    pub(crate) fn new(tcp: TcpListener, limit: usize) -> Self {
        Self { tcp, limit, held: VecDeque::new() }
    }
}

impl Listener for Bounded {
    type Io = Held;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Held, SocketAddr) {
        // axum's own rides out what a listener survives.
        let (stream, peer) = Listener::accept(&mut self.tcp).await;
        self.held.retain(|place| !place.is_closed());
        while self.held.len() >= self.limit {
            self.held.pop_front();
        }
        let (keeps, place) = oneshot::channel();
        self.held.push_back(keeps);
        (Held { stream, place: Some(place) }, peer)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }
}

impl Held {
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let lost = match &mut self.place {
            Some(place) => Pin::new(place).poll(cx).is_ready(),
            None => true,
        };
        if lost {
            self.place = None;
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "too many connections"));
        }
        Ok(())
    }
}

impl AsyncRead for Held {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Held {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn the_oldest_connection_gives_way_to_the_newest() {
        let tcp = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = tcp.local_addr().expect("bound");
        let router = axum::Router::new().route("/", axum::routing::get(|| async { "ok" }));
        tokio::spawn(axum::serve(Bounded::new(tcp, 2), router).into_future());
        let mut idle = Vec::new();
        for _ in 0..2 {
            idle.push(TcpStream::connect(address).await.expect("it listens"));
        }
        let mut newest = TcpStream::connect(address).await.expect("it listens");
        newest.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.expect("a reader");
        let mut answer = String::new();
        newest.read_to_string(&mut answer).await.expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(matches!(idle[0].read(&mut [0]).await, Ok(0) | Err(_)), "ended");
        idle[1].write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.expect("a reader");
        answer.clear();
        idle[1].read_to_string(&mut answer).await.expect("the second may stay");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}
