//! `corsPolicy`: which pages of other origins may call (spec/istio.md 1A, 4.4).

use std::num::NonZeroU64;

use umbra_index::api::{CorsPolicy, duration};
use umbra_routing::{Cors, StringMatch};

use crate::matches::origin;
use crate::report::Report;

/// Reads the policy at `path`; an empty one does nothing.
pub(crate) fn cors(report: &mut Report, path: &str, policy: &CorsPolicy) -> Option<Cors> {
    report.unsupported(path, &policy.rest);
    let max_age = policy.max_age.as_ref().and_then(|text| duration::seconds(text).ok());
    let cors = Cors {
        origins: origins(report, path, policy),
        methods: policy.allow_methods.clone(),
        headers: policy.allow_headers.clone(),
        expose: policy.expose_headers.clone(),
        max_age: max_age.map(NonZeroU64::get),
        credentials: policy.allow_credentials == Some(true),
        // Else they are forwarded.
        ignore_unmatched: policy.unmatched_preflights.as_deref() == Some("IGNORE"),
    };
    (*policy != CorsPolicy::default()).then_some(cors)
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
