//! Backends of one version of HTTP on threads of their own: a primary that says what it got, and mirrors that do all
//! that a second version of a program can do wrong.
//!
//! Gives: their addresses, and what those that read whole copies found altered. They end when dropped.

use std::collections::HashSet;
use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use socket2::{Domain, SockRef, Socket, Type};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use crate::proxy_kinds::Does;
use crate::proxy_requests::{Version, answer, check};

/// What a server of HTTP/2 sends first: SETTINGS with MAX_CONCURRENT_STREAMS 100 (RFC 9113 section 6.5).
const SETTINGS: &[u8] = b"\0\0\x06\x04\0\0\0\0\0\0\x03\0\0\0\x64";

/// What of requests and copies was not as sent.
type Altered = Arc<Mutex<Vec<String>>>;

/// Targets of requests that were failed on purpose.
#[derive(Clone, Default)]
pub(crate) struct Failures(Arc<Mutex<HashSet<String>>>);

impl Failures {
    pub(crate) fn contains(&self, target: &str) -> bool {
        self.0.lock().expect("no panic while holding it").contains(target)
    }

    fn add(&self, target: String) {
        self.0.lock().expect("no panic while holding it").insert(target);
    }
}

/// Where a backend listens, and what for.
struct Listens {
    listener: StdListener,
    does: Does,
}

/// Backends on a thread.
pub(crate) struct Backends {
    primary: SocketAddr,
    mirrors: Vec<(Does, Option<SocketAddr>)>,
    altered: Altered,
    failures: Failures,
    /// Ports that are taken, and on which nothing listens.
    _refusing: Vec<Socket>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Backends {
    /// A primary, and a mirror of each kind. `size` is that of the bodies that they will get.
    pub(crate) fn start(version: Version, size: usize, kinds: &[Does]) -> Result<Self> {
        let primary = StdListener::bind("127.0.0.1:0")?;
        let address = primary.local_addr()?;
        let mut listening = vec![Listens { listener: primary, does: Does::Answers }];
        let (mut mirrors, mut refusing) = (Vec::new(), Vec::new());
        for does in kinds.iter().copied() {
            let address = match does {
                Does::IsNotThere => None,
                Does::Refuses => {
                    let (socket, address) = refuses()?;
                    refusing.push(socket);
                    Some(address)
                }
                does => {
                    let listener = StdListener::bind("127.0.0.1:0")?;
                    let address = listener.local_addr()?;
                    listening.push(Listens { listener, does });
                    Some(address)
                }
            };
            mirrors.push((does, address));
        }
        let (altered, failures) = (Altered::default(), Failures::default());
        let backend = Backend { version, size, altered: Arc::clone(&altered), failures: failures.clone() };
        let (stop, stopped) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::spawn(move || {
            runtime.block_on(async {
                for listens in listening {
                    tokio::spawn(backend.clone().listen(listens));
                }
                // An error is the end of whoever has started them.
                let _ = stopped.await;
            });
        });
        let (stop, thread) = (Some(stop), Some(thread));
        Ok(Self { primary: address, mirrors, altered, failures, _refusing: refusing, stop, thread })
    }

    pub(crate) fn primary(&self) -> SocketAddr {
        self.primary
    }

    /// Each mirror's address, if it has one.
    pub(crate) fn mirrors(&self) -> &[(Does, Option<SocketAddr>)] {
        &self.mirrors
    }

    /// Goes on saying which requests they have failed on purpose.
    pub(crate) fn failures(&self) -> Failures {
        self.failures.clone()
    }

    /// What of the requests and copies that were read whole was not as sent.
    pub(crate) fn altered(&self) -> Vec<String> {
        self.altered.lock().expect("no panic while holding it").clone()
    }
}

impl Drop for Backends {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It has panicked: whoever waits for an answer has noticed.
            let _ = thread.join();
        }
    }
}

/// A port that is taken, so that nobody else is met there, and that refuses connections.
fn refuses() -> Result<(Socket, SocketAddr)> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())?;
    let address = socket.local_addr()?.as_socket().context("an IPv4 address")?;
    Ok((socket, address))
}

#[derive(Clone)]
struct Backend {
    version: Version,
    size: usize,
    altered: Altered,
    failures: Failures,
}

impl Backend {
    async fn listen(self, Listens { listener, does }: Listens) -> Result<()> {
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        loop {
            let (stream, _) = listener.accept().await?;
            // How a connection ends is the proxy's affair.
            tokio::spawn(self.clone().serve(stream, does));
        }
    }

    async fn serve(self, mut stream: TcpStream, does: Does) -> Result<()> {
        stream.set_nodelay(true)?;
        if self.version == Version::Http2 && does.is_raw() {
            stream.write_all(SETTINGS).await?;
        }
        match does {
            Does::NeverReads => left(&stream).await,
            Does::ReadsOneByteASecond => read_slowly(stream).await,
            Does::ResetsAtOnce => reset(&stream),
            Does::ResetsHalfWay => read(stream, self.half()).await.and_then(|stream| reset(&stream)),
            Does::HalfCloses => half_close(stream).await,
            _ => self.serve_http(stream, does).await,
        }
    }

    /// Of HTTP/2 no more comes than the first window, which nobody widens.
    fn half(&self) -> usize {
        let half = self.size / 2 + 1;
        if self.version == Version::Http2 { half.min(32 * 1024) } else { half }
    }

