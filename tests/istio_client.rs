//! One request of a case, as its client sends it.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use umbra_testkit::Pod;

use crate::istio_backends::Seen;
use crate::istio_cases::Request;
use crate::istio_http2;

/// What came of a request.
pub(crate) struct Outcome {
    /// `None`: the client's patience was over.
    pub(crate) status: Option<u16>,
    /// Names in lower case.
    pub(crate) headers: BTreeMap<String, Vec<String>>,
    /// From before the client connected until the answer was there, or its patience over.
    pub(crate) took: Duration,
    /// Filled in once all copies have ended.
    pub(crate) seen: Vec<Seen>,
}

impl Outcome {
    /// As recorded: over 0.9 s.
    pub(crate) fn is_slow(&self) -> bool {
        self.took > Duration::from_millis(900)
    }
}

/// Sends it on a new connection and reads the answer to its end.
pub(crate) fn send(pod: &Pod, to: SocketAddr, request: &Request, case: &str) -> Result<Outcome> {
    let began = Instant::now();
    let patience = Duration::from_secs_f64(request.patience());
    let stream = pod.netns().within(|| TcpStream::connect_timeout(&to, patience))??;
    let answer = match request.is_h2c() {
        true => istio_http2::exchange(stream, request, case, patience)?
            .map(|(status, headers)| (status, listed(&headers))),
        false => exchange(stream, request, case, patience)?,
    };
    let took = began.elapsed();
    let (status, headers) = match answer {
        Some((status, headers)) => (Some(status), headers),
        None => (None, BTreeMap::new()),
    };
    Ok(Outcome { status, headers, took, seen: Vec::new() })
}

/// Status and headers; `None`: the client's patience was over.
type Answer = Option<(u16, BTreeMap<String, Vec<String>>)>;

fn listed(headers: &http::HeaderMap) -> BTreeMap<String, Vec<String>> {
    let mut listed: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in headers {
        listed
            .entry(name.to_string())
            .or_default()
            .push(String::from_utf8_lossy(value.as_bytes()).into_owned());
    }
    listed
}

/// In HTTP/1.1.
fn exchange(mut stream: TcpStream, request: &Request, case: &str, patience: Duration) -> Result<Answer> {
    stream.set_read_timeout(Some(patience))?;
    let mut head = format!(
        "{} {} HTTP/1.1\r\nhost: {}\r\nx-case: {case}\r\n",
        request.method(),
        request.path(),
        request.host()?
    );
    let headers = request.headers();
    for (name, value) in &headers {
        head += &format!("{name}: {value}\r\n");
    }
    let has = |wanted: &str| headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(wanted));
    let mut body = request.body();
    if has("transfer-encoding") {
        body = body.map(|body| chunked(&body));
    } else if let Some(body) = &body {
        head += &format!("content-length: {}\r\n", body.len());
    }
    if !has("connection") {
        head += "connection: close\r\n";
    }
    // An answer may come before the whole body has gone out: what cannot be sent any more is not needed.
    let _ = stream
        .write_all(format!("{head}\r\n").as_bytes())
        .and_then(|()| stream.write_all(&body.unwrap_or_default()));
    read(&mut stream)
}

/// In two chunks and an end.
fn chunked(body: &[u8]) -> Vec<u8> {
    let (first, second) = body.split_at(body.len() / 2);
    let chunk = |part: &[u8]| [format!("{:x}\r\n", part.len()).as_bytes(), part, b"\r\n"].concat();
    let chunks = [first, second].into_iter().filter(|part| !part.is_empty()).flat_map(chunk);
    chunks.chain(*b"0\r\n\r\n").collect()
}

/// Status and headers of the final answer; the body is read only as far as it comes with them or by itself ends.
fn read(stream: &mut TcpStream) -> Result<Answer> {
    let mut bytes = Vec::new();
    loop {
        let mut chunk = [0; 4096];
        match stream.read(&mut chunk) {
            Ok(0) => anyhow::bail!("the connection ended: {:?}", String::from_utf8_lossy(&bytes)),
            Ok(read) => bytes.extend(&chunk[..read]),
            Err(error)
                if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        }
        while let Some(end) = find(&bytes, b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
            let (status, headers) = parse(&head)?;
            if status >= 200 || status == 101 {
                return Ok(Some((status, headers)));
            }
            bytes.drain(..end + 4);
        }
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

fn parse(head: &str) -> Result<(u16, BTreeMap<String, Vec<String>>)> {
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).context("a status line")?.parse()?;
    let mut headers: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        headers.entry(name.to_ascii_lowercase()).or_default().push(value.trim().to_owned());
    }
    Ok((status, headers))
}
