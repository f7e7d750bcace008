//! A whole connection, read by the codec: what tests compare.
//!
//! Takes: bytes in any pieces. Gives: the messages that they are, where each ends, and how it came to an end.

use bytes::BytesMut;
use http::{HeaderMap, Method, StatusCode, Uri, Version};

use crate::http1::head::{self, Scan};
use crate::http1::{Decoded, Decoder, Framing};

/// Which side of a connection is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Requests,
    Answers { to_head: bool },
}

/// The first line of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    Request(Method, Uri, Version),
    Answer(StatusCode, Version),
}

/// A message, as far as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) start: Start,
    pub(crate) headers: HeaderMap,
    pub(crate) framing: Framing,
    pub(crate) keep_alive: bool,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: HeaderMap,
    pub(crate) is_whole: bool,
}

impl Message {
    /// An answer that another one follows.
    pub(crate) fn is_interim(&self) -> bool {
        let Start::Answer(status, _) = self.start else { return false };
        status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS
    }
}

/// How far reading came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It would go on with more bytes.
    More,
    /// The last message has said that it is the last.
    Last,
    Refused(String),
}

/// Reads one side of a connection.
pub(crate) struct Reader {
    side: Side,
    /// Largest head, and block of trailers.
    limit: usize,
    input: BytesMut,
    fed: usize,
    scan: Scan,
    decoder: Decoder,
    pub(crate) messages: Vec<Message>,
    /// How many bytes had been used when each whole message ended.
    pub(crate) ends: Vec<usize>,
    pub(crate) end: End,
}

impl Reader {
    pub(crate) fn new(side: Side, limit: usize) -> Self {
        Self {
            side,
            limit,
            input: BytesMut::new(),
            fed: 0,
            scan: Scan::default(),
            decoder: Decoder::new(Framing::None, limit),
            messages: Vec::new(),
            ends: Vec::new(),
            end: End::More,
        }
    }

    /// Everything at once.
    pub(crate) fn whole(side: Side, limit: usize, bytes: &[u8]) -> Self {
        let mut reader = Self::new(side, limit);
        reader.feed(bytes);
        reader
    }

    /// The next piece has come.
    pub(crate) fn feed(&mut self, piece: &[u8]) {
        self.input.extend_from_slice(piece);
        self.fed += piece.len();
        while self.end == End::More && self.step() {}
    }

    /// The connection has ended.
    pub(crate) fn close(&mut self) {
        if self.end == End::More && self.is_in_body() && self.decoder.closed() {
            self.message_ends();
        }
    }

    /// What was read and is no part of a message yet.
    pub(crate) fn left(&self) -> &[u8] {
        &self.input
    }

    fn is_in_body(&self) -> bool {
        self.messages.last().is_some_and(|message| !message.is_whole)
    }

    /// False: more bytes are needed.
    fn step(&mut self) -> bool {
        let stepped = if self.is_in_body() { self.body() } else { self.head() };
        stepped.unwrap_or_else(|wrong| {
            self.end = End::Refused(wrong);
            false
        })
    }

    fn head(&mut self) -> Result<bool, String> {
        let (input, scan) = (&mut self.input, &mut self.scan);
        let (start, headers, framing, keep_alive) = match self.side {
            Side::Requests => {
                let head = head::request(input, scan, self.limit, HeaderMap::new);
                let Some(head) = head.map_err(|wrong| wrong.to_string())? else { return Ok(false) };
                let (parts, ()) = head.request.into_parts();
                let start = Start::Request(parts.method, parts.uri, parts.version);
                (start, parts.headers, head.framing, head.keep_alive)
            }
            Side::Answers { to_head } => {
                let head = head::answer(input, scan, (self.limit, to_head), HeaderMap::new);
                let Some(head) = head.map_err(|wrong| wrong.to_string())? else { return Ok(false) };
                let (parts, ()) = head.answer.into_parts();
                let start = Start::Answer(parts.status, parts.version);
                (start, parts.headers, head.framing, head.keep_alive)
            }
        };
        self.decoder = Decoder::new(framing, self.limit);
        let (body, trailers) = (Vec::new(), HeaderMap::new());
        let message = Message { start, headers, framing, keep_alive, body, trailers, is_whole: false };
        self.messages.push(message);
        if self.decoder.has_ended() {
            self.message_ends();
        }
        Ok(true)
    }

    fn body(&mut self) -> Result<bool, String> {
        let decoded = self.decoder.decode(&mut self.input).map_err(|wrong| wrong.to_string())?;
        let message = self.messages.last_mut().expect("its head was read");
        match decoded {
            Decoded::Data(data) if data.is_empty() => return Err("an empty chunk".into()),
            Decoded::Data(data) => message.body.extend_from_slice(&data),
            Decoded::Trailers(trailers) => message.trailers = trailers,
            Decoded::End => {}
            Decoded::More => return Ok(false),
        }
        if self.decoder.has_ended() {
            self.message_ends();
        }
        Ok(true)
    }

    fn message_ends(&mut self) {
        let message = self.messages.last_mut().expect("its head was read");
        message.is_whole = true;
        self.ends.push(self.fed - self.input.len());
        if !message.keep_alive && !message.is_interim() {
            self.end = End::Last;
        }
    }
}
