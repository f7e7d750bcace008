//! Drawn messages as they are sent: bytes of HTTP/1.1, or frames of HTTP/2.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::proxy_drawn::{Answered, Answering, Body, Field, Hop, Request};
use crate::proxy_recorder::Answer;
use crate::proxy_streams::Frames;

impl Request {
    /// In HTTP/1.1.
    pub(crate) fn bytes(&self, id: &str, host: &str) -> Vec<u8> {
        let mut bytes = format!("{} {} HTTP/1.1\r\nHost: {host}\r\nX-ID: {id}\r\n", self.method, self.target);
        bytes += match self.hop {
            Hop::None => "",
            Hop::Named => "Connection: X-Hop\r\nX-Hop: 1\r\nProxy-Connection: x\r\n",
            Hop::KeepAlive => "Connection: Keep-Alive\r\nKeep-Alive: timeout=5\r\n",
            Hop::TeTrailers => "TE: trailers\r\nConnection: TE\r\n",
        };
        let mut bytes = bytes.into_bytes();
        put_fields(&mut bytes, &self.fields);
        self.body.put(&mut bytes);
        bytes
    }

    /// In HTTP/2. `pieces` are lengths of frames, and whether a pause follows.
    pub(crate) fn frames(&self, pieces: &mut dyn Iterator<Item = (usize, bool)>) -> Frames {
        let mut frames = self.body.frames(&self.fields, pieces);
        if self.hop == Hop::TeTrailers {
            frames.fields.insert(header::TE, HeaderValue::from_static("trailers"));
        }
        frames
    }
}

impl Answering {
    /// In HTTP/1.1.
    pub(crate) fn bytes(&self, method: &str) -> Answer {
        let version = match &self.body {
            Answered::UntilTheEnd(version, _) => version,
            Answered::Framed(_) => "HTTP/1.1",
        };
        let mut bytes = Vec::new();
        if self.announced {
            bytes.extend_from_slice(b"HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\n");
        }
        bytes.extend_from_slice(format!("{version} {} Because\r\n", self.status).as_bytes());
        put_fields(&mut bytes, &self.fields);
        let bodiless = self.is_bodiless(method);
        match &self.body {
            Answered::UntilTheEnd(_, body) => {
                bytes.extend_from_slice(b"Connection: close\r\n\r\n");
                if !bodiless {
                    bytes.extend_from_slice(&body.0);
                }
                Answer::Bytes { bytes, closes: true }
            }
            Answered::Framed(Body::Length(body)) if bodiless && self.status != 204 => {
                bytes.extend_from_slice(format!("content-length: {}\r\n\r\n", body.0.len()).as_bytes());
                Answer::Bytes { bytes, closes: false }
            }
            Answered::Framed(body) => {
                if bodiless {
                    Body::None.put(&mut bytes)
                } else {
                    body.put(&mut bytes)
                }
                Answer::Bytes { bytes, closes: false }
            }
        }
    }

    /// In HTTP/2.
    pub(crate) fn frames(&self, method: &str) -> Answer {
        let pieces = &mut std::iter::empty();
        let frames = match &self.body {
            Answered::UntilTheEnd(_, body) => {
                let chunks = vec![(body.clone(), String::new())];
                Body::Chunked { chunks, trailers: Vec::new() }.frames(&self.fields, pieces)
            }
            Answered::Framed(body) => body.frames(&self.fields, pieces),
        };
        let mut frames = frames;
        if self.is_bodiless(method) {
            frames.data = None;
            if self.status == 204 {
                frames.fields.remove(header::CONTENT_LENGTH);
            }
        }
        Answer::Frames(self.status, self.announced, frames)
    }

    /// No body follows, whatever the head says.
    pub(crate) fn is_bodiless(&self, method: &str) -> bool {
        method == "HEAD" || matches!(self.status, 204 | 304)
    }
}

impl Body {
    /// The end of a head, and the body.
    fn put(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::None => bytes.extend_from_slice(b"\r\n"),
            Self::Length(body) => {
                bytes.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.0.len()).as_bytes());
                bytes.extend_from_slice(&body.0);
            }
            Self::Chunked { chunks, trailers } => {
                let names: Vec<&str> = trailers.iter().map(|(name, _)| name.as_str()).collect();
                if !names.is_empty() {
                    bytes.extend_from_slice(format!("Trailer: {}\r\n", names.join(", ")).as_bytes());
                }
                bytes.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
                for (chunk, extension) in chunks.iter().filter(|(chunk, _)| !chunk.0.is_empty()) {
                    bytes.extend_from_slice(format!("{:X}{extension}\r\n", chunk.0.len()).as_bytes());
                    bytes.extend_from_slice(&chunk.0);
                    bytes.extend_from_slice(b"\r\n");
                }
                bytes.extend_from_slice(b"0\r\n");
                put_fields(bytes, trailers);
                bytes.extend_from_slice(b"\r\n");
            }
        }
    }

    /// A head's fields with those of the body, and the body. Each chunk is a frame at least.
    fn frames(&self, fields: &[Field], pieces: &mut dyn Iterator<Item = (usize, bool)>) -> Frames {
        let mut frames = Frames { fields: map(fields), data: None, trailers: HeaderMap::new() };
        match self {
            Self::None => {}
            Self::Length(body) => {
                frames.fields.insert(header::CONTENT_LENGTH, body.0.len().into());
                let mut data = Vec::new();
                cut(&body.0, pieces, &mut data);
                frames.data = Some(data).filter(|data| !data.is_empty());
            }
            Self::Chunked { chunks, trailers } => {
                let mut data = Vec::new();
                chunks.iter().for_each(|(chunk, _)| cut(&chunk.0, pieces, &mut data));
                // Nobody has foreseen the end.
                data.push((Bytes::new(), false));
                frames.data = Some(data);
                frames.trailers = map(trailers);
                let names: Vec<&str> = trailers.iter().map(|(name, _)| name.as_str()).collect();
                if !names.is_empty() {
                    let names = names.join(", ").parse().expect("names");
                    frames.fields.insert(header::TRAILER, names);
                }
            }
        }
        frames
    }
}

/// Cuts a part of a body into frames.
fn cut(mut bytes: &[u8], pieces: &mut dyn Iterator<Item = (usize, bool)>, into: &mut Vec<(Bytes, bool)>) {
    while !bytes.is_empty() {
        let (length, pause) = pieces.next().unwrap_or((bytes.len(), false));
        let (piece, rest) = bytes.split_at(length.min(bytes.len()));
        into.push((Bytes::copy_from_slice(piece), pause));
        bytes = rest;
    }
}

/// HTTP/2 has names in lower case, and no blank around a value (RFC 9113 section 8.2.1).
fn map(fields: &[Field]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in fields {
        let value = HeaderValue::from_bytes(value.0.trim_ascii()).expect("drawn as a value");
        map.append(HeaderName::from_bytes(name.as_bytes()).expect("drawn as a name"), value);
    }
    map
}

fn put_fields(bytes: &mut Vec<u8>, fields: &[Field]) {
    for (name, value) in fields {
        bytes.extend_from_slice(name.as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(&value.0);
        bytes.extend_from_slice(b"\r\n");
    }
}
