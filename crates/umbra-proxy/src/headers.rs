//! Headers that end at each hop (RFC 9110 section 7.6.1). Everything else passes as it came.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Uri, Version};

/// Fields that belong to one connection even when Connection does not name them.
const HOP_BY_HOP: [HeaderName; 6] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::UPGRADE,
];

/// What Envoy's clients ask their proxy for. Here the rule alone decides, and no backend is to take it for its own
/// (spec/istio.md 4.2).
const FOR_THE_PROXY: [HeaderName; 3] = [
    HeaderName::from_static("x-envoy-max-retries"),
    HeaderName::from_static("x-envoy-retry-on"),
    HeaderName::from_static("x-envoy-upstream-rq-timeout-ms"),
];

/// What of a request's fields this proxy itself heeds, noticed in one look through them: most heads have next to none of it,
/// and to ask a map for each name takes several times as long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Noticed {
    /// How many Host headers there are.
    hosts: usize,
    /// Something of [`request_hop`].
    pub(crate) ends_here: bool,
    pub(crate) has_upgrade: bool,
    pub(crate) has_content_type: bool,
    pub(crate) has_forwarded_proto: bool,
}

impl Noticed {
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let mut noticed = Self::default();
        for name in headers.iter().map(|(name, _)| name.as_str()) {
            match name {
                "host" => noticed.hosts += 1,
                "content-type" => noticed.has_content_type = true,
                "x-forwarded-proto" => noticed.has_forwarded_proto = true,
                name => {
                    noticed.has_upgrade |= name == "upgrade";
                    noticed.ends_here |= is_of_a_hop(name);
                }
            }
        }
        noticed
    }
}

/// A field of either list, `TE` or `Transfer-Encoding`. Most heads have none of them, and are looked through once.
fn is_of_a_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "upgrade"
            | "te"
            | "transfer-encoding"
            | "x-envoy-max-retries"
            | "x-envoy-retry-on"
            | "x-envoy-upstream-rq-timeout-ms"
    )
}

/// Takes what ends here out of a request. `Transfer-Encoding` stays: the body is framed by it. `TE: trailers` stays: it is
/// what lets trailers come back. Only worth it where [`Noticed::ends_here`].
pub(crate) fn request_hop(headers: &mut HeaderMap) {
    let trailers = accepts_trailers(headers);
    strip(headers, &[header::TRANSFER_ENCODING]);
    headers.remove(header::TE);
    for name in &FOR_THE_PROXY {
        headers.remove(name);
    }
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
}

/// Takes what ends here out of an answer, which is framed anew for the client's version of HTTP.
pub(crate) fn answer_hop(headers: &mut HeaderMap) {
    if !headers.keys().any(|name| is_of_a_hop(name.as_str())) {
        return;
    }
    strip(headers, &[]);
    headers.remove(header::TRANSFER_ENCODING);
}

/// Takes what only HTTP/1 has out of a request (RFC 9113 section 8.2.2): how it is framed, and what a rule has put in.
pub(crate) fn http2_hop(headers: &mut HeaderMap) {
    if !headers.keys().any(|name| is_of_a_hop(name.as_str())) {
        return;
    }
    for name in [header::TRANSFER_ENCODING, header::UPGRADE, header::CONNECTION] {
        headers.remove(name);
    }
}

/// The protocol that a message wants to switch to, if it does.
pub(crate) fn upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let to = headers.get(header::UPGRADE)?;
    let wanted = named_by_connection(headers).any(|name| name.eq_ignore_ascii_case("upgrade"));
    wanted.then(|| to.clone())
}

/// Takes an upgrade to HTTP/2 out of a request: whoever offers it goes on with HTTP/1 (RFC 9113 section 3.1 has abolished
/// it), and as a request like any other it can be routed and copied.
pub(crate) fn decline_h2c(headers: &mut HeaderMap) {
    let Some(offered) = headers.get(header::UPGRADE).and_then(|value| value.to_str().ok()) else { return };
    let is_h2c = |protocol: &&str| protocol.trim().eq_ignore_ascii_case("h2c");
    if !offered.split(',').any(|protocol| is_h2c(&protocol)) {
        return;
    }
    let others: Vec<&str> = offered.split(',').filter(|protocol| !is_h2c(protocol)).map(str::trim).collect();
    match HeaderValue::from_str(&others.join(", ")) {
        Ok(others) if !others.is_empty() => drop(headers.insert(header::UPGRADE, others)),
        _ => drop(headers.remove(header::UPGRADE)),
    }
    headers.remove("http2-settings");
}

