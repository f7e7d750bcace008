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

/// A listener that shares its address with the other workers'. What its connections are to be like is asked of it once: on
/// Linux they inherit it (`tcp_create_openreq_child`), and asking each of them would be five more system calls.
pub(crate) fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    if domain == Domain::IPV6 {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&socket::KEEPALIVE)?;
    socket.bind(&SockAddr::from(address))?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Accepts one connection, riding out what a listener survives (a client that is gone already, no descriptors left).
pub(crate) async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_accepted_sends_at_once_and_is_looked_after() {
        // A dual-stack listener, as it is on a node, makes connections of both families.
        for (listens, asked) in [("127.0.0.1:0", "127.0.0.1"), ("[::]:0", "127.0.0.1"), ("[::]:0", "::1")] {
            let listener = bind(listens.parse().expect("an address")).expect("a free port");
            let port = listener.local_addr().expect("bound").port();
            let _client = std::net::TcpStream::connect((asked, port)).expect("it listens");
            let (stream, _) = accept(&TcpListener::from_std(listener).expect("a runtime")).await;
            assert!(stream.nodelay().expect("a socket"), "{asked} to {listens}");
            socket::tests::assert_looked_after(&stream);
        }
    }
}
