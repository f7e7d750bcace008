//! Requests whose whole content is known at both ends, so that either can tell whether a byte was lost, added or changed.
//!
//! Takes: an address, a version of HTTP, a service and a size. Gives: an answer that was checked, or what is wrong with
//! it. `check` and `said` are the backends' half of it.

use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::OnceLock;
use std::task::{Context, Poll};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use http::header::HeaderMap;
use http::{Method, Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use crate::proxy_system::CEILING;

/// A prime: when a block of any usual size is lost or doubled, all that follows differs.
const PERIOD: usize = 65_521;
/// What a client hands over at a time.
const PIECE: usize = 64 * 1024;
/// Both ends say it twice, in this order.
const MANY: [&str; 2] = ["one, two", "three"];

/// What is spoken on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    Http1,
    Http2,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http1 => "HTTP/1.1",
            Self::Http2 => "HTTP/2",
        })
    }
}

/// A request: its size says what is in its body, its number who it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ask<'a> {
    pub(crate) service: &'a str,
    pub(crate) number: usize,
    pub(crate) size: usize,
}

impl Ask<'_> {
    pub(crate) fn target(&self) -> String {
        format!("/{}?n", self.number)
    }
}

/// Why a request counts against the proxy.
#[derive(Debug)]
pub(crate) enum Wrong {
    /// No whole answer, or another status than 200.
    Failed(anyhow::Error),
    /// Something of it, or of its answer, arrived as something else.
    Altered(anyhow::Error),
}

/// A user with one connection at a time.
pub(crate) struct User {
    version: Version,
    to: SocketAddr,
    kept: Option<Sender>,
}

enum Sender {
    Http1(http1::SendRequest<Content>),
    Http2(http2::SendRequest<Content>),
}

/// A body of known bytes.
pub(crate) struct Content {
    at: usize,
    left: usize,
}

/// Compares a body with [`Content`] as it comes.
pub(crate) struct Comparison {
    at: usize,
    read: usize,
    differs: Option<usize>,
}

impl User {
    pub(crate) fn new(version: Version, to: SocketAddr) -> Self {
        Self { version, to, kept: None }
    }

    /// Asks, and checks the answer. The connection is kept for the next one, if `keep` says so.
    pub(crate) async fn ask(&mut self, ask: Ask<'_>, keep: bool) -> Result<(), Wrong> {
        let answered = tokio::time::timeout(CEILING, self.answer(ask)).await;
        let answered = answered.map_err(anyhow::Error::from).and_then(|answer| answer);
        if !keep {
            self.kept = None;
        }
        let (head, body) = answered.map_err(Wrong::Failed)?;
        unaltered(&head, &body, ask).map_err(Wrong::Altered)
    }

    async fn answer(&mut self, ask: Ask<'_>) -> Result<(HeaderMap, Bytes)> {
        let mut sender = match self.kept.take() {
            Some(sender) => sender,
            None => Sender::connect(self.version, self.to).await?,
        };
        let answer = sender.send(request(self.version, ask)?).await?;
        let (head, body) = answer.into_parts();
        let body = body.collect().await?.to_bytes();
        ensure!(head.status == 200, "{}: {}", head.status, String::from_utf8_lossy(&body));
        self.kept = Some(sender);
        Ok((head.headers, body))
    }
}

impl Sender {
    async fn connect(version: Version, to: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(to).await.context("connecting")?;
        stream.set_nodelay(true)?;
        let io = TokioIo::new(stream);
        // How a connection ends is seen by whoever waits for an answer on it.
        match version {
            Version::Http1 => {
                let (sender, connection) = http1::handshake(io).await?;
                tokio::spawn(connection);
                Ok(Self::Http1(sender))
            }
            Version::Http2 => {
                let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
                tokio::spawn(connection);
                Ok(Self::Http2(sender))
            }
        }
    }

    async fn send(&mut self, request: Request<Content>) -> Result<Response<Incoming>> {
        match self {
            Self::Http1(sender) => {
                sender.ready().await?;
                Ok(sender.send_request(request).await?)
            }
            Self::Http2(sender) => {
                sender.ready().await?;
                Ok(sender.send_request(request).await?)
            }
        }
    }
}

