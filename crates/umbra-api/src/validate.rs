//! Checks of one object that need no other object: what Istio's webhook asks of the fields umbra knows
//! (spec/istio.md 3.1), and what the CRDs' schema asks, since a file never meets an API server.
//!
//! Takes: a plain object. Gives: every problem, with the field's path. Says nothing of fields umbra does not know,
//! and never whether a regex compiles: the compiler of matchers says that.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use crate::{
    Destination, DestinationRule, HttpMatchRequest, HttpRoute, HttpRouteDestination, StringMatch,
    VirtualService,
};

/// Something in an object's spec that makes no sense. The author's to correct.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The field, as `spec.http[0].mirror.host`.
    pub path: String,
    /// What is wrong and the way out.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

impl VirtualService {
    /// All problems, in the order of the fields. None of them is about another object.
    pub fn validate(&self) -> Vec<Problem> {
        let mut problems = Problems::default();
        let spec = &self.spec;
        let for_mesh = spec.gateways.is_empty() || spec.gateways.iter().any(|gateway| gateway == "mesh");
        if spec.hosts.is_empty() {
            problems.add("spec.hosts", "is empty; name the services whose requests the rules govern");
        }
        for (index, host) in spec.hosts.iter().enumerate() {
            let path = format!("spec.hosts[{index}]");
            if host == "*" && for_mesh {
                problems.add(path, "\"*\" is for gateways only; name the services, or set gateways");
            } else if host.parse::<IpAddr>().is_err() {
                host_syntax(host, &path, &mut problems);
            }
        }
        for (index, rule) in spec.http.iter().enumerate() {
            http_route(rule, &format!("spec.http[{index}]"), &mut problems);
        }
        problems.0
    }
}

impl DestinationRule {
    /// All problems, in the order of the fields. None of them is about another object.
    pub fn validate(&self) -> Vec<Problem> {
        let mut problems = Problems::default();
        host_syntax(&self.spec.host, "spec.host", &mut problems);
        let mut names = BTreeSet::new();
        for (index, subset) in self.spec.subsets.iter().enumerate() {
            let path = format!("spec.subsets[{index}].name");
            subset_name(&subset.name, &path, &mut problems);
            if !names.insert(&subset.name) {
                problems.add(path, format!("{:?} appears twice; only the first is used", subset.name));
            }
        }
        problems.0
    }
}

#[derive(Default)]
struct Problems(Vec<Problem>);

impl Problems {
    fn add(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.0.push(Problem { path: path.into(), message: message.into() });
    }
}

fn http_route(rule: &HttpRoute, path: &str, problems: &mut Problems) {
    for (index, block) in rule.matches.iter().enumerate() {
        match_request(block, &format!("{path}.match[{index}]"), problems);
    }
    let answers = rule.redirect.is_some() || rule.direct_response.is_some() || rule.delegate.is_some();
    if rule.route.is_empty() && !answers {
        problems.add(format!("{path}.route"), "is empty; name the destination that users' answers come from");
    }
    for (index, entry) in rule.route.iter().enumerate() {
        destination(&entry.destination, &format!("{path}.route[{index}].destination"), problems);
    }
    weights(&rule.route, path, problems);
    mirrors(rule, path, problems);
}

fn weights(route: &[HttpRouteDestination], path: &str, problems: &mut Problems) {
    let before = problems.0.len();
    for (index, entry) in route.iter().enumerate() {
        if let Some(weight) = entry.weight.filter(|weight| *weight < 0) {
            problems
                .add(format!("{path}.route[{index}].weight"), format!("{weight} is negative; use 0 or more"));
        }
    }
    let none = route.iter().all(|entry| entry.weight.unwrap_or(0) <= 0);
    if route.len() > 1 && none && problems.0.len() == before {
        problems.add(
            format!("{path}.route"),
            "with several destinations at least one needs a weight above 0 (an absent weight is 0)",
        );
    }
}

