//! Findings of one object on its own, whatever service it is about: so that those that govern nothing learn it too.

use std::collections::BTreeSet;

use umbra_index::api::{DestinationRule, TrafficPolicy, VirtualService};
use umbra_index::{Kind, ObjectName, View, host};

use crate::finding::{Finding, ObjectRef, Reason};
use crate::report::{Report, meaningful};
use crate::spec;
use crate::subsets::is_for_some_clients;

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
    if !spec::is_for_mesh(vs) {
        let message = "only for gateways, which umbra is not; add \"mesh\" to apply it to calls between pods";
        report.reject(Reason::NotForMesh, "spec.gateways", message);
        return report.into_findings();
    }
    if vs.spec.http.is_empty() {
        no_http_rule(&mut report, vs);
        return report.into_findings();
    }
    if vs.spec.hosts.is_empty() {
        let message =
            "no host: umbra does not support delegates; name the Service whose requests this is about";
        report.reject(Reason::UnsupportedHost, "spec.hosts", message);
    }
    hosts(&mut report, view, vs);
    report.into_findings()
}

fn no_http_rule(report: &mut Report, vs: &VirtualService) {
    let message = "no http rule, so the hosts are served as if this object was not there";
    report.reject(Reason::NoHttpRule, "spec.http", message);
    for field in meaningful(&vs.spec.rest).chain(spec::not_http(vs)) {
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
    let service = |host: &String| host::service_of(&host.to_ascii_lowercase(), &vs.metadata.namespace);
    let governs = vs.spec.hosts.iter().filter_map(service).any(|service| view.service(&service).is_some());
    for (index, name) in vs.spec.hosts.iter().enumerate() {
        let path = format!("spec.hosts[{index}]");
        match service(name) {
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
    rule_host(&mut report, view, rule);
    for field in meaningful(&rule.spec.rest).chain(not_yet(rule)) {
        let path = format!("spec.{field}");
        if field == "workloadSelector" {
            let message = "umbra does not support workloadSelector; the whole DestinationRule is left out";
            report.reject(Reason::UnsupportedField, path, message);
        } else {
            let message = format!("umbra does not support {field}; it is left out and the subsets are used");
            report.note(Reason::PartiallyInvalid, path, message);
        }
    }
    let mut names = BTreeSet::new();
    for (index, subset) in rule.spec.subsets.iter().enumerate() {
        let path = format!("spec.subsets[{index}]");
        let policy = subset.traffic_policy.as_deref().filter(|policy| **policy != TrafficPolicy::default());
        for field in meaningful(&subset.rest).chain(policy.map(|_| "trafficPolicy")) {
            let message = format!("umbra does not support {field}; it is left out and the subset is used");
            report.note(Reason::PartiallyInvalid, format!("{path}.{field}"), message);
        }
        if !names.insert(&subset.name) {
            let message = format!("a second subset {:?}; the first one is used", subset.name);
            report.note(Reason::PartiallyInvalid, format!("{path}.name"), message);
        }
    }
    report.into_findings()
}

/// Fields that are typed and not compiled yet. An empty one says nothing, nor does exporting to everybody.
fn not_yet(rule: &DestinationRule) -> impl Iterator<Item = &str> {
    let spec = &rule.spec;
    let policy = spec.traffic_policy.as_deref().is_some_and(|policy| *policy != TrafficPolicy::default());
    let exported = spec.export_to.as_ref().is_some_and(|to| !to.is_empty() && to != &["*"]);
    let given =
        [("exportTo", exported), ("trafficPolicy", policy), ("workloadSelector", is_for_some_clients(rule))];
    given.into_iter().filter_map(|(field, given): (&str, bool)| given.then_some(field))
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
