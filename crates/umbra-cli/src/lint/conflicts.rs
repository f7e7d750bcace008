//! Several VirtualServices of one namespace on one host, of which only one can have it. The compiler says so for
//! Services that are there; here for the others.

use std::collections::{BTreeMap, BTreeSet};

use umbra_api::{Severity, VirtualService};
use umbra_index::host;

use super::codes;
use super::finding::Finding;
use super::manifests::Manifests;
use crate::files::ObjectId;

/// Who has a host so far.
type Owners<'a> = BTreeMap<(String, String), Vec<(&'a ObjectId, &'a VirtualService)>>;

pub(super) fn findings(manifests: &Manifests, said: &BTreeSet<Finding>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut owners = Owners::new();
    for (id, vs) in oldest_first(manifests) {
        for (at, name) in vs.spec.hosts.iter().enumerate() {
            let namespace = &vs.metadata.namespace;
            let full = host::claimed_name(name, namespace);
            let decided =
                host::service_of(&full, namespace).is_some_and(|key| manifests.service(&key).is_some());
            if decided {
                continue;
            }
            let rivals = owners.entry((namespace.clone(), full)).or_default();
            let winner = rivals.iter().find(|(other, rival)| *other != id && share_clients(rival, vs));
            let field = format!("spec.hosts[{at}]");
            let known = said.iter().any(|said| said.code == codes::CONFLICT && said.is_within(id, &field));
            if let Some((winner, _)) = winner.filter(|_| !known) {
                let text =
                    format!("{winner} has the host {name:?}, and only one can; merge the two, or delete one");
                findings.push(manifests.finding(id.clone(), field, codes::CONFLICT, Severity::Error, text));
            }
            rivals.push((id, vs));
        }
    }
    findings
}

/// Those that claim hosts between pods, in the order in which they win (spec/istio.md 2.4).
fn oldest_first(manifests: &Manifests) -> Vec<(&ObjectId, &VirtualService)> {
    let for_mesh = |vs: &VirtualService| !vs.spec.http.is_empty() && vs.spec.is_for_mesh();
    let mut all: Vec<_> = manifests.virtual_services().filter(|(_, vs)| for_mesh(vs)).collect();
    all.sort_by_key(|(_, vs)| (&vs.metadata.creation_timestamp, &vs.metadata.name));
    all
}

/// Whether clients of some namespace see both.
fn share_clients(a: &VirtualService, b: &VirtualService) -> bool {
    match (seen_in(a), seen_in(b)) {
        (Some(a), Some(b)) => !a.is_disjoint(&b),
        (Some(some), None) | (None, Some(some)) => !some.is_empty(),
        (None, None) => true,
    }
}

/// `None`: everywhere. `~` is no namespace's name.
fn seen_in(vs: &VirtualService) -> Option<BTreeSet<&str>> {
    let to = vs.spec.export_to.as_ref().filter(|to| !to.is_empty())?;
    let all = to.iter().any(|to| to == "*");
    let own = |to: &str| to == ".";
    let named = to.iter().filter(|to| *to != "~");
    let named = named.map(|to| if own(to) { vs.metadata.namespace.as_str() } else { to.as_str() });
    (!all).then(|| named.collect())
}
