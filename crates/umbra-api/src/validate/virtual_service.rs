//! A VirtualService as a whole: hosts, gateways, exportTo, and that it has rules.

use super::http_rule::{self, Role};
use super::problem::{Field, Problem};
use super::{layer4, names, reach};
use crate::{VirtualService, VirtualServiceSpec};

impl VirtualService {
    /// All problems, in the order of the fields. None of them is about another object.
    pub fn validate(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut field = Field::spec(&mut problems);
        let spec = &self.spec;
        hosts(spec, &mut field);
        for (index, gateway) in spec.gateways.iter().enumerate() {
            names::gateway(gateway, &mut field.item("gateways", index));
        }
        if spec.http.is_empty() && spec.tls.is_empty() && spec.tcp.is_empty() {
            field.at("http").error("http, tcp or tls must be provided in virtual service; add a rule");
        }
        let role = Role { delegate: spec.hosts.is_empty(), mesh: spec.is_for_mesh() };
        for (index, rule) in spec.http.iter().enumerate() {
            http_rule::check(rule, role, &mut field.item("http", index));
        }
        reach::check(&spec.http, &mut field);
        layer4::check(spec, &mut field);
        names::export_to(spec.export_to.as_deref().unwrap_or_default(), &self.metadata.namespace, &mut field);
        problems
    }
}

fn hosts(spec: &VirtualServiceSpec, field: &mut Field<'_>) {
    if spec.hosts.is_empty() {
        delegate(spec, field);
    }
    for (index, host) in spec.hosts.iter().enumerate() {
        let mut entry = field.item("hosts", index);
        if host == "*" && spec.is_for_mesh() {
            entry.error(
                "wildcard host * is not allowed for virtual services bound to the mesh gateway; name the services, or \
                 set gateways",
            );
        } else {
            names::host_or_address(host, &mut entry);
        }
        if let Some(other) = spec.hosts[..index].iter().find(|other| names::overlap(other, host)) {
            entry.error(format!("duplicate hosts in virtual service: {host:?} overlaps {other:?}; keep one"));
        }
    }
}

/// Without hosts its rules are for others to delegate to, and only http rules can be.
fn delegate(spec: &VirtualServiceSpec, field: &mut Field<'_>) {
    let given =
        [("gateways", spec.gateways.is_empty()), ("tls", spec.tls.is_empty()), ("tcp", spec.tcp.is_empty())];
    for (name, _) in given.iter().filter(|(_, empty)| !empty) {
        field.at(name).error(format!(
            "virtual service must have at least one host; name the services in hosts, or remove {name} to have rules \
             that others delegate to"
        ));
    }
}
