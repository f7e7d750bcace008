//! Mirrors that can be written and are hardly meant: to the primary itself, of no request, of requests that change
//! things.

use umbra_api::{Destination, HttpMatchRequest, HttpRoute, Percent, Severity, StringMatch, VirtualService};
use umbra_index::host;

use super::codes;
use super::finding::Finding;
use super::manifests::Manifests;
use super::references::{self, Target};

/// Methods that ask for a change (RFC 9110 9.2.1).
const UNSAFE: [&str; 4] = ["POST", "PUT", "PATCH", "DELETE"];

pub(super) fn findings(manifests: &Manifests) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (id, vs) in manifests.virtual_services() {
        for (at, rule) in vs.spec.http.iter().enumerate() {
            let mut say = |field: String, code, level, text: String| {
                findings.push(manifests.finding(id.clone(), field, code, level, text));
            };
            for field in shares_of_nothing(rule) {
                let text = "a share of 0 %: no request is copied; raise it, or remove the mirror".to_owned();
                say(format!("spec.http[{at}].{field}"), codes::SHARE_OF_NOTHING, Severity::Warning, text);
            }
            for target in references::mirrors(vs, at).filter(|target| is_primary(vs, at, target)) {
                let text = "the mirror is where users' answers come from, too: it serves these requests twice; name another \
                            subset or service";
                say(target.field, codes::MIRROR_IS_PRIMARY, Severity::Warning, text.to_owned());
            }
            if let Some(field) = copied(rule).filter(|_| may_change_things(rule)) {
                let text = "requests that change things are copied (POST, PUT, PATCH or DELETE): see that the mirror shares no \
                            state with the primary, or ask for safe methods in match";
                say(
                    format!("spec.http[{at}].{field}"),
                    codes::UNSAFE_METHOD,
                    Severity::Info,
                    text.to_owned(),
                );
            }
        }
    }
    findings
}

/// The fields whose share leaves nothing to copy. An empty percentage is 0, and the newer field beats the older ones
/// (spec/istio.md 4.8).
fn shares_of_nothing(rule: &HttpRoute) -> Vec<String> {
    let one = rule.mirror.as_ref().and_then(|_| share_of_mirror(rule)).filter(|(_, share)| *share <= 0.0);
    let entries = rule.mirrors.iter().enumerate();
    let several = entries.filter(|(_, entry)| entry.percentage.as_ref().is_some_and(is_nothing));
    let several = several.map(|(at, _)| format!("mirrors[{at}].percentage"));
    one.map(|(field, _)| field.to_owned()).into_iter().chain(several).collect()
}

fn share_of_mirror(rule: &HttpRoute) -> Option<(&'static str, f64)> {
    let newer = rule.mirror_percentage.as_ref().map(|share| ("mirrorPercentage", share.value));
    let older = rule.mirror_percent.map(|share| ("mirrorPercent", share as f64));
    let oldest = rule.mirror_percent_snake.map(|share| ("mirror_percent", share as f64));
    newer.or(older).or(oldest)
}

fn is_nothing(share: &Percent) -> bool {
    share.value <= 0.0
}

/// The first field with a mirror that gets copies.
fn copied(rule: &HttpRoute) -> Option<String> {
    if rule.mirror.is_some() && share_of_mirror(rule).is_none_or(|(_, share)| share > 0.0) {
        return Some("mirror".to_owned());
    }
    let at = rule.mirrors.iter().position(|entry| !entry.percentage.as_ref().is_some_and(is_nothing))?;
    Some(format!("mirrors[{at}]"))
}

fn is_primary(vs: &VirtualService, rule: usize, mirror: &Target<'_>) -> bool {
    let route = &vs.spec.http[rule].route;
    let used = |at: usize| route.len() == 1 || route[at].weight.unwrap_or(0) > 0;
    let mut primaries = references::primaries(vs, rule).enumerate().filter(|(at, _)| used(*at));
    primaries.any(|(_, primary)| same(&vs.metadata.namespace, primary.destination, mirror.destination))
}

/// As written, but for short names: which port the client uses is not known.
fn same(namespace: &str, a: &Destination, b: &Destination) -> bool {
    let port = |to: &Destination| to.port.as_ref().map(|port| port.number);
    host::full_name(&a.host, namespace) == host::full_name(&b.host, namespace)
        && a.subset_name() == b.subset_name()
        && port(a) == port(b)
}

fn may_change_things(rule: &HttpRoute) -> bool {
    let open = |block: &HttpMatchRequest| {
        let conditions = [block.method.as_ref(), block.headers.get(":method")];
        UNSAFE
            .iter()
            .any(|method| conditions.into_iter().flatten().all(|condition| may_match(condition, method)))
    };
    rule.matches.is_empty() || rule.matches.iter().any(open)
}

/// Errs on the side of yes: of regexes only a list of words is understood.
fn may_match(condition: &StringMatch, method: &str) -> bool {
    if let Some(exact) = &condition.exact {
        return exact == method;
    }
    if let Some(prefix) = &condition.prefix {
        return method.starts_with(prefix.as_str());
    }
    let Some(regex) = &condition.regex else { return true };
    let bare = regex.strip_prefix('^').unwrap_or(regex);
    let bare = bare.strip_suffix('$').unwrap_or(bare);
    let bare = bare.strip_prefix('(').and_then(|bare| bare.strip_suffix(')')).unwrap_or(bare);
    let mut words = bare.split('|');
    let listed = bare.split('|').all(|word| word.bytes().all(|byte| byte.is_ascii_alphabetic()));
    !listed || words.any(|word| word == method)
}
