//! How a connection to an endpoint begins, and why there may be none.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::net::TcpStream;

use super::PeerError;
use crate::descriptors::{Open, Sockets};
use crate::recycle::Recycled;

/// What a connection begins with.
pub(super) struct Dialer {
    pub(super) connect_timeout: Duration,
    pub(super) recycled: Rc<Recycled>,
}

/// There is no connection.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("{0}")]
    Io(Rc<io::Error>),
    #[error("no answer in time")]
    TimedOut,
    /// Nobody was asked.
    #[error("there are as many connections as are allowed")]
    TooMany,
    #[error("it does not speak HTTP/2; does its Service's port say so, by appProtocol or its name?")]
    NotHttp2,
    #[error("it has said nothing in time, which HTTP/2 begins with")]
    Silent,
    #[error("{0}")]
    Http(Rc<PeerError>),
}

impl ConnectError {
    /// The endpoint took the connection, and there is none because of what it did then. A reset tells which: the kernel
    /// calls one that ends the handshake ECONNREFUSED, and one after it ECONNRESET, also when it was there before we looked.
    pub(crate) fn was_taken(&self) -> bool {
        match self {
            Self::Io(error) => error.kind() == io::ErrorKind::ConnectionReset,
            Self::NotHttp2 | Self::Silent | Self::Http(_) => true,
            Self::TimedOut | Self::TooMany => false,
        }
    }
}

impl Dialer {
    pub(super) async fn dial(
        &self,
        address: SocketAddr,
        sockets: &Sockets,
    ) -> Result<(TcpStream, Open), ConnectError> {
        let open = sockets.try_open().ok_or(ConnectError::TooMany)?;
        let io_error = |error| ConnectError::Io(Rc::new(error));
        let connecting = tokio::time::timeout(self.connect_timeout, TcpStream::connect(address));
        let stream = connecting.await.map_err(|_| ConnectError::TimedOut)?.map_err(io_error)?;
        stream.set_nodelay(true).map_err(io_error)?;
        Ok((stream, open))
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::pin::pin;

    use anyhow::ensure;
    use socket2::{Domain, SockRef, Socket, Type};
    use umbra_testkit::{TcpEnd, wait_for};

    use super::*;

    const CEILING: Duration = Duration::from_secs(60);

    fn dialer() -> Dialer {
        Dialer { connect_timeout: CEILING, recycled: Rc::default() }
    }

    #[tokio::test]
    async fn a_reset_behind_the_handshake_is_told_from_a_refusal() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let (dialer, sockets) = (dialer(), Sockets::default());
        let to = listener.local_addr().expect("bound");
        let mut dial = pin!(dialer.dial(to, &sockets));
        assert!(futures::poll!(&mut dial).is_pending(), "asked, and not looked at again");
        let (taken, from) = listener.accept().expect("it connects");
        SockRef::from(&taken).set_linger(Some(Duration::ZERO)).expect("a socket");
        drop(taken);
        let was_reset = || {
            let end = TcpEnd::between(from.port(), to.port())?;
            ensure!(!end.is_some_and(|end| end.established), "{end:?}");
            Ok(())
        };
        wait_for("the reset is there", CEILING, was_reset).expect("it was sent");
        let reset = dial.await.err().expect("there is no connection");
        assert!(matches!(&reset, ConnectError::Io(_)) && reset.was_taken(), "{reset:?}");

        let taken = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        taken.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a free port");
        let nobody = taken.local_addr().expect("bound").as_socket().expect("an IPv4 address");
        let refused = dialer.dial(nobody, &sockets).await.err().expect("nobody listens");
        assert!(matches!(&refused, ConnectError::Io(_)) && !refused.was_taken(), "{refused:?}");
    }
}
