//! Headers that end at each hop (RFC 9110 section 7.6.1). Everything else passes as it came.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

/// Fields that belong to one connection even when Connection does not name them.
const HOP_BY_HOP: [HeaderName; 6] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::UPGRADE,
];

/// Takes what ends here out of a request. `Transfer-Encoding` stays: hyper frames the body by it, and for a GET with a
/// chunked body by nothing else. `TE: trailers` stays: it is what lets trailers come back.
pub(crate) fn request_hop(headers: &mut HeaderMap) {
    let trailers = accepts_trailers(headers);
    strip(headers, &[header::TRANSFER_ENCODING]);
    headers.remove(header::TE);
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
}

/// Takes what ends here out of an answer; hyper frames it anew for the client's version of HTTP.
pub(crate) fn answer_hop(headers: &mut HeaderMap) {
    strip(headers, &[]);
    headers.remove(header::TRANSFER_ENCODING);
}

/// The protocol that a message wants to switch to, if it does.
pub(crate) fn upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let wanted = named_by_connection(headers).any(|name| name.eq_ignore_ascii_case("upgrade"));
    headers.get(header::UPGRADE).filter(|_| wanted).cloned()
}

/// Puts an upgrade back for the next hop.
pub(crate) fn set_upgrade(headers: &mut HeaderMap, protocol: HeaderValue) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, protocol);
}

/// About how many bytes a head takes on the wire.
pub(crate) fn wire_size(first_line: usize, headers: &HeaderMap) -> u64 {
    // ": " and CRLF for each, and the empty line.
    let fields: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    (first_line + fields + 2) as u64
}

fn strip(headers: &mut HeaderMap, kept: &[HeaderName]) {
    if headers.contains_key(header::CONNECTION) {
        let named: Vec<HeaderName> =
            named_by_connection(headers).filter_map(|name| name.parse().ok()).collect();
        for name in named.iter().filter(|name| !kept.contains(name) && !is_framing(name)) {
            headers.remove(name);
        }
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
}

/// A client that lists these in Connection must not make the body or the host disappear.
fn is_framing(name: &HeaderName) -> bool {
    [header::CONTENT_LENGTH, header::HOST].contains(name)
}

fn named_by_connection(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(header::CONNECTION).iter();
    values.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).map(str::trim)
}

fn accepts_trailers(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::TE).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|coding| coding.trim().eq_ignore_ascii_case("trailers"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v))).collect()
    }

    #[test]
    fn only_what_belongs_to_the_hop_goes() {
        let mut request = headers(&[
            ("host", "x"),
            ("connection", "keep-alive, X-Hop, content-length"),
            ("keep-alive", "timeout=5"),
            ("x-hop", "1"),
            ("x-end", "2"),
            ("content-length", "3"),
            ("te", "gzip, trailers"),
        ]);
        request_hop(&mut request);
        assert_eq!(
            request,
            headers(&[("host", "x"), ("x-end", "2"), ("content-length", "3"), ("te", "trailers")])
        );
    }

    #[test]
    fn an_upgrade_needs_both_headers() {
        assert!(upgrade(&headers(&[("upgrade", "websocket")])).is_none());
        assert!(
            upgrade(&headers(&[("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")])).is_some()
        );
    }
}
