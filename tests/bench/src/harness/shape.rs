//! What clients ask, and what backends answer: the bytes of both versions of HTTP, made once.

use super::head::Block;

/// What is asked and answered, and by how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Shape {
    /// GET with four headers, an answer of 128 bytes, 32 clients.
    Small,
    /// 64 KiB there and back, 16 clients.
    Large,
    /// The small one over HTTP/2, 4 clients with one request at a time.
    OneStream,
    /// The same, each client with 32 requests at a time.
    ManyStreams,
}

impl Shape {
    /// Bytes of the request's body and of the answer's.
    pub(crate) fn bodies(self) -> (usize, usize) {
        match self {
            Self::Small | Self::OneStream | Self::ManyStreams => (0, 128),
            Self::Large => (64 * 1024, 64 * 1024),
        }
    }

    /// Connections at once.
    pub(crate) fn clients(self) -> usize {
        match self {
            Self::Small => 32,
            Self::Large => 16,
            Self::OneStream | Self::ManyStreams => 4,
        }
    }

    /// Requests at once on each of them.
    pub(crate) fn streams(self) -> usize {
        if self == Self::ManyStreams { 32 } else { 1 }
    }

    /// Whether clients speak HTTP/2, by prior knowledge.
    pub(crate) fn is_http2(self) -> bool {
        matches!(self, Self::OneStream | Self::ManyStreams)
    }

    /// For people, behind what is said of a request: nothing of HTTP/1.
    pub(crate) fn spoken(self) -> &'static str {
        match self {
            Self::Small | Self::Large => "",
            Self::OneStream => " over HTTP/2, one at a time",
            Self::ManyStreams => " over HTTP/2, 32 at a time",
        }
    }

    pub(super) fn request(self, host: &str) -> Text {
        let size = self.bodies().0;
        let method = if size == 0 { "GET" } else { "POST" };
        let fields = [
            ("host", host),
            ("user-agent", "umbra-bench"),
            ("accept", "*/*"),
            ("accept-encoding", "identity"),
            ("content-length", &size.to_string()),
        ];
        let fields = if size == 0 { &fields[..4] } else { &fields };
        Text::new(&format!("{method} / HTTP/1.1"), Block::request(method, fields), fields, size)
    }

    pub(super) fn answer(self) -> Text {
        answer(200, self.bodies().1)
    }
}

/// An answer with a body of so many bytes: 200 or 503.
pub(super) fn answer(status: u16, size: usize) -> Text {
    let fields = [("content-type", "text/plain"), ("content-length", &size.to_string())];
    // As servers say it: another phrase than the status's own costs a proxy more, and none of them sends one.
    let phrase = if status == 200 { "OK" } else { "Service Unavailable" };
    Text::new(&format!("HTTP/1.1 {status} {phrase}"), Block::answer(status, &fields), &fields, size)
}

/// A message that is sent many times.
#[derive(Debug)]
pub(super) struct Text {
    /// All of it.
    pub(super) http1: Vec<u8>,
    /// Its head.
    pub(super) http2: Block,
    /// Bytes of its body.
    pub(super) body: usize,
}

impl Text {
    fn new(first: &str, http2: Block, fields: &[(&str, &str)], body: usize) -> Self {
        let fields: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let head = format!("{first}\r\n{fields}\r\n");
        Self { http1: [head.into_bytes(), vec![b'x'; body]].concat(), http2, body }
    }
}
