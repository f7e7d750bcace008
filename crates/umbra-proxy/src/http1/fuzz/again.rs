//! What is accepted is written in one form, which is read as the same message again: nothing reaches the next hop in
//! another shape than the one it was understood in.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Method, Version, header};
use http_body::{Body, Frame, SizeHint};

use super::read::{End, Message, Reader, Side, Start};
use super::{LIMIT, hold};
use crate::headers;
use crate::http1::{Framing, write};
use crate::version::RequestHead;

/// What a body says of itself.
struct Said(Framing);

impl Body for Said {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        self.0 == Framing::None
    }

    fn size_hint(&self) -> SizeHint {
        match self.0 {
            Framing::None => SizeHint::with_exact(0),
            Framing::Length(length) => SizeHint::with_exact(length),
            Framing::Chunked | Framing::UntilClose => SizeHint::default(),
        }
    }
}

/// The message without what belongs to its hop is the same again.
pub(super) fn holds(message: &Message, side: Side) -> Result<(), String> {
    let mut sent = message.clone();
    let versions: &[Version] = match side {
        Side::Requests => &[Version::HTTP_11],
        Side::Answers { .. } => &[Version::HTTP_11, Version::HTTP_10],
    };
    for version in versions {
        let Some(bytes) = written(&mut sent, side, *version) else { return Ok(()) };
        let mut again = Reader::whole(side, 2 * LIMIT, &bytes);
        again.close();
        let shown = String::from_utf8_lossy(&bytes).into_owned();
        let [read] = &again.messages[..] else {
            return Err(format!("written as {shown:?}: {:?}", again.end));
        };
        hold(again.left().is_empty() && again.end != End::Refused(String::new()), || {
            format!("{:?} is left of {shown:?}", again.left())
        })?;
        same(&sent, read, *version)
            .map_err(|wrong| format!("{wrong}: written as {shown:?}, and read as {read:?}"))?;
    }
    Ok(())
}

fn same(sent: &Message, read: &Message, version: Version) -> Result<(), String> {
    let starts = match (&sent.start, &read.start) {
        (Start::Request(method, uri, _), Start::Request(other, target, Version::HTTP_11)) => {
            let of = |uri: &http::Uri| uri.path_and_query().map_or("/".into(), ToString::to_string);
            method == other && of(uri) == of(target)
        }
        (Start::Answer(status, _), Start::Answer(other, Version::HTTP_11)) => status == other,
        _ => false,
    };
    hold(starts, || "another first line".into())?;
    let ours = |headers: &HeaderMap| {
        let mut headers = headers.clone();
        headers.remove(header::TRANSFER_ENCODING);
        headers.remove(header::CONNECTION);
        headers
    };
    hold(ours(&sent.headers) == ours(&read.headers), || "other headers".into())?;
    hold(sent.body == read.body && read.is_whole, || "another body".into())?;
    let keeps_trailers = version == Version::HTTP_11;
    hold(!keeps_trailers || sent.trailers == read.trailers, || "other trailers".into())?;
    hold(read.keep_alive == (version == Version::HTTP_11), || "another end of the connection".into())
}

/// As the proxy would. `None`: it sends nothing like that on.
fn written(message: &mut Message, side: Side, version: Version) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let said = Said(message.framing);
    let framing = match &message.start {
        Start::Request(Method::CONNECT, ..) => return None,
        Start::Request(method, uri, _) => {
            headers::decline_h2c(&mut message.headers);
            headers::request_hop(&mut message.headers);
            let (scheme, headers) = ("http", &message.headers);
            let head = RequestHead { method, scheme, uri, headers, switches: false, mark: None };
            let framing = write::framing_of_request(headers, &said);
            write::request(&mut out, &head, framing);
            framing
        }
        Start::Answer(status, _) => {
            let is_head = side == Side::Answers { to_head: true };
            headers::answer_hop(&mut message.headers);
            let framing =
                write::framing_of_answer((*status, &mut message.headers), &said, (version, is_head));
            let persists = version == Version::HTTP_11 && framing != Framing::UntilClose;
            write::answer(&mut out, (*status, &message.headers), framing, (Version::HTTP_11, persists));
            framing
        }
    };
    body(&mut out, framing, message);
    Some(out)
}

fn body(out: &mut Vec<u8>, framing: Framing, message: &Message) {
    if framing != Framing::Chunked {
        out.extend_from_slice(&message.body);
        return;
    }
    for chunk in message.body.chunks(7) {
        write::chunk_size(out, chunk.len());
        out.extend_from_slice(chunk);
        out.extend_from_slice(write::CHUNK_END);
    }
    if message.trailers.is_empty() {
        out.extend_from_slice(write::LAST_CHUNK);
    } else {
        write::trailers(out, &message.trailers);
    }
}
