//! Redirects: the status, and the address to go to (spec/istio.md 1A, HTTPRedirect, and 4.3).

use http::{HeaderValue, StatusCode};

use super::RuleError;
use super::rewrite::replaced;
use crate::action::{self, RedirectPath, RedirectPort};
use crate::head::{RequestHead, split_target};
use crate::matcher::Taken;

/// A redirect, ready to use.
pub(crate) struct Redirect {
    pub(crate) status: StatusCode,
    parts: action::Redirect,
}

impl Redirect {
    pub(crate) fn new(redirect: &action::Redirect) -> Result<Self, RuleError> {
        let status = match redirect.code {
            301 | 302 | 303 | 307 | 308 => StatusCode::from_u16(redirect.code).ok(),
            _ => None,
        };
        let path = redirect.path.as_ref().map(|path| match path {
            RedirectPath::Whole(text) | RedirectPath::Prefix(text) => text,
        });
        let mut texts = [path, redirect.authority.as_ref(), redirect.scheme.as_ref()].into_iter().flatten();
        if let Some(text) = texts.find(|text| text.contains(' ') || HeaderValue::from_str(text).is_err()) {
            return Err(RuleError::Target(text.clone()));
        }
        let status = status.ok_or(RuleError::RedirectCode(redirect.code))?;
        Ok(Self { status, parts: redirect.clone() })
    }

    /// The address; `service_port` is the one that the client connected to.
    pub(crate) fn location(&self, head: &RequestHead<'_>, taken: Taken, service_port: u16) -> String {
        let scheme = self.parts.scheme.as_deref().unwrap_or(head.scheme);
        let port = self.port(service_port);
        let host = match &self.parts.authority {
            Some(authority) => authority,
            None => host(head, scheme, port.is_some()),
        };
        let port = port.map(|port| format!(":{port}")).unwrap_or_default();
        format!("{scheme}://{host}{port}{}", self.target(head.target, taken))
    }

    /// The port that takes the place of Host's. One that is the scheme's own is as if none were asked for; without a
    /// scheme of its own a redirect counts as `http`, whatever `x-forwarded-proto` says, since Istio computes this before
    /// there is a request.
    fn port(&self, service_port: u16) -> Option<u16> {
        let port = match self.parts.port? {
            RedirectPort::Number(port) => port,
            RedirectPort::OfService => service_port,
            RedirectPort::OfScheme => return None,
        };
        let scheme = self.parts.scheme.as_deref().unwrap_or("http");
        (own_port(scheme) != Some(port)).then_some(port)
    }

    /// A query of the redirect's own takes the place of the request's.
    fn target(&self, target: &str, taken: Taken) -> String {
        match &self.parts.path {
            None => target.to_owned(),
            Some(RedirectPath::Prefix(text)) => replaced(taken, target, text),
            Some(RedirectPath::Whole(path)) if path.contains('?') => path.clone(),
            Some(RedirectPath::Whole(path)) => {
                let (old, _) = split_target(target);
                format!("{path}{}", &target[old.len()..])
            }
        }
    }
}

/// Host as sent, without its port when another takes its place, or when it is the own one of a scheme that is left.
fn host<'h>(head: &RequestHead<'h>, scheme: &str, another_port: bool) -> &'h str {
    let (name, port) = split_port(head.authority);
    let is_left = scheme != head.scheme && port.is_some() && port == own_port(head.scheme);
    if another_port || is_left { name } else { head.authority }
}

/// An IPv6 address has colons of its own, in brackets. What follows the last colon and is no number is a port too, that
/// nothing equals.
fn split_port(authority: &str) -> (&str, Option<u16>) {
    match authority.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, port.parse().ok()),
        _ => (authority, None),
    }
}

