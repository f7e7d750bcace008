//! A VirtualService's spec, understood on its own: which rules, with which shares. Names are not looked up here.

use std::collections::BTreeSet;

use umbra_index::api::{Problem, VirtualService, values};
use umbra_index::{Kind, ObjectName, View, host};
use umbra_routing::ServiceName;

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

/// Its rules are for others to delegate to.
pub(crate) fn is_delegate(vs: &VirtualService) -> bool {
    vs.spec.hosts.is_empty()
}

/// It has rules, and none for http: its hosts are left to others (spec/istio.md 4.7).
pub(crate) fn is_only_for_others(vs: &VirtualService) -> bool {
    vs.spec.http.is_empty() && not_http(vs).next().is_some()
}

/// What the object's own checks say.
pub(crate) fn problems<'a>(view: View<'a>, vs: &VirtualService) -> &'a [Problem] {
    view.problems(&ObjectName::new(Kind::VirtualService, vs.metadata.key()))
}

/// Reads a spec.
pub(crate) fn understand(view: View<'_>, vs: &VirtualService) -> Understood {
    let mut report = Report::new(ObjectRef::new(Kind::VirtualService, &vs.metadata));
    report.validated(problems(view, vs));
    beside_http(&mut report, vs);
    let mut rules: Vec<RuleSpec> = Vec::new();
    let mut is_closed = false;
    for (index, route) in vs.spec.http.iter().enumerate() {
        let rule = rule_spec::read(&mut report, vs, index, route);
        if is_closed {
            continue;
        }
        // A delegate may leave requests over.
        is_closed = rule.takes_everything() && rule.delegate.is_none();
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
        subset: to.subset_name().map(str::to_owned),
        port: to.port.as_ref().map(|port| values::port(port.number).unwrap_or(0)),
    })
}

/// The fields of `spec` that say something and are unknown, for objects without an http rule.
pub(crate) fn unknown_fields(vs: &VirtualService) -> impl Iterator<Item = &str> {
    meaningful(&vs.spec.rest).chain(not_http(vs))
}
