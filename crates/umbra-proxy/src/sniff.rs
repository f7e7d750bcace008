//! Sniff: what the first bytes of a connection say about its protocol.

use umbra_routing::Protocol;

use crate::version::HttpVersion;

/// What a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spoken {
    /// HTTP, or something on an HTTP port that deserves a 400.
    Http(HttpVersion),
    /// Anything else, passed through.
    Bytes,
}

/// RFC 9110 section 9.3 and RFC 5789. Others on a port that is not declared HTTP pass through as bytes, so that `HELO x`
/// is not taken for HTTP.
const METHODS: [&[u8]; 9] =
    [b"GET ", b"HEAD ", b"POST ", b"PUT ", b"DELETE ", b"CONNECT ", b"OPTIONS ", b"TRACE ", b"PATCH "];
/// The HTTP/2 preface (RFC 9113 section 3.4).
const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The first byte of a TLS handshake record (RFC 8446 section 5.1).
const TLS: &[u8] = b"\x16";

/// Enough bytes to decide in any case.
pub(crate) const ENOUGH: usize = HTTP2.len();

/// Decides by the first bytes; `None`: more are needed.
pub(crate) fn spoken(first: &[u8], port: Protocol) -> Option<Spoken> {
    let (http1, bytes, other): (&[&[u8]], &[&[u8]], _) = match port {
        Protocol::Http => (&[], &[TLS], Spoken::Http(HttpVersion::Http1)),
        Protocol::Unknown => (&METHODS, &[], Spoken::Bytes),
    };
    let begins = |with: &[&[u8]]| with.iter().any(|prefix| first.starts_with(prefix));
    if begins(&[HTTP2]) {
        return Some(Spoken::Http(HttpVersion::Http2));
    }
    if begins(http1) {
        return Some(Spoken::Http(HttpVersion::Http1));
    }
    if begins(bytes) {
        return Some(Spoken::Bytes);
    }
    let undecided = http1.iter().chain(bytes).chain([&HTTP2]).any(|prefix| prefix.starts_with(first));
    (!undecided).then_some(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HTTP1: Option<Spoken> = Some(Spoken::Http(HttpVersion::Http1));

    #[test]
    fn declared_http_is_http_unless_it_is_tls() {
        assert_eq!(spoken(b"", Protocol::Http), None);
        assert_eq!(spoken(b"P", Protocol::Http), None);
        assert_eq!(spoken(b"PO", Protocol::Http), HTTP1);
        assert_eq!(spoken(b"\0garbage", Protocol::Http), HTTP1, "answered with 400");
        assert_eq!(spoken(b"\x16\x03\x01", Protocol::Http), Some(Spoken::Bytes));
    }

    #[test]
    fn an_unnamed_port_is_http_1_only_with_a_known_method() {
        assert_eq!(spoken(b"", Protocol::Unknown), None);
        assert_eq!(spoken(b"OPT", Protocol::Unknown), None);
        assert_eq!(spoken(b"OPTIONS ", Protocol::Unknown), HTTP1);
        assert_eq!(spoken(b"HELO x", Protocol::Unknown), Some(Spoken::Bytes));
    }

    #[test]
    fn http_2_is_its_whole_preface() {
        for (port, other) in [(Protocol::Http, HTTP1), (Protocol::Unknown, Some(Spoken::Bytes))] {
            assert_eq!(spoken(HTTP2, port), Some(Spoken::Http(HttpVersion::Http2)));
            assert_eq!(spoken(&HTTP2[..HTTP2.len() - 1], port), None);
            assert_eq!(spoken(b"PRI * HTTP/2.0\r\n\r\nSO", port), other);
        }
    }

    #[test]
    fn enough_bytes_always_decide() {
        for method in METHODS {
            assert!(method.len() <= ENOUGH);
        }
    }
}
