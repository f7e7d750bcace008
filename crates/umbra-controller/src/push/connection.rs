//! One kept-alive HTTP/1.1 connection to a node.
//!
//! Takes: a node's address and the client's certificate. Gives: requests and their answers. Never speaks without
//! TLS to anything but loopback, and to no one who cannot show the proxy's name under our CA.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use umbra_routing::{EPOCH_HEADER, VERSION_HEADER};

/// The name every proxy's certificate carries, whatever its address.
pub const PROXY_NAME: &str = "umbra-proxy.umbra-system";
/// Connecting and any answer without a body; on a cluster network these take milliseconds.
const TIMEOUT: Duration = Duration::from_secs(5);
/// More time for each megabyte sent: a slow network still moves 8 Mbit/s.
const TIMEOUT_PER_MEGABYTE: Duration = Duration::from_secs(1);
/// An answer lists armed and refused services: 10,000 of each need 3 MB.
const ANSWER_LIMIT: usize = 16 << 20;

/// Why a node could not be asked. Texts are fixed, without figures that move: they go into a status.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum ConnectionError {
    /// Nobody listens, or the way there is blocked. Look at the proxy Pod and at port 15002 of the node.
    #[error("{0}")]
    Connect(String),
    /// The certificate is not the proxy's under our CA, or the proxy does not accept ours. Look at the Secrets.
    #[error("TLS: {0}")]
    Tls(String),
    /// The connection broke while an answer was due.
    #[error("connection lost")]
    Lost,
    /// No answer in time.
    #[error("timed out")]
    Timeout,
    /// Plain HTTP to another machine. Give `--tls-dir`.
    #[error("not on loopback, and there is no certificate: give --tls-dir")]
    Plain,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
}

/// The connection; dropping it closes it.
pub(crate) struct Connection {
    sender: http1::SendRequest<Full<Bytes>>,
    driver: JoinHandle<()>,
    authority: HeaderValue,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Connection {
    /// Connects to `address` (`host:port`).
    pub(crate) async fn open(
        address: &str,
        tls: Option<&Arc<ClientConfig>>,
    ) -> Result<Self, ConnectionError> {
        let open = async {
            let stream = tcp(address, tls.is_none()).await?;
            let stream: Box<dyn Stream> = match tls {
                Some(tls) => Box::new(handshake(stream, Arc::clone(tls)).await?),
                None => Box::new(stream),
            };
            let (sender, connection) =
                http1::handshake(TokioIo::new(stream)).await.map_err(|_| ConnectionError::Lost)?;
            // Its error is the sender's error too.
            let driver = tokio::spawn(async move { drop(connection.await) });
            let authority = HeaderValue::from_str(address).expect("an address that resolved is plain text");
            Ok(Self { sender, driver, authority })
        };
        tokio::time::timeout(TIMEOUT, open).await.map_err(|_| ConnectionError::Timeout)?
    }

    /// Returns when the other end has closed the connection. Cancel safe.
    pub(crate) async fn closed(&mut self) {
        // A driver that panicked has closed it as well.
        drop((&mut self.driver).await);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.sender.is_closed() || self.driver.is_finished()
    }

    /// Sends one request and reads its whole answer.
    pub(crate) async fn request(&mut self, request: Outgoing) -> Result<Answer, ConnectionError> {
        let megabytes = u32::try_from(request.body.len() >> 20).unwrap_or(u32::MAX);
        let limit = TIMEOUT + TIMEOUT_PER_MEGABYTE * megabytes;
        let exchange = async {
            self.sender.ready().await.map_err(|_| ConnectionError::Lost)?;
            let built = request.build(&self.authority);
            let response = self.sender.send_request(built).await.map_err(|_| ConnectionError::Lost)?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, ANSWER_LIMIT).collect().await.map_err(|_| ConnectionError::Lost)?;
            Ok(Answer { status: head.status, body: body.to_bytes() })
        };
        tokio::time::timeout(limit, exchange).await.map_err(|_| ConnectionError::Timeout)?
    }
}

