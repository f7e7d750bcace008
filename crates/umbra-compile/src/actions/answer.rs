//! `redirect` and `directResponse`: answers without a destination (spec/istio.md 1A, 4.3).

use umbra_index::api::values::{self, answer_status, redirect_code};
use umbra_index::api::{HttpDirectResponse, HttpRedirect};
use umbra_routing::{DirectResponse, Redirect, RedirectPath, RedirectPort};

use crate::report::Report;

/// Reads the redirect at `path`.
pub(crate) fn redirect(report: &mut Report, path: &str, redirect: &HttpRedirect) -> Redirect {
    report.unsupported(path, &redirect.rest);
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    Redirect {
        code: redirect_code(redirect.redirect_code).unwrap_or_default(),
        path: new_path(redirect),
        authority: given(&redirect.authority),
        scheme: given(&redirect.scheme),
        port: port(redirect),
    }
}

fn new_path(redirect: &HttpRedirect) -> Option<RedirectPath> {
    match (&redirect.uri, &redirect.prefix_rewrite) {
        (Some(uri), _) => Some(RedirectPath::Whole(uri.clone())).filter(|_| !uri.is_empty()),
        (None, prefix) => prefix.clone().map(RedirectPath::Prefix),
    }
}

fn port(redirect: &HttpRedirect) -> Option<RedirectPort> {
    match (redirect.port, redirect.derive_port.as_deref()) {
        (Some(port), _) => values::port(port).map(RedirectPort::Number),
        (None, Some("FROM_PROTOCOL_DEFAULT")) => Some(RedirectPort::OfScheme),
        (None, Some("FROM_REQUEST_PORT")) => Some(RedirectPort::OfService),
        (None, _) => None,
    }
}

/// Reads the answer at `path`.
pub(crate) fn direct(report: &mut Report, path: &str, answer: &HttpDirectResponse) -> DirectResponse {
    report.unsupported(path, &answer.rest);
    if let Some(body) = &answer.body {
        report.unsupported(&format!("{path}.body"), &body.rest);
    }
    DirectResponse {
        status: answer_status(i64::from(answer.status)).unwrap_or_default(),
        body: answer.body.as_ref().and_then(|body| body.decoded()).unwrap_or_default(),
    }
}
