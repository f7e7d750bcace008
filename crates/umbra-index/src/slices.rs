//! EndpointSlices, found by the service they belong to.

use std::collections::{BTreeMap, BTreeSet};

use umbra_api::{EndpointSlice, ObjectKey, TargetRef};

/// The label that says whose endpoints a slice holds (Kubernetes' contract).
const SERVICE_LABEL: &str = "kubernetes.io/service-name";

#[derive(Debug, Default)]
pub(crate) struct Slices {
    slices: BTreeMap<ObjectKey, EndpointSlice>,
    of: BTreeMap<ObjectKey, BTreeSet<ObjectKey>>,
}

impl Slices {
    pub(crate) fn of(&self, service: &ObjectKey) -> impl Iterator<Item = &EndpointSlice> + use<'_> {
        self.of.get(service).into_iter().flatten().filter_map(|key| self.slices.get(key))
    }

    pub(crate) fn get(&self, key: &ObjectKey) -> Option<&EndpointSlice> {
        self.slices.get(key)
    }

    pub(crate) fn keys(&self) -> Vec<ObjectKey> {
        self.slices.keys().cloned().collect()
    }

    /// Puts, replaces or removes a slice; gives what was there.
    pub(crate) fn set(&mut self, key: &ObjectKey, new: Option<EndpointSlice>) -> Option<EndpointSlice> {
        let old = self.slices.remove(key);
        if let Some(service) = old.as_ref().and_then(service_of)
            && let Some(keys) = self.of.get_mut(&service)
        {
            keys.remove(key);
            if keys.is_empty() {
                self.of.remove(&service);
            }
        }
        if let Some(new) = new {
            if let Some(service) = service_of(&new) {
                self.of.entry(service).or_default().insert(key.clone());
            }
            self.slices.insert(key.clone(), new);
        }
        old
    }
}

/// Whose endpoints a slice holds; `None` for one that nobody's Service made.
pub(crate) fn service_of(slice: &EndpointSlice) -> Option<ObjectKey> {
    let name = slice.metadata.labels.get(SERVICE_LABEL)?;
    Some(ObjectKey::new(slice.metadata.namespace.clone(), name.clone()))
}

/// The pods a slice refers to.
pub(crate) fn pods_of(slice: &EndpointSlice) -> impl Iterator<Item = &TargetRef> {
    slice
        .endpoints
        .iter()
        .filter_map(|endpoint| endpoint.target_ref.as_ref())
        .filter(|target| target.kind == "Pod")
}
