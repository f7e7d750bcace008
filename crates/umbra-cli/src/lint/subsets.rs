//! Subsets that select none of their service's pods, and mirrors to them: their copies would go nowhere.

use umbra_api::{Destination, Labels, ObjectKey, Severity, VirtualService};
use umbra_index::host;

use super::codes;
use super::finding::Finding;
use super::manifests::Manifests;
use super::references;

pub(super) fn findings(manifests: &Manifests) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (id, rule) in manifests.destination_rules() {
        let Some(key) = host::service_of(&rule.spec.host, &rule.metadata.namespace) else { continue };
        for (at, subset) in rule.spec.subsets.iter().enumerate() {
            if selects_nothing(manifests, &key, &subset.labels) {
                let text = format!(
                    "the subset {:?} selects no pod of Service {key}: none has {}; correct the labels",
                    subset.name,
                    words(&subset.labels)
                );
                let field = format!("spec.subsets[{at}]");
                findings.push(manifests.finding(
                    id.clone(),
                    field,
                    codes::SUBSET_WITHOUT_PODS,
                    Severity::Error,
                    text,
                ));
            }
        }
    }
    for (id, vs) in manifests.virtual_services() {
        for target in (0..vs.spec.http.len()).flat_map(|rule| references::mirrors(vs, rule)) {
            if goes_nowhere(manifests, vs, target.destination) {
                let text = format!(
                    "copies go nowhere: the subset {:?} selects no pod; correct its labels, or start its pods",
                    target.destination.subset.as_deref().unwrap_or_default()
                );
                findings.push(manifests.finding(
                    id.clone(),
                    target.field,
                    codes::MIRROR_TO_NOTHING,
                    Severity::Warning,
                    text,
                ));
            }
        }
    }
    findings
}

/// Whether every DestinationRule that defines the subset selects nothing with it.
fn goes_nowhere(manifests: &Manifests, vs: &VirtualService, to: &Destination) -> bool {
    let Some(key) = host::service_of(&to.host, &vs.metadata.namespace) else { return false };
    let Some(name) = &to.subset else { return false };
    let full = host::name_of(&key);
    let rules = manifests
        .destination_rules()
        .filter(|(_, rule)| host::covers(&host::full_name(&rule.spec.host, &rule.metadata.namespace), &full));
    let mut subsets =
        rules.flat_map(|(_, rule)| &rule.spec.subsets).filter(|subset| subset.name == *name).peekable();
    subsets.peek().is_some() && subsets.all(|subset| selects_nothing(manifests, &key, &subset.labels))
}

fn selects_nothing(manifests: &Manifests, service: &ObjectKey, labels: &Labels) -> bool {
    let service = manifests.service(service);
    service.and_then(|service| manifests.selects_pods(service, labels)) == Some(false)
}

fn words(labels: &Labels) -> String {
    labels.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(",")
}
