//! The guard of NetworkPolicies.
//!
//! A proxy connects to pods from the node's own network: a policy on who may connect to a pod sees the node in place of
//! the client, and most networks let a node through to its own pods. So a table with such a destination or mirror is
//! left alone, and a client whose own connections a policy restricts is not taken over; both unless told otherwise.

use umbra_index::api::{Labels, NetworkPolicy, ObjectKey};
use umbra_index::{PodEntry, View};
use umbra_routing::{BackendRef, ServiceTable};

use crate::backends::backend_refs;
use crate::options::{NetworkPolicies, Options};

/// Why nodes are not to take a service over, for [`ServiceTable::leave_alone`]: a NetworkPolicy says who may connect to
/// pods that the table names. Whether these pods are ready does not matter; a policy that is sure to select them counts
/// before they are there. Names no pod, so that it stays through rollouts.
pub fn leave_alone(view: View<'_>, table: &ServiceTable, options: &Options) -> Option<String> {
    if options.network_policies == NetworkPolicies::Ignore {
        return None;
    }
    let why = policed(view, table)?;
    Some(format!(
        "{why} in place of the client: users stay on the primary and nothing is copied, until no ingress policy selects \
         these pods or the controller runs with --network-policies=ignore"
    ))
}

/// What an author is told of a service's table when policies are not minded.
pub(crate) fn ignored(view: View<'_>, table: &ServiceTable, options: &Options) -> Option<String> {
    if options.network_policies == NetworkPolicies::Guard {
        return None;
    }
    let why = policed(view, table)?;
    Some(format!("{why} in place of the client, and is not minded (--network-policies=ignore)"))
}

/// Connections of this pod are not to be taken over: a policy says where it may connect to.
pub(crate) fn skips(view: View<'_>, client: &PodEntry, options: &Options) -> bool {
    let mut policies = view.policies_in(&client.pod.metadata.namespace);
    options.network_policies == NetworkPolicies::Guard
        && policies.any(|policy| policy.spec.egress && policy.spec.pod_selector.matches(&client.labels))
}

/// Some pod's connections are not to be taken over, perhaps one's that is not known yet.
pub(crate) fn known_pods_only(view: View<'_>, options: &Options) -> bool {
    options.network_policies == NetworkPolicies::Guard && view.has_egress_policies()
}

/// What every author is told while some egress policy exists: which pods it selects moves with rollouts.
pub(crate) fn about_clients(view: View<'_>, options: &Options) -> Option<&'static str> {
    let told = match options.network_policies {
        NetworkPolicies::Guard => {
            "clients that an egress NetworkPolicy selects are not taken over: they stay on the primary and nothing is \
             copied, unless the controller runs with --network-policies=ignore"
        }
        NetworkPolicies::Ignore => {
            "egress NetworkPolicies of clients see umbra's node in place of where they connect to, and are not minded \
             (--network-policies=ignore)"
        }
    };
    view.has_egress_policies().then_some(told)
}

/// The first policy on the first of the table's destinations and mirrors that has one.
fn policed(view: View<'_>, table: &ServiceTable) -> Option<String> {
    backend_refs(table).iter().find_map(|backend| {
        let policy = first_policy(view, backend)?;
        let subset = backend.subset.as_ref().map(|subset| format!("subset {subset:?} of "));
        Some(format!(
            "networkpolicy {policy} selects pods of {}{} and would see umbra's node",
            subset.unwrap_or_default(),
            backend.service.fqdn()
        ))
    })
}

fn first_policy(view: View<'_>, backend: &BackendRef) -> Option<ObjectKey> {
    let key = ObjectKey::new(&backend.service.namespace, &backend.service.name);
    let service = view.service(&key)?;
    let selector = backend.selector.as_ref()?;
    let mut found = Vec::new();
    if !service.spec.selector.is_empty() {
        // Every pod that ever comes there has these.
        let mut labels = service.spec.selector.clone();
        labels.extend(selector.clone());
        found.extend(ingress(view, &key.namespace, |policy| {
            policy.spec.pod_selector.matches_part(&labels) == Some(true)
        }));
    }
    let targets = view.slices(&key).flat_map(|slice| &slice.endpoints).filter_map(|e| e.target_ref.as_ref());
    let pods = targets.filter(|target| target.kind == "Pod").filter_map(|target| view.endpoint_pod(target));
    for pod in pods.filter(|pod| has_all(&pod.labels, selector)) {
        let namespace = &pod.pod.metadata.namespace;
        found.extend(ingress(view, namespace, |policy| policy.spec.pod_selector.matches(&pod.labels)));
    }
    found.into_iter().min()
}

/// The first ingress policy of a namespace that is so.
fn ingress(
    view: View<'_>,
    namespace: &str,
    mut selects: impl FnMut(&NetworkPolicy) -> bool,
) -> Option<ObjectKey> {
    let mut policies = view.policies_in(namespace).filter(|policy| policy.spec.ingress);
    policies.find(|policy| selects(policy)).map(|policy| policy.metadata.key())
}

fn has_all(labels: &Labels, selector: &Labels) -> bool {
    selector.iter().all(|(name, value)| labels.get(name) == Some(value))
}
