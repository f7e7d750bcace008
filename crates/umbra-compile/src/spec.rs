//! A VirtualService's spec, understood on its own: which rules, with which shares. Names are not looked up here.

use std::collections::BTreeSet;

use umbra_index::api::{Destination, HttpRoute, HttpRouteDestination, Percent, VirtualService};
use umbra_index::{Kind, host};
use umbra_routing::{MIRROR_DENOMINATOR, RequestMatch, ServiceName};

use crate::finding::{Finding, ObjectRef, Reason};
use crate::hold::{HeldMirror, HeldScope};
use crate::matches;
use crate::report::{Report, meaningful};

/// Istio's resolution of a share: 0.0001 % (spec/istio.md 1A, `mirrorPercentage`).
const PER_MILLION_OF_PERCENT: f64 = 10_000.0;

/// A spec as read.
pub(crate) struct Understood<'a> {
    /// The rules, or what stays of the previous ones.
    pub(crate) rules: Result<Vec<RuleSpec<'a>>, HeldScope>,
    pub(crate) findings: BTreeSet<Finding>,
}

/// One rule that can be reached.
pub(crate) struct RuleSpec<'a> {
    pub(crate) name: String,
    pub(crate) matches: Vec<RequestMatch>,
    /// Weight 0 stands only for a destination to look up and not to use.
    pub(crate) destinations: Vec<(u32, Target<'a>)>,
    pub(crate) mirrors: Vec<(u32, Target<'a>)>,
}

/// A destination and where it is written.
pub(crate) struct Target<'a> {
    pub(crate) path: String,
    pub(crate) destination: &'a Destination,
}

/// Whether it applies to calls between pods (spec/istio.md 1A, `gateways`).
pub(crate) fn is_for_mesh(vs: &VirtualService) -> bool {
    vs.spec.gateways.is_empty() || vs.spec.gateways.iter().any(|gateway| gateway == "mesh")
}

/// Reads a spec.
pub(crate) fn understand(vs: &VirtualService) -> Understood<'_> {
    let mut report = Report::new(ObjectRef::new(Kind::VirtualService, &vs.metadata));
    let to_all = |to: &Vec<String>| to.is_empty() || to == &["*"];
    let exported = vs.spec.export_to.as_ref().filter(|to| !to_all(to)).map(|_| "exportTo");
    unsupported(&mut report, "spec", meaningful(&vs.spec.rest).chain(exported).chain(not_http(vs)));
    let mut rules: Vec<RuleSpec<'_>> = Vec::new();
    let mut taken_by = None;
    for (index, route) in vs.spec.http.iter().enumerate() {
        let path = format!("spec.http[{index}]");
        let rule = rule(&mut report, &path, index, route);
        if let Some(catch_all) = taken_by {
            let message = format!("never reached: spec.http[{catch_all}] takes every request; move it up");
            report.note(Reason::UnreachableRule, path, message);
            continue;
        }
        if rule.matches.is_empty() || rule.matches.iter().any(RequestMatch::takes_everything) {
            taken_by = Some(index);
        }
        rules.push(rule);
    }
    let rules = if report.is_accepted() { Ok(rules) } else { Err(held_scope(vs)) };
    Understood { rules, findings: report.into_findings() }
}

/// Rules for connections that are not HTTP.
pub(crate) fn not_http(vs: &VirtualService) -> impl Iterator<Item = &str> {
    let given = [("tls", !vs.spec.tls.is_empty()), ("tcp", !vs.spec.tcp.is_empty())];
    given.into_iter().filter_map(|(field, given): (&str, bool)| given.then_some(field))
}

fn unsupported<'f>(report: &mut Report, path: &str, fields: impl Iterator<Item = &'f str>) {
    for field in fields {
        let message = format!(
            "umbra does not support {field}; the VirtualService keeps the rules it had, if any, until {field} is removed"
        );
        report.reject(Reason::UnsupportedField, format!("{path}.{field}"), message);
    }
}

fn rule<'a>(report: &mut Report, path: &str, index: usize, route: &'a HttpRoute) -> RuleSpec<'a> {
    unsupported(report, path, meaningful(&route.rest).chain(not_yet(route)));
    let blocks = route.matches.iter().enumerate();
    let matches =
        blocks.map(|(at, block)| matches::block(report, &format!("{path}.match[{at}]"), block)).collect();
    let name = route.name.clone().filter(|name| !name.is_empty());
    RuleSpec {
        name: name.unwrap_or_else(|| format!("http[{index}]")),
        matches,
        destinations: destinations(report, path, route),
        mirrors: mirrors(report, path, route),
    }
}

/// Actions that are typed and not compiled yet. An empty one says nothing.
fn not_yet(route: &HttpRoute) -> impl Iterator<Item = &str> {
    let given = [
        ("headers", says(&route.headers)),
        ("redirect", says(&route.redirect)),
        ("directResponse", says(&route.direct_response)),
        ("delegate", says(&route.delegate)),
        ("rewrite", says(&route.rewrite)),
        ("timeout", says(&route.timeout)),
        ("retries", says(&route.retries)),
        ("fault", says(&route.fault)),
        ("corsPolicy", says(&route.cors_policy)),
    ];
    given.into_iter().filter_map(|(field, given): (&str, bool)| given.then_some(field))
}