/// A request to a node.
pub(crate) struct Outgoing {
    pub(crate) method: Method,
    pub(crate) path: &'static str,
    pub(crate) epoch: u128,
    pub(crate) version: u64,
    pub(crate) body: Bytes,
}

impl Outgoing {
    fn build(self, authority: &HeaderValue) -> Request<Full<Bytes>> {
        let mut request = Request::builder()
            .method(self.method)
            .uri(self.path)
            .header(http::header::HOST, authority.clone())
            .header(EPOCH_HEADER, self.epoch.to_string())
            .header(VERSION_HEADER, self.version);
        if !self.body.is_empty() {
            request = request.header(http::header::CONTENT_TYPE, "application/json");
        }
        request.body(Full::new(self.body)).expect("fixed path, checked address, decimal headers")
    }
}

async fn tcp(address: &str, plain: bool) -> Result<TcpStream, ConnectionError> {
    let connect = |error: std::io::Error| ConnectionError::Connect(reason(&error));
    let mut last = ConnectionError::Connect("no address".into());
    for to in tokio::net::lookup_host(address).await.map_err(connect)? {
        if plain && !is_loopback(to) {
            return Err(ConnectionError::Plain);
        }
        match TcpStream::connect(to).await {
            Ok(stream) => {
                // A delta is one small write; waiting for more would only delay it.
                stream.set_nodelay(true).map_err(connect)?;
                return Ok(stream);
            }
            Err(error) => last = connect(error),
        }
    }
    Err(last)
}

fn is_loopback(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

async fn handshake(
    stream: TcpStream,
    tls: Arc<ClientConfig>,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>, ConnectionError> {
    let name = rustls_pki_types::ServerName::try_from(PROXY_NAME).expect("a DNS name");
    let connector = tokio_rustls::TlsConnector::from(tls);
    connector.connect(name, stream).await.map_err(|error| ConnectionError::Tls(tls_reason(&error)))
}

/// rustls' words, but where they count the seconds since a certificate ended: a status would be written every second.
fn tls_reason(error: &std::io::Error) -> String {
    use rustls::CertificateError as Certificate;
    let source = error.get_ref().and_then(|source| source.downcast_ref::<rustls::Error>());
    match source {
        Some(rustls::Error::InvalidCertificate(Certificate::Expired | Certificate::ExpiredContext { .. })) => {
            "the proxy's certificate has expired; restart umbra-controller, which makes a new one, then the proxy"
                .into()
        }
        Some(rustls::Error::InvalidCertificate(
            Certificate::NotValidYet | Certificate::NotValidYetContext { .. },
        )) => "the proxy's certificate is not valid yet; compare the clocks of the nodes".into(),
        Some(other) => other.to_string(),
        None => reason(error),
    }
}

/// The error's kind in words, without the `(os error N)` that differs between systems.
fn reason(error: &std::io::Error) -> String {
    // std has no name for some kinds (name resolution among them): their own text says more.
    match error.kind().to_string() {
        unnamed if unnamed == "uncategorized error" || unnamed == "other error" => error.to_string(),
        kind => kind,
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::time::Duration;

    use rustls::CertificateError;
    use rustls_pki_types::UnixTime;

    use super::*;

    #[test]
    fn texts_of_certificate_times_do_not_move() {
        let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let text = |error: CertificateError| tls_reason(&io::Error::other(rustls::Error::from(error)));
        let expired = |now| text(CertificateError::ExpiredContext { time: at(now), not_after: at(100) });
        assert_eq!(expired(101), expired(102));
        assert_eq!(expired(101), text(CertificateError::Expired));
        let early = |now| text(CertificateError::NotValidYetContext { time: at(now), not_before: at(100) });
        assert_eq!(early(8), early(9));
        assert!(early(8).contains("not valid yet"), "{}", early(8));
        assert!(text(CertificateError::UnknownIssuer).contains("UnknownIssuer"));
    }
}
