//! Rules and match blocks that no request reaches, because others before them take all of theirs. Warnings: Istio
//! and umbra leave them out.

use super::problem::Field;
use crate::{HttpMatchRequest, HttpRoute, StringMatch};

/// Each block is compared with all before it: in an object of many more that would take seconds, for a warning.
const MAX_COMPARED: usize = 2_000;

pub(super) fn check(rules: &[HttpRoute], field: &mut Field<'_>) {
    let mut taken_by = None;
    let is_compared = rules.iter().map(|rule| rule.matches.len()).sum::<usize>() <= MAX_COMPARED;
    for (index, rule) in rules.iter().enumerate() {
        let mut field = field.item("http", index);
        if let Some(first) = taken_by {
            field.unreachable(format!(
                "virtualService rule #{index} not used (only the last rule can have no matches): spec.http[{first}] takes \
                 every request; move that one behind this"
            ));
            continue;
        }
        // A delegate may leave requests over.
        let takes_all = rule.matches.is_empty() || rule.matches.iter().any(takes_everything);
        if takes_all && rule.delegate.is_none() {
            taken_by = Some(index);
        }
        if is_compared {
            blocks(rules, index, &mut field);
        }
    }
}

/// Tells of blocks that an earlier one covers, and of a rule all of whose blocks an earlier rule covers.
fn blocks(rules: &[HttpRoute], index: usize, field: &mut Field<'_>) {
    let rule = &rules[index];
    let covered: Vec<_> = rule.matches.iter().map(|block| covering(&rules[..index], block)).collect();
    if let Some(Some(first)) = covered.first()
        && covered.iter().all(Option::is_some)
    {
        field.unreachable(format!(
            "virtualService rule #{index} not used (all matches are covered, the first by {first}); move it up, or remove it"
        ));
        return;
    }
    for (at, block) in rule.matches.iter().enumerate() {
        let own = || rule.matches[..at].iter().position(|earlier| covers(earlier, block));
        let earlier =
            covered[at].clone().or_else(|| own().map(|own| format!("spec.http[{index}].match[{own}]")));
        if let Some(earlier) = earlier {
            field.item("match", at).ineffective(format!(
                "virtualService rule #{index} match #{at} is not used (covered by {earlier}); remove it"
            ));
        }
    }
}

/// Where the first block stands that takes everything `block` does, and leaves nothing over.
fn covering(rules: &[HttpRoute], block: &HttpMatchRequest) -> Option<String> {
    rules.iter().enumerate().filter(|(_, earlier)| earlier.delegate.is_none()).find_map(|(rule, earlier)| {
        let at = earlier.matches.iter().position(|earlier| covers(earlier, block))?;
        Some(format!("spec.http[{rule}].match[{at}]"))
    })
}

/// No condition, or none that a request could fail (spec/istio.md 1A).
fn takes_everything(block: &HttpMatchRequest) -> bool {
    let any = |part: &Option<StringMatch>| part.as_ref().is_none_or(|asks| *asks == StringMatch::default());
    let uri = block.uri.as_ref().is_none_or(|uri| {
        matches!(uri.prefix.as_deref(), Some("" | "/")) || uri.regex.as_deref() == Some(".*")
    });
    // Every request has these, so that to ask for their presence asks nothing.
    let parts = [&block.scheme, &block.method, &block.authority];
    let bare = HttpMatchRequest {
        name: block.name.clone(),
        stat_prefix: block.stat_prefix.clone(),
        ignore_uri_case: block.ignore_uri_case,
        uri: block.uri.clone(),
        scheme: block.scheme.clone(),
        method: block.method.clone(),
        authority: block.authority.clone(),
        source_namespace: block.source_namespace.clone().filter(String::is_empty),
        ..HttpMatchRequest::default()
    };
    (uri || any(&block.uri)) && parts.into_iter().all(any) && *block == bare
}

/// Whether every request that `later` takes is taken by `earlier`. Errs on the side of no: regexes are compared as
/// text.
fn covers(earlier: &HttpMatchRequest, later: &HttpMatchRequest) -> bool {
    let same_or_any =
        |earlier: &Option<StringMatch>, later: &Option<StringMatch>| earlier.is_none() || earlier == later;
    let among = |earlier: &std::collections::BTreeMap<String, StringMatch>,
                 later: &std::collections::BTreeMap<String, StringMatch>| {
        earlier.iter().all(|(name, condition)| later.get(name) == Some(condition))
    };
    covers_uri(earlier, later)
        && earlier.rest == later.rest
        && earlier.gateways == later.gateways
        && same_or_any(&earlier.scheme, &later.scheme)
        && same_or_any(&earlier.method, &later.method)
        && same_or_any(&earlier.authority, &later.authority)
        && among(&earlier.headers, &later.headers)
        && among(&earlier.without_headers, &later.without_headers)
        && among(&earlier.query_params, &later.query_params)
        && (earlier.port.is_none() || earlier.port == later.port)
        && (earlier.source_namespace.is_none() || earlier.source_namespace == later.source_namespace)
        && earlier.source_labels.iter().all(|(name, value)| later.source_labels.get(name) == Some(value))
}

fn covers_uri(earlier: &HttpMatchRequest, later: &HttpMatchRequest) -> bool {
    let Some(before) = &earlier.uri else { return true };
    let Some(after) = &later.uri else { return false };
    let ignores_case = |block: &HttpMatchRequest| block.ignore_uri_case.unwrap_or(false);
    let same_case = ignores_case(earlier) == ignores_case(later);
    let prefix = before.prefix.as_deref().filter(|_| before.rest.is_empty());
    let text = after.exact.as_deref().or(after.prefix.as_deref());
    same_case && (before == after || prefix.zip(text).is_some_and(|(prefix, text)| text.starts_with(prefix)))
}
