//! Addresses for programs that have to be told theirs beforehand, and that are started on them again.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, Result};
use socket2::{Domain, Socket, Type};

/// Bound and never listening, until this process ends.
static CLAIMS: Mutex<Vec<Socket>> = Mutex::new(Vec::new());

/// An address of loopback that is this process' until it ends: the kernel gives its port to no other test, to no listener
/// that takes any port, and to no outgoing connection. A program that sets `SO_REUSEADDR` before it binds, as servers
/// do, can listen on it, again and again; until one does, connections are refused.
///
/// # Errors
/// When no port or no descriptor is free.
pub fn claim_address() -> Result<SocketAddr> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    // Not before: who binds without it gets a port that nobody has.
    socket.set_reuse_address(true)?;
    let address = socket.local_addr()?.as_socket().context("an IP address")?;
    CLAIMS.lock().unwrap_or_else(PoisonError::into_inner).push(socket);
    Ok(address)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::io::ErrorKind;
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    use super::*;
    use crate::wait_for;

    const CEILING: Duration = Duration::from_secs(60);

    #[test]
    fn nobody_is_given_it_but_who_is_told() {
        let claimed = claim_address().unwrap();
        let exclusive = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        assert_eq!(exclusive.bind(&claimed.into()).unwrap_err().kind(), ErrorKind::AddrInUse);
        assert_eq!(TcpStream::connect(claimed).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        for _ in 0..2 {
            // The standard library sets SO_REUSEADDR. What another test starts has a copy of the last listener until it is the
            // program that it is to be.
            let listener = wait_for("nobody listens", CEILING, || Ok(TcpListener::bind(claimed)?)).unwrap();
            assert!(TcpListener::bind(claimed).is_err(), "two listen on {claimed}");
            // It is ended by the listener: what is left of it keeps the address for a minute.
            let client = TcpStream::connect(claimed).unwrap();
            drop(listener.accept().unwrap());
            drop(client);
        }
    }

    #[test]
    fn many_differ() {
        let many: BTreeSet<SocketAddr> = (0..200).map(|_| claim_address().unwrap()).collect();
        assert_eq!(many.len(), 200);
    }
}
