//! Name resolution without the C library: a static image has no `getaddrinfo` that works.
//!
//! Takes: `/etc/resolv.conf` as the kubelet writes it. Gives: the addresses of a name, by A and then AAAA queries over
//! UDP, over TCP when the answer did not fit. Never caches: connections are kept alive, so lookups are rare.

mod conf;
mod message;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

pub use conf::ResolvConf;
use message::{Answer, Kind};

/// Why a name has no address.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// Nobody knows the name; check its spelling and namespace.
    #[error("{0}: no such name, in none of the search domains")]
    NotFound(String),
    /// No name server gave a usable answer; check that the cluster's DNS runs.
    #[error("{name}: name servers {servers:?} gave no answer: {last}")]
    NoAnswer {
        /// The name asked for.
        name: String,
        /// Who was asked.
        servers: Vec<SocketAddr>,
        /// What the last one did.
        last: String,
    },
}

/// What goes wrong with one question to one server.
#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("no answer in time")]
    Late(#[from] tokio::time::error::Elapsed),
    #[error("{0}")]
    Message(#[from] message::MessageError),
}

/// Asks the servers of one `resolv.conf`.
#[derive(Clone, Debug)]
pub struct Resolver {
    conf: ResolvConf,
}

impl Resolver {
    /// A resolver with this configuration.
    pub fn new(conf: ResolvConf) -> Self {
        Self { conf }
    }

    /// The addresses of `host`: itself if it is an address, loopback for `localhost` (RFC 6761), else what DNS says.
    ///
    /// # Errors
    /// When no candidate of the search list exists, or no server answers.
    pub async fn resolve(&self, host: &str) -> Result<Vec<IpAddr>, ResolveError> {
        if let Ok(address) = host.trim_start_matches('[').trim_end_matches(']').parse() {
            return Ok(vec![address]);
        }
        if host.trim_end_matches('.').eq_ignore_ascii_case("localhost") {
            return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
        }
        for name in self.conf.candidates(host) {
            let addresses = self.lookup(&name).await?;
            if !addresses.is_empty() {
                return Ok(addresses);
            }
        }
        Err(ResolveError::NotFound(host.to_owned()))
    }

    async fn lookup(&self, name: &str) -> Result<Vec<IpAddr>, ResolveError> {
        match self.ask(name, Kind::A).await? {
            Answer::Addresses(addresses) if addresses.is_empty() => {}
            Answer::Addresses(addresses) => return Ok(addresses),
            Answer::NoSuchName => return Ok(Vec::new()),
        }
        match self.ask(name, Kind::Aaaa).await? {
            Answer::Addresses(addresses) => Ok(addresses),
            Answer::NoSuchName => Ok(Vec::new()),
        }
    }

    async fn ask(&self, name: &str, kind: Kind) -> Result<Answer, ResolveError> {
        let mut last = String::from("resolv.conf names no server");
        for _ in 0..self.conf.attempts {
            for server in &self.conf.servers {
                match exchange(*server, name, kind, self.conf.timeout).await {
                    Ok(answer) => return Ok(answer),
                    Err(error) => last = format!("{server}: {error}"),
                }
            }
        }
        Err(ResolveError::NoAnswer { name: name.to_owned(), servers: self.conf.servers.clone(), last })
    }
}

async fn exchange(server: SocketAddr, name: &str, kind: Kind, limit: Duration) -> Result<Answer, AskError> {
    let id = fastrand::u16(..);
    let query = message::query(id, name, kind)?;
    match timeout(limit, over_udp(server, &query, id, kind)).await?? {
        Some(answer) => Ok(answer),
        None => timeout(limit, over_tcp(server, &query, id, kind)).await?,
    }
}

/// `None`: the answer did not fit.
async fn over_udp(server: SocketAddr, query: &[u8], id: u16, kind: Kind) -> Result<Option<Answer>, AskError> {
    let any: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(query).await?;
    let mut buffer = vec![0; 4096];
    loop {
        let length = socket.recv(&mut buffer).await?;
        // A stray answer to an older question is not ours: wait on, the caller bounds the time.
        if message::answers(&buffer[..length], query, id) {
            return Ok(message::decode(&buffer[..length], kind)?);
        }
    }
}

async fn over_tcp(server: SocketAddr, query: &[u8], id: u16, kind: Kind) -> Result<Answer, AskError> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(query.len()).expect("a name is at most 255 bytes");
    stream.write_all(&[&length.to_be_bytes()[..], query].concat()).await?;
    let mut answer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut answer).await?;
    if !message::answers(&answer, query, id) {
        return Err(message::MessageError::Malformed.into());
    }
    message::decode(&answer, kind)?.ok_or_else(|| message::MessageError::Malformed.into())
}

#[cfg(test)]
mod tests;
