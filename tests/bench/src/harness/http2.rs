//! HTTP/2 as the harness speaks it (RFC 9113), by prior knowledge: either end of one connection. No sockets here.
//!
//! Takes: what came. Gives: the messages that are whole, and bytes to send. Heads are encoded once (`head`), as clients and
//! servers do, and nothing is decoded but a status: what it costs is not measured, but it has to keep up.

use std::collections::{HashMap, VecDeque};

use anyhow::{Result, bail, ensure};

use super::head::status;
use super::message::Message;
use super::shape::Text;

/// What a client says first (RFC 9113 section 3.4).
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEAD: usize = 9;
/// The largest that may be sent to a peer that allows no more; 2^14.
const FRAME: usize = 16 * 1024;
/// Of a stream and of a connection, until the peer says otherwise.
const WINDOW: i64 = 65_535;
/// What the peer may send on a stream: more than any body here.
const OWN_WINDOW: u32 = 1 << 20;
/// And on the connection, given again when half of it is used.
const OWN_CONNECTION: u32 = 1 << 30;
/// Streams that a backend takes on a connection.
const OWN_STREAMS: u32 = 256;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;

const TABLE_SIZE: u16 = 1;
const MAX_STREAMS: u16 = 3;
const INITIAL_WINDOW: u16 = 4;

/// A message that is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Whole {
    pub(super) message: Message,
    pub(super) stream: u32,
}

/// One end of a connection.
#[derive(Debug)]
pub(super) struct Http2 {
    is_client: bool,
    /// Bytes of a frame that is not whole; of a backend's, the preface, too.
    partial: Vec<u8>,
    preface_left: usize,
    next_stream: u32,
    /// The peer's table has our fields.
    said: bool,
    /// Messages whose end has not come.
    coming: HashMap<u32, Message>,
    /// What we may send.
    window: i64,
    initial: i64,
    /// Bodies that wait for windows, each with what is left of it and of its stream's window.
    waiting: VecDeque<(u32, usize, i64)>,
    /// Bytes that came since the peer was given room.
    taken: u32,
}

impl Http2 {
    /// The client's end, and what it says first.
    pub(super) fn client(out: &mut Vec<u8>) -> Self {
        out.extend_from_slice(PREFACE);
        Self::new(true, out)
    }

    /// A backend's end, which has seen nothing yet.
    pub(super) fn server(out: &mut Vec<u8>) -> Self {
        Self::new(false, out)
    }

    fn new(is_client: bool, out: &mut Vec<u8>) -> Self {
        let settings = [(INITIAL_WINDOW, OWN_WINDOW), (MAX_STREAMS, OWN_STREAMS)];
        let payload: Vec<u8> = settings
            .iter()
            .flat_map(|(name, value)| [&name.to_be_bytes()[..], &value.to_be_bytes()].concat())
            .collect();
        frame(out, SETTINGS, 0, 0, &payload);
        frame(out, WINDOW_UPDATE, 0, 0, &OWN_CONNECTION.to_be_bytes());
        Self {
            is_client,
            partial: Vec::new(),
            preface_left: if is_client { 0 } else { PREFACE.len() },
            next_stream: 1,
            said: false,
            coming: HashMap::new(),
            window: WINDOW,
            initial: WINDOW,
            waiting: VecDeque::new(),
            taken: 0,
        }
    }

    /// A request on a stream of its own.
    pub(super) fn ask(&mut self, text: &Text, out: &mut Vec<u8>) {
        let stream = self.next_stream;
        self.next_stream += 2;
        self.say(stream, text, out);
    }

    /// A whole message on this stream; its body as far as windows allow, the rest later.
    pub(super) fn say(&mut self, stream: u32, text: &Text, out: &mut Vec<u8>) {
        let head = if self.said { &text.http2.next } else { &text.http2.first };
        self.said = true;
        let end = if text.body == 0 { END_STREAM } else { 0 };
        frame(out, HEADERS, END_HEADERS | end, stream, head);
        if text.body > 0 {
            self.waiting.push_back((stream, text.body, self.initial));
            self.go_on(out);
        }
    }

