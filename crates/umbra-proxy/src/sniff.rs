//! Sniff: what the first bytes of a connection say about its protocol.

use umbra_routing::Protocol;

/// What a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spoken {
    /// HTTP/1, or something on an HTTP port that deserves a 400.
    Http1,
    /// Anything else, passed through.
    Bytes,
}

/// RFC 9110 section 9.3 and RFC 5789. Others on a port that is not declared HTTP pass through as bytes, so that `HELO x`
/// is not taken for HTTP.
const METHODS: [&[u8]; 9] =
    [b"GET ", b"HEAD ", b"POST ", b"PUT ", b"DELETE ", b"CONNECT ", b"OPTIONS ", b"TRACE ", b"PATCH "];
/// How the HTTP/2 preface begins (RFC 9113 section 3.4).
const HTTP2: &[u8] = b"PRI ";
/// The first byte of a TLS handshake record (RFC 8446 section 5.1).
const TLS: &[u8] = b"\x16";

/// Enough bytes to decide in any case.
pub(crate) const ENOUGH: usize = 8;

/// Decides by the first bytes; `None`: more are needed.
pub(crate) fn spoken(first: &[u8], port: Protocol) -> Option<Spoken> {
    let (yes, bytes, other): (&[&[u8]], &[&[u8]], _) = match port {
        Protocol::Http => (&[], &[HTTP2, TLS], Spoken::Http1),
        Protocol::Unknown => (&METHODS, &[], Spoken::Bytes),
    };
    if yes.iter().any(|prefix| first.starts_with(prefix)) {
        return Some(Spoken::Http1);
    }
    if bytes.iter().any(|prefix| first.starts_with(prefix)) {
        return Some(Spoken::Bytes);
    }
    let undecided = yes.iter().chain(bytes).any(|prefix| prefix.starts_with(first));
    (!undecided).then_some(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn declared_http_is_http_unless_it_is_http2_or_tls() {
        assert_eq!(spoken(b"", Protocol::Http), None);
        assert_eq!(spoken(b"P", Protocol::Http), None);
        assert_eq!(spoken(b"PO", Protocol::Http), Some(Spoken::Http1));
        assert_eq!(spoken(b"\0garbage", Protocol::Http), Some(Spoken::Http1), "answered with 400");
        assert_eq!(spoken(b"PRI * HTTP/2.0\r\n", Protocol::Http), Some(Spoken::Bytes));
        assert_eq!(spoken(b"\x16\x03\x01", Protocol::Http), Some(Spoken::Bytes));
    }

    #[test]
    fn an_unnamed_port_is_http_only_with_a_known_method() {
        assert_eq!(spoken(b"", Protocol::Unknown), None);
        assert_eq!(spoken(b"OPT", Protocol::Unknown), None);
        assert_eq!(spoken(b"OPTIONS ", Protocol::Unknown), Some(Spoken::Http1));
        assert_eq!(spoken(b"HELO x", Protocol::Unknown), Some(Spoken::Bytes));
        assert_eq!(spoken(b"PRI * HTTP/2.0\r\n", Protocol::Unknown), Some(Spoken::Bytes));
    }

    #[test]
    fn enough_bytes_always_decide() {
        for method in METHODS {
            assert!(method.len() <= ENOUGH);
        }
    }
}
