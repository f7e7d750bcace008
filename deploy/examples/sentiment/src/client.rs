//! A caller's HTTP client: one origin, connections kept alive, hyper's `conn` API.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use http::uri::{Authority, Scheme};
use http::{Request, Response, Uri};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::resolver::{ResolveError, Resolver};

/// Bounds a connection attempt to one address.
const CONNECT: Duration = Duration::from_secs(5);
/// More idle connections than this are closed rather than kept.
const MOST_IDLE: usize = 64;

type Sender = SendRequest<Full<Bytes>>;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The URL is of no use to this client; the message says why.
    #[error("{0}: {1}")]
    Url(Uri, &'static str),
    /// The name has no address.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// None of the addresses takes a connection.
    #[error("cannot connect to {0}: {1}")]
    Connect(SocketAddr, String),
    /// The connection broke, or what came is not HTTP.
    #[error("the exchange failed: {}", with_source(.0))]
    Exchange(#[from] hyper::Error),
    /// No whole answer within the limit.
    #[error("no answer within {0:?}")]
    Late(Duration),
}

/// Calls one origin.
pub struct Client {
    authority: Authority,
    /// Connect here whatever the name says: on a laptop, where no DNS knows it.
    address: Option<SocketAddr>,
    resolver: Resolver,
    idle: Mutex<VecDeque<Sender>>,
    limit: Duration,
}

impl Client {
    /// A client of the origin of `url`; each exchange, body included, takes at most `limit`.
    ///
    /// # Errors
    /// When `url` is not `http://` with a host.
    pub fn new(
        url: &Uri,
        address: Option<SocketAddr>,
        resolver: Resolver,
        limit: Duration,
    ) -> Result<Self, ClientError> {
        if url.scheme() != Some(&Scheme::HTTP) {
            return Err(ClientError::Url(url.clone(), "want http://HOST[:PORT]"));
        }
        let authority = url.authority().cloned().ok_or(ClientError::Url(url.clone(), "has no host"))?;
        Ok(Self { authority, address, resolver, idle: Mutex::default(), limit })
    }

    /// Host and port as the URL writes them: the value of the `Host` header.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Sends a request whose URI is path and query, and reads the whole answer.
    ///
    /// A kept connection that turns out closed before anything was sent is replaced; nothing else is repeated.
    ///
    /// # Errors
    /// See [`ClientError`]; the connection is then not used again.
    pub async fn request(&self, request: Request<Full<Bytes>>) -> Result<Response<Bytes>, ClientError> {
        timeout(self.limit, self.exchange(request)).await.map_err(|_| ClientError::Late(self.limit))?
    }

    async fn exchange(&self, mut request: Request<Full<Bytes>>) -> Result<Response<Bytes>, ClientError> {
        while let Some(mut sender) = self.take_idle() {
            match sender.try_send_request(request).await {
                Ok(answer) => return self.whole(answer, sender).await,
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(error.into_error().into()),
                },
            }
        }
        let mut sender = self.connect().await?;
        let answer = sender.send_request(request).await?;
        self.whole(answer, sender).await
    }

    async fn whole(
        &self,
        answer: Response<hyper::body::Incoming>,
        sender: Sender,
    ) -> Result<Response<Bytes>, ClientError> {
        let (head, body) = answer.into_parts();
        let body = body.collect().await?.to_bytes();
        self.keep(sender);
        Ok(Response::from_parts(head, body))
    }

    /// The connection used last: the others may then grow old and be closed.
    fn take_idle(&self) -> Option<Sender> {
        let mut idle = self.idle.lock().expect("no panic while holding it");
        idle.retain(|sender| !sender.is_closed());
        idle.pop_back()
    }

    fn keep(&self, sender: Sender) {
        let mut idle = self.idle.lock().expect("no panic while holding it");
        idle.push_back(sender);
        if idle.len() > MOST_IDLE {
            idle.pop_front();
        }
    }

    async fn connect(&self) -> Result<Sender, ClientError> {
        let stream = self.stream().await?;
        let _ = stream.set_nodelay(true);
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // Ends with its sender; an error reaches the exchange that was under way.
        tokio::spawn(connection);
        Ok(sender)
    }

    async fn stream(&self) -> Result<TcpStream, ClientError> {
        let mut last = None;
        for address in self.addresses().await? {
            let why = match timeout(CONNECT, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => error.to_string(),
                Err(_) => format!("no answer within {CONNECT:?}"),
            };
            last = Some(ClientError::Connect(address, why));
        }
        Err(last.expect("a resolved name has an address"))
    }

    async fn addresses(&self) -> Result<Vec<SocketAddr>, ClientError> {
        if let Some(address) = self.address {
            return Ok(vec![address]);
        }
        let port = self.authority.port_u16().unwrap_or(80);
        let addresses = self.resolver.resolve(self.authority.host()).await?;
        Ok(addresses.into_iter().map(|ip| SocketAddr::new(ip, port)).collect())
    }
}

/// hyper's messages leave out their cause.
fn with_source(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resolver::ResolvConf;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    fn client(address: SocketAddr) -> Client {
        let resolver = Resolver::new(ResolvConf::default());
        Client::new(&Uri::from_static("http://sa-logic"), Some(address), resolver, Duration::from_secs(20))
            .unwrap()
    }

    fn request() -> Request<Full<Bytes>> {
        Request::post("/x").header("host", "sa-logic").body(Full::new(Bytes::from_static(b"hi"))).unwrap()
    }

    async fn answer(stream: &mut TcpStream) -> String {
        let mut request = vec![0; 1024];
        let read = stream.read(&mut request).await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
        String::from_utf8_lossy(&request[..read]).into_owned()
    }

    #[tokio::test]
    async fn connections_are_kept_and_nothing_is_added() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = client(listener.local_addr().unwrap());
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let first = answer(&mut stream).await;
            assert_eq!(first, answer(&mut stream).await, "the second comes on the same connection");
            first
        };
        let calls = async {
            for _ in 0..2 {
                assert_eq!(client.request(request()).await.unwrap().body(), "ok");
            }
        };
        let (seen, ()) = tokio::join!(server, calls);
        assert_eq!(seen, "POST /x HTTP/1.1\r\nhost: sa-logic\r\ncontent-length: 2\r\n\r\nhi");
    }

    #[tokio::test]
    async fn a_kept_connection_that_was_closed_is_replaced() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = client(listener.local_addr().unwrap());
        let server = async {
            for _ in 0..3 {
                let (mut stream, _) = listener.accept().await.unwrap();
                answer(&mut stream).await;
            }
        };
        let calls = async {
            for _ in 0..3 {
                client.request(request()).await.unwrap();
                // Closed by the server: wait until the client has seen it.
                let closed = || client.idle.lock().unwrap().iter().all(SendRequest::is_closed);
                while !closed() {
                    tokio::task::yield_now().await;
                }
            }
        };
        tokio::join!(server, calls);
    }

    #[test]
    fn only_plain_http_is_spoken() {
        let resolver = Resolver::new(ResolvConf::default());
        let made = Client::new(&Uri::from_static("https://x"), None, resolver, CONNECT);
        assert!(matches!(made, Err(ClientError::Url(..))));
    }
}