fn mirrors(rule: &HttpRoute, path: &str, problems: &mut Problems) {
    if let Some(mirror) = &rule.mirror {
        destination(mirror, &format!("{path}.mirror"), problems);
        if !rule.mirrors.is_empty() {
            problems.add(
                format!("{path}.mirrors"),
                "a rule has either mirror or mirrors; move mirror and its percentage into an entry of mirrors",
            );
        }
    }
    for (index, mirror) in rule.mirrors.iter().enumerate() {
        let path = format!("{path}.mirrors[{index}]");
        destination(&mirror.destination, &format!("{path}.destination"), problems);
        percentage(
            mirror.percentage.as_ref().map(|percent| percent.value),
            &format!("{path}.percentage.value"),
            problems,
        );
    }
    percentage(
        rule.mirror_percentage.as_ref().map(|percent| percent.value),
        &format!("{path}.mirrorPercentage.value"),
        problems,
    );
    for (name, percent) in
        [("mirrorPercent", rule.mirror_percent), ("mirror_percent", rule.mirror_percent_snake)]
    {
        if let Some(percent) = percent.filter(|percent| !(0..=100).contains(percent)) {
            problems.add(format!("{path}.{name}"), format!("{percent} is not a percentage; use 0 to 100"));
        }
    }
}

fn percentage(value: Option<f64>, path: &str, problems: &mut Problems) {
    if let Some(value) = value.filter(|value| !(0.0..=100.0).contains(value)) {
        problems.add(path, format!("{value} is not a percentage; use 0 to 100"));
    }
}

fn destination(destination: &Destination, path: &str, problems: &mut Problems) {
    let host = format!("{path}.host");
    if destination.host == "*" {
        problems.add(host, "\"*\" is no destination; name a service");
    } else {
        host_syntax(&destination.host, &host, problems);
    }
    if let Some(subset) = &destination.subset {
        subset_name(subset, &format!("{path}.subset"), problems);
    }
    if let Some(port) = &destination.port
        && !(1..=u32::from(u16::MAX)).contains(&port.number)
    {
        problems.add(format!("{path}.port.number"), format!("{} is no port; use 1 to 65535", port.number));
    }
}

fn match_request(block: &HttpMatchRequest, path: &str, problems: &mut Problems) {
    if let Some(uri) = &block.uri {
        string_match(uri, &format!("{path}.uri"), problems);
    }
    if let Some(method) = &block.method {
        string_match(method, &format!("{path}.method"), problems);
        if method.prefix.as_deref() == Some("") {
            problems.add(format!("{path}.method.prefix"), "is empty; leave method out to match every one");
        }
    }
    for (name, condition) in &block.headers {
        let path = format!("{path}.headers[{name}]");
        if !is_token(name.strip_prefix(':').unwrap_or(name)) {
            problems.add(&path, "is not the name of a header (RFC 9110 5.6.2)");
        }
        string_match(condition, &path, problems);
        if condition.prefix.as_deref() == Some("") {
            problems.add(format!("{path}.prefix"), "is empty; use {} to ask for the header's presence");
        }
    }
}

fn string_match(condition: &StringMatch, path: &str, problems: &mut Problems) {
    let forms = [&condition.exact, &condition.prefix, &condition.regex];
    if forms.into_iter().flatten().count() > 1 {
        problems.add(path, "has more than one of exact, prefix and regex; keep one");
    }
    if condition.regex.as_deref() == Some("") {
        problems.add(format!("{path}.regex"), "is empty; use \".*\" to match everything");
    }
}

/// A DNS name, also one that begins with `*.`; labels as Istio reads them (RFC 1123, letters of either case).
fn host_syntax(host: &str, path: &str, problems: &mut Problems) {
    let name = host.strip_prefix("*.").unwrap_or(host);
    let name = name.strip_suffix('.').unwrap_or(name);
    // 255 is the limit of RFC 1035 2.3.4.
    if host != "*" && (host.len() > 255 || !name.split('.').all(is_label)) {
        problems.add(path, format!("{host:?} is not the name of a service; use the form sa-logic or sa-logic.default.svc.cluster.local"));
    }
}

fn subset_name(name: &str, path: &str, problems: &mut Problems) {
    if !is_label(name) {
        problems.add(path, format!("{name:?} is not a DNS label; use letters, digits and \"-\", at most 63"));
    }
}

/// RFC 1123 2.1, letters of either case.
fn is_label(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

#[cfg(test)]
mod tests;
