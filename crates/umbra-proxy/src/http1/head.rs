//! Heads: from a start line to the empty line (RFC 9112 sections 2 to 6).

mod fields;
mod scan;

use std::mem::MaybeUninit;
use std::ops::Range;

use bytes::{Buf, Bytes, BytesMut};
use http::header::{self, HeaderMap};
use http::{Method, Request, Response, StatusCode, Uri, Version};

use super::{Framing, MAX_HEADERS};
use fields::{Fields, Place, field_of, range};
pub(crate) use scan::Scan;

/// What is wrong with a head. Its sender's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HeadError {
    /// It is not HTTP/1, or may be read in more than one way.
    #[error("the head is not one of HTTP/1: {0}")]
    Malformed(&'static str),
    /// More bytes or fields than anybody may send.
    #[error("the head is too large")]
    TooLarge,
    /// A transfer coding other than `chunked`.
    #[error("transfer codings other than chunked are not supported")]
    UnknownCoding,
}

/// A request's head. Its body is what there is by default, for the caller to put in.
pub(crate) struct RequestHead<B = ()> {
    pub(crate) request: Request<B>,
    pub(crate) framing: Framing,
    /// The client wants to go on with this connection.
    pub(crate) keep_alive: bool,
    /// The client waits for leave to send the body (RFC 9110 section 10.1.1).
    pub(crate) expects_continue: bool,
}

/// An answer without its body.
pub(crate) struct AnswerHead {
    pub(crate) answer: Response<()>,
    pub(crate) framing: Framing,
    pub(crate) keep_alive: bool,
}

/// The first line of a request.
struct RequestLine {
    method: Method,
    /// Where it is in the head.
    target: Range<usize>,
    /// HTTP/1's.
    minor: u8,
}

impl RequestLine {
    fn of(parsed: &httparse::Request<'_, '_>, head: &[u8]) -> Result<Option<Self>, HeadError> {
        let (Some(method), Some(target), Some(minor)) = (parsed.method, parsed.path, parsed.version) else {
            return Ok(None);
        };
        let method = Method::from_bytes(method.as_bytes()).map_err(|_| HeadError::Malformed("its method"))?;
        Ok(Some(Self { method, target: range(target.as_bytes(), head), minor }))
    }
}

/// Takes a request's head off the front of `input`; `None`: it is not whole. `headers` is empty, and filled.
///
/// # Errors
/// It is no head, or more than `limit` bytes long.
pub(crate) fn request<B: Default>(
    input: &mut BytesMut,
    scan: &mut Scan,
    limit: usize,
    headers: impl FnOnce() -> HeaderMap,
) -> Result<Option<RequestHead<B>>, HeadError> {
    input.advance(scan.empty_lines(input, limit)?);
    if input.is_empty() || input[..] == *b"\r" {
        return Ok(None);
    }
    let mut line = None;
    let end = scan.whole(input, limit, |bytes, places| {
        let mut fields = [const { MaybeUninit::uninit() }; MAX_HEADERS];
        let mut parsed = httparse::Request::new(&mut []);
        let status = parsed.parse_with_uninit_headers(bytes, &mut fields).map_err(wrong)?;
        if status.is_complete() {
            line = RequestLine::of(&parsed, bytes)?;
            places.extend(parsed.headers.iter().map(|field| Place::of(field, bytes)));
        }
        Ok(status)
    })?;
    let Some(end) = end else { return Ok(None) };
    let RequestLine { method, target, minor } = line.ok_or(HeadError::Malformed("it has no request line"))?;
    let bytes = input.split_to(end).freeze();
    let fields = Fields::read(&bytes, &mut scan.places, headers())?;
    let framing = fields.of_request(minor)?;
    let (keep_alive, expects_continue) = (fields.keeps_alive(minor), fields.expects_continue && minor == 1);
    let mut request = Request::new(B::default());
    *request.uri_mut() = target_of(bytes.slice(target), &method)?;
    *request.method_mut() = method;
    *request.version_mut() = version(minor);
    *request.headers_mut() = fields.headers;
    Ok(Some(RequestHead { request, framing, keep_alive, expects_continue }))
}

