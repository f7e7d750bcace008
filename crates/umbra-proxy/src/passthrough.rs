//! Passthrough: connections that are not HTTP go to the primary as bytes, untouched and counted.
//!
//! Takes: a connection and its first bytes. Gives: the same bytes at an endpoint of the catch-all rule's destination, and
//! what comes back. Never looks at a byte.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use http::HeaderMap;
use prometheus_client::metrics::counter::Counter;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf, copy_bidirectional};
use tokio::net::TcpStream;
use umbra_routing::RequestHead;

use crate::balance::{Backends, Lease, Upstream};
use crate::connection::{Arrived, Worker};
use crate::descriptors::Open;
use crate::held::Held;
use crate::metrics::Labels;
use crate::socket;
use crate::tables::{PortRoutes, Target};

/// Connects to the primary and copies both ways until both ends are done. `first` was read from the client already.
pub(crate) async fn serve(
    worker: &Rc<Worker>,
    arrived: &Arrived,
    (client, _open): (TcpStream, Open),
    first: Bytes,
) {
    let service = arrived.governed.service.fqdn();
    let labels: Labels = vec![("service", service.clone())];
    worker.metrics.passthrough_connections.get_or_create(&labels).inc();
    let _open_upstream = worker.sockets.open();
    let Some((upstream, _lease)) = connect(worker, arrived).await else {
        worker.metrics.refused("no_upstream");
        return;
    };
    let counted = |direction: &str| {
        let labels: Labels = vec![("service", service.clone()), ("direction", direction.to_owned())];
        worker.metrics.passthrough_bytes.get_or_create_owned(&labels)
    };
    let mut upstream = CountedWrites { stream: upstream, bytes: counted("sent") };
    let mut client = CountedWrites { stream: client, bytes: counted("received") };
    let copied = async {
        upstream.write_all(&first).await?;
        copy_bidirectional(&mut client, &mut upstream).await
    };
    // Either end may reset at any time; there is nobody to tell but the other end, whose connection closes now.
    if let Err(error) = copied.await {
        tracing::debug!(%error, service, "a passed-through connection broke");
    }
}

/// An endpoint of the primary: each one that can be drawn is tried once.
async fn connect(worker: &Rc<Worker>, arrived: &Arrived) -> Option<(TcpStream, Lease)> {
    let set = {
        let routes = arrived.governed.routes.load();
        let port = routes.port(arrived.port)?;
        catch_all(port, arrived.namespace(), &mut worker.rng())?
    };
    let mut tried: Vec<Held<Upstream>> = Vec::new();
    loop {
        let draw = &mut |bound| worker.rng().u64(0..bound);
        let mut lease =
            set.choose(&worker.at_hand.upstreams, &tried, Some(arrived.family), Instant::now(), draw)?;
        let address = lease.upstream().endpoint.address;
        match tokio::time::timeout(worker.limits.connect_timeout, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // Only fails on a dead socket, which the first write tells as well.
                let _ = stream.set_nodelay(true);
                socket::keep_alive(&stream);
                lease.upstream().connected();
                lease.passes_bytes();
                return Some((stream, lease));
            }
            Ok(Err(error)) => tracing::debug!(%address, %error, "connecting failed"),
            Err(_) => tracing::debug!(%address, "connecting took too long"),
        }
        lease.refused(Instant::now());
        tried.push(lease.upstream().clone());
    }
}

/// Where bytes go: to the first rule that a request for `/` without method and headers gets, which is how a catch-all is
/// written (no match, prefix `/` or empty, regex `.*`). Bytes on an HTTP port of a service whose rules have no catch-all
/// are refused, counted as `no_upstream`: the table names no other place for them.
fn catch_all(port: &PortRoutes, namespace: Option<&str>, rng: &mut fastrand::Rng) -> Option<Arc<Backends>> {
    let draw = &mut |bound| rng.u64(0..bound);
    let (target, headers) = ("/", &HeaderMap::new());
    let head = RequestHead { method: "", scheme: "", authority: "", target, headers, labels: None };
    let selection = port.variant(namespace)?.select(&head, draw)?;
    let (_, Target { set, .. }) = &selection.route.destinations.get(selection.destination)?;
    set.clone()
}

/// Counts what is written, also when the copy ends in an error.
struct CountedWrites {
    stream: TcpStream,
    bytes: Counter,
}

impl AsyncRead for CountedWrites {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for CountedWrites {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, buf))?;
        self.bytes.inc_by(written as u64);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
