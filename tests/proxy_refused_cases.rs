//! Bytes that are no request, or that two readers may take for different ones, and what has to come of each.

/// What has to come of some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    /// A status that says so, or the connection's end; no backend gets a whole request.
    Refused,
    /// That, or a request with this body.
    RefusedOr(&'static str),
    /// A request with this body.
    Served(&'static str),
    /// Refused, or a request with this body that is its connection's last.
    RefusedOrLast(&'static str),
}

use Expected::{Refused, RefusedOr, RefusedOrLast, Served};

pub(crate) struct Case {
    pub(crate) what: &'static str,
    /// `@@` becomes the case's id.
    pub(crate) bytes: Vec<u8>,
    pub(crate) expected: Expected,
}

/// Cases that differ in one place of a request.
struct Table {
    /// The request around it.
    around: fn(&str) -> String,
    /// What is wrong with it, the place, and what has to come of it.
    places: &'static [(&'static str, &'static str, Expected)],
}

/// All of them.
pub(crate) fn all() -> Vec<Case> {
    let tables = [LINES, STARTS, WHOLE, LENGTHS, CODINGS, CHUNKS];
    tables.iter().flat_map(Table::cases).chain(floods()).collect()
}

impl Table {
    fn cases(&self) -> impl Iterator<Item = Case> {
        self.places.iter().map(|&(what, place, expected)| Case::new(what, (self.around)(place), expected))
    }
}

impl Case {
    fn new(what: &'static str, text: String, expected: Expected) -> Self {
        Self { what, bytes: text.into_bytes(), expected }
    }
}

/// A GET with one more line.
fn line(line: &str) -> String {
    format!("GET / HTTP/1.1\r\nhost: web\r\n@@\r\n{line}\r\n\r\n")
}

const LINES: Table = Table {
    around: line,
    places: &[
        ("obs-fold", "x: a\r\n b", RefusedOr("")),
        ("obs-fold with a tab", "x: a\r\n\tb", RefusedOr("")),
        ("obs-fold of a length", "content-length:\r\n 3", RefusedOr("")),
        ("a bare CR in a value", "x: a\rb", RefusedOr("")),
        ("a bare CR that hides a line", "x: a\rcontent-length: 40", RefusedOr("")),
        ("a bare CR at the end of a value", "x: a\r", RefusedOr("")),
        ("a bare CR in a name", "x\ry: a", Refused),
        ("a bare LF in a value", "x: a\ny: b", RefusedOr("")),
        ("a bare LF that hides a line", "x: a\ncontent-length: 0", RefusedOr("")),
        ("NUL in a value", "x: a\0b", Refused),
        ("NUL in a name", "x\0y: a", Refused),
        ("a space before the colon", "x : a", Refused),
        ("a tab before the colon", "x\t: a", Refused),
        ("a space in a name", "x y: a", Refused),
        ("a name of no token", "x@y: a", Refused),
        ("a name of other letters", "x\u{e9}: a", Refused),
        ("no name", ": a", Refused),
        ("no colon", "x", Refused),
        ("two hosts", "host: web", Refused),
        ("another host", "host: other", Refused),
    ],
};

/// A GET that begins with this line.
fn start(line: &str) -> String {
    format!("{line}\r\nhost: web\r\n@@\r\n\r\n")
}

const STARTS: Table = Table {
    around: start,
    places: &[
        ("a bare CR in the first line", "GET /\r HTTP/1.1", Refused),
        ("a bare LF after the first line", "GET / HTTP/1.1\nx: y", RefusedOr("")),
        ("NUL in a target", "GET /\0 HTTP/1.1", Refused),
        ("NUL in a method", "G\0T / HTTP/1.1", Refused),
        ("two spaces", "GET  / HTTP/1.1", RefusedOr("")),
        ("a tab", "GET\t/ HTTP/1.1", RefusedOr("")),
        ("a space in a target", "GET /a b HTTP/1.1", Refused),
        ("no target", "GET HTTP/1.1", Refused),
        ("no version", "GET /", Refused),
        ("a version of another case", "GET / http/1.1", Refused),
        ("HTTP/2.0 as text", "GET / HTTP/2.0", Refused),
        ("HTTP/0.9", "GET / HTTP/0.9", Refused),
        ("HTTP/1.10", "GET / HTTP/1.10", Refused),
        ("a method of no token", "G@T / HTTP/1.1", Refused),
    ],
};

/// The whole request.
const WHOLE: Table = Table {
    around: str::to_owned,
    places: &[
        ("a folded first line", "GET / HTTP/1.1\r\n host: web\r\n@@\r\n\r\n", Refused),
        ("bare LFs alone", "GET / HTTP/1.1\nhost: web\n@@\n\n", RefusedOr("")),
        ("an empty line first", "\r\nGET / HTTP/1.1\r\nhost: web\r\n@@\r\n\r\n", RefusedOr("")),
        ("a space first", " GET / HTTP/1.1\r\nhost: web\r\n@@\r\n\r\n", Refused),
        ("no request at all", "\0\x01\x02\r\n\r\n", Refused),
        (
            "a body that ends early",
            "POST / HTTP/1.1\r\nhost: web\r\n@@\r\ncontent-length: 999\r\n\r\nabc",
            Refused,
        ),
        // RFC 9112 section 6.1: its framing is faulty, and the connection ends with it.
        (
            "chunked in HTTP/1.0",
            "POST / HTTP/1.0\r\nhost: web\r\n@@\r\nconnection: keep-alive\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            RefusedOrLast("abc"),
        ),
    ],
};

/// A body of `abc` under these lines.
fn body(lines: &str) -> String {
    format!("POST / HTTP/1.1\r\nhost: web\r\n@@\r\n{lines}\r\n\r\nabc")
}

const LENGTHS: Table = Table {
    around: body,
    places: &[
        ("two lengths", "content-length: 3\r\ncontent-length: 4", Refused),
        ("two lengths, the first is right", "content-length: 4\r\ncontent-length: 3", Refused),
        ("a length twice", "content-length: 3\r\ncontent-length: 3", RefusedOr("abc")),
        ("a list of a length", "content-length: 3, 3", RefusedOr("abc")),
        ("a list of lengths", "content-length: 3, 4", Refused),
        ("a length with a sign", "content-length: +3", Refused),
        ("a length below 0", "content-length: -3", Refused),
        ("a length with a base", "content-length: 0x3", Refused),
        ("a length with a point", "content-length: 3.0", Refused),
        ("a length with a space in it", "content-length: 3 3", Refused),
        ("an empty length", "content-length: ", Refused),
        ("a length past 64 bits", "content-length: 18446744073709551619", Refused),
        ("a length of NUL", "content-length: 3\0", Refused),
        ("a length behind a space", "content-length : 3", Refused),
        ("a length with leading zeros", "content-length: 0003", RefusedOr("abc")),
        ("a length named by Connection", "connection: content-length\r\ncontent-length: 3", Served("abc")),
    ],
};

/// A chunked body of `abc` under these lines.
fn coding(lines: &str) -> String {
    format!("POST / HTTP/1.1\r\nhost: web\r\n@@\r\n{lines}\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
}

const CODINGS: Table = Table {
    around: coding,
    places: &[
        ("chunked", "transfer-encoding: chunked", Served("abc")),
        ("chunked in another case", "Transfer-Encoding: Chunked", RefusedOr("abc")),
        ("chunked behind spaces", "transfer-encoding:   chunked  ", RefusedOr("abc")),
        ("length, then chunked", "content-length: 3\r\ntransfer-encoding: chunked", Refused),
        ("chunked, then length", "transfer-encoding: chunked\r\ncontent-length: 3", Refused),
        ("chunked, then identity", "transfer-encoding: chunked, identity", Refused),
        ("identity, then chunked", "transfer-encoding: identity, chunked", Refused),
        ("identity", "transfer-encoding: identity", Refused),
        ("xchunked", "transfer-encoding: xchunked", Refused),
        ("chunkedx", "transfer-encoding: chunkedx", Refused),
        ("chunked twice", "transfer-encoding: chunked, chunked", Refused),
        ("chunked on two lines", "transfer-encoding: chunked\r\ntransfer-encoding: chunked", Refused),
        ("chunked, then another line", "transfer-encoding: chunked\r\ntransfer-encoding: x", Refused),
        ("another line, then chunked", "transfer-encoding: x\r\ntransfer-encoding: chunked", Refused),
        ("chunked after a comma", "transfer-encoding: , chunked", RefusedOr("abc")),
        ("chunked with a parameter", "transfer-encoding: chunked;q=1", Refused),
        ("chunked in quotes", "transfer-encoding: \"chunked\"", Refused),
        ("chunked behind a vertical tab", "transfer-encoding: \x0bchunked", Refused),
        ("chunked before a NUL", "transfer-encoding: chunked\0", Refused),
        ("no coding", "transfer-encoding: ", Refused),
        ("gzip", "transfer-encoding: gzip", Refused),
        ("chunked behind a space", "transfer-encoding : chunked", Refused),
        ("chunked folded", "transfer-encoding:\r\n chunked", RefusedOr("abc")),
        (
            "chunked named by Connection",
            "connection: transfer-encoding\r\ntransfer-encoding: chunked",
            Served("abc"),
        ),
    ],
};

/// This after a head that says chunked.
fn chunks(chunks: &str) -> String {
    format!("POST / HTTP/1.1\r\nhost: web\r\n@@\r\ntransfer-encoding: chunked\r\n\r\n{chunks}")
}

const CHUNKS: Table = Table {
    around: chunks,
    places: &[
        ("an extension", "3;a=b\r\nabc\r\n0;c\r\n\r\n", Served("abc")),
        ("an extension in quotes", "3;a=\"b;c\"\r\nabc\r\n0\r\n\r\n", Served("abc")),
        ("an extension with a bare LF", "3;a\nb\r\nabc\r\n0\r\n\r\n", Refused),
        ("an extension with a bare CR", "3;a\rb\r\nabc\r\n0\r\n\r\n", Refused),
        ("an extension with a NUL", "3;a\0\r\nabc\r\n0\r\n\r\n", RefusedOr("abc")),
        ("a size with zeros", "0003\r\nabc\r\n0\r\n\r\n", RefusedOr("abc")),
        ("a size with a sign", "+3\r\nabc\r\n0\r\n\r\n", Refused),
        ("a size below 0", "-3\r\nabc\r\n0\r\n\r\n", Refused),
        ("a size with a base", "0x3\r\nabc\r\n0\r\n\r\n", Refused),
        ("a size behind a space", " 3\r\nabc\r\n0\r\n\r\n", Refused),
        ("a size before a space", "3 \r\nabc\r\n0\r\n\r\n", RefusedOr("abc")),
        ("a size with a space in it", "0 3\r\nabc\r\n0\r\n\r\n", Refused),
        ("a size with an underscore", "0_3\r\nabc\r\n0\r\n\r\n", Refused),
        ("no size", "\r\nabc\r\n0\r\n\r\n", Refused),
        ("no size, but an extension", ";a\r\nabc\r\n0\r\n\r\n", Refused),
        ("a size of no digit", "g\r\nabc\r\n0\r\n\r\n", Refused),
        ("a size of 65 bits", "10000000000000003\r\nabc\r\n0\r\n\r\n", Refused),
        ("a size of 64 bits", "ffffffffffffffff\r\nabc\r\n0\r\n\r\n", Refused),
        ("a size that is negative in 64 bits", "8000000000000003\r\nabc\r\n0\r\n\r\n", Refused),
        ("a size of 33 bits", "100000003\r\nabc\r\n0\r\n\r\n", Refused),
        ("a size with a bare LF", "3\nabc\r\n0\r\n\r\n", Refused),
        ("a size with two CRs", "3\r\r\nabc\r\n0\r\n\r\n", Refused),
        ("a chunk with a bare LF", "3\r\nabc\n0\r\n\r\n", Refused),
        ("a chunk longer than its size", "3\r\nabcd\r\n0\r\n\r\n", Refused),
        ("a chunk shorter than its size", "4\r\nabc\r\n0\r\n\r\n", Refused),
        ("no last chunk", "3\r\nabc\r\n", Refused),
        ("a last chunk with a bare LF", "3\r\nabc\r\n0\n\r\n", Refused),
        ("a last chunk of many zeros", "3\r\nabc\r\n00000\r\n\r\n", RefusedOr("abc")),
        ("a trailer of framing", "3\r\nabc\r\n0\r\ncontent-length: 9\r\n\r\n", RefusedOr("abc")),
        ("a trailer that is folded", "3\r\nabc\r\n0\r\nx: a\r\n b\r\n\r\n", RefusedOr("abc")),
        ("a trailer with a NUL", "3\r\nabc\r\n0\r\nx: a\0b\r\n\r\n", Refused),
        ("a trailer of no name", "3\r\nabc\r\n0\r\nno colon\r\n\r\n", Refused),
        ("a trailer with a bare LF", "3\r\nabc\r\n0\r\nx: a\ny: b\r\n\r\n", RefusedOr("abc")),
    ],
};

/// More than anybody sends.
fn floods() -> impl Iterator<Item = Case> {
    let many = |count| (0..count).map(|n| format!("x-{n}: 1\r\n")).collect::<String>();
    let long = "y".repeat(1 << 20);
    let extensions = format!("1;{}\r\na\r\n", "y".repeat(200)).repeat(5_000);
    let refused = [
        ("many fields", format!("GET / HTTP/1.1\r\nhost: web\r\n@@\r\n{}\r\n", many(5_000))),
        ("a long value", line(&format!("x: {long}"))),
        ("a long name", line(&format!("{long}: x"))),
        ("a long target", start(&format!("GET /{long} HTTP/1.1"))),
        ("a long method", start(&format!("{long} / HTTP/1.1"))),
        ("empty lines", "\r\n".repeat(1 << 18)),
        ("a long extension", chunks(&format!("3;{long}\r\nabc\r\n0\r\n\r\n"))),
        ("many extensions", chunks(&format!("{extensions}0\r\n\r\n"))),
        ("many trailers", chunks(&format!("3\r\nabc\r\n0\r\n{}\r\n", many(5_000)))),
        ("a long trailer", chunks(&format!("3\r\nabc\r\n0\r\nx: {long}\r\n\r\n"))),
    ];
    let zeros = chunks(&format!("{}3\r\nabc\r\n0\r\n\r\n", "0".repeat(1 << 20)));
    let refused = refused.into_iter().map(|(what, text)| Case::new(what, text, Refused));
    refused.chain([Case::new("zeros without end", zeros, RefusedOr("abc"))])
}
