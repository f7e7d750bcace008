//! `rewrite`: another path and authority for the destination (spec/istio.md 1A, 4.3).

use umbra_index::api::{HttpRewrite, RegexRewrite};
use umbra_routing::{PathRewrite, Rewrite, StringMatch};

use crate::finding::Reason;
use crate::matches::one_line;
use crate::report::Report;

/// Reads the rewrite at `path`.
pub(crate) fn rewrite(report: &mut Report, path: &str, rewrite: &HttpRewrite) -> Rewrite {
    report.unsupported(path, &rewrite.rest);
    let authority = rewrite.authority.clone().filter(|authority| !authority.is_empty());
    let uri = rewrite.uri.clone().filter(|uri| !uri.is_empty());
    if uri.is_none() && authority.is_none() && rewrite.uri_regex_rewrite.is_none() {
        report.reject(Reason::Invalid, path, "changes nothing; set uri, uriRegexRewrite or authority");
    }
    if uri.is_some() && rewrite.uri_regex_rewrite.is_some() {
        let message = "uri and uriRegexRewrite both replace the path; keep one";
        report.reject(Reason::Invalid, format!("{path}.uriRegexRewrite"), message);
    }
    let by_regex = rewrite.uri_regex_rewrite.as_ref();
    let by_regex = by_regex.map(|regex| regex_rewrite(report, &format!("{path}.uriRegexRewrite"), regex));
    Rewrite { path: uri.map(PathRewrite::Matched).or(by_regex), authority }
}

fn regex_rewrite(report: &mut Report, path: &str, regex: &RegexRewrite) -> PathRewrite {
    report.unsupported(path, &regex.rest);
    for (field, text) in [("match", &regex.pattern), ("rewrite", &regex.rewrite)] {
        if text.is_empty() {
            let message = "is missing; uriRegexRewrite needs both match and rewrite";
            report.reject(Reason::Invalid, format!("{path}.{field}"), message);
        }
    }
    if let Err(error) = StringMatch::Regex(regex.pattern.clone()).check() {
        report.reject(Reason::Invalid, format!("{path}.match"), one_line(&error));
    }
    if !is_substitution(&regex.rewrite) {
        let message = "a \\ stands before a digit, for a group, or before another \\";
        report.reject(Reason::Invalid, format!("{path}.rewrite"), message);
    }
    PathRewrite::Regex { pattern: regex.pattern.clone(), substitution: regex.rewrite.clone() }
}

/// RE2's rule for what follows a backslash.
fn is_substitution(text: &str) -> bool {
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character == '\\' && !characters.next().is_some_and(|next| next.is_ascii_digit() || next == '\\') {
            return false;
        }
    }
    true
}