    async fn serve_http(self, stream: TcpStream, does: Does) -> Result<()> {
        let (version, io) = (self.version, TokioIo::new(stream));
        let service = service_fn(move |request| self.clone().answer(request, does));
        match version {
            Version::Http1 => {
                http1::Builder::new().auto_date_header(false).serve_connection(io, service).await?;
            }
            Version::Http2 => {
                let mut builder = http2::Builder::new(TokioExecutor::new());
                // As wide as many servers have it: 64 KiB would be the narrowest part of this test.
                builder.auto_date_header(false).initial_stream_window_size(1 << 20);
                builder.initial_connection_window_size(4 << 20).serve_connection(io, service).await?;
            }
        }
        Ok(())
    }

    async fn answer(self, request: Request<Incoming>, does: Does) -> Result<Response<Said>, Infallible> {
        match does {
            Does::AnswersEarly => {
                tokio::spawn(async move { self.read(request).await });
                return Ok(answer("early".into(), Said::text));
            }
            Does::AnswersAfter10Ms => tokio::time::sleep(Duration::from_millis(10)).await,
            Does::AnswersAfter1S => tokio::time::sleep(Duration::from_secs(1)).await,
            _ => {}
        }
        let target = request.uri().path_and_query().map(ToString::to_string).unwrap_or_default();
        let said = self.read(request).await;
        Ok(match does {
            Does::FailsSometimes if fastrand::u8(..40) == 0 => {
                self.failures.add(target);
                if fastrand::bool() { broken_off() } else { unavailable(said) }
            }
            Does::ReadsAndNeverAnswers => std::future::pending().await,
            Does::AnswersWithoutEnd => Response::new(Said::Endless),
            Does::BreaksOffItsAnswer => broken_off(),
            Does::Answers503 => unavailable(said),
            _ => answer(said, Said::text),
        })
    }

    async fn read(&self, request: Request<Incoming>) -> String {
        match check(request).await {
            Ok(Ok(said)) => said,
            Ok(Err(what)) => {
                self.altered.lock().expect("no panic while holding it").push(what.clone());
                what
            }
            // A copy that was cut, and cannot be answered.
            Err(error) => format!("no whole body: {error:#}"),
        }
    }
}

fn broken_off() -> Response<Said> {
    Response::new(Said::Broken { begun: false })
}

fn unavailable(said: String) -> Response<Said> {
    let mut answer = answer(said, Said::text);
    *answer.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
    answer
}

async fn discard(mut stream: TcpStream) -> Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    while stream.read(&mut buffer).await? > 0 {}
    Ok(())
}

async fn read(mut stream: TcpStream, mut bytes: usize) -> Result<TcpStream> {
    let mut buffer = vec![0; 64 * 1024];
    while bytes > 0 {
        let most = bytes.min(buffer.len());
        match stream.read(&mut buffer[..most]).await? {
            0 => break,
            read => bytes -= read,
        }
    }
    Ok(stream)
}

/// A second for each byte is what such a mirror does, not a way to wait for anything. What the other side has left behind
/// would take it hours.
async fn read_slowly(mut stream: TcpStream) -> Result<()> {
    while stream.read(&mut [0]).await? > 0 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        if stream.ready(Interest::READABLE).await?.is_read_closed() {
            break;
        }
    }
    Ok(())
}

/// Waits until the other side has left, and reads nothing: a long run would use up the test's own descriptors.
async fn left(stream: &TcpStream) -> Result<()> {
    while !stream.ready(Interest::READABLE).await?.is_read_closed() {
        // What has come is left there; more of it, or the end, says so again.
        let _: io::Result<()> = stream.try_io(Interest::READABLE, || Err(io::ErrorKind::WouldBlock.into()));
    }
    Ok(())
}

async fn half_close(mut stream: TcpStream) -> Result<()> {
    stream.shutdown().await?;
    discard(stream).await
}

/// The connection is reset when this stream is dropped.
fn reset(stream: &TcpStream) -> Result<()> {
    Ok(SockRef::from(stream).set_linger(Some(Duration::ZERO))?)
}

/// What a backend answers.
enum Said {
    Text(Option<Bytes>),
    Endless,
    Broken { begun: bool },
}

impl Said {
    fn text(text: Bytes) -> Self {
        Self::Text(Some(text))
    }
}

/// Ends a connection in the middle.
#[derive(Debug)]
struct BrokenOff;

impl fmt::Display for BrokenOff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("broken off")
    }
}

impl std::error::Error for BrokenOff {}

impl Body for Said {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        const PART: Bytes = Bytes::from_static(&[b'x'; 8192]);
        Poll::Ready(match &mut *self {
            Self::Text(text) => text.take().map(|text| Ok(Frame::data(text))),
            Self::Endless => Some(Ok(Frame::data(PART))),
            Self::Broken { begun: true } => Some(Err(BrokenOff)),
            Self::Broken { begun } => {
                *begun = true;
                Some(Ok(Frame::data(PART)))
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Text(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Text(Some(text)) => SizeHint::with_exact(text.len() as u64),
            Self::Text(None) => SizeHint::with_exact(0),
            _ => SizeHint::default(),
        }
    }
}
