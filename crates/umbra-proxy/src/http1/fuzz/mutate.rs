//! Near-valid messages: samples, changed here and there.

use fastrand::Rng;

/// What matters to somebody who frames messages, or tries to have them framed in two ways.
const WORDS: &[&[u8]] = &[
    b"\r\n",
    b"\r\n\r\n",
    b"\n",
    b"\n\n",
    b"\r",
    b"\r\r\n",
    b"\0",
    b"\t",
    b" ",
    b"\x0b",
    b"\x0c",
    b"\x7f",
    b"\x80",
    b"\xc3\xa9",
    b"\xff",
    b":",
    b";",
    b",",
    b";a=b",
    b";a=\"b\"",
    b"0\r\n\r\n",
    b"0\r\nx: y\r\n\r\n",
    b"1\r\na\r\n",
    b"ffffffffffffffff",
    b"8000000000000000",
    b"18446744073709551615",
    b"18446744073709551616",
    b"+3",
    b"-1",
    b"0x3",
    b"003",
    b"content-length: 3\r\n",
    b"content-length: 0\r\n",
    b"Content-Length: 3, 3\r\n",
    b"content-length:\r\n",
    b"transfer-encoding: chunked\r\n",
    b"Transfer-Encoding: gzip, chunked\r\n",
    b"transfer-encoding: identity\r\n",
    b"transfer-encoding : chunked\r\n",
    b"connection: close\r\n",
    b"connection: keep-alive\r\n",
    b"connection: te, x, content-length\r\n",
    b"expect: 100-continue\r\n",
    b"upgrade: h2c\r\n",
    b"te: trailers\r\n",
    b"host: x\r\n",
    b" folded\r\n",
    b"x: y\r\n",
    b"GET / HTTP/1.1\r\nhost: x\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
    b"HTTP/1.0",
    b"HTTP/1.1 204 \r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"http://x/",
    b"/../%2e%00?#",
    b"grpc-timeout: 1S\r\n",
];
/// Changes to one sample: few, or nothing of it would be understood.
const CHANGES: usize = 4;
/// Longer ones only take longer.
const LONGEST: usize = 4096;

/// One of `samples`, changed.
pub(crate) fn changed(rng: &mut Rng, samples: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = any(rng, samples).clone();
    for _ in 0..rng.usize(1..=CHANGES) {
        change(rng, &mut bytes, samples);
    }
    bytes.truncate(LONGEST);
    bytes
}

fn any<'a, T>(rng: &mut Rng, all: &'a [T]) -> &'a T {
    &all[rng.usize(..all.len())]
}

fn change(rng: &mut Rng, bytes: &mut Vec<u8>, samples: &[Vec<u8>]) {
    let at = place(rng, bytes);
    let length = rng.usize(..=8.min(bytes.len() - at));
    match rng.u8(..10) {
        0 if at < bytes.len() => bytes[at] ^= 1 << rng.u8(..8),
        1 if at < bytes.len() => bytes[at] = rng.u8(..),
        2 => drop(bytes.drain(at..at + length)),
        3 => {
            let copied = bytes[at..at + length].repeat(rng.usize(1..4));
            bytes.splice(at..at, copied);
        }
        4 => bytes.truncate(at),
        5 => {
            let other = any(rng, samples);
            let from = place(rng, other);
            bytes.truncate(at);
            bytes.extend_from_slice(&other[from..]);
        }
        6 if at < bytes.len() => bytes[at] ^= 0x20,
        7 => bytes.extend_from_slice(any::<Vec<u8>>(rng, samples)),
        8 => drop(bytes.splice(at..at + length, any(rng, WORDS).iter().copied())),
        _ => drop(bytes.splice(at..at, any(rng, WORDS).iter().copied())),
    }
}

/// Anywhere, or where a line begins, ends or has its colon.
fn place(rng: &mut Rng, bytes: &[u8]) -> usize {
    let at = rng.usize(..=bytes.len());
    if rng.bool() {
        return at;
    }
    let wanted = *any(rng, b"\n\r: ");
    let found = bytes[at..].iter().position(|byte| *byte == wanted);
    found.map_or(at, |found| at + found + usize::from(wanted == b'\n'))
}
