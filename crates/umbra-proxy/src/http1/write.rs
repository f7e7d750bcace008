//! Heads and chunks as bytes. Names of fields are lower-case, as the `http` crate has them; a message's framing is written
//! by what umbra makes of it, never copied from what came.

use std::io::Write;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{StatusCode, Version};
use http_body::Body;

use super::Framing;
use crate::version::{MARKED, RequestHead};

/// What leaves a client waiting for it no longer (RFC 9110 section 15.2.1).
pub(crate) const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
/// Behind each chunk.
pub(crate) const CHUNK_END: &[u8] = b"\r\n";
/// Behind the last one, without trailers.
pub(crate) const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// How a request with this head and body is framed: as its client framed it, and in chunks where HTTP/2 has said no length.
pub(crate) fn framing_of_request(headers: &HeaderMap, body: &impl Body) -> Framing {
    let length = || headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok();
    if body.is_end_stream() {
        Framing::None
    } else if headers.contains_key(header::TRANSFER_ENCODING) {
        Framing::Chunked
    } else {
        length().map_or(Framing::Chunked, Framing::Length)
    }
}

/// How an answer is framed for its client. `Content-Length` is put into `headers` where it is known and not there.
pub(crate) fn framing_of_answer(
    (status, headers): (StatusCode, &mut HeaderMap),
    body: &impl Body,
    (version, is_head): (Version, bool),
) -> Framing {
    if status.is_informational() || status == StatusCode::NO_CONTENT {
        // RFC 9110 section 8.6.
        headers.remove(header::CONTENT_LENGTH);
        return Framing::None;
    }
    if is_head || status == StatusCode::NOT_MODIFIED {
        return Framing::None;
    }
    let said = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let known = if body.is_end_stream() { Some(0) } else { body.size_hint().exact() };
    match (said, known) {
        (Some(length), _) => Framing::Length(length),
        (None, Some(length)) => {
            headers.insert(header::CONTENT_LENGTH, length.into());
            Framing::Length(length)
        }
        (None, None) if version >= Version::HTTP_11 => Framing::Chunked,
        (None, None) => Framing::UntilClose,
    }
}

/// A request's head.
pub(crate) fn request(out: &mut Vec<u8>, head: &RequestHead<'_>, framing: Framing) {
    let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
    for part in [head.method.as_str(), " ", target, " HTTP/1.1\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
    fields(out, head.headers.iter().filter(|(name, _)| head.mark != Some(name)), framing);
    head.mark.into_iter().for_each(|mark| field(out, mark, &MARKED));
    end(out, framing);
}

/// An answer's head. `persists`: its connection goes on, which a client of HTTP/1.0 has to be told, and others that it
/// does not.
pub(crate) fn answer(
    out: &mut Vec<u8>,
    (status, headers): (StatusCode, &HeaderMap),
    framing: Framing,
    (version, persists): (Version, bool),
) {
    // The highest version that this end speaks, whatever the client's (RFC 9110 section 2.5).
    for part in ["HTTP/1.1 ", status.as_str(), " ", status.canonical_reason().unwrap_or_default(), "\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
    fields(out, headers.iter(), framing);
    match (version, persists) {
        (_, false) => out.extend_from_slice(b"connection: close\r\n"),
        (Version::HTTP_10, true) => out.extend_from_slice(b"connection: keep-alive\r\n"),
        _ => {}
    }
    end(out, framing);
}

/// The line before a chunk.
pub(crate) fn chunk_size(out: &mut Vec<u8>, size: usize) {
    write!(out, "{size:x}\r\n").expect("a vector takes all");
}

/// The last chunk, with trailers behind it.
pub(crate) fn trailers(out: &mut Vec<u8>, trailers: &HeaderMap) {
    out.extend_from_slice(b"0\r\n");
    fields(out, trailers.iter(), Framing::Chunked);
    out.extend_from_slice(b"\r\n");
}

/// All but what frames the message otherwise than `framing`: HTTP/2 may have said several lengths, of which it heeds the
/// first.
fn fields<'a>(
    out: &mut Vec<u8>,
    fields: impl Iterator<Item = (&'a HeaderName, &'a HeaderValue)>,
    framing: Framing,
) {
    let mut has_length = matches!(framing, Framing::Chunked | Framing::UntilClose);
    for (name, value) in fields {
        let is_framing = name == header::TRANSFER_ENCODING
            || name == header::CONTENT_LENGTH && std::mem::replace(&mut has_length, true);
        if !is_framing {
            field(out, name, value);
        }
    }
}

fn field(out: &mut Vec<u8>, name: &HeaderName, value: &HeaderValue) {
    out.extend_from_slice(name.as_str().as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value.as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn end(out: &mut Vec<u8>, framing: Framing) {
    if framing == Framing::Chunked {
        out.extend_from_slice(b"transfer-encoding: chunked\r\n");
    }
    out.extend_from_slice(b"\r\n");
}
