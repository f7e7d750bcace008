//! Framing: what the server's HTTP parser does not tell about the bytes it reads.
//!
//! Takes: the bytes of a client's connection, as they are read. Gives: whether a head is under way (a stalled one gets
//! 408), and makes a head unreadable that has both Content-Length and Transfer-Encoding: RFC 9112 section 6.1 calls that
//! request smuggling, hyper quietly drops the length, and umbra answers 400. Never changes anything else.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Bytes of one line that are kept: longer than any framing header's name and a sensible length.
const KEPT: usize = 64;

/// What the connection's task and the reader tell each other.
#[derive(Default)]
pub(crate) struct Progress {
    /// The first byte of a head has come, its end has not.
    pub(crate) head_begun: AtomicBool,
    /// Heads that were read to their end.
    pub(crate) heads: AtomicU64,
    /// The connection was upgraded: what follows is not HTTP.
    pub(crate) tunnel: AtomicBool,
}

/// Follows the requests of one connection.
pub(crate) struct Framing {
    state: State,
    line: Vec<u8>,
    /// The line is longer than what is kept of it.
    cut: bool,
    head: Head,
    progress: Arc<Progress>,
}

#[derive(Default)]
struct Head {
    begun: bool,
    length: Option<u64>,
    coded: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// In a head, or before it.
    Head,
    /// Bytes of a body, or of a chunk with its line end.
    Body {
        left: u64,
        chunked: bool,
    },
    ChunkSize,
    Trailers,
    /// The head was bad: nothing after it is read.
    Bad,
}

impl Framing {
    pub(crate) fn new(progress: Arc<Progress>) -> Self {
        Self {
            state: State::Head,
            line: Vec::with_capacity(KEPT),
            cut: false,
            head: Head::default(),
            progress,
        }
    }

    /// Looks at bytes before the parser does.
    pub(crate) fn look(&mut self, mut bytes: &mut [u8]) {
        if self.progress.tunnel.load(Ordering::Relaxed) {
            return;
        }
        while !bytes.is_empty() {
            let used = match self.state {
                // Empty lines end the head, so that the parser looks at it and finds it bad.
                State::Bad => {
                    bytes.fill(b'\n');
                    break;
                }
                State::Body { left, chunked } => self.skip(bytes.len(), left, chunked),
                State::Head | State::ChunkSize | State::Trailers => self.read_line(bytes),
            };
            bytes = &mut bytes[used..];
        }
        let begun = self.state == State::Head && (self.head.begun || !self.line.is_empty());
        self.progress.head_begun.store(begun, Ordering::Relaxed);
    }

    fn skip(&mut self, have: usize, left: u64, chunked: bool) -> usize {
        let used = u64::try_from(have).map_or(left, |have| have.min(left));
        self.state = match left - used {
            0 if chunked => State::ChunkSize,
            0 => State::Head,
            left => State::Body { left, chunked },
        };
        usize::try_from(used).unwrap_or(have)
    }

    /// Returns how many bytes belong to the line; at its end, the state has moved on.
    fn read_line(&mut self, bytes: &mut [u8]) -> usize {
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let part = &bytes[..end.unwrap_or(bytes.len())];
        let room = KEPT - self.line.len();
        self.line.extend_from_slice(&part[..part.len().min(room)]);
        self.cut |= part.len() > room;
        let Some(end) = end else { return bytes.len() };
        let mut line = std::mem::take(&mut self.line);
        self.end_line(line.strip_suffix(b"\r").unwrap_or(&line));
        line.clear();
        self.line = line;
        self.cut = false;
        if self.state == State::Bad {
            // No line may hold a NUL (RFC 9110 section 5.5).
            bytes[end] = 0;
        }
        end + 1
    }

    fn end_line(&mut self, line: &[u8]) {
        self.state = match self.state {
            State::Head if line.is_empty() => self.end_head(),
            State::Head => self.header(line),
            State::ChunkSize => chunk(line),
            State::Trailers if line.is_empty() => State::Head,
            other => other,
        };
    }

