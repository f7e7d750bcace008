//! Everything that authors should know, of all objects at once: for tools that look at files and serve nobody.

use std::collections::BTreeSet;

use umbra_index::{Kind, ObjectName, View};

use crate::finding::Finding;
use crate::object_findings::object_findings;
use crate::options::Options;
use crate::service::service;
use crate::spec;

/// The findings of every service and every object, and of specs that no service asks for; sorted, each once.
pub fn findings(view: View<'_>, options: &Options) -> Vec<Finding> {
    let mut findings = BTreeSet::new();
    for object in view.services() {
        findings.extend(service(view, &object.metadata.key(), options).findings);
    }
    for vs in view.virtual_services() {
        findings.extend(spec::understand(view, vs).findings);
        findings.extend(object_findings(view, &ObjectName::new(Kind::VirtualService, vs.metadata.key())));
    }
    for rule in view.destination_rules() {
        findings.extend(object_findings(view, &ObjectName::new(Kind::DestinationRule, rule.metadata.key())));
    }
    findings.into_iter().collect()
}
