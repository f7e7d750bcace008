//! HTTP/2 as messages that are compared with those of HTTP/1.1: what is sent is told frame by frame, what comes is read to
//! its end.
//!
//! Takes: frames to send. Gives: messages as they came. What RFC 9113 forbids, the `h2` crate refuses.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use h2::client::SendRequest;
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use tokio::net::TcpStream;

use crate::proxy_wire::{Fields, Framing, Message};

/// What a message says behind its first line.
#[derive(Clone, Debug)]
pub(crate) struct Frames {
    pub(crate) fields: HeaderMap,
    /// A frame for each, and whether a pause follows. `None`: the message ends with its head.
    pub(crate) data: Option<Vec<(Bytes, bool)>>,
    /// Without any, a frame of data is the last one.
    pub(crate) trailers: HeaderMap,
}

/// After a frame, where one is drawn.
pub(crate) const PAUSE: Duration = Duration::from_millis(2);

impl Frames {
    async fn send(self, mut stream: SendStream<Bytes>) -> Result<()> {
        let Some(mut data) = self.data else { return Ok(()) };
        let last = self.trailers.is_empty().then(|| data.pop()).flatten();
        for (frame, pause) in data {
            stream.send_data(frame, false)?;
            // Other streams have their turn. That is what is tried, and nothing waits for it.
            match pause {
                true => tokio::time::sleep(PAUSE).await,
                false => tokio::task::yield_now().await,
            }
        }
        match last {
            Some((frame, _)) => stream.send_data(frame, true)?,
            None if self.trailers.is_empty() => stream.send_data(Bytes::new(), true)?,
            None => stream.send_trailers(self.trailers)?,
        }
        Ok(())
    }
}

/// Asks all of it on one connection, at once or one after the other; gives the answers in the same order.
pub(crate) async fn exchange(
    to: SocketAddr,
    requests: Vec<(Request<()>, Frames)>,
    (at_once, window): (bool, u32),
) -> Result<Vec<Message>> {
    let stream = TcpStream::connect(to).await?;
    stream.set_nodelay(true)?;
    let mut settings = h2::client::Builder::new();
    let (sender, connection) = settings.initial_window_size(window).handshake(stream).await?;
    // How it ends is seen by whoever waits for an answer on it.
    let connection = tokio::spawn(connection);
    let (mut asked, mut answers) = (Vec::new(), Vec::new());
    for request in requests {
        let asking = tokio::spawn(ask(sender.clone(), request));
        match at_once {
            true => asked.push(asking),
            false => answers.push(asking.await??),
        }
    }
    for asking in asked {
        answers.push(asking.await??);
    }
    connection.abort();
    Ok(answers)
}

async fn ask(sender: SendRequest<Bytes>, (head, frames): (Request<()>, Frames)) -> Result<Message> {
    let is_head = head.method() == Method::HEAD;
    let mut head = head;
    *head.headers_mut() = frames.fields.clone();
    let (answer, stream) = sender.ready().await?.send_request(head, frames.data.is_none())?;
    let whole = async {
        let (head, body) = answer.await.context("no answer")?.into_parts();
        let bodiless = is_head || [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED].contains(&head.status);
        message(format!("HTTP/2 {}", head.status.as_str()), &head.headers, (body, bodiless)).await
    };
    let (answer, sent) = tokio::join!(whole, frames.send(stream));
    let answer = answer?;
    sent.context("sending")?;
    Ok(answer)
}

/// Reads a request to its end.
pub(crate) async fn request(request: Request<RecvStream>) -> Result<Message> {
    let (head, body) = request.into_parts();
    ensure!(head.uri.scheme_str() == Some("http"), "not :scheme http: {:?}", head.uri);
    let host = head.uri.authority().context("no :authority")?.as_str().parse()?;
    let mut headers = head.headers;
    ensure!(headers.insert(header::HOST, host).is_none(), "a host beside :authority: {headers:?}");
    let target = head.uri.path_and_query().context("no :path")?;
    message(format!("{} {target} HTTP/2", head.method), &headers, (body, false)).await
}

/// Sends an answer, and the one that announces it.
pub(crate) async fn answer(
    mut respond: SendResponse<Bytes>,
    (status, announced): (u16, bool),
    frames: Frames,
) -> Result<()> {
    if announced {
        let hints = Response::builder().status(103).header("link", "</a.css>");
        respond.send_informational(hints.body(())?)?;
    }
    let mut head = Response::builder().status(status).body(())?;
    *head.headers_mut() = frames.fields.clone();
    let stream = respond.send_response(head, frames.data.is_none())?;
    frames.send(stream).await
}

async fn message(
    start: String,
    headers: &HeaderMap,
    (mut stream, bodiless): (RecvStream, bool),
) -> Result<Message> {
    let fields = fields(headers);
    let length = fields.get("content-length").map(Vec::as_slice);
    let framing = match length {
        _ if bodiless || stream.is_end_stream() => Framing::None,
        None => Framing::Chunked,
        Some([length]) if length == b"0" => Framing::None,
        Some([_]) => Framing::Length,
        Some(lengths) => anyhow::bail!("lengths: {lengths:?}"),
    };
    let mut body = Vec::new();
    while let Some(data) = stream.data().await {
        let data = data.context("cut off within a body")?;
        stream.flow_control().release_capacity(data.len())?;
        body.extend_from_slice(&data);
    }
    let trailers = stream.trailers().await.context("cut off before the trailers")?;
    let trailers = trailers.as_ref().map(self::fields).unwrap_or_default();
    Ok(Message { start, fields, framing, body, trailers })
}

fn fields(headers: &HeaderMap) -> Fields {
    let mut fields = Fields::new();
    for (name, value) in headers {
        fields.entry(name.as_str().to_owned()).or_default().push(value.as_bytes().to_vec());
    }
    fields
}
