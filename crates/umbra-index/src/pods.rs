//! Pods: as clients while they live, as endpoints while a slice refers to them.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use umbra_api::{EndpointSlice, Labels, ObjectKey, Pod, TargetRef};

use crate::slices::{pods_of, service_of};

/// A pod, its labels apart: pods of one template share one label set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodEntry {
    /// Everything but the labels (`metadata.labels` is empty).
    pub pod: Pod,
    /// The pod's labels.
    pub labels: Arc<Labels>,
}

/// A slice's reference to a pod: its uid (empty when the slice does not say) and the service of the slice.
type Referrer = (String, ObjectKey);

#[derive(Debug, Default)]
pub(crate) struct Pods {
    living: BTreeMap<ObjectKey, PodEntry>,
    /// Pods that have gone while slices still refer to them, by name and uid.
    gone: BTreeMap<(ObjectKey, String), PodEntry>,
    on: BTreeMap<String, BTreeSet<ObjectKey>>,
    /// Which services' slices refer to a pod of this name, and how often.
    referrers: BTreeMap<ObjectKey, BTreeMap<Referrer, usize>>,
    label_sets: HashSet<Arc<Labels>>,
}

impl Pods {
    pub(crate) fn of(&self, target: &TargetRef) -> Option<&PodEntry> {
        let key = ObjectKey::new(target.namespace.clone(), target.name.clone());
        let same = |entry: &&PodEntry| same_uid(&entry.pod.metadata.uid, &target.uid);
        self.living.get(&key).filter(same).or_else(|| self.gone.get(&(key, target.uid.clone())))
    }

    pub(crate) fn on(&self, node: &str) -> impl Iterator<Item = &PodEntry> + use<'_> {
        self.on.get(node).into_iter().flatten().filter_map(|key| self.living.get(key))
    }

    pub(crate) fn get(&self, key: &ObjectKey) -> Option<&PodEntry> {
        self.living.get(key)
    }

    pub(crate) fn keys(&self) -> Vec<ObjectKey> {
        self.living.keys().cloned().collect()
    }

    /// The pods of a namespace, and those that have gone and are still referred to.
    pub(crate) fn in_namespace(
        &self,
        namespace: &str,
    ) -> impl Iterator<Item = (&ObjectKey, &PodEntry)> + use<'_> {
        let start = ObjectKey::new(namespace, "");
        let (here, there) = (namespace.to_owned(), namespace.to_owned());
        let gone = self.gone.range((start.clone(), String::new())..);
        let gone = gone.map(|((key, _), entry)| (key, entry));
        let living = self.living.range(start..).take_while(move |(key, _)| key.namespace == here);
        living.chain(gone.take_while(move |(key, _)| key.namespace == there))
    }

    /// The services whose slices refer to a pod of this name.
    pub(crate) fn services_of(&self, pod: &ObjectKey) -> BTreeSet<ObjectKey> {
        let referrers = self.referrers.get(pod).into_iter().flatten();
        referrers.map(|((_, service), _)| service.clone()).collect()
    }

    /// The pod with its labels shared.
    pub(crate) fn intern(&mut self, mut pod: Pod) -> PodEntry {
        let labels = Arc::new(std::mem::take(&mut pod.metadata.labels));
        let labels = self.label_sets.get(&labels).cloned().unwrap_or_else(|| {
            self.label_sets.insert(Arc::clone(&labels));
            labels
        });
        PodEntry { pod, labels }
    }

    /// Puts, replaces or removes a pod. One that goes, or gets another uid, stays known while a slice refers to it.
    pub(crate) fn set(&mut self, key: &ObjectKey, new: Option<PodEntry>) {
        let uid = new.as_ref().map(|entry| entry.pod.metadata.uid.clone());
        if let Some(old) = self.living.remove(key) {
            if let Some(pods) = self.on.get_mut(&old.pod.spec.node_name) {
                pods.remove(key);
                if pods.is_empty() {
                    self.on.remove(&old.pod.spec.node_name);
                }
            }
            if uid.as_ref() != Some(&old.pod.metadata.uid) && self.is_referred(key, &old.pod.metadata.uid) {
                self.gone.insert((key.clone(), old.pod.metadata.uid.clone()), old);
            } else {
                self.forget(old);
            }
        }
        if let Some(new) = new {
            self.gone.remove(&(key.clone(), new.pod.metadata.uid.clone()));
            if !new.pod.spec.node_name.is_empty() {
                self.on.entry(new.pod.spec.node_name.clone()).or_default().insert(key.clone());
            }
            self.living.insert(key.clone(), new);
        }
    }

    /// A slice came: its pods are kept.
    pub(crate) fn refer(&mut self, slice: &EndpointSlice) {
        let Some(service) = service_of(slice) else { return };
        for target in pods_of(slice) {
            let referrers = self.referrers.entry(key_of(target)).or_default();
            *referrers.entry((target.uid.clone(), service.clone())).or_default() += 1;
        }
    }

    /// A slice went: pods that have gone and that no other slice refers to are forgotten.
    pub(crate) fn release(&mut self, slice: &EndpointSlice) {
        let Some(service) = service_of(slice) else { return };
        for target in pods_of(slice) {
            let key = key_of(target);
            if let Some(referrers) = self.referrers.get_mut(&key) {
                let referrer = (target.uid.clone(), service.clone());
                if let Some(count) = referrers.get_mut(&referrer) {
                    *count -= 1;
                    if *count == 0 {
                        referrers.remove(&referrer);
                    }
                }
                if referrers.is_empty() {
                    self.referrers.remove(&key);
                }
            }
            if !self.is_referred(&key, &target.uid)
                && let Some(gone) = self.gone.remove(&(key, target.uid.clone()))
            {
                self.forget(gone);
            }
        }
    }

    fn is_referred(&self, pod: &ObjectKey, uid: &str) -> bool {
        let referrers = self.referrers.get(pod).into_iter().flatten();
        referrers.into_iter().any(|((referred, _), _)| referred == uid)
    }

    /// Drops the label set with its last pod.
    fn forget(&mut self, entry: PodEntry) {
        // The pool and `entry` hold the last two.
        if Arc::strong_count(&entry.labels) == 2 {
            self.label_sets.remove(&entry.labels);
        }
    }
}

fn key_of(target: &TargetRef) -> ObjectKey {
    ObjectKey::new(target.namespace.clone(), target.name.clone())
}

/// Hand-written files leave uids out; then the name decides.
fn same_uid(pod: &str, target: &str) -> bool {
    pod.is_empty() || target.is_empty() || pod == target
}

#[cfg(test)]
mod tests {
    use umbra_api::Meta;

    use super::*;

    #[test]
    fn a_label_set_goes_with_its_last_pod() {
        let mut pods = Pods::default();
        let pod = |name: &str, version: &str| {
            let labels = Labels::from([("version".to_owned(), version.to_owned())]);
            Pod { metadata: Meta { name: name.to_owned(), labels, ..Meta::default() }, ..Pod::default() }
        };
        let key = |name: &str| ObjectKey::new("", name);
        for name in ["a", "b"] {
            let entry = pods.intern(pod(name, "v1"));
            pods.set(&key(name), Some(entry));
        }
        assert_eq!(pods.label_sets.len(), 1);
        pods.set(&key("a"), None);
        assert_eq!(pods.label_sets.len(), 1);
        let entry = pods.intern(pod("b", "v2"));
        pods.set(&key("b"), Some(entry));
        assert_eq!(pods.label_sets.len(), 1, "v1 has gone");
        pods.set(&key("b"), None);
        assert_eq!(pods.label_sets.len(), 0);
    }
}
