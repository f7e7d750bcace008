//! Heads: from a start line to the empty line (RFC 9112 sections 2 to 6).

use std::mem::MaybeUninit;

use bytes::{Buf, Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode, Uri, Version};

use super::{Framing, MAX_HEADERS, find};

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

/// A request without its body.
pub(crate) struct RequestHead {
    pub(crate) request: Request<()>,
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

/// How far a head that is not whole has been looked at, so that one that comes byte by byte is not looked at again and
/// again.
#[derive(Default)]
pub(crate) struct Scan {
    /// No end of a head before this.
    seen: usize,
    /// Bytes of empty lines before it.
    empty: usize,
    /// Parsed when it has this many bytes, whole or not: what is no HTTP is to be told soon.
    parse_at: usize,
}

impl Scan {
    /// The length of the head at the start of `bytes`, once it is there.
    fn end(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut from = self.seen;
        while let Some(at) = find(b'\n', &bytes[from..]) {
            let line = from + at + 1;
            match &bytes[line..] {
                [b'\n', ..] => return Some(line + 1),
                [b'\r', b'\n', ..] => return Some(line + 2),
                // The end may be half there.
                [] | [b'\r'] => {
                    self.seen = line - 1;
                    return None;
                }
                _ => from = line,
            }
        }
        self.seen = bytes.len();
        None
    }

