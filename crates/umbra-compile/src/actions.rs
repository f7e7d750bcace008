//! What a rule does beside choosing destinations: `spec.http[]`'s actions as nodes get them.
//!
//! Takes: the fields as written. Gives: the wire's types, and in the report what no node could do. Looks nothing up, and
//! judges no value: what `validate()` refuses is read as absent here, in an object whose rules go to no node.

mod answer;
mod cors;
mod fault;
mod headers;
mod retries;
mod rewrite;

use std::num::NonZeroU64;

use umbra_index::api::{HttpRoute, duration};
use umbra_routing::{Answer, Cors, DirectResponse, Fault, Redirect, Retries, Rewrite};

use crate::report::Report;

pub(crate) use headers::{HeaderSpec, combine, headers};
pub(crate) use retries::default_retries;

/// The actions of one rule; `None` is a field that is not written, which a delegate takes from its root.
#[derive(Clone, Debug, Default)]
pub(crate) struct Actions {
    pub(crate) redirect: Option<Redirect>,
    pub(crate) direct: Option<DirectResponse>,
    pub(crate) headers: Option<HeaderSpec>,
    pub(crate) rewrite: Option<Rewrite>,
    pub(crate) timeout_ms: Option<u64>,
    /// Written, and perhaps nothing is sent again.
    pub(crate) retries: Option<Option<Retries>>,
    pub(crate) fault: Option<Fault>,
    /// Written, and perhaps empty.
    pub(crate) cors: Option<Option<Cors>>,
}

fn millis(text: Option<&String>) -> Option<u64> {
    duration::millis(text?).ok().map(NonZeroU64::get)
}

impl Actions {
    /// Reads the actions of the rule at `path`.
    pub(crate) fn read(report: &mut Report, path: &str, rule: &HttpRoute) -> Self {
        let at = |field: &str| format!("{path}.{field}");
        Self {
            redirect: rule.redirect.as_ref().map(|it| answer::redirect(report, &at("redirect"), it)),
            direct: rule.direct_response.as_ref().map(|it| answer::direct(report, &at("directResponse"), it)),
            headers: rule.headers.as_ref().map(|it| headers(report, &at("headers"), it)),
            rewrite: rule.rewrite.as_ref().map(|it| rewrite::rewrite(report, &at("rewrite"), it)),
            timeout_ms: millis(rule.timeout.as_ref()),
            retries: rule.retries.as_ref().map(|it| retries::retries(report, &at("retries"), it)),
            fault: rule.fault.as_ref().map(|it| fault::fault(report, &at("fault"), it)),
            cors: rule.cors_policy.as_ref().map(|it| cors::cors(report, &at("corsPolicy"), it)),
        }
    }

    /// What takes the place of destinations; a redirect beats a direct response.
    pub(crate) fn answer(&self) -> Option<Answer> {
        let redirect = self.redirect.clone().map(Answer::Redirect);
        redirect.or_else(|| self.direct.clone().map(Answer::Direct))
    }

    /// A delegate's actions, with those of its root where it has none; all but a redirect (spec/istio.md 1A).
    pub(crate) fn or_of_root(self, root: &Self) -> Self {
        Self {
            redirect: self.redirect,
            direct: self.direct.or_else(|| root.direct.clone()),
            headers: self.headers.or_else(|| root.headers.clone()),
            rewrite: self.rewrite.or_else(|| root.rewrite.clone()),
            timeout_ms: self.timeout_ms.or(root.timeout_ms),
            retries: self.retries.or_else(|| root.retries.clone()),
            fault: self.fault.or_else(|| root.fault.clone()),
            cors: self.cors.or_else(|| root.cors.clone()),
        }
    }
}
