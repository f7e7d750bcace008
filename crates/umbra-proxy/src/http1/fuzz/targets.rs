//! The parsers that bytes of clients and peers reach, and what holds for each.

use std::borrow::Cow;

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue};
use umbra_routing::{Protocol, grpc_timeout, grpc_timeout_text, normalise};

use super::read::{End, Message, Reader, Side, Start};
use super::{LIMIT, Outcome, Target, again, hold};
use crate::http1::{Framing, looked};
use crate::sniff::{self, spoken};
use crate::{headers, http1};

/// Ends all that waits for a line's end: what is no message is told by then.
const LINES_END: &[u8] = b"\r\n\r\n";
/// How often a byte may be looked at: by scans that begin again some bytes before, by parses of heads that have doubled.
const LOOKS: usize = 8;
/// The line before a chunk may be as long as this.
const LONGEST_WAIT: usize = LIMIT + 1;

#[test]
fn requests() {
    Target { name: "requests", check: |bytes| connection(Side::Requests, bytes) }.run();
}

#[test]
fn answers() {
    let check = |bytes: &[u8]| {
        connection(Side::Answers { to_head: true }, bytes)?;
        connection(Side::Answers { to_head: false }, bytes)
    };
    Target { name: "answers", check }.run();
}

#[test]
fn chunks() {
    Target { name: "chunks", check: |bytes| connection(Side::Requests, &chunked(b"", bytes)) }.run();
}

#[test]
fn trailers() {
    Target { name: "trailers", check: |bytes| connection(Side::Requests, &chunked(b"0\r\n", bytes)) }.run();
}

#[test]
fn paths() {
    Target { name: "paths", check: path }.run();
}

#[test]
fn fields() {
    Target { name: "fields", check: hop }.run();
}

#[test]
fn first_bytes() {
    Target { name: "first-bytes", check: first }.run();
}

