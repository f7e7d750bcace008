//! Hosts, subsets and ports that rules name and nothing defines, where the compiler did not look: it reads the rules
//! of Services that are there, and none that are invalid or not reached.

use std::collections::BTreeSet;

use umbra_api::{Destination, Severity, VirtualService};
use umbra_index::host;

use super::codes;
use super::finding::Finding;
use super::manifests::Manifests;

/// A destination and the field it stands in.
pub(super) struct Target<'a> {
    pub(super) field: String,
    pub(super) destination: &'a Destination,
}

/// Where a rule sends requests.
pub(super) fn primaries(vs: &VirtualService, rule: usize) -> impl Iterator<Item = Target<'_>> {
    vs.spec.http[rule].route.iter().enumerate().map(move |(at, entry)| Target {
        field: format!("spec.http[{rule}].route[{at}].destination"),
        destination: &entry.destination,
    })
}

/// Where a rule sends copies.
pub(super) fn mirrors(vs: &VirtualService, rule: usize) -> impl Iterator<Item = Target<'_>> {
    let one = vs.spec.http[rule].mirror.iter();
    let one = one.map(move |destination| Target { field: format!("spec.http[{rule}].mirror"), destination });
    let several = vs.spec.http[rule].mirrors.iter().enumerate();
    one.chain(several.map(move |(at, entry)| Target {
        field: format!("spec.http[{rule}].mirrors[{at}].destination"),
        destination: &entry.destination,
    }))
}

pub(super) fn findings(manifests: &Manifests, said: &BTreeSet<Finding>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (id, vs) in manifests.virtual_services() {
        let rules = 0..vs.spec.http.len();
        for target in rules.flat_map(|rule| primaries(vs, rule).chain(mirrors(vs, rule))) {
            if said.iter().any(|said| said.is_within(id, &target.field)) {
                continue;
            }
            if let Some((field, text)) = missing(manifests, &vs.metadata.namespace, target.destination) {
                let field = format!("{}.{field}", target.field);
                findings.push(manifests.finding(id.clone(), field, codes::NOT_FOUND, Severity::Error, text));
            }
        }
    }
    findings
}

/// What of a destination is not there. Which clients see a subset is the compiler's question.
fn missing(manifests: &Manifests, namespace: &str, to: &Destination) -> Option<(&'static str, String)> {
    let Some(service) =
        host::service_of(&to.host, namespace).and_then(|key| manifests.service(&key).zip(Some(key)))
    else {
        return Some(("host", format!("Referenced host not found: {:?}; add its Service", to.host)));
    };
    let (service, key) = service;
    if let Some(port) = &to.port
        && !service.spec.ports.iter().any(|there| u32::from(there.port) == port.number)
    {
        let text = format!("Referenced port not found: Service {key} has no port {}", port.number);
        return Some(("port.number", text));
    }
    let subset = to.subset_name()?;
    let name = host::name_of(&key);
    let defined = manifests.destination_rules().any(|(_, rule)| {
        host::covers(&host::full_name(&rule.spec.host, &rule.metadata.namespace), &name)
            && rule.spec.subsets.iter().any(|there| there.name == subset)
    });
    let text = format!("Referenced subset not found: no DestinationRule for {name} defines {subset:?}");
    (!defined).then_some(("subset", text))
}