    fn header(&mut self, line: &[u8]) -> State {
        if !self.head.begun {
            self.head.begun = true;
            return State::Head;
        }
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let (name, value) = line.split_at(colon);
        let framing = |name: &[u8]| {
            name.eq_ignore_ascii_case(b"content-length") || name.eq_ignore_ascii_case(b"transfer-encoding")
        };
        if self.cut && framing(name.trim_ascii()) {
            // What the parser makes of its end is not known here, and nobody sends one like that.
            return State::Bad;
        }
        let (name, value) = (name.trim_ascii(), value.strip_prefix(b":").unwrap_or(value).trim_ascii());
        if name.eq_ignore_ascii_case(b"content-length") {
            // One that is not a number gets 400 from the parser.
            self.head.length = Some(number(value, 10).unwrap_or(0));
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            self.head.coded = true;
        }
        if self.head.length.is_some() && self.head.coded { State::Bad } else { State::Head }
    }

    fn end_head(&mut self) -> State {
        if !self.head.begun {
            // Empty lines before a request are allowed (RFC 9112 section 2.2).
            return State::Head;
        }
        self.progress.heads.fetch_add(1, Ordering::Relaxed);
        match std::mem::take(&mut self.head) {
            Head { coded: true, .. } => State::ChunkSize,
            Head { length: Some(left @ 1..), .. } => State::Body { left, chunked: false },
            _ => State::Head,
        }
    }
}

fn chunk(line: &[u8]) -> State {
    let size = line.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    match number(size, 16) {
        Some(0) => State::Trailers,
        // The chunk's own line end follows it. A lone LF ends it too; hyper refuses that one.
        Some(size) => State::Body { left: size.saturating_add(2), chunked: true },
        // Not a size: the parser ends the connection.
        None => State::Bad,
    }
}

fn number(text: &[u8], radix: u32) -> Option<u64> {
    u64::from_str_radix(std::str::from_utf8(text).ok()?, radix).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the parser gets, whatever pieces the bytes arrive in.
    fn seen(bytes: &[u8], piece: usize) -> (Vec<u8>, bool) {
        let progress = Arc::new(Progress::default());
        let mut framing = Framing::new(Arc::clone(&progress));
        let mut bytes = bytes.to_vec();
        bytes.chunks_mut(piece).for_each(|piece| framing.look(piece));
        (bytes, progress.head_begun.load(Ordering::Relaxed))
    }

    #[test]
    fn sound_requests_pass_unchanged_in_any_pieces() {
        let pipelined = b"\r\nPOST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 40\r\n\r\n\
            Transfer-Encoding: 1\nContent-Length: 2\n\
            POST /b HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n5;x=y\r\na\nb\nc\r\n0\r\nContent-Length: 3\r\n\r\n\
            GET /c HTTP/1.1\r\nContent-Length: 0\r\n\r\n";
        for piece in 1..pipelined.len() {
            let (seen, begun) = seen(pipelined, piece);
            assert_eq!(seen, pipelined, "pieces of {piece}");
            assert!(!begun);
        }
    }

    #[test]
    fn both_framings_make_the_head_unreadable_in_either_order() {
        for (first, second) in [
            ("Content-Length: 3", "Transfer-Encoding: chunked"),
            ("transfer-ENCODING:gzip", "content-length:3"),
        ] {
            let text = format!("POST / HTTP/1.1\r\nHost: x\r\n{first}\r\n{second}\r\n\r\n0\r\n\r\n");
            for piece in 1..text.len() {
                let (seen, _) = seen(text.as_bytes(), piece);
                let bad = seen.iter().position(|byte| *byte == 0).expect("a NUL where the second line ends");
                assert_eq!(&seen[..bad], &text.as_bytes()[..bad], "what came before is as it was");
                assert!(seen[bad + 1..].iter().all(|byte| *byte == b'\n'), "pieces of {piece}: {seen:?}");
            }
        }
    }

    #[test]
    fn a_framing_line_that_is_too_long_to_follow_makes_the_head_unreadable() {
        for name in ["Content-Length", "transfer-encoding"] {
            let text = format!("POST / HTTP/1.1\r\n{name}:{}3\r\n\r\nabc", " ".repeat(KEPT));
            for piece in 1..text.len() {
                assert!(seen(text.as_bytes(), piece).0.contains(&0), "{name}, pieces of {piece}");
            }
        }
        let long = format!("GET / HTTP/1.1\r\nx-content-length:{}\r\n\r\n", "1".repeat(KEPT));
        assert_eq!(seen(long.as_bytes(), 7).0, long.as_bytes(), "others may be as long as they like");
    }

    #[test]
    fn a_head_under_way_is_told() {
        assert!(seen(b"GET / HT", 3).1);
        assert!(seen(b"GET / HTTP/1.1\r\nHost: x\r\n", 100).1);
        assert!(!seen(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 100).1);
        assert!(!seen(b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nabc", 100).1, "that is a body");
    }
}
