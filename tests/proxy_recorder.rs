//! A backend that takes nothing but what is right, keeps all that it gets, and answers as it was told.
//!
//! Takes: connections of HTTP/1.1, or of HTTP/2 by prior knowledge. Gives: the requests as they came, and what was none.

use std::collections::HashMap;
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use h2::server::SendResponse;
use h2::{RecvStream, server};
use http::{HeaderMap, Request};

use crate::proxy_streams::{self, Frames};
use crate::proxy_system::CEILING;
use crate::proxy_wire::{Message, Reader};

/// Requests that a recorder of HTTP/2 takes on a connection: a client that has more needs another one.
const STREAMS: u32 = 4;
/// Less than most bodies, so that they wait for each other.
const WINDOW: u32 = 20_000;

/// What a recorder answers, in its version of HTTP.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// Bytes of HTTP/1.1, and whether the connection ends with them.
    Bytes { bytes: Vec<u8>, closes: bool },
    /// A status, whether an interim answer goes before it, and the rest.
    Frames(u16, bool, Frames),
}

/// A strict backend. Requests are told apart by [`ID`](crate::proxy_wire::ID).
pub(crate) struct Recorder {
    address: SocketAddr,
    kept: Arc<Kept>,
}

#[derive(Default)]
struct Kept {
    records: Mutex<Records>,
    more: Condvar,
}

/// What a recorder got.
#[derive(Default)]
pub(crate) struct Records {
    /// To be answered so, once each; others get 200.
    pub(crate) answers: HashMap<String, Answer>,
    /// In the order in which they were whole.
    pub(crate) requests: Vec<Message>,
    /// What was no request, or none that is whole.
    pub(crate) wrong: Vec<String>,
}

impl Recorder {
    /// Of HTTP/1.1.
    pub(crate) fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let (address, kept) = (listener.local_addr()?, Arc::<Kept>::default());
        let all = Arc::clone(&kept);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let kept = Arc::clone(&all);
                std::thread::spawn(move || {
                    if let Err(error) = record(stream, &kept) {
                        kept.wrong(&error);
                    }
                });
            }
        });
        Ok(Self { address, kept })
    }

    /// Of HTTP/2.
    pub(crate) fn start_http2() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let (address, kept) = (listener.local_addr()?, Arc::<Kept>::default());
        listener.set_nonblocking(true)?;
        let all = Arc::clone(&kept);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::spawn(move || runtime.block_on(listen(listener, all)));
        Ok(Self { address, kept })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn records(&self) -> MutexGuard<'_, Records> {
        self.kept.locked()
    }

    /// Waits until what was recorded is so.
    pub(crate) fn wait(&self, is_so: impl Fn(&Records) -> bool) -> Result<MutexGuard<'_, Records>> {
        let not_yet = |records: &mut Records| !is_so(records);
        let waited = self.kept.more.wait_timeout_while(self.records(), CEILING, not_yet);
        let (records, timeout) = waited.expect("no panic while holding it");
        ensure!(!timeout.timed_out(), "not so after {} s", CEILING.as_secs());
        Ok(records)
    }
}

impl Kept {
    fn locked(&self) -> MutexGuard<'_, Records> {
        self.records.lock().expect("no panic while holding it")
    }

    /// Keeps a request; gives what it was told to answer.
    fn request(&self, request: Message) -> Option<Answer> {
        let mut records = self.locked();
        let told = request.id().and_then(|id| records.answers.remove(&id));
        records.requests.push(request);
        drop(records);
        self.more.notify_all();
        told
    }

    fn wrong(&self, error: &anyhow::Error) {
        self.locked().wrong.push(format!("{error:#}"));
        self.more.notify_all();
    }
}

impl Records {
    /// All requests of this id.
    pub(crate) fn of(&self, id: &str) -> Vec<Message> {
        self.requests.iter().filter(|request| request.id().as_deref() == Some(id)).cloned().collect()
    }
}

fn record(stream: TcpStream, kept: &Kept) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut write = stream.try_clone()?;
    let mut reader = Reader::new(stream)?;
    while let Some(request) = reader.request()? {
        let (bytes, closes) = match kept.request(request) {
            Some(Answer::Bytes { bytes, closes }) => (bytes, closes),
            Some(Answer::Frames(..)) => anyhow::bail!("told to answer in HTTP/2"),
            None => (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".to_vec(), false),
        };
        // The proxy may have left meanwhile: what it had sent is recorded.
        if write.write_all(&bytes).is_err() || closes {
            return Ok(());
        }
    }
    Ok(())
}

async fn listen(listener: TcpListener, kept: Arc<Kept>) -> std::io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(record_streams(stream, Arc::clone(&kept)));
    }
}

async fn record_streams(stream: tokio::net::TcpStream, kept: Arc<Kept>) {
    let served = async {
        let mut settings = server::Builder::new();
        settings.max_concurrent_streams(STREAMS).initial_window_size(WINDOW);
        let mut connection = settings.handshake::<_, Bytes>(stream).await?;
        while let Some(stream) = connection.accept().await {
            let (stream, kept) = (stream?, Arc::clone(&kept));
            tokio::spawn(async move {
                if let Err(error) = record_stream(stream, &kept).await {
                    kept.wrong(&error);
                }
            });
        }
        Ok::<_, h2::Error>(())
    };
    match served.await {
        // The proxy has sent what is none.
        Err(error) if error.is_go_away() || error.is_reset() => kept.wrong(&error.into()),
        // It may leave at any time: the streams say what was not whole then.
        _ => {}
    }
}

async fn record_stream(
    (stream, respond): (Request<RecvStream>, SendResponse<Bytes>),
    kept: &Kept,
) -> Result<()> {
    let request = proxy_streams::request(stream).await?;
    let (status, announced, frames) = match kept.request(request) {
        Some(Answer::Frames(status, announced, frames)) => (status, announced, frames),
        Some(Answer::Bytes { .. }) => anyhow::bail!("told to answer in HTTP/1.1"),
        // Right for HEAD, too.
        None => (200, false, Frames { fields: HeaderMap::new(), data: None, trailers: HeaderMap::new() }),
    };
    proxy_streams::answer(respond, (status, announced), frames).await.context("answering")
}
