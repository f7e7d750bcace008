//! Redirect, rewrite, direct response, delegate, timeout.

use super::problem::Field;
use super::{matching, names, numbers};
use crate::header_name::is_authority;
use crate::values::{answer_status, redirect_code};
use crate::words::DERIVE_PORT;
use crate::{HttpBody, HttpDirectResponse, HttpRedirect, HttpRewrite, HttpRoute};

/// Istio's bounds of a direct response's body.
const BODY_MAX: usize = 1024 * 1024;
const BODY_LARGE: usize = 100 * 1024;

pub(super) fn check(rule: &HttpRoute, field: &mut Field<'_>) {
    if let Some(redirect) = &rule.redirect {
        self::redirect(redirect, rule, &mut field.at("redirect"));
    }
    if let Some(answer) = &rule.direct_response {
        direct_response(answer, &mut field.at("directResponse"));
    }
    if let Some(delegate) = &rule.delegate {
        let mut field = field.at("delegate");
        if delegate.name.as_deref().unwrap_or_default().is_empty() {
            field.at("name").error("is empty; name the virtual service whose rules stand in");
        }
        names::namespace_if_any(delegate.namespace.as_ref(), "namespace", &mut field);
    }
    if let Some(rewrite) = &rule.rewrite {
        self::rewrite(rewrite, rule, &mut field.at("rewrite"));
    }
    numbers::duration(rule.timeout.as_ref(), "timeout", field);
}

fn redirect(redirect: &HttpRedirect, rule: &HttpRoute, field: &mut Field<'_>) {
    let says = [&redirect.uri, &redirect.prefix_rewrite, &redirect.authority, &redirect.scheme];
    let says = says.into_iter().flatten().any(|text| !text.is_empty());
    if !says && redirect.port.is_none() && redirect.derive_port.is_none() {
        field.error("redirect must specify URI, authority, scheme, or port; add one");
    }
    if redirect.uri.is_some() && redirect.prefix_rewrite.is_some() {
        field.at("prefixRewrite").error("redirect uri and prefixRewrite exclude each other; keep one");
    }
    if redirect.prefix_rewrite.is_some() {
        prefixes_only(rule, field);
    }
    if redirect.port.is_some() && redirect.derive_port.is_some() {
        field.at("derivePort").error("port and derivePort exclude each other; keep one");
    }
    if let Some(port) = redirect.port {
        numbers::port(port, &mut field.at("port"));
    }
    one_of(redirect.derive_port.as_deref(), &DERIVE_PORT, "derivePort", field);
    one_of(redirect.scheme.as_deref(), &["", "http", "https"], "scheme", field);
    if redirect_code(redirect.redirect_code).is_none() {
        let code = redirect.redirect_code.unwrap_or_default();
        field.at("redirectCode").error(format!("{code} redirects nowhere; use 301, 302, 303, 307 or 308"));
    }
}

/// There is a prefix to replace only where one is asked for, or nothing is.
fn prefixes_only(rule: &HttpRoute, field: &mut Field<'_>) {
    let uris = rule.matches.iter().filter_map(|block| block.uri.as_ref());
    if uris.into_iter().any(|uri| uri.exact.is_some() || uri.regex.is_some()) {
        field
            .at("prefixRewrite")
            .error("can only be used with prefix matches of the uri; use uri to replace a whole path");
    }
}

/// A word of a closed list.
pub(super) fn one_of(word: Option<&str>, words: &[&str], name: &str, field: &mut Field<'_>) {
    if let Some(word) = word.filter(|word| !words.contains(word)) {
        let known: Vec<_> = words.iter().copied().filter(|word| !word.is_empty()).collect();
        field.at(name).error(format!("{word:?} is not known; use one of {}", known.join(", ")));
    }
}

fn direct_response(answer: &HttpDirectResponse, field: &mut Field<'_>) {
    http_status(i64::from(answer.status), "status", field);
    if let Some(body) = &answer.body {
        self::body(body, &mut field.at("body"));
    }
}

pub(super) fn http_status(status: i64, name: &str, field: &mut Field<'_>) {
    if answer_status(status).is_none() {
        field.at(name).error(format!("HTTP status {status} is not in range; use 200 to 600"));
    }
}

fn body(body: &HttpBody, field: &mut Field<'_>) {
    let name = if body.string.is_some() { "string" } else { "bytes" };
    let Some(size) = body.decoded().map(|bytes| bytes.len()) else {
        return match (&body.string, &body.bytes) {
            (Some(_), Some(_)) => field.error("has both string and bytes; keep one"),
            _ => field.at(name).error("is not base64; put plain text into string"),
        };
    };
    if size > BODY_MAX {
        field
            .at(name)
            .error(format!("response body size must be less than 1MB, this is {size} bytes; shorten it"));
    } else if size > BODY_LARGE {
        field
            .at(name)
            .warn(format!("large direct response bodies can impact performance, this is {size} bytes"));
    }
}

fn rewrite(rewrite: &HttpRewrite, rule: &HttpRoute, field: &mut Field<'_>) {
    let given = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
    if !given(&rewrite.uri) && !given(&rewrite.authority) && rewrite.uri_regex_rewrite.is_none() {
        field.error("rewrite must specify at least one of URI, uriRegexRewrite and authority; add one");
    }
    if let Some(replaced) = &rewrite.uri_regex_rewrite {
        let mut field = field.at("uriRegexRewrite");
        if given(&rewrite.uri) {
            field.error("rewrite cannot contain both uri and uriRegexRewrite; keep one");
        }
        matching::regex(&replaced.pattern, &mut field.at("match"));
        if replaced.rewrite.is_empty() {
            field.at("rewrite").error("is empty; both match and rewrite are needed");
        }
    }
    let all = rule.headers.iter().chain(rule.route.iter().filter_map(|to| to.headers.as_ref()));
    let mut requests = all.filter_map(|headers| headers.request.as_ref());
    let sets_host =
        requests.any(|request| request.set.keys().chain(request.add.keys()).any(|name| is_authority(name)));
    if given(&rewrite.authority) && sets_host {
        field.at("authority").error("the authority is also set by headers.request; keep one");
    }
}
