//! Listen: sockets that pods' connections arrive on, and where those connections were headed.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream};

use crate::socket;

/// Connections the kernel keeps ready for one worker. Linux caps it at net.core.somaxconn (4096).
const BACKLOG: i32 = 4096;

/// Where a connection was headed before the kernel turned it to this listener.
pub type OriginalDestination = Arc<dyn Fn(&TcpStream) -> io::Result<SocketAddr> + Send + Sync>;

/// How a connection's service is known.
#[derive(Clone)]
pub enum Mode {
    /// By its original destination, and by nothing else; a connection that came straight to this port is refused.
    Intercepted(OriginalDestination),
    /// By each request's Host header (a laptop, without interception).
    ByHost,
}

impl Mode {
    /// Asks the kernel's connection tracking (`SO_ORIGINAL_DST`).
    pub fn intercepted() -> Self {
        Self::Intercepted(Arc::new(original_destination))
    }
}

/// The destination before dnat: `SO_ORIGINAL_DST` at level SOL_IP, or SOL_IPV6 for IPv6.
///
/// # Errors
/// The kernel tracks no such connection: it was not intercepted.
pub fn original_destination(stream: &TcpStream) -> io::Result<SocketAddr> {
    let socket = SockRef::from(stream);
    let local = stream.local_addr()?;
    // An IPv4 connection on a dual-stack listener is tracked as IPv4.
    let original =
        if local.ip().to_canonical().is_ipv4() { socket.original_dst_v4() } else { socket.original_dst_v6() };
    let not_ip = || io::Error::other("the original destination is not an IP address");
    original?.as_socket().ok_or_else(not_ip)
}

/// A listener that shares its address with the other workers'.
pub(crate) fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    if domain == Domain::IPV6 {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.bind(&SockAddr::from(address))?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Accepts one connection, riding out what a listener survives (a client that is gone already, no descriptors left).
pub(crate) async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                // Only fails on a dead socket, which the first read tells as well.
                let _ = stream.set_nodelay(true);
                socket::keep_alive(&stream);
                return (stream, peer);
            }
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                // No descriptors: give others time to close some, instead of spinning.
                if matches!(
                    error.raw_os_error(),
                    Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM)
                ) {
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                }
            }
        }
    }
}
