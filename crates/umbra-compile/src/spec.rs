//! A VirtualService's spec, understood on its own: which rules, with which shares. Names are not looked up here.

use std::collections::BTreeSet;

use umbra_index::api::VirtualService;
use umbra_index::{Kind, host};
use umbra_routing::ServiceName;

use crate::exported;
use crate::finding::{Finding, ObjectRef, Reason};
use crate::hold::HeldMirror;
use crate::report::{Report, meaningful};
use crate::rule_spec::{self, RuleSpec, Target, not_http};

/// A spec as read.
pub(crate) struct Understood {
    /// All rules that can be reached; of use also in an invalid object, for the mirrors that it still names.
    pub(crate) rules: Vec<RuleSpec>,
    pub(crate) valid: bool,
    pub(crate) findings: BTreeSet<Finding>,
}

/// Whether it applies to calls between pods (spec/istio.md 1A, `gateways`).
pub(crate) fn is_for_mesh(vs: &VirtualService) -> bool {
    vs.spec.gateways.is_empty() || vs.spec.gateways.iter().any(|gateway| gateway == "mesh")
}

/// Its rules are for others to delegate to.
pub(crate) fn is_delegate(vs: &VirtualService) -> bool {
    vs.spec.hosts.is_empty()
}

/// Reads a spec.
pub(crate) fn understand(vs: &VirtualService) -> Understood {
    let mut report = Report::new(ObjectRef::new(Kind::VirtualService, &vs.metadata));
    beside_http(&mut report, vs);
    exported::check(&mut report, vs.spec.export_to.as_deref().unwrap_or_default());
    if is_delegate(vs) {
        of_delegate(&mut report, vs);
    } else {
        hosts(&mut report, vs);
    }
    let mut rules: Vec<RuleSpec> = Vec::new();
    let mut taken_by = None;
    for (index, route) in vs.spec.http.iter().enumerate() {
        let rule = rule_spec::read(&mut report, vs, index, route);
        if let Some(catch_all) = taken_by {
            let message = format!("never reached: spec.http[{catch_all}] takes every request; move it up");
            report.note(Reason::UnreachableRule, format!("spec.http[{index}]"), message);
            continue;
        }
        // A delegate may leave requests over.
        if rule.takes_everything() && rule.delegate.is_none() {
            taken_by = Some(index);
        }
        rules.push(rule);
    }
    Understood { rules, valid: report.is_accepted(), findings: report.into_findings() }
}

/// Rules for other protocols leave those for http as they are.
fn beside_http(report: &mut Report, vs: &VirtualService) {
    for field in not_http(vs) {
        let message = format!("umbra does not support {field}; it is left out, and the http rules are used");
        report.note(Reason::PartiallyInvalid, format!("spec.{field}"), message);
    }
    report.unsupported("spec", &vs.spec.rest);
}

/// What 3.1 asks of a VirtualService without hosts.
fn of_delegate(report: &mut Report, vs: &VirtualService) {
    let gateways = (!vs.spec.gateways.is_empty()).then_some("gateways");
    for field in gateways.into_iter().chain(not_http(vs)) {
        let message =
            "has no place without hosts; name the hosts, or leave http rules only, for others to delegate to";
        report.reject(Reason::Invalid, format!("spec.{field}"), message);
    }
    for (index, _) in vs.spec.http.iter().enumerate().filter(|(_, rule)| rule.delegate.is_some()) {
        let message = "a VirtualService without hosts is a delegate, and a delegate cannot delegate; name its hosts, \
                       or write the rules here";
        report.reject(Reason::Invalid, format!("spec.http[{index}].delegate"), message);
    }
}

/// Hosts of one object that cover each other as they are written, and the host of all (spec/istio.md 3.1).
fn hosts(report: &mut Report, vs: &VirtualService) {
    let names = &vs.spec.hosts;
    for (index, name) in names.iter().enumerate() {
        let path = format!("spec.hosts[{index}]");
        if name == "*" && is_for_mesh(vs) {
            let message = "\"*\" is for gateways only; name the Services, or set gateways";
            report.reject(Reason::Invalid, path, message);
        } else if let Some(other) = names[..index].iter().find(|other| overlap(other, name)) {
            let message = format!("{name:?} and {other:?} are about the same Services; keep one of the two");
            report.reject(Reason::Invalid, path, message);
        }
    }
}

fn overlap(a: &str, b: &str) -> bool {
    a == b || host::covers(a, b) || host::covers(b, a)
}

/// What a spec still says of its mirrors.
pub(crate) fn named_mirrors(rules: &[RuleSpec]) -> BTreeSet<HeldMirror> {
    let mirrors = rules.iter().flat_map(RuleSpec::all_mirrors);
    mirrors.filter_map(|(_, target)| held_mirror(target)).collect()
}

fn held_mirror(target: &Target) -> Option<HeldMirror> {
    let to = &target.destination;
    let service = host::service_of(&to.host, &target.object.key.namespace)?;
    Some(HeldMirror {
        service: ServiceName::new(service.namespace, service.name),
        subset: to.subset.clone().filter(|subset| !subset.is_empty()),
        port: to.port.as_ref().map(|port| u16::try_from(port.number).unwrap_or(0)),
    })
}

/// The fields of `spec` that say something and are unknown, for objects without an http rule.
pub(crate) fn unknown_fields(vs: &VirtualService) -> impl Iterator<Item = &str> {
    meaningful(&vs.spec.rest).chain(not_http(vs))
}
