//! `redirect` and `directResponse`: answers without a destination (spec/istio.md 1A, 4.3).

use umbra_index::api::{HttpBody, HttpDirectResponse, HttpRedirect};
use umbra_routing::{DirectResponse, Redirect, RedirectPath, RedirectPort};

use super::base64;
use crate::finding::Reason;
use crate::report::Report;

/// The codes that an answer with an address may have; Envoy has no action for others.
const REDIRECT_CODES: [u16; 5] = [301, 302, 303, 307, 308];
/// Istio refuses a longer body, and warns from a tenth of it.
const BODY_MAX_BYTES: usize = 1024 * 1024;
const BODY_LARGE_BYTES: usize = 100 * 1024;

/// Reads the redirect at `path`.
pub(crate) fn redirect(report: &mut Report, path: &str, redirect: &HttpRedirect) -> Redirect {
    report.unsupported(path, &redirect.rest);
    let says_where = redirect.uri.is_some()
        || redirect.prefix_rewrite.is_some()
        || redirect.authority.is_some()
        || redirect.scheme.is_some()
        || redirect.port.is_some();
    if !says_where {
        let message = "gives no address; set one of uri, prefixRewrite, authority, port and scheme";
        report.reject(Reason::Invalid, path, message);
    }
    Redirect {
        code: code(report, path, redirect),
        path: new_path(report, path, redirect),
        authority: redirect.authority.clone().filter(|authority| !authority.is_empty()),
        scheme: scheme(report, path, redirect),
        port: port(report, path, redirect),
    }
}

fn code(report: &mut Report, path: &str, redirect: &HttpRedirect) -> u16 {
    let code = redirect.redirect_code.filter(|code| *code != 0).unwrap_or(301);
    match u16::try_from(code).ok().filter(|code| REDIRECT_CODES.contains(code)) {
        Some(code) => code,
        None => {
            let message = format!("{code} is not a redirect umbra can make; use 301, 302, 303, 307 or 308");
            report.reject(Reason::Invalid, format!("{path}.redirectCode"), message);
            301
        }
    }
}

fn new_path(report: &mut Report, path: &str, redirect: &HttpRedirect) -> Option<RedirectPath> {
    match (&redirect.uri, &redirect.prefix_rewrite) {
        (Some(_), Some(_)) => {
            let message = "uri and prefixRewrite both replace the path; keep one";
            report.reject(Reason::Invalid, format!("{path}.prefixRewrite"), message);
            None
        }
        (Some(uri), None) => Some(RedirectPath::Whole(uri.clone())).filter(|_| !uri.is_empty()),
        (None, Some(prefix)) => Some(RedirectPath::Prefix(prefix.clone())),
        (None, None) => None,
    }
}

fn scheme(report: &mut Report, path: &str, redirect: &HttpRedirect) -> Option<String> {
    let scheme = redirect.scheme.clone().filter(|scheme| !scheme.is_empty())?;
    if scheme != "http" && scheme != "https" {
        let message = format!("{scheme:?} is not a scheme of a redirect; use http or https");
        report.reject(Reason::Invalid, format!("{path}.scheme"), message);
    }
    Some(scheme)
}

fn port(report: &mut Report, path: &str, redirect: &HttpRedirect) -> Option<RedirectPort> {
    let mut invalid =
        |field: &str, message: String| report.reject(Reason::Invalid, format!("{path}.{field}"), message);
    match (redirect.port, redirect.derive_port.as_deref()) {
        (Some(_), Some(_)) => {
            invalid("derivePort", "port and derivePort both choose the port; keep one".to_owned());
            None
        }
        (Some(port), None) => match u16::try_from(port).ok().filter(|port| *port > 0) {
            Some(port) => Some(RedirectPort::Number(port)),
            None => {
                invalid("port", format!("{port} is not a port; use 1 to 65535"));
                None
            }
        },
        (None, Some("FROM_PROTOCOL_DEFAULT")) => Some(RedirectPort::OfScheme),
        (None, Some("FROM_REQUEST_PORT")) => Some(RedirectPort::OfService),
        (None, Some(word)) => {
            let message = format!("{word:?} is not known; use FROM_PROTOCOL_DEFAULT or FROM_REQUEST_PORT");
            invalid("derivePort", message);
            None
        }
        (None, None) => None,
    }
}

/// Reads the answer at `path`.
pub(crate) fn direct(report: &mut Report, path: &str, answer: &HttpDirectResponse) -> DirectResponse {
    report.unsupported(path, &answer.rest);
    let status = u16::try_from(answer.status).ok().filter(|status| (200..=600).contains(status));
    if status.is_none() {
        let message = format!("{} is not the status of an answer; use 200 to 600", answer.status);
        report.reject(Reason::Invalid, format!("{path}.status"), message);
    }
    let body = answer.body.as_ref().map(|body| bytes(report, &format!("{path}.body"), body));
    DirectResponse { status: status.unwrap_or_default(), body: body.unwrap_or_default() }
}

fn bytes(report: &mut Report, path: &str, body: &HttpBody) -> Vec<u8> {
    report.unsupported(path, &body.rest);
    let bytes = match (&body.string, &body.bytes) {
        (Some(_), Some(_)) => {
            report.reject(Reason::Invalid, path, "string and bytes are both given; keep one");
            Vec::new()
        }
        (Some(text), None) => text.clone().into_bytes(),
        (None, Some(encoded)) => base64::decode(encoded).unwrap_or_else(|| {
            report.reject(Reason::Invalid, format!("{path}.bytes"), "is not base64; encode the bytes");
            Vec::new()
        }),
        (None, None) => Vec::new(),
    };
    if bytes.len() > BODY_MAX_BYTES {
        let message = format!("has {} bytes; at most {BODY_MAX_BYTES} are allowed", bytes.len());
        report.reject(Reason::Invalid, path, message);
    } else if bytes.len() > BODY_LARGE_BYTES {
        let message = format!("has {} bytes, which every node keeps in memory; better serve it", bytes.len());
        report.note(Reason::PartiallyInvalid, path, message);
    }
    bytes
}