fn request(version: Version, ask: Ask<'_>) -> Result<Request<Content>> {
    let method = if ask.size == 0 { Method::GET } else { Method::POST };
    let request = match version {
        Version::Http1 => Request::builder().uri(ask.target()).header("host", ask.service),
        Version::Http2 => Request::builder().uri(format!("http://{}{}", ask.service, ask.target())),
    };
    let request = MANY.iter().fold(request, |request, value| request.header("x-many", *value));
    Ok(request.method(method).header("x-size", ask.size).body(Content::new(ask.size))?)
}

fn unaltered(head: &HeaderMap, body: &Bytes, ask: Ask<'_>) -> Result<()> {
    let said = String::from_utf8_lossy(body);
    ensure!(said == said_of(&ask.target(), ask.size), "the backend says {said:?}");
    ensure!(many(head) == MANY, "{head:?}");
    let mut names: Vec<_> = head.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    ensure!(names == ["content-length", "x-many", "x-many"], "{head:?}");
    Ok(())
}

fn many(head: &HeaderMap) -> Vec<&str> {
    head.get_all("x-many").iter().filter_map(|value| value.to_str().ok()).collect()
}

fn said_of(target: &str, size: usize) -> String {
    format!("{target} as sent, {size} bytes")
}

/// The answer of a backend that has read all of a request.
pub(crate) fn answer<B>(said: String, body: impl FnOnce(Bytes) -> B) -> Response<B> {
    let answer = Response::builder().header("content-length", said.len());
    let answer = MANY.iter().fold(answer, |answer, value| answer.header("x-many", *value));
    answer.body(body(Bytes::from(said))).expect("headers of ours")
}

/// Reads a request to its end and says what of it is not as a [`User`] sends it, or that all is.
///
/// # Errors
/// It has no end.
pub(crate) async fn check(request: Request<Incoming>) -> Result<Result<String, String>> {
    let (head, mut body) = request.into_parts();
    let size = head.headers.get("x-size").and_then(|size| size.to_str().ok()?.parse().ok());
    let mut comparison = Comparison::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            comparison.read(&data);
        }
    }
    let target = head.uri.path_and_query().map_or("", |target| target.as_str());
    let differs = comparison.end(size).or_else(|| head_differs(&head));
    Ok(match differs {
        None => Ok(said_of(target, comparison.read)),
        Some(what) => Err(format!("{target}: {what}")),
    })
}

fn head_differs(head: &http::request::Parts) -> Option<String> {
    let method = if head.headers.get("x-size")? == "0" { Method::GET } else { Method::POST };
    let own = |name: &&str| !["host", "content-length"].contains(name);
    let mut names: Vec<_> = head.headers.iter().map(|(name, _)| name.as_str()).filter(own).collect();
    names.sort_unstable();
    let same =
        head.method == method && many(&head.headers) == MANY && names == ["x-many", "x-many", "x-size"];
    (!same).then(|| format!("{head:?}"))
}

impl Comparison {
    pub(crate) fn new() -> Self {
        Self { at: 0, read: 0, differs: None }
    }

    fn read(&mut self, mut data: &[u8]) {
        while !data.is_empty() && self.differs.is_none() {
            let wanted = &period()[self.at..];
            let length = data.len().min(wanted.len());
            if data[..length] != wanted[..length] {
                self.differs = Some(self.read);
            }
            self.at = (self.at + length) % PERIOD;
            self.read += length;
            data = &data[length..];
        }
    }

    fn end(&self, size: Option<usize>) -> Option<String> {
        match (self.differs, size) {
            (Some(at), _) => Some(format!("the body differs within what came at byte {at}")),
            (None, Some(size)) if size == self.read => None,
            (None, size) => Some(format!("the body has {} bytes, of {size:?}", self.read)),
        }
    }
}

/// The bytes that every body repeats.
fn period() -> &'static Bytes {
    static BYTES: OnceLock<Bytes> = OnceLock::new();
    BYTES.get_or_init(|| {
        let mut random = fastrand::Rng::with_seed(1);
        (0..PERIOD).map(|_| random.u8(..)).collect()
    })
}

impl Content {
    pub(crate) fn new(size: usize) -> Self {
        Self { at: 0, left: size }
    }
}

impl Body for Content {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let length = PIECE.min(PERIOD - self.at).min(self.left);
        let piece = period().slice(self.at..self.at + length);
        self.at = (self.at + length) % PERIOD;
        self.left -= length;
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left as u64)
    }
}
