//! Findings of one object on its own, whatever service it is about: so that those that govern nothing learn it too.

use std::collections::BTreeSet;

use umbra_index::api::{DestinationRule, VirtualService};
use umbra_index::{Kind, ObjectName, View, host};

use crate::finding::{Finding, ObjectRef, Reason};
use crate::report::{Report, meaningful};
use crate::spec;

/// What the author of `object` should know apart from the findings that [`service`](crate::service) gives for each
/// service; sorted. Empty for an object that is not there.
pub fn object_findings(view: View<'_>, object: &ObjectName) -> Vec<Finding> {
    let findings = match object.kind {
        Kind::VirtualService => view.virtual_service(&object.key).map(|vs| of_virtual_service(view, vs)),
        Kind::DestinationRule => {
            view.destination_rule(&object.key).map(|rule| of_destination_rule(view, rule))
        }
    };
    findings.unwrap_or_default().into_iter().collect()
}

fn of_virtual_service(view: View<'_>, vs: &VirtualService) -> BTreeSet<Finding> {
    let mut report = Report::new(ObjectRef::new(Kind::VirtualService, &vs.metadata));
    if !vs.spec.is_for_mesh() {
        let message = "only for gateways, which umbra is not; add \"mesh\" to apply it to calls between pods";
        report.reject(Reason::NotForMesh, "spec.gateways", message);
        return report.into_findings();
    }
    // Also of an object that no service asks for.
    report.validated(spec::problems(view, vs));
    if spec::is_only_for_others(vs) {
        no_http_rule(&mut report, vs);
        return report.into_findings();
    }
    if spec::is_delegate(vs) {
        return of_delegate(report, view, vs);
    }
    hosts(&mut report, view, vs);
    report.into_findings()
}

/// Nobody else tells the author of a delegate what it says by itself.
fn of_delegate(mut report: Report, view: View<'_>, vs: &VirtualService) -> BTreeSet<Finding> {
    if view.roots_of(&vs.metadata.key()).next().is_none() {
        let message = "no host, and no VirtualService delegates to this one: its rules serve nobody";
        report.note(Reason::NotDelegatedTo, "spec.hosts", message);
    }
    let mut findings = report.into_findings();
    findings.extend(spec::understand(view, vs).findings);
    findings
}

fn no_http_rule(report: &mut Report, vs: &VirtualService) {
    let message = "no http rule, so the hosts are served as if this object was not there";
    report.reject(Reason::NoHttpRule, "spec.http", message);
    for field in spec::unknown_fields(vs) {
        report.note(
            Reason::UnsupportedField,
            format!("spec.{field}"),
            format!("umbra does not support {field}"),
        );
    }
}

/// A host that is nothing to umbra matters only when no other host is: a VirtualService for a gateway and the mesh
/// names both kinds.
fn hosts(report: &mut Report, view: View<'_>, vs: &VirtualService) {
    let full = |host: &String| host::claimed_name(host, &vs.metadata.namespace);
    let service = |host: &String| host::service_of(&full(host), "");
    let is_wildcard = |host: &&String| host.starts_with('*');
    let covers = |host: &String| view.covers_a_service(&full(host));
    let governs = vs.spec.hosts.iter().filter_map(service).any(|service| view.service(&service).is_some())
        || vs.spec.hosts.iter().filter(is_wildcard).any(covers);
    for (index, name) in vs.spec.hosts.iter().enumerate() {
        let path = format!("spec.hosts[{index}]");
        match service(name) {
            None if name.starts_with('*') && covers(name) => {}
            Some(service) if view.service(&service).is_some() => {}
            Some(service) => {
                let message = format!("Service {} does not exist", host::name_of(&service));
                report.unresolved(Reason::HostNotFound, path, message);
            }
            None if governs => {
                report.note(
                    Reason::PartiallyInvalid,
                    path,
                    format!("{name:?} is not a Service's name and is left out"),
                );
            }
            None => {
                let message = format!(
                    "{name:?} is not a Service's name; write the Service's short name, or name.namespace{}",
                    host::SERVICE_SUFFIX
                );
                report.reject(Reason::UnsupportedHost, path, message);
            }
        }
    }
}

fn of_destination_rule(view: View<'_>, rule: &DestinationRule) -> BTreeSet<Finding> {
    let mut report = Report::new(ObjectRef::new(Kind::DestinationRule, &rule.metadata));
    // What makes no sense is said, and taken as it stands: subsets that went away would be 503 for users.
    report.validated(view.problems(&ObjectName::new(Kind::DestinationRule, rule.metadata.key())));
    rule_host(&mut report, view, rule);
    let policy = says(rule.spec.traffic_policy.as_deref());
    for field in meaningful(&rule.spec.rest).chain(policy) {
        let message = format!("umbra does not support {field}; it is left out and the subsets are used");
        report.note(Reason::PartiallyInvalid, format!("spec.{field}"), message);
    }
    for (index, subset) in rule.spec.subsets.iter().enumerate() {
        let path = format!("spec.subsets[{index}]");
        for field in meaningful(&subset.rest).chain(says(subset.traffic_policy.as_deref())) {
            let message = format!("umbra does not support {field}; it is left out and the subset is used");
            report.note(Reason::PartiallyInvalid, format!("{path}.{field}"), message);
        }
    }
    report.into_findings()
}

/// A policy that says something, by its field's name.
fn says<T: Default + PartialEq>(policy: Option<&T>) -> Option<&'static str> {
    policy.is_some_and(|policy| *policy != T::default()).then_some("trafficPolicy")
}

fn rule_host(report: &mut Report, view: View<'_>, rule: &DestinationRule) {
    let name = &rule.spec.host;
    if name.starts_with('*') {
        return;
    }
    match host::service_of(name, &rule.metadata.namespace) {
        Some(service) if view.service(&service).is_some() => {}
        Some(service) => {
            let message = format!("Service {} does not exist", host::name_of(&service));
            report.unresolved(Reason::HostNotFound, "spec.host", message);
        }
        None => {
            let message = format!(
                "{name:?} is not a Service's name; write the Service's short name, or name.namespace{}",
                host::SERVICE_SUFFIX
            );
            report.unresolved(Reason::UnsupportedHost, "spec.host", message);
        }
    }
}