fn own_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;

    /// From `scheme://host/a/b?x=1`, through a Service's port 9080, by a rule for the prefix `/a`.
    fn location(redirect: action::Redirect, scheme: &str, authority: &str, target: &str) -> String {
        let redirect = Redirect::new(&action::Redirect { code: 301, ..redirect }).expect("a redirect");
        let headers = &HeaderMap::new();
        let head = RequestHead { method: "GET", scheme, authority, target, headers, labels: None };
        redirect.location(&head, Taken::Prefix("/a".len()), 9080)
    }

    fn whole(path: &str) -> action::Redirect {
        action::Redirect { path: Some(RedirectPath::Whole(path.into())), ..Default::default() }
    }

    fn prefix(path: &str) -> action::Redirect {
        action::Redirect { path: Some(RedirectPath::Prefix(path.into())), ..Default::default() }
    }

    fn to(scheme: Option<&str>, authority: Option<&str>, port: Option<RedirectPort>) -> action::Redirect {
        let (scheme, authority) = (scheme.map(Into::into), authority.map(Into::into));
        action::Redirect { scheme, authority, port, ..Default::default() }
    }

    #[test]
    fn the_path_is_replaced_and_the_query_kept_unless_the_redirect_has_its_own() {
        for (redirect, target, expected) in [
            (whole("/new"), "/a/x", "http://h/new"),
            (whole("/new"), "/a?x=1", "http://h/new?x=1"),
            (whole("/new"), "/a?", "http://h/new?"),
            (whole("/new?y"), "/a?x=1", "http://h/new?y"),
            (whole("/new?"), "/a?x=1", "http://h/new?"),
            (prefix("/new/"), "/a/b?x=1", "http://h/new//b?x=1"),
            (prefix("/new"), "/ab", "http://h/newb"),
            (prefix("/"), "/a/x", "http://h//x"),
            (to(None, Some("example.com"), None), "/a/b?x=1&y=%20", "http://example.com/a/b?x=1&y=%20"),
        ] {
            assert_eq!(location(redirect, "http", "h", target), expected, "{target}");
        }
    }

    #[test]
    fn ports_are_those_of_the_new_scheme() {
        let number = |port| Some(RedirectPort::Number(port));
        let https = Some("https");
        for (redirect, scheme, authority, expected) in [
            (to(https, None, number(443)), "http", "h", "https://h/a"),
            (to(https, None, number(443)), "http", "h:80", "https://h/a"),
            (to(https, None, number(443)), "http", "h:8080", "https://h:8080/a"),
            (to(https, None, number(80)), "http", "h", "https://h:80/a"),
            (to(Some("http"), None, number(443)), "http", "h", "http://h:443/a"),
            (to(None, None, number(80)), "http", "h:8080", "http://h:8080/a"),
            (to(None, None, number(8443)), "http", "h:8080", "http://h:8443/a"),
            (to(https, Some("e.com"), number(8443)), "http", "h", "https://e.com:8443/a"),
            (to(None, None, number(8443)), "http", "[::1]", "http://[::1]:8443/a"),
            (to(None, None, number(8443)), "http", "[::1]:8080", "http://[::1]:8443/a"),
            (to(None, Some("e.com"), None), "http", "h:8080", "http://e.com/a"),
            (to(None, None, number(80)), "https", "h", "https://h/a"),
            (to(None, None, number(443)), "https", "h", "https://h:443/a"),
        ] {
            assert_eq!(location(redirect, scheme, authority, "/a"), expected, "{scheme} {authority}");
        }
    }

    #[test]
    fn the_request_port_is_the_services_and_never_hosts() {
        let derived = |scheme, authority| to(scheme, authority, Some(RedirectPort::OfService));
        for (redirect, authority, expected) in [
            (derived(None, None), "h", "http://h:9080/a"),
            (derived(None, None), "h:1234", "http://h:9080/a"),
            (derived(Some("https"), None), "h", "https://h:9080/a"),
            (derived(None, Some("e.com")), "h", "http://e.com:9080/a"),
            (to(None, None, Some(RedirectPort::OfScheme)), "h:1234", "http://h:1234/a"),
            (to(Some("https"), None, Some(RedirectPort::OfScheme)), "h:80", "https://h/a"),
        ] {
            assert_eq!(location(redirect, "http", authority, "/a"), expected, "{authority}");
        }
    }

    #[test]
    fn host_stays_as_sent_but_for_the_port_of_a_scheme_that_is_left() {
        for (scheme, from, authority, expected) in [
            (None, "http", "H.Example:80", "http://H.Example:80/n"),
            (Some("http"), "http", "h:443", "http://h:443/n"),
            (Some("https"), "http", "h:80", "https://h/n"),
            (Some("https"), "http", "h:8080", "https://h:8080/n"),
            (Some("http"), "https", "h:443", "http://h/n"),
            (Some("https"), "http", "h:443", "https://h:443/n"),
            (Some("https"), "http", "[::1]:80", "https://[::1]/n"),
            (Some("https"), "http", "[::80]", "https://[::80]/n"),
            (None, "https", "h", "https://h/n"),
        ] {
            let redirect = action::Redirect { scheme: scheme.map(Into::into), ..whole("/n") };
            assert_eq!(location(redirect, from, authority, "/a"), expected, "{from} {authority}");
        }
    }

    #[test]
    fn only_five_codes_and_texts_of_an_address_make_a_redirect() {
        let made = |code, path: &str| {
            Redirect::new(&action::Redirect { code, ..whole(path) }).map(|made| made.status)
        };
        for code in [301, 302, 303, 307, 308] {
            assert_eq!(made(code, "/n").expect("a redirect").as_u16(), code);
        }
        for code in [0, 200, 300, 304, 305, 309] {
            assert!(matches!(made(code, "/n"), Err(RuleError::RedirectCode(_))), "{code}");
        }
        assert!(matches!(made(301, "/n\n"), Err(RuleError::Target(_))));
        assert!(matches!(made(301, "/a b"), Err(RuleError::Target(_))));
    }
}