    /// A head that is not whole is worth a look: it has doubled since the last one.
    fn is_due(&mut self, length: usize) -> bool {
        let due = length >= self.parse_at;
        if due {
            #[cfg(test)]
            super::looked::at(length);
            self.parse_at = length * 2;
        }
        due
    }
}

/// The fields of a head, and what those say that concern its connection.
struct Fields {
    headers: HeaderMap,
    length: Option<u64>,
    coding: Coding,
    close: bool,
    keep_alive: bool,
    expects_continue: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Coding {
    None,
    Chunked,
    Unknown,
}

/// Takes a request's head off the front of `input`; `None`: it is not whole. `headers` is empty, and filled.
///
/// # Errors
/// It is no head, or more than `limit` bytes long.
pub(crate) fn request(
    input: &mut BytesMut,
    scan: &mut Scan,
    limit: usize,
    headers: impl FnOnce() -> HeaderMap,
) -> Result<Option<RequestHead>, HeadError> {
    if scan.seen == 0 {
        let empty = empty_lines(input);
        input.advance(empty);
        scan.empty += empty;
        if scan.empty > limit {
            return Err(HeadError::TooLarge);
        }
        if input[..] == *b"\r" {
            return Ok(None);
        }
    }
    let mut fields = [const { MaybeUninit::uninit() }; MAX_HEADERS];
    let mut parsed = httparse::Request::new(&mut []);
    let Some(end) = whole(scan, input, limit)? else {
        if scan.is_due(input.len()) {
            parsed.parse_with_uninit_headers(input, &mut fields).map_err(wrong)?;
        }
        return Ok(None);
    };
    let bytes = take(scan, input, end);
    let status = parsed.parse_with_uninit_headers(&bytes, &mut fields).map_err(wrong)?;
    ends_there(status, &bytes)?;
    let (method, target, minor) = (parsed.method, parsed.path, parsed.version);
    let (Some(method), Some(target), Some(minor)) = (method, target, minor) else {
        return Err(HeadError::Malformed("it has no request line"));
    };
    let fields = Fields::read(&bytes, parsed.headers, headers())?;
    let framing = fields.of_request(minor)?;
    let (keep_alive, expects_continue) = (fields.keeps_alive(minor), fields.expects_continue && minor == 1);
    let mut request = Request::new(());
    let method = Method::from_bytes(method.as_bytes()).map_err(|_| HeadError::Malformed("its method"))?;
    *request.uri_mut() = target_of(&bytes, target, &method)?;
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
    let mut fields = [const { MaybeUninit::uninit() }; MAX_HEADERS];
    let mut parsed = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let Some(end) = whole(scan, input, limit)? else {
        if scan.is_due(input.len()) {
            config.parse_response_with_uninit_headers(&mut parsed, input, &mut fields).map_err(wrong)?;
        }
        return Ok(None);
    };
    let bytes = take(scan, input, end);
    let status =
        config.parse_response_with_uninit_headers(&mut parsed, &bytes, &mut fields).map_err(wrong)?;
    ends_there(status, &bytes)?;
    let (Some(code), Some(minor)) = (parsed.code, parsed.version) else {
        return Err(HeadError::Malformed("it has no status line"));
    };
    let status = StatusCode::from_u16(code).map_err(|_| HeadError::Malformed("its status"))?;
    let mut fields = Fields::read(&bytes, parsed.headers, headers())?;
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
        let (name, value) = field_of(block, field)?;
        // What frames or routes a message has no business behind it (RFC 9110 section 6.5.1).
        if ![header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::HOST].contains(&name) {
            headers.append(name, value);
        }
    }
    Ok(headers)
}

/// How many bytes of empty lines come before a request, which is allowed (RFC 9112 section 2.2).
fn empty_lines(input: &[u8]) -> usize {
    let mut empty = 0;
    loop {
        match &input[empty..] {
            [b'\r', b'\n', ..] => empty += 2,
            [b'\n', ..] => empty += 1,
            _ => return empty,
        }
    }
}

fn whole(scan: &mut Scan, input: &[u8], limit: usize) -> Result<Option<usize>, HeadError> {
    let end = scan.end(input);
    match end.unwrap_or(input.len()) > limit {
        true => Err(HeadError::TooLarge),
        false => Ok(end),
    }
}

fn take(scan: &mut Scan, input: &mut BytesMut, end: usize) -> Bytes {
    *scan = Scan::default();
    input.split_to(end).freeze()
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
fn target_of(bytes: &Bytes, target: &str, method: &Method) -> Result<Uri, HeadError> {
    let wrong = || HeadError::Malformed("its target");
    let uri = Uri::from_maybe_shared(bytes.slice_ref(target.as_bytes())).map_err(|_| wrong())?;
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

fn field_of(bytes: &Bytes, field: &httparse::Header<'_>) -> Result<(HeaderName, HeaderValue), HeadError> {
    let name = HeaderName::from_bytes(field.name.as_bytes())
        .map_err(|_| HeadError::Malformed("the name of a field"))?;
    let value = HeaderValue::from_maybe_shared(bytes.slice_ref(field.value))
        .map_err(|_| HeadError::Malformed("the value of a field"))?;
    Ok((name, value))
}

impl Fields {
    fn read(bytes: &Bytes, fields: &[httparse::Header<'_>], headers: HeaderMap) -> Result<Self, HeadError> {
        let mut read = Self {
            headers,
            length: None,
            coding: Coding::None,
            close: false,
            keep_alive: false,
            expects_continue: false,
        };
        read.headers.reserve(fields.len());
        for field in fields {
            let (name, value) = field_of(bytes, field)?;
            if read.look(&name, value.as_bytes())? {
                read.headers.append(name, value);
            }
        }
        Ok(read)
    }

    /// False: the field says what another one has said, and only that one is sent on (RFC 9110 section 8.6).
    fn look(&mut self, name: &HeaderName, value: &[u8]) -> Result<bool, HeadError> {
        if name == header::CONTENT_LENGTH {
            let length = number(value).ok_or(HeadError::Malformed("its Content-Length"))?;
            return match self.length.replace(length) {
                Some(other) if other != length => Err(HeadError::Malformed("it has two lengths")),
                other => Ok(other.is_none()),
            };
        }
        if name == header::TRANSFER_ENCODING {
            let chunked = self.coding == Coding::None && value.eq_ignore_ascii_case(b"chunked");
            self.coding = if chunked { Coding::Chunked } else { Coding::Unknown };
        } else if name == header::CONNECTION {
            for option in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                self.close |= option.eq_ignore_ascii_case(b"close");
                self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
            }
        } else if name == header::EXPECT {
            self.expects_continue = value.eq_ignore_ascii_case(b"100-continue");
        }
        Ok(true)
    }

    fn keeps_alive(&self, minor: u8) -> bool {
        !self.close && (minor == 1 || self.keep_alive)
    }

    /// RFC 9112 section 6.3, without its leniencies: what two recipients may frame differently is refused.
    fn of_request(&self, minor: u8) -> Result<Framing, HeadError> {
        match (self.coding, self.length) {
            (Coding::None, None | Some(0)) => Ok(Framing::None),
            (Coding::None, Some(length)) => Ok(Framing::Length(length)),
            (_, Some(_)) => Err(HeadError::Malformed("it has a length and a transfer coding")),
            (_, None) if minor == 0 => Err(HeadError::Malformed("HTTP/1.0 has no transfer codings")),
            (Coding::Chunked, None) => Ok(Framing::Chunked),
            (Coding::Unknown, None) => Err(HeadError::UnknownCoding),
        }
    }

    fn of_answer(&mut self, minor: u8, status: StatusCode, is_head: bool) -> Result<Framing, HeadError> {
        if self.coding != Coding::None {
            // The coding counts, and the length may not be sent on (RFC 9112 section 6.3).
            self.headers.remove(header::CONTENT_LENGTH);
        }
        let bodiless =
            status.is_informational() || [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED].contains(&status);
        if is_head || bodiless {
            return Ok(Framing::None);
        }
        match (self.coding, self.length) {
            (Coding::None, Some(0)) => Ok(Framing::None),
            (Coding::None, Some(length)) => Ok(Framing::Length(length)),
            (Coding::None, None) => Ok(Framing::UntilClose),
            (_, _) if minor == 0 => Err(HeadError::Malformed("HTTP/1.0 has no transfer codings")),
            (Coding::Chunked, _) => Ok(Framing::Chunked),
            (Coding::Unknown, _) => Err(HeadError::UnknownCoding),
        }
    }
}

/// Digits alone: no sign, no list, no space.
fn number(value: &[u8]) -> Option<u64> {
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    digits.then(|| std::str::from_utf8(value).ok()?.parse().ok()).flatten()
}

#[cfg(test)]
mod tests;