fn chunked(before: &[u8], bytes: &[u8]) -> Vec<u8> {
    [b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n", before, bytes].concat()
}

/// One side of a connection.
fn connection(side: Side, bytes: &[u8]) -> Result<Outcome, String> {
    let mut whole = Reader::whole(side, LIMIT, bytes);
    let outcome = outcome(&whole);
    ends(&whole, side, bytes)?;
    whole.feed(LINES_END);
    for size in [1, 3, 61] {
        let pieces = in_pieces(side, bytes, size)?;
        same(&whole, &pieces).map_err(|wrong| format!("in pieces of {size}, {wrong}"))?;
    }
    whole
        .messages
        .iter()
        .filter(|message| message.is_whole)
        .try_for_each(|message| again::holds(message, side))?;
    Ok(outcome)
}

fn in_pieces(side: Side, bytes: &[u8], size: usize) -> Result<Reader, String> {
    let mut reader = Reader::new(side, LIMIT);
    looked::since();
    for piece in bytes.chunks(size).chain([LINES_END]) {
        reader.feed(piece);
        let waits = reader.left().len();
        hold(reader.end != End::More || waits <= LONGEST_WAIT, || format!("{waits} bytes wait"))?;
    }
    let (looked, most) = (looked::since(), LOOKS * (bytes.len() + LINES_END.len()));
    hold(looked <= most, || format!("looks at {looked} bytes of {}", bytes.len()))?;
    Ok(reader)
}

fn same(whole: &Reader, pieces: &Reader) -> Result<(), String> {
    hold(whole.messages == pieces.messages, || {
        format!("{:?} instead of {:?}", pieces.messages, whole.messages)
    })?;
    let same_end = match (&whole.end, &pieces.end) {
        // What is told first may be another fault.
        (End::Refused(_), End::Refused(_)) => true,
        (one, other) => one == other && whole.left() == pieces.left() && whole.ends == pieces.ends,
    };
    hold(same_end, || format!("{:?} instead of {:?}", pieces.end, whole.end))
}

/// Each message ends where it ends: it is the same without what follows, and not whole without its last byte.
fn ends(whole: &Reader, side: Side, bytes: &[u8]) -> Result<(), String> {
    for (count, end) in whole.ends.iter().enumerate() {
        let alone = Reader::whole(side, LIMIT, &bytes[..*end]);
        hold(alone.messages[..] == whole.messages[..=count] && alone.left().is_empty(), || {
            format!("{:?} alone", alone.messages)
        })?;
        let less = Reader::whole(side, LIMIT, &bytes[..*end - 1]);
        hold(less.ends.len() == count, || format!("message {count} is whole without its end"))?;
    }
    Ok(())
}

fn outcome(reader: &Reader) -> Outcome {
    let end = match &reader.end {
        End::Refused(wrong) => wrong.clone(),
        other => format!("{other:?}"),
    };
    let last = reader.messages.last().map(kind);
    format!("{} {last:?} {end}", reader.messages.len().min(3))
}

fn kind(message: &Message) -> Outcome {
    let start = match &message.start {
        Start::Request(method, uri, version) => {
            format!("{} {} {version:?}", method.as_str().len().min(5), uri.authority().is_some())
        }
        Start::Answer(status, version) => format!("{} {version:?}", status.as_u16() / 100),
    };
    let framing = match message.framing {
        Framing::Length(_) => "length".into(),
        other => format!("{other:?}"),
    };
    let (fields, trailers) = (message.headers.len().min(5), message.trailers.len().min(3));
    let Message { keep_alive, is_whole, body, .. } = message;
    format!("{start} {framing} {fields} {trailers} {keep_alive} {is_whole} {}", body.len().min(2))
}

/// A normal path is normal, has no dot segments, and is one that can be sent.
fn path(bytes: &[u8]) -> Result<Outcome, String> {
    let Ok(target) = PathAndQuery::try_from(bytes) else { return Ok("no target".into()) };
    let normal = match normalise(target.as_str()) {
        Ok(normal) => normal,
        Err(wrong) => return Ok(wrong.to_string()),
    };
    hold(normalise(&normal) == Ok(Cow::Borrowed(&*normal)), || format!("{normal} is not normal"))?;
    let sent: PathAndQuery = normal.parse().map_err(|wrong| format!("{normal}: {wrong}"))?;
    hold(sent.as_str() == normal, || format!("{sent} is sent for {normal}"))?;
    hold(sent.query() == target.query(), || format!("another query in {normal}"))?;
    let path = sent.path();
    let is_path = target.as_str().starts_with('/');
    let dots = path.split('/').any(|segment| matches!(segment, "." | ".."));
    hold(!is_path || path.starts_with('/') && !dots && !path.contains('\\'), || {
        format!("it has become {normal}")
    })?;
    Ok(format!("{is_path} {} {}", normal == target.as_str(), path.matches('/').count().min(4)))
}

/// What ends at a hop is gone after it, what frames a message is not, and gRPC's timeout is never sent on longer.
fn hop(bytes: &[u8]) -> Result<Outcome, String> {
    let block = [bytes, b"\r\n"].concat().into();
    let Ok(came) = http1::head::trailers(&block) else { return Ok("no fields".into()) };
    let mut sent = came.clone();
    headers::decline_h2c(&mut sent);
    let switches = headers::upgrade(&sent).is_some();
    headers::request_hop(&mut sent);
    headers::join_cookies(&mut sent);
    let count = |headers: &HeaderMap, name: &HeaderName| headers.get_all(name).iter().count();
    for gone in ["connection", "keep-alive", "proxy-connection", "upgrade", "x-envoy-max-retries"] {
        hold(!sent.contains_key(gone), || format!("{gone} is sent on"))?;
    }
    hold(sent.get("te").is_none_or(|te| te == "trailers"), || "TE is sent on".into())?;
    hold(count(&sent, &http::header::COOKIE) < 2, || "cookies are in crumbs".into())?;
    let mut twice = sent.clone();
    headers::request_hop(&mut twice);
    hold(twice == sent, || format!("{twice:?} of {sent:?}"))?;
    let mut answer = came.clone();
    headers::answer_hop(&mut answer);
    hold(!answer.contains_key("connection"), || "Connection is sent on".into())?;
    let timeout = timeout(&came)?;
    Ok(format!("{} {} {switches} {timeout}", came.len().min(6), sent.len().min(6)))
}

fn timeout(came: &HeaderMap) -> Result<bool, String> {
    let mut asked = came.clone();
    asked.insert("content-type", HeaderValue::from_static("application/grpc"));
    let Some(timeout) = grpc_timeout(&asked) else { return Ok(false) };
    let text = grpc_timeout_text(timeout);
    asked.insert("grpc-timeout", text.parse().map_err(|_| format!("{text} is no value"))?);
    let again = grpc_timeout(&asked).ok_or_else(|| format!("{text} is no timeout"))?;
    hold(again <= timeout, || format!("{text} is longer than {timeout:?}"))?;
    Ok(true)
}

/// What was decided by some bytes is not decided otherwise by more, and enough of them always decide.
fn first(bytes: &[u8]) -> Result<Outcome, String> {
    let mut outcomes = Vec::new();
    for port in [Protocol::Http, Protocol::Unknown] {
        let mut decided = None;
        for length in 0..=bytes.len() {
            let now = spoken(&bytes[..length], port);
            hold(decided.is_none() || now == decided, || format!("{now:?} after {decided:?}"))?;
            hold(now.is_some() || length < sniff::ENOUGH, || format!("{length} bytes do not decide"))?;
            decided = now;
        }
        outcomes.push(decided);
    }
    Ok(format!("{outcomes:?}"))
}