    /// Takes what came: answers what the protocol asks for into `out`, and gives each message that is whole now.
    ///
    /// # Errors
    /// The connection ends, or the peer does what no peer here has a reason to.
    pub(super) fn feed(
        &mut self,
        bytes: &[u8],
        out: &mut Vec<u8>,
        mut whole: impl FnMut(Whole),
    ) -> Result<()> {
        let skipped = self.preface_left.min(bytes.len());
        self.preface_left -= skipped;
        let joined = (!self.partial.is_empty()).then(|| [&self.partial, &bytes[skipped..]].concat());
        let mut bytes = joined.as_deref().unwrap_or(&bytes[skipped..]);
        while let Some((&[a, b, c, kind, flags, d, e, f, g], rest)) = bytes.split_first_chunk::<FRAME_HEAD>()
        {
            let size = u32::from_be_bytes([0, a, b, c]) as usize;
            let Some(payload) = rest.get(..size) else { break };
            let stream = u32::from_be_bytes([d & 0x7f, e, f, g]);
            self.frame((kind, flags, stream), payload, out, &mut whole)?;
            bytes = &rest[size..];
        }
        self.partial.clear();
        self.partial.extend_from_slice(bytes);
        Ok(())
    }

    fn frame(
        &mut self,
        (kind, flags, stream): (u8, u8, u32),
        payload: &[u8],
        out: &mut Vec<u8>,
        whole: &mut impl FnMut(Whole),
    ) -> Result<()> {
        match kind {
            DATA | HEADERS => {
                ensure!(flags & PADDED == 0, "a padded frame, which the harness does not read");
                let message = self.coming.entry(stream).or_insert(Message { status: None, body: 0 });
                if kind == DATA {
                    message.body += payload.len();
                    self.taken += payload.len() as u32;
                } else if self.is_client && message.status.is_none() {
                    message.status = Some(status(payload));
                }
                if flags & END_STREAM != 0 {
                    whole(Whole { message: *message, stream });
                    self.coming.remove(&stream);
                }
                self.give_room(out);
            }
            CONTINUATION => bail!("a head in several frames, which the harness does not read"),
            SETTINGS if flags & ACK == 0 => {
                self.settings(payload)?;
                frame(out, SETTINGS, ACK, 0, &[]);
                self.go_on(out);
            }
            PING if flags & ACK == 0 => frame(out, PING, ACK, 0, payload),
            WINDOW_UPDATE => {
                let more = i64::from(number(payload)? & 0x7fff_ffff);
                if stream == 0 {
                    self.window += more;
                } else if let Some(body) = self.waiting.iter_mut().find(|(of, ..)| *of == stream) {
                    body.2 += more;
                }
                self.go_on(out);
            }
            RST_STREAM => {
                self.waiting.retain(|(of, ..)| *of != stream);
                self.coming.remove(&stream);
                // A client has no answer then, whatever had come of it.
                if self.is_client {
                    whole(Whole { message: Message { status: Some(0), body: 0 }, stream });
                }
            }
            GOAWAY if self.is_client => bail!("the proxy ends a client's connection: {payload:?}"),
            _ => {}
        }
        Ok(())
    }

