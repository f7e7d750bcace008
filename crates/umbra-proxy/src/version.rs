//! Versions of HTTP: which one is spoken on a connection, and what a request looks like in it.
//!
//! Takes: a request as rules left it: the target is a path, the host a header. Gives: which version it is sent in, and the
//! same request for a connection of HTTP/2. Never decides where it goes.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::{Authority, Scheme};
use http::{Method, Request, Uri, Version};
use umbra_routing::SpokenTo;

use crate::headers;

/// What is spoken on one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum HttpVersion {
    /// HTTP/1.1, or 1.0.
    Http1,
    /// HTTP/2 without TLS, by prior knowledge (RFC 9113 section 3.3).
    Http2,
}

/// What a mark says.
pub(crate) const MARKED: HeaderValue = HeaderValue::from_static("1");

/// The head of a request, whatever it is spoken in.
#[derive(Clone, Copy)]
pub(crate) struct RequestHead<'a> {
    pub(crate) method: &'a Method,
    /// `http` or `https`; HTTP/1 does not say it.
    pub(crate) scheme: &'static str,
    /// Path and query alone.
    pub(crate) uri: &'a Uri,
    /// Host among them.
    pub(crate) headers: &'a HeaderMap,
    /// It asks for another protocol, which only HTTP/1 can.
    pub(crate) switches: bool,
    /// A field of ours that says that this is a copy.
    pub(crate) mark: Option<&'a HeaderName>,
}

impl HttpVersion {
    /// What endpoints are spoken to on behalf of a client that speaks this.
    pub(crate) fn towards(self, endpoints: SpokenTo) -> Self {
        match endpoints {
            SpokenTo::Http1 => Self::Http1,
            SpokenTo::Http2 => Self::Http2,
            SpokenTo::AsClient => self,
        }
    }
}

impl RequestHead<'_> {
    /// The same for a connection of HTTP/2; HTTP/1 has it written down as it is. `named`: what the last one on the connection
    /// named, which need not be looked through again.
    pub(crate) fn for_http2(&self, named: &mut Option<Authority>) -> Request<()> {
        let mut request = Request::new(());
        *request.method_mut() = self.method.clone();
        *request.headers_mut() = self.headers.clone();
        if let Some(mark) = self.mark {
            request.headers_mut().insert(mark, MARKED);
        }
        headers::http2_hop(request.headers_mut());
        address(&mut request, self, named);
        request
    }
}

/// Host becomes `:authority` (RFC 9113 section 8.3.1). A Host that is no authority stays what it is.
fn address(request: &mut Request<()>, head: &RequestHead<'_>, named: &mut Option<Authority>) {
    let headers = request.headers_mut();
    let host = headers.get(header::HOST).and_then(|host| authority(host, named));
    let mut parts = http::uri::Parts::default();
    parts.path_and_query = head.uri.path_and_query().cloned();
    let addressed = host.and_then(|authority| {
        parts.scheme = Some(if head.scheme == "https" { Scheme::HTTPS } else { Scheme::HTTP });
        parts.authority = Some(authority);
        Uri::from_parts(parts).ok()
    });
    match addressed {
        Some(uri) => {
            headers.remove(header::HOST);
            *request.uri_mut() = uri;
            *request.version_mut() = Version::HTTP_2;
        }
        None => *request.uri_mut() = head.uri.clone(),
    }
}

fn authority(host: &HeaderValue, named: &mut Option<Authority>) -> Option<Authority> {
    if named.as_ref().is_none_or(|named| named.as_str().as_bytes() != host.as_bytes()) {
        *named = Authority::try_from(host.as_bytes()).ok();
    }
    named.clone()
}

#[cfg(test)]
mod tests {

    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v))).collect()
    }

    fn sent(fields: &[(&'static str, &'static str)]) -> Request<()> {
        let (uri, headers) = (Uri::from_static("/a?b=c"), headers(fields));
        let method = &Method::GET;
        let (uri, headers) = (&uri, &headers);
        RequestHead { method, scheme: "https", uri, headers, switches: false, mark: None }
            .for_http2(&mut None)
    }

    #[test]
    fn a_ports_version_counts_and_else_the_clients() {
        for client in [HttpVersion::Http1, HttpVersion::Http2] {
            assert_eq!(client.towards(SpokenTo::Http1), HttpVersion::Http1);
            assert_eq!(client.towards(SpokenTo::Http2), HttpVersion::Http2);
            assert_eq!(client.towards(SpokenTo::AsClient), client);
        }
    }

    #[test]
    fn http_2_has_the_host_in_its_address_and_no_hop_by_hop_headers() {
        let fields = [("host", "shop:81"), ("transfer-encoding", "chunked"), ("te", "trailers"), ("x", "1")];
        let request = sent(&fields);
        assert_eq!(request.uri(), "https://shop:81/a?b=c");
        assert_eq!(request.headers(), &headers(&[("te", "trailers"), ("x", "1")]));
    }

    #[test]
    fn a_host_that_is_no_authority_stays_a_header() {
        let request = sent(&[("host", "not a host")]);
        assert_eq!((request.uri().authority(), request.version()), (None, Version::HTTP_11));
        assert_eq!(request.headers(), &headers(&[("host", "not a host")]));
    }
}
