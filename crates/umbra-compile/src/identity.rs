//! Who a pod is in metrics: workload, app, version, canonical service (spec/shadowing.md 3.3, as Istio computes them).

use umbra_index::PodEntry;
use umbra_index::api::{Labels, OwnerReference};

/// What Istio says of what it does not know.
pub(crate) const UNKNOWN: &str = "unknown";

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) workload: String,
    pub(crate) app: String,
    pub(crate) version: String,
    pub(crate) canonical_name: String,
    pub(crate) canonical_revision: String,
}

impl Identity {
    pub(crate) fn unknown() -> Self {
        let unknown = || UNKNOWN.to_owned();
        Self {
            workload: unknown(),
            app: unknown(),
            version: unknown(),
            canonical_name: unknown(),
            canonical_revision: "latest".to_owned(),
        }
    }

    pub(crate) fn of(entry: &PodEntry) -> Self {
        let labels = entry.labels.as_ref();
        let label = |name: &str| labels.get(name).filter(|value| !value.is_empty()).cloned();
        let first = |names: &[&str]| names.iter().find_map(|name| label(name));
        let workload = label("service.istio.io/workload-name").unwrap_or_else(|| workload(entry, labels));
        let names = ["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"];
        let revisions = ["service.istio.io/canonical-revision", "app.kubernetes.io/version", "version"];
        Self {
            app: label("app").unwrap_or_else(|| UNKNOWN.to_owned()),
            version: label("version").unwrap_or_else(|| UNKNOWN.to_owned()),
            canonical_name: first(&names).unwrap_or_else(|| workload.clone()),
            canonical_revision: first(&revisions).unwrap_or_else(|| "latest".to_owned()),
            workload,
        }
    }
}

/// The Deployment or Rollout behind the ReplicaSet, else the controller, else the pod itself.
fn workload(entry: &PodEntry, labels: &Labels) -> String {
    let meta = &entry.pod.metadata;
    let Some(owner) = meta.owner_references.iter().find(|owner| owner.controller) else {
        return meta.name.clone();
    };
    above_replica_set(owner, labels).unwrap_or_else(|| owner.name.clone())
}

fn above_replica_set(owner: &OwnerReference, labels: &Labels) -> Option<String> {
    if owner.kind != "ReplicaSet" {
        return None;
    }
    ["pod-template-hash", "rollouts-pod-template-hash"].iter().find_map(|label| {
        let hash = labels.get(*label)?;
        Some(owner.name.strip_suffix(hash.as_str())?.strip_suffix('-')?.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use umbra_index::api::{Meta, Pod};

    use super::*;

    fn of(owner: Option<(&str, &str)>, labels: &[(&str, &str)]) -> Identity {
        let owner = owner.map(|(kind, name)| OwnerReference {
            kind: kind.into(),
            name: name.into(),
            controller: true,
        });
        let metadata = Meta {
            name: "web-7d9f-x1".into(),
            owner_references: owner.into_iter().collect(),
            ..Meta::default()
        };
        let labels: BTreeMap<_, _> = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Identity::of(&PodEntry { pod: Pod { metadata, ..Pod::default() }, labels: Arc::new(labels) })
    }

    #[test]
    fn workloads_are_named_as_istio_names_them() {
        let set = Some(("ReplicaSet", "web-7d9f"));
        assert_eq!(of(set, &[("pod-template-hash", "7d9f")]).workload, "web");
        assert_eq!(of(set, &[("rollouts-pod-template-hash", "7d9f")]).workload, "web");
        assert_eq!(of(set, &[]).workload, "web-7d9f");
        assert_eq!(of(Some(("StatefulSet", "db")), &[]).workload, "db");
        assert_eq!(of(None, &[]).workload, "web-7d9f-x1");
        assert_eq!(of(set, &[("service.istio.io/workload-name", "shop")]).workload, "shop");
    }

    #[test]
    fn canonical_names_prefer_istios_labels_then_kubernetes_then_app() {
        let plain = of(None, &[("app", "a"), ("version", "v1")]);
        assert_eq!((plain.canonical_name.as_str(), plain.canonical_revision.as_str()), ("a", "v1"));
        let full =
            of(None, &[("app", "a"), ("app.kubernetes.io/name", "n"), ("app.kubernetes.io/version", "2")]);
        assert_eq!((full.canonical_name.as_str(), full.canonical_revision.as_str()), ("n", "2"));
        let bare = of(None, &[]);
        assert_eq!(
            (bare.canonical_name.as_str(), bare.canonical_revision.as_str()),
            ("web-7d9f-x1", "latest")
        );
        assert_eq!((bare.app.as_str(), bare.version.as_str()), ("unknown", "unknown"));
    }
}
