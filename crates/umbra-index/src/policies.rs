//! NetworkPolicies, found by their namespace.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use umbra_api::{Labels, NetworkPolicy, ObjectKey};

use crate::pods::{PodEntry, Pods};

#[derive(Debug, Default)]
pub(crate) struct Policies {
    all: BTreeMap<ObjectKey, NetworkPolicy>,
    /// How many say where pods may connect to.
    egress: usize,
}

impl Policies {
    pub(crate) fn get(&self, key: &ObjectKey) -> Option<&NetworkPolicy> {
        self.all.get(key)
    }

    pub(crate) fn keys(&self) -> Vec<ObjectKey> {
        self.all.keys().cloned().collect()
    }

    pub(crate) fn in_namespace(
        &self,
        namespace: &str,
    ) -> impl Iterator<Item = (&ObjectKey, &NetworkPolicy)> + use<'_> {
        let namespace = namespace.to_owned();
        let from = self.all.range(ObjectKey::new(namespace.clone(), "")..);
        from.take_while(move |(key, _)| key.namespace == namespace)
    }

    pub(crate) fn any_egress(&self) -> bool {
        self.egress > 0
    }

    /// The policies on who may connect to a pod.
    pub(crate) fn ingress_of<'a>(
        &'a self,
        entry: &PodEntry,
    ) -> impl Iterator<Item = &'a ObjectKey> + use<'a> {
        let labels = Arc::clone(&entry.labels);
        let selects =
            move |policy: &NetworkPolicy| policy.spec.ingress && policy.spec.pod_selector.matches(&labels);
        let here = self.in_namespace(&entry.pod.metadata.namespace);
        here.filter(move |(_, policy)| selects(policy)).map(|(key, _)| key)
    }

    /// Puts, replaces or removes a policy; gives what was there.
    pub(crate) fn set(&mut self, key: &ObjectKey, new: Option<NetworkPolicy>) -> Option<NetworkPolicy> {
        let old = self.all.remove(key);
        let egress =
            |policy: &Option<NetworkPolicy>| usize::from(policy.as_ref().is_some_and(|p| p.spec.egress));
        self.egress = self.egress + egress(&new) - egress(&old);
        if let Some(new) = new {
            self.all.insert(key.clone(), new);
        }
        old
    }
}

/// A policy before and after a change, either of which may be missing.
pub(crate) struct Changed<'a>(pub(crate) [Option<&'a NetworkPolicy>; 2]);

impl Changed<'_> {
    /// Whether it treats pods with exactly these labels otherwise than before: who may connect to them, where they may
    /// connect to.
    pub(crate) fn differs_for(&self, labels: &Labels) -> (bool, bool) {
        let selects = |direction: fn(&NetworkPolicy) -> bool| {
            self.0.map(|policy| {
                policy.is_some_and(|policy| direction(policy) && policy.spec.pod_selector.matches(labels))
            })
        };
        let [was_in, is_in] = selects(|policy| policy.spec.ingress);
        let [was_out, is_out] = selects(|policy| policy.spec.egress);
        (was_in != is_in, was_out != is_out)
    }

    /// Whether it may be about who connects to pods that have these labels among others.
    pub(crate) fn may_select(&self, known: &Labels) -> bool {
        let may = |policy: &NetworkPolicy| {
            policy.spec.ingress && policy.spec.pod_selector.matches_part(known) != Some(false)
        };
        self.0.into_iter().flatten().any(may)
    }
}

/// What policies make of the pods that an EndpointSlice refers to: which labels are selected by which policy. Pods come
/// and go without changing it, as long as such pods are there.
pub(crate) fn seen_by<'a>(
    policies: &'a Policies,
    pods: &'a Pods,
    slice: Option<&umbra_api::EndpointSlice>,
) -> BTreeSet<(&'a Labels, &'a ObjectKey)> {
    let references = slice.into_iter().flat_map(crate::slices::pods_of);
    let entries = references.filter_map(|target| pods.of(target));
    entries.flat_map(|entry| policies.ingress_of(entry).map(move |policy| (&*entry.labels, policy))).collect()
}
