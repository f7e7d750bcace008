//! What of a request decides about it.
//!
//! Takes: a request's head as the proxy read it. Gives: the texts that conditions and actions ask for. Never owns or
//! changes any of it.

use std::collections::BTreeMap;

use http::{HeaderMap, HeaderName, Version, header};

const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// A request's head, borrowed. Its target is normalised already ([`normalise`](crate::normalise)).
#[derive(Clone, Copy, Debug)]
pub struct RequestHead<'a> {
    /// `:method`.
    pub method: &'a str,
    /// `:scheme`, see [`scheme`].
    pub scheme: &'a str,
    /// Host as sent, letter case and port included.
    pub authority: &'a str,
    /// Path and query, normalised.
    pub target: &'a str,
    /// All headers as sent.
    pub headers: &'a HeaderMap,
    /// The client's pod's labels; `None`: the client is not known, and has none.
    pub labels: Option<&'a BTreeMap<String, String>>,
}

/// A head with its target taken apart, once for all rules.
#[derive(Clone, Copy)]
pub(crate) struct Split<'a> {
    pub(crate) head: &'a RequestHead<'a>,
    pub(crate) path: &'a str,
    /// Without its `?`; `None` differs from a lone `?`.
    pub(crate) query: Option<&'a str>,
}

impl<'a> Split<'a> {
    pub(crate) fn new(head: &'a RequestHead<'a>) -> Self {
        let (path, query) = split_target(head.target);
        Self { head, path, query }
    }
}

/// Path and query; the query starts at the first `?` (spec/istio.md 4.1).
pub(crate) fn split_target(target: &str) -> (&str, Option<&str>) {
    match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    }
}

/// The scheme of a request: on HTTP/1 what the client's `x-forwarded-proto` says, on HTTP/2 `:scheme`
/// (spec/istio.md 4.1). What says neither is `http`, since umbra ends no TLS.
pub fn scheme(version: Version, pseudo_header: Option<&str>, headers: &HeaderMap) -> &'static str {
    let said = match version {
        Version::HTTP_2 => pseudo_header,
        _ => headers.get(&FORWARDED_PROTO).and_then(|value| value.to_str().ok()),
    };
    match said {
        Some(scheme) if scheme.eq_ignore_ascii_case("https") => "https",
        _ => "http",
    }
}

/// The Host of a request that was sent; the URI's authority counts first, as HTTP/2 and absolute targets have it.
pub fn authority<'a>(uri: &'a http::Uri, headers: &'a HeaderMap) -> &'a str {
    let host = || headers.get(header::HOST).and_then(|host| host.to_str().ok());
    uri.authority().map(http::uri::Authority::as_str).or_else(host).unwrap_or_default()
}
