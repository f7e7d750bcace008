//! hyper's server and client, reading from memory.

use std::cell::RefCell;
use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::service::service_fn;

use crate::http1::Framing;
use crate::http1::fuzz::{Message, Side, Start};

/// One that reads a side of connections.
pub(super) struct Peer {
    side: Side,
    runtime: tokio::runtime::Runtime,
}

impl Peer {
    pub(super) fn new(side: Side) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        Self { side, runtime }
    }

    /// What it reads: whole messages, and what it says in the end, if it says something.
    pub(super) fn read(&self, bytes: &[u8]) -> (Vec<Message>, String) {
        match self.side {
            Side::Requests => self.runtime.block_on(requests(bytes)),
            Side::Answers { to_head } => self.runtime.block_on(answer(bytes, to_head)),
        }
    }
}

async fn requests(bytes: &[u8]) -> (Vec<Message>, String) {
    let got = Rc::new(RefCell::new((Vec::new(), String::new())));
    let service = service_fn(|request: Request<Incoming>| {
        let got = Rc::clone(&got);
        async move {
            let (head, body) = request.into_parts();
            let start = Start::Request(head.method, head.uri, head.version);
            match message(start, head.headers, body).await {
                Ok(message) => got.borrow_mut().0.push(message),
                Err(error) => got.borrow_mut().1 = error,
            }
            let mut answer = Response::new(Empty::<Bytes>::new());
            // Not one that lets CONNECT begin.
            *answer.status_mut() = StatusCode::BAD_REQUEST;
            Ok::<_, Infallible>(answer)
        }
    });
    let memory = Memory { left: Bytes::copy_from_slice(bytes), waits_for_request: false, waiting: None };
    let served =
        hyper::server::conn::http1::Builder::new().half_close(true).serve_connection(memory, service);
    let ended = served.await;
    let (messages, mut said) = got.take();
    if let Err(error) = ended {
        said.push_str(&format!("{error:?}"));
    }
    (messages, said)
}

async fn answer(bytes: &[u8], to_head: bool) -> (Vec<Message>, String) {
    let memory = Memory { left: Bytes::copy_from_slice(bytes), waits_for_request: true, waiting: None };
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(memory).await.expect("nothing is said yet");
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.method_mut() = if to_head { Method::HEAD } else { Method::GET };
    let exchange = async move {
        let answer = sender.send_request(request).await.map_err(|error| format!("{error:?}"))?;
        let (head, body) = answer.into_parts();
        message(Start::Answer(head.status, head.version), head.headers, body).await
    };
    let (answer, _) = futures::future::join(exchange, connection).await;
    match answer {
        Ok(message) => (vec![message], String::new()),
        Err(error) => (Vec::new(), error),
    }
}

async fn message(start: Start, headers: HeaderMap, body: Incoming) -> Result<Message, String> {
    let collected = body.collect().await.map_err(|error| format!("{error:?}"))?;
    let trailers = collected.trailers().cloned().unwrap_or_default();
    let body = collected.to_bytes().to_vec();
    // Those that hyper does not tell are not compared.
    let (framing, keep_alive, is_whole) = (Framing::None, true, true);
    Ok(Message { start, headers, framing, keep_alive, body, trailers, is_whole })
}

/// A socket that has these bytes to read, and then ends.
struct Memory {
    left: Bytes,
    /// Until something was written.
    waits_for_request: bool,
    waiting: Option<Waker>,
}

impl Read for Memory {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if self.waits_for_request {
            self.waiting = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let count = self.left.len().min(buffer.remaining());
        buffer.put_slice(&self.left.split_to(count));
        Poll::Ready(Ok(()))
    }
}

impl Write for Memory {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.waits_for_request = false;
        self.waiting.take().into_iter().for_each(Waker::wake);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