/// Whether a request says once which host it is for, as HTTP/1.1 and HTTP/2 demand; an error is what to tell its client
/// (RFC 9112 section 3.2, RFC 9113 section 8.3.1).
pub(crate) fn check_host(
    version: Version,
    uri: &Uri,
    (headers, Noticed { hosts, .. }): (&HeaderMap, Noticed),
) -> Result<(), &'static str> {
    if hosts > 1 {
        return Err("a request may have one Host header only\n");
    }
    match (version, uri.authority()) {
        (Version::HTTP_2, Some(authority)) if authority.as_str().contains('@') => {
            Err(":authority may name no user\n")
        }
        (Version::HTTP_2, Some(authority)) => {
            let same =
                |host: &HeaderValue| host.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes());
            let agrees = headers.get(header::HOST).is_none_or(same);
            agrees.then_some(()).ok_or("Host is another than :authority\n")
        }
        (Version::HTTP_2, None) if hosts == 0 => Err("a request of HTTP/2 needs an :authority\n"),
        (version, _) if version >= Version::HTTP_11 && hosts == 0 => {
            Err("a request of HTTP/1.1 needs a Host header\n")
        }
        _ => Ok(()),
    }
}

/// Makes one header of the crumbs that HTTP/2 may send cookies in (RFC 9113 section 8.2.3).
pub(crate) fn join_cookies(headers: &mut HeaderMap) {
    let crumbs: Vec<&[u8]> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if crumbs.len() < 2 {
        return;
    }
    let joined =
        HeaderValue::from_bytes(&crumbs.join(b"; ".as_slice())).expect("values, with \"; \" between them");
    headers.insert(header::COOKIE, joined);
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
            ("x-envoy-retry-on", "5xx"),
        ]);
        request_hop(&mut request);
        assert_eq!(
            request,
            headers(&[("host", "x"), ("x-end", "2"), ("content-length", "3"), ("te", "trailers")])
        );
    }

    #[test]
    fn every_field_of_a_hop_is_looked_for() {
        for name in HOP_BY_HOP.iter().chain(&FOR_THE_PROXY).chain(&[header::TE, header::TRANSFER_ENCODING]) {
            assert!(is_of_a_hop(name.as_str()), "{name}");
            let noticed = Noticed::of(&HeaderMap::from_iter([(name.clone(), HeaderValue::from_static("x"))]));
            assert!(noticed.ends_here, "{name}");
            assert_eq!(noticed.has_upgrade, *name == header::UPGRADE);
        }
    }

    #[test]
    fn an_offer_of_h2c_is_declined_and_others_stay() {
        let offer = |protocols| {
            let fields =
                [("connection", "upgrade, http2-settings"), ("upgrade", protocols), ("http2-settings", "AA")];
            let mut headers = headers(&fields);
            decline_h2c(&mut headers);
            (upgrade(&headers), headers.contains_key("http2-settings"))
        };
        assert_eq!(offer("h2c"), (None, false));
        assert_eq!(offer("H2C, websocket"), (Some(HeaderValue::from_static("websocket")), false));
        assert_eq!(offer("websocket"), (Some(HeaderValue::from_static("websocket")), true));
    }

    #[test]
    fn a_host_is_said_once() {
        let check = |version, uri: &'static str, hosts: &[(&'static str, &'static str)]| {
            let headers = headers(hosts);
            check_host(version, &Uri::from_static(uri), (&headers, Noticed::of(&headers))).is_ok()
        };
        let repeated = {
            let mut headers = headers(&[("host", "a")]);
            headers.append("host", HeaderValue::from_static("a"));
            headers
        };
        for version in [Version::HTTP_10, Version::HTTP_11, Version::HTTP_2] {
            assert!(check(version, "/", &[("host", "a")]), "{version:?}");
            assert_eq!(check(version, "/", &[]), version == Version::HTTP_10, "{version:?}");
            let repeated = (&repeated, Noticed::of(&repeated));
            assert!(check_host(version, &Uri::from_static("/"), repeated).is_err(), "{version:?}");
        }
        assert!(check(Version::HTTP_2, "http://a:80/", &[]));
        assert!(check(Version::HTTP_2, "http://a:80/", &[("host", "A:80")]));
        assert!(!check(Version::HTTP_2, "http://a:80/", &[("host", "b:80")]));
        assert!(!check(Version::HTTP_2, "http://root@a:80/", &[]));
    }

    #[test]
    fn cookie_crumbs_become_one_header() {
        let mut crumbs = headers(&[("cookie", "a=1"), ("x", "1")]);
        crumbs.append("cookie", HeaderValue::from_static("b=2"));
        crumbs.append("cookie", HeaderValue::from_static("c=3; d=4"));
        join_cookies(&mut crumbs);
        assert_eq!(crumbs, headers(&[("cookie", "a=1; b=2; c=3; d=4"), ("x", "1")]));
    }

    #[test]
    fn an_upgrade_needs_both_headers() {
        assert!(upgrade(&headers(&[("upgrade", "websocket")])).is_none());
        assert!(
            upgrade(&headers(&[("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")])).is_some()
        );
    }
}
