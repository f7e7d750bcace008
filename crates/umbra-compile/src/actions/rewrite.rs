//! `rewrite`: another path and authority for the destination (spec/istio.md 1A, 4.3).

use umbra_index::api::{HttpRewrite, RegexRewrite};
use umbra_routing::{PathRewrite, Rewrite, Rule, RuleError};

use crate::finding::Reason;
use crate::matches::bad_regex;
use crate::report::Report;

/// Reads the rewrite at `path`.
pub(crate) fn rewrite(report: &mut Report, path: &str, rewrite: &HttpRewrite) -> Rewrite {
    report.unsupported(path, &rewrite.rest);
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let by_regex = rewrite.uri_regex_rewrite.as_ref();
    let by_regex = by_regex.map(|regex| regex_rewrite(report, &format!("{path}.uriRegexRewrite"), regex));
    Rewrite {
        path: given(&rewrite.uri).map(PathRewrite::Matched).or(by_regex),
        authority: given(&rewrite.authority),
    }
}

/// A node says whether the regex compiles, and whether it has the groups that are asked for.
fn regex_rewrite(report: &mut Report, path: &str, regex: &RegexRewrite) -> PathRewrite {
    report.unsupported(path, &regex.rest);
    let rewrite = PathRewrite::Regex { pattern: regex.pattern.clone(), substitution: regex.rewrite.clone() };
    let alone = Rewrite { path: Some(rewrite.clone()), authority: None };
    match (Rule { rewrite: Some(alone), ..Rule::default() }).check() {
        Ok(()) => {}
        Err(RuleError::Match(error)) => bad_regex(report, format!("{path}.match"), &error),
        Err(error) => report.reject(Reason::Invalid, format!("{path}.rewrite"), error.to_string()),
    }
    rewrite
}
