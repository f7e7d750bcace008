//! Conditions on requests.

use std::collections::BTreeMap;

use super::problem::Field;
use super::{names, numbers};
use crate::header_name::is_token;
use crate::{HttpMatchRequest, StringMatch};

/// Istio's bound (spec/istio.md 1A).
const MAX_REGEX: usize = 1024;
/// What a gateway makes of a token; between pods there is none.
const CLAIMS: &str = "@request.auth.claims";

/// One block of conditions; `mesh` when it applies to calls between pods.
pub(super) fn block(block: &HttpMatchRequest, mesh: bool, field: &mut Field<'_>) {
    if let Some(uri) = &block.uri {
        text(uri, &mut field.at("uri"));
    }
    let parts = [("scheme", &block.scheme), ("method", &block.method), ("authority", &block.authority)];
    for (name, condition) in parts {
        if let Some(condition) = condition {
            let mut field = field.at(name);
            text(condition, &mut field);
            if condition.prefix.as_deref() == Some("") {
                field.at("prefix").error(format!("is empty; leave {name} out to match every one"));
            }
        }
    }
    headers("headers", &block.headers, mesh, field);
    headers("withoutHeaders", &block.without_headers, mesh, field);
    for (name, condition) in &block.query_params {
        let mut field = field.entry("queryParams", name);
        text(condition, &mut field);
        presence_by_prefix(condition, "parameter", &mut field);
    }
    if let Some(port) = block.port {
        numbers::port(port, &mut field.at("port"));
    }
    names::labels(&block.source_labels, "sourceLabels", field);
    names::namespace_if_any(block.source_namespace.as_ref(), "sourceNamespace", field);
    for (index, gateway) in block.gateways.iter().enumerate() {
        names::gateway(gateway, &mut field.item("gateways", index));
    }
}

fn headers(list: &str, conditions: &BTreeMap<String, StringMatch>, mesh: bool, field: &mut Field<'_>) {
    for (name, condition) in conditions {
        let mut field = field.entry(list, name);
        if name.starts_with(CLAIMS) {
            if mesh {
                field.error("claims are known to gateways only; remove the condition, or set gateways");
            }
        } else if !is_token(name.strip_prefix(':').unwrap_or(name)) {
            field.error("is not the name of a header (RFC 9110 5.6.2)");
        }
        text(condition, &mut field);
        presence_by_prefix(condition, "header", &mut field);
    }
}

fn presence_by_prefix(condition: &StringMatch, what: &str, field: &mut Field<'_>) {
    if condition.prefix.as_deref() == Some("") {
        field.at("prefix").error(format!("is empty; use {{}} to ask for the {what}'s presence"));
    }
}

/// One form, and a regex that is one. That it compiles is said elsewhere.
pub(super) fn text(condition: &StringMatch, field: &mut Field<'_>) {
    let forms = [&condition.exact, &condition.prefix, &condition.regex];
    if forms.into_iter().flatten().count() > 1 {
        field.error("has more than one of exact, prefix and regex; keep one");
    }
    if let Some(regex) = &condition.regex {
        self::regex(regex, &mut field.at("regex"));
    }
}

pub(super) fn regex(regex: &str, field: &mut Field<'_>) {
    if regex.is_empty() {
        field.error("is empty; use \".*\" to match everything");
    } else if regex.len() > MAX_REGEX {
        field.error(format!(
            "invalid regex: {} bytes, at most {MAX_REGEX} are allowed; split it",
            regex.len()
        ));
    }
}
