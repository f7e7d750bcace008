//! Connections to the push port: TCP, then TLS, then who it is.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::PushMetrics;
use crate::tls;

/// For a TLS handshake: three round trips, also on a slow network.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);
/// Handshakes at once; more wait in the listener's backlog. One controller makes one.
const HANDSHAKES: usize = 64;
/// After the system had no room for another connection.
const PAUSE: Duration = Duration::from_millis(100);

/// Who is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    /// Its certificate carries the controller's name.
    Controller,
    /// Plain HTTP, both ends on loopback.
    Loopback,
    /// Holds a certificate of our CA, of another name.
    Other,
}

/// The push port.
pub(crate) struct PushListener {
    tcp: TcpListener,
    tls: Option<TlsAcceptor>,
    handshakes: JoinSet<io::Result<TlsStream<TcpStream>>>,
    metrics: PushMetrics,
}

impl PushListener {
    /// Without `tls` only loopback is served; the caller has bound `tcp` there.
    pub(crate) fn new(tcp: TcpListener, tls: Option<Arc<ServerConfig>>, metrics: PushMetrics) -> Self {
        Self { tcp, tls: tls.map(TlsAcceptor::from), handshakes: JoinSet::new(), metrics }
    }

    fn shake_hands(&mut self, stream: TcpStream, tls: &TlsAcceptor) {
        let handshake = tls.accept(stream);
        self.handshakes.spawn(async move {
            let late = |_| io::Error::new(io::ErrorKind::TimedOut, "no TLS handshake in time");
            tokio::time::timeout(HANDSHAKE_WITHIN, handshake).await.map_err(late)?
        });
    }
}

impl Listener for PushListener {
    type Io = Stream;
    type Addr = Peer;

    async fn accept(&mut self) -> (Stream, Peer) {
        loop {
            tokio::select! {
                accepted = self.tcp.accept(), if self.handshakes.len() < HANDSHAKES => {
                    match (accepted, self.tls.clone()) {
                        (Ok((stream, _)), Some(tls)) => self.shake_hands(stream, &tls),
                        (Ok((stream, peer)), None) if peer.ip().to_canonical().is_loopback() => {
                            return (Stream::Plain(stream), Peer::Loopback);
                        }
                        (Ok((_, peer)), None) => {
                            self.metrics.count("connection", "forbidden");
                            tracing::warn!(%peer, "plain HTTP is for loopback only: give --tls-dir");
                        }
                        (Err(error), _) => {
                            tracing::warn!(%error, "push port: accept");
                            tokio::time::sleep(PAUSE).await;
                        }
                    }
                }
                Some(done) = self.handshakes.join_next() => match done.map_err(io::Error::other).flatten() {
                    Ok(stream) => {
                        let peer = match tls::is_controller(stream.get_ref().1.peer_certificates()) {
                            true => Peer::Controller,
                            false => Peer::Other,
                        };
                        return (Stream::Tls(Box::new(stream)), peer);
                    }
                    Err(error) => {
                        self.metrics.count("connection", "handshake");
                        tracing::warn!(%error, "push port: TLS handshake");
                    }
                },
            }
        }
    }

    fn local_addr(&self) -> io::Result<Peer> {
        Ok(Peer::Loopback)
    }
}

/// A connection, with TLS or on loopback.
pub(crate) enum Stream {
    /// Loopback.
    Plain(TcpStream),
    /// Everything else.
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
