//! A request of a case in HTTP/2 without TLS.

use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http::uri::{PathAndQuery, Scheme, Uri};
use http::{HeaderMap, Request as HttpRequest};

use crate::istio_cases::Request;

/// Status and headers of the answer, read to its end; `None`: the client's patience was over.
pub(crate) fn exchange(
    stream: TcpStream,
    request: &Request,
    case: &str,
    patience: Duration,
) -> Result<Option<(u16, HeaderMap)>> {
    let head = head(request, case)?;
    let body = request.body();
    stream.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::from_std(stream)?;
        match tokio::time::timeout(patience, answer(stream, head, body)).await {
            Ok(answer) => answer.map(Some),
            Err(_) => Ok(None),
        }
    })
}

fn head(request: &Request, case: &str) -> Result<HttpRequest<()>> {
    let mut uri = http::uri::Parts::default();
    uri.scheme = Some(Scheme::HTTP);
    uri.authority = Some(request.host()?.parse()?);
    uri.path_and_query = Some(PathAndQuery::try_from(request.path())?);
    let mut head = HttpRequest::builder().method(request.method()).uri(Uri::from_parts(uri)?);
    for (name, value) in request.headers() {
        head = head.header(name.to_ascii_lowercase(), value);
    }
    Ok(head.header("x-case", case).body(())?)
}

async fn answer(
    stream: tokio::net::TcpStream,
    head: HttpRequest<()>,
    body: Option<Vec<u8>>,
) -> Result<(u16, HeaderMap)> {
    let (sender, connection) = h2::client::handshake(stream).await?;
    tokio::spawn(connection);
    let mut sender = sender.ready().await?;
    let (answer, mut sending) = sender.send_request(head, body.is_none())?;
    if let Some(body) = body {
        // An answer may come before the whole body has gone out: what cannot be sent any more is not needed.
        let _ = sending.send_data(Bytes::from(body), true);
    }
    let (head, mut body) = answer.await?.into_parts();
    while let Some(chunk) = body.data().await {
        let length = chunk.context("a whole answer")?.len();
        body.flow_control().release_capacity(length)?;
    }
    Ok((head.status.as_u16(), head.headers))
}