    fn settings(&mut self, payload: &[u8]) -> Result<()> {
        for setting in payload.chunks_exact(6) {
            let value = number(&setting[2..])?;
            match u16::from_be_bytes([setting[0], setting[1]]) {
                INITIAL_WINDOW => {
                    let more = i64::from(value) - self.initial;
                    self.initial += more;
                    self.waiting.iter_mut().for_each(|(.., window)| *window += more);
                }
                TABLE_SIZE => {
                    ensure!(value >= 4096, "a table of {value} bytes, which may not hold our fields")
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Sends of the bodies that wait what windows allow, the first first.
    fn go_on(&mut self, out: &mut Vec<u8>) {
        const BODY: [u8; FRAME] = [b'x'; FRAME];
        for (stream, left, window) in &mut self.waiting {
            while *left > 0 && *window > 0 && self.window > 0 {
                let allowed = usize::try_from(self.window.min(*window)).unwrap_or(0);
                let size = FRAME.min(*left).min(allowed);
                *left -= size;
                *window -= size as i64;
                self.window -= size as i64;
                let end = if *left == 0 { END_STREAM } else { 0 };
                frame(out, DATA, end, *stream, &BODY[..size]);
            }
        }
        self.waiting.retain(|(_, left, _)| *left > 0);
    }

    fn give_room(&mut self, out: &mut Vec<u8>) {
        if self.taken >= OWN_CONNECTION / 2 {
            frame(out, WINDOW_UPDATE, 0, 0, &self.taken.to_be_bytes());
            self.taken = 0;
        }
    }
}

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

fn number(bytes: &[u8]) -> Result<u32> {
    let Some(bytes) = bytes.first_chunk() else { bail!("a frame that is too short") };
    Ok(u32::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::super::shape::{Shape, answer};
    use super::*;

    /// Both ends, and what each has to tell the other.
    struct Pair {
        client: (Http2, Vec<u8>),
        server: (Http2, Vec<u8>),
    }

    impl Pair {
        fn new() -> Self {
            let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
            let client = Http2::client(&mut to_server);
            let server = Http2::server(&mut to_client);
            Self { client: (client, to_server), server: (server, to_client) }
        }

        /// Hands bytes over in pieces of `size` until both are silent; the server answers with `text`.
        fn talk(&mut self, text: &Text, size: usize) -> Vec<Whole> {
            let mut answers = Vec::new();
            while !self.client.1.is_empty() || !self.server.1.is_empty() {
                for piece in std::mem::take(&mut self.client.1).chunks(size) {
                    let mut asked = Vec::new();
                    self.server.0.feed(piece, &mut self.server.1, |whole| asked.push(whole)).unwrap();
                    for whole in asked {
                        assert_eq!(whole.message, Message { status: None, body: 64 * 1024 });
                        self.server.0.say(whole.stream, text, &mut self.server.1);
                    }
                }
                for piece in std::mem::take(&mut self.server.1).chunks(size) {
                    self.client.0.feed(piece, &mut self.client.1, |whole| answers.push(whole)).unwrap();
                }
            }
            answers
        }
    }

    #[test]
    fn messages_are_the_same_however_they_are_cut_and_wait_for_windows() {
        let large = Shape::Large.request("web");
        for size in [1, 7, 1000, 1 << 20] {
            let mut pair = Pair::new();
            // More than the windows that a peer has before it says otherwise.
            for _ in 0..3 {
                pair.client.0.ask(&large, &mut pair.client.1);
            }
            let answers = pair.talk(&answer(200, 64 * 1024), size);
            let want = |stream| Whole { message: Message { status: Some(200), body: 64 * 1024 }, stream };
            assert_eq!(answers.len(), 3, "cut every {size} bytes");
            for stream in [1, 3, 5] {
                assert!(answers.contains(&want(stream)), "{answers:?}");
            }
        }
    }

    #[test]
    fn another_status_is_told_from_200() {
        let mut pair = Pair::new();
        for _ in 0..2 {
            pair.client.0.ask(&Shape::Large.request("web"), &mut pair.client.1);
        }
        let answers = pair.talk(&answer(503, 5), 1 << 20);
        assert!(answers.iter().all(|whole| whole.message == Message { status: Some(0), body: 5 }));
    }

    #[test]
    fn a_reset_stream_is_no_answer_and_an_ending_connection_an_error() {
        let mut pair = Pair::new();
        let (client, out) = (&mut pair.client.0, &mut Vec::new());
        client.ask(&Shape::OneStream.request("web"), out);
        let (mut reset, mut seen) = (Vec::new(), Vec::new());
        frame(&mut reset, RST_STREAM, 0, 1, &[0; 4]);
        client.feed(&reset, out, |whole| seen.push(whole)).unwrap();
        assert_eq!(seen, [Whole { message: Message { status: Some(0), body: 0 }, stream: 1 }]);
        let mut ending = Vec::new();
        frame(&mut ending, GOAWAY, 0, 0, &[0; 8]);
        client.feed(&ending, out, |_| ()).unwrap_err();
    }
}