/// Takes an answer's head off the front of `input`; `None`: it is not whole. `asked`: the method that it answers.
///
/// # Errors
/// It is no head, or more than `limit` bytes long.
pub(crate) fn answer(
    input: &mut BytesMut,
    scan: &mut Scan,
    (limit, is_head): (usize, bool),
    headers: impl FnOnce() -> HeaderMap,
) -> Result<Option<AnswerHead>, HeadError> {
    if input.is_empty() {
        return Ok(None);
    }
    let mut line = None;
    let end = scan.whole(input, limit, |bytes, places| {
        let mut fields = [const { MaybeUninit::uninit() }; MAX_HEADERS];
        let mut parsed = httparse::Response::new(&mut []);
        let config = httparse::ParserConfig::default();
        let status =
            config.parse_response_with_uninit_headers(&mut parsed, bytes, &mut fields).map_err(wrong)?;
        if status.is_complete() {
            line = parsed.code.zip(parsed.version);
            places.extend(parsed.headers.iter().map(|field| Place::of(field, bytes)));
        }
        Ok(status)
    })?;
    let Some(end) = end else { return Ok(None) };
    let (code, minor) = line.ok_or(HeadError::Malformed("it has no status line"))?;
    let bytes = input.split_to(end).freeze();
    let status = StatusCode::from_u16(code).map_err(|_| HeadError::Malformed("its status"))?;
    let mut fields = Fields::read(&bytes, &mut scan.places, headers())?;
    let framing = fields.of_answer(minor, status, is_head)?;
    let keep_alive = fields.keeps_alive(minor) && framing != Framing::UntilClose;
    let mut answer = Response::new(());
    *answer.status_mut() = status;
    *answer.version_mut() = version(minor);
    *answer.headers_mut() = fields.headers;
    Ok(Some(AnswerHead { answer, framing, keep_alive }))
}

/// The trailers in a block that ends with an empty line.
///
/// # Errors
/// They are none.
pub(crate) fn trailers(block: &Bytes) -> Result<HeaderMap, HeadError> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let status = httparse::parse_headers(block, &mut fields).map_err(wrong)?;
    let httparse::Status::Complete((end, fields)) = status else {
        return Err(HeadError::Malformed("its trailers"));
    };
    ends_there(httparse::Status::Complete(end), block)?;
    let mut headers = HeaderMap::new();
    for field in fields {
        let (name, value) = field_of(block, Place::of(field, block))?;
        // What frames or routes a message has no business behind it (RFC 9110 section 6.5.1).
        if ![header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::HOST].contains(&name) {
            headers.append(name, value);
        }
    }
    Ok(headers)
}

/// What the parser takes for the end is what the scan took for it.
fn ends_there(status: httparse::Status<usize>, bytes: &[u8]) -> Result<(), HeadError> {
    match status {
        httparse::Status::Complete(end) if end == bytes.len() => Ok(()),
        _ => Err(HeadError::Malformed("its lines")),
    }
}

fn wrong(error: httparse::Error) -> HeadError {
    match error {
        httparse::Error::TooManyHeaders => HeadError::TooLarge,
        httparse::Error::Version => HeadError::Malformed("its version"),
        httparse::Error::HeaderName => HeadError::Malformed("the name of a field"),
        httparse::Error::HeaderValue => HeadError::Malformed("the value of a field"),
        httparse::Error::NewLine => HeadError::Malformed("the end of a line"),
        httparse::Error::Status => HeadError::Malformed("its status"),
        httparse::Error::Token => HeadError::Malformed("its first line"),
    }
}

fn version(minor: u8) -> Version {
    if minor == 0 { Version::HTTP_10 } else { Version::HTTP_11 }
}

/// RFC 9112 section 3.2: a path, a whole URI, `*`, or for CONNECT alone a host with its port.
fn target_of(target: Bytes, method: &Method) -> Result<Uri, HeadError> {
    let wrong = || HeadError::Malformed("its target");
    let uri = Uri::from_maybe_shared(target).map_err(|_| wrong())?;
    let is_authority = uri.scheme().is_none() && uri.path_and_query().is_none();
    if is_authority != (method == Method::CONNECT) {
        return Err(wrong());
    }
    match uri.path_and_query() {
        Some(target) if !target.as_str().starts_with(['/', '*']) => with_path(uri).ok_or_else(wrong),
        _ => Ok(uri),
    }
}

/// A whole URI may leave the path out, and the next hop is to get one (RFC 9112 section 3.2.1).
fn with_path(uri: Uri) -> Option<Uri> {
    let mut parts = uri.into_parts();
    // As text, an empty path is a slash.
    parts.path_and_query = Some(parts.path_and_query?.to_string().parse().ok()?);
    Uri::from_parts(parts).ok()
}

#[cfg(test)]
mod tests;
