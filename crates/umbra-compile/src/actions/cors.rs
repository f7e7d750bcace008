//! `corsPolicy`: which pages of other origins may call (spec/istio.md 1A, 4.4).

use umbra_index::api::CorsPolicy;
use umbra_routing::{Cors, StringMatch};

use super::duration;
use crate::finding::Reason;
use crate::header_name::is_token;
use crate::matches::origin;
use crate::report::Report;

const METHODS: [&str; 10] =
    ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "CONNECT", "OPTIONS", "TRACE", "*"];

/// Reads the policy at `path`; an empty one does nothing.
pub(crate) fn cors(report: &mut Report, path: &str, policy: &CorsPolicy) -> Option<Cors> {
    report.unsupported(path, &policy.rest);
    names(report, &format!("{path}.allowMethods"), &policy.allow_methods, |name| METHODS.contains(&name));
    for (field, list) in [("allowHeaders", &policy.allow_headers), ("exposeHeaders", &policy.expose_headers)]
    {
        names(report, &format!("{path}.{field}"), list, |name| name == "*" || is_token(name));
    }
    let cors = Cors {
        origins: origins(report, path, policy),
        methods: policy.allow_methods.clone(),
        headers: policy.allow_headers.clone(),
        expose: policy.expose_headers.clone(),
        max_age: max_age(report, path, policy),
        credentials: policy.allow_credentials == Some(true),
        ignore_unmatched: ignores_unmatched(report, path, policy),
    };
    (*policy != CorsPolicy::default()).then_some(cors)
}

fn names(report: &mut Report, path: &str, list: &[String], is_known: impl Fn(&str) -> bool) {
    for (index, name) in list.iter().enumerate().filter(|(_, name)| !is_known(name)) {
        report.reject(
            Reason::Invalid,
            format!("{path}[{index}]"),
            format!("{name:?} cannot be allowed here"),
        );
    }
}

/// The newer list beats the older. Whatever matches the text `*` is any origin to Envoy.
fn origins(report: &mut Report, path: &str, policy: &CorsPolicy) -> Vec<StringMatch> {
    let any_if_star = |origin: StringMatch| match &origin {
        StringMatch::Exact(text) | StringMatch::Prefix(text) if text == "*" => StringMatch::Present,
        _ => origin,
    };
    if policy.allow_origins.is_empty() {
        return policy.allow_origin.iter().cloned().map(StringMatch::Exact).map(any_if_star).collect();
    }
    let all = policy.allow_origins.iter().enumerate();
    let read = all.filter_map(|(at, text)| origin(report, &format!("{path}.allowOrigins[{at}]"), text));
    read.map(any_if_star).collect()
}

fn max_age(report: &mut Report, path: &str, policy: &CorsPolicy) -> Option<u64> {
    const MILLIS_OF_SECOND: u64 = 1000;
    let text = policy.max_age.as_ref()?;
    let problem = match duration::millis(text) {
        Ok(millis) if millis.get().is_multiple_of(MILLIS_OF_SECOND) => {
            return Some(millis.get() / MILLIS_OF_SECOND);
        }
        Ok(_) => format!("{text:?} is not in whole seconds; round it"),
        Err(problem) => problem,
    };
    report.reject(Reason::Invalid, format!("{path}.maxAge"), problem);
    None
}

fn ignores_unmatched(report: &mut Report, path: &str, policy: &CorsPolicy) -> bool {
    match policy.unmatched_preflights.as_deref() {
        None | Some("" | "UNSPECIFIED" | "FORWARD") => false,
        Some("IGNORE") => true,
        Some(word) => {
            let message = format!("{word:?} is not known; use FORWARD or IGNORE");
            report.reject(Reason::Invalid, format!("{path}.unmatchedPreflights"), message);
            false
        }
    }
}