fn says<T: Default + PartialEq>(field: &Option<T>) -> bool {
    field.as_ref().is_some_and(|field| *field != T::default())
}

/// A single destination gets everything whatever its weight; several share by weight.
fn destinations<'a>(report: &mut Report, path: &str, route: &'a HttpRoute) -> Vec<(u32, Target<'a>)> {
    if route.route.is_empty() {
        report.reject(
            Reason::Invalid,
            format!("{path}.route"),
            "the rule sends requests nowhere; add a destination",
        );
    }
    let single = route.route.len() == 1;
    let mut destinations = Vec::new();
    for (at, entry) in route.route.iter().enumerate() {
        let path = format!("{path}.route[{at}]");
        unsupported(report, &path, meaningful(&entry.rest).chain(says(&entry.headers).then_some("headers")));
        let weight = if single { 1 } else { weight(report, &path, entry) };
        destinations.push((weight, target(report, format!("{path}.destination"), &entry.destination)));
    }
    if !single && !destinations.is_empty() && destinations.iter().all(|(weight, _)| *weight == 0) {
        report.reject(
            Reason::Invalid,
            format!("{path}.route"),
            "the weights add up to 0; give at least one a weight",
        );
    }
    destinations
}

fn weight(report: &mut Report, path: &str, entry: &HttpRouteDestination) -> u32 {
    let weight = entry.weight.unwrap_or(0);
    u32::try_from(weight).unwrap_or_else(|_| {
        report.reject(
            Reason::Invalid,
            format!("{path}.weight"),
            format!("{weight} is not a weight; give 0 to 100"),
        );
        0
    })
}

fn target<'a>(report: &mut Report, path: String, destination: &'a Destination) -> Target<'a> {
    unsupported(report, &path, meaningful(&destination.rest));
    if let Some(port) = &destination.port {
        unsupported(report, &format!("{path}.port"), meaningful(&port.rest));
    }
    Target { path, destination }
}

/// `mirror` and `mirrors` both copy (spec/istio.md 4.8); a share of 0 is no mirror.
fn mirrors<'a>(report: &mut Report, path: &str, route: &'a HttpRoute) -> Vec<(u32, Target<'a>)> {
    let one = route
        .mirror
        .iter()
        .map(|mirror| (mirror_share(report, path, route), target(report, format!("{path}.mirror"), mirror)));
    let mut mirrors: Vec<_> = one.collect();
    for (at, policy) in route.mirrors.iter().enumerate() {
        let path = format!("{path}.mirrors[{at}]");
        unsupported(report, &path, meaningful(&policy.rest));
        let share = policy.percentage.as_ref();
        let share = share.map_or(MIRROR_DENOMINATOR, |share| per_million(report, &path, "percentage", share));
        mirrors.push((share, target(report, format!("{path}.destination"), &policy.destination)));
    }
    mirrors.retain(|(share, _)| *share > 0);
    mirrors
}

/// The share of `mirror`: the newer field beats the older ones, and none at all means everything.
fn mirror_share(report: &mut Report, path: &str, route: &HttpRoute) -> u32 {
    if let Some(percentage) = &route.mirror_percentage {
        return per_million(report, path, "mirrorPercentage", percentage);
    }
    match route.mirror_percent.or(route.mirror_percent_snake) {
        Some(percent) => share(percent as f64),
        None => MIRROR_DENOMINATOR,
    }
}

fn per_million(report: &mut Report, path: &str, field: &str, percent: &Percent) -> u32 {
    unsupported(report, &format!("{path}.{field}"), meaningful(&percent.rest));
    share(percent.value)
}

/// Truncates as Istio does; above 100 means all, negative (or no number) none.
fn share(percent: f64) -> u32 {
    if percent >= 100.0 {
        MIRROR_DENOMINATOR
    } else if percent > 0.0 {
        (percent * PER_MILLION_OF_PERCENT) as u32
    } else {
        0
    }
}

/// What an invalid spec still says of its mirrors.
fn held_scope(vs: &VirtualService) -> HeldScope {
    let mut ignored = Report::new(ObjectRef::new(Kind::VirtualService, &vs.metadata));
    let mirrors = vs.spec.http.iter().flat_map(|route| mirrors(&mut ignored, "", route));
    let named = mirrors.filter_map(|(_, target)| {
        let to = target.destination;
        let service = host::service_of(&to.host, &vs.metadata.namespace)?;
        Some(HeldMirror {
            service: ServiceName::new(service.namespace, service.name),
            subset: to.subset.clone().filter(|subset| !subset.is_empty()),
            port: to.port.as_ref().map(|port| u16::try_from(port.number).unwrap_or(0)),
        })
    });
    HeldScope { uid: vs.metadata.uid.clone(), mirrors_still_named: named.collect() }
}
