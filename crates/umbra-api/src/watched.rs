//! The plain types as the `kube` crates watch them.
//!
//! Takes: one object as the API server sends it. Gives: a plain value and the little metadata that a watch needs to
//! go on. Decodes nothing else: a Pod's containers and everybody's `managedFields` are read over, never stored.
//!
//! ```text
//! let api: Api<Guarded<VirtualService>> = Api::all(client);
//! watcher(api, config)  // Event<Guarded<VirtualService>>
//! match opened(guarded) { Ok(virtual_service) => .., Err(undecodable) => .. }
//! ```

use std::borrow::Cow;
use std::fmt::Debug;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::{ClusterResourceScope, NamespaceResourceScope};
use kube::Resource;
use kube::core::DeserializeGuard;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};

use crate::meta::{Labels, Meta, ObjectKey, null_is_default};
use crate::{
    DestinationRule, DestinationRuleSpec, Endpoint, EndpointPort, EndpointSlice, NetworkPolicy,
    NetworkPolicySpec, Node, NodeSpec, NodeStatus, OwnerReference, Pod, PodSpec, PodStatus, Service,
    ServiceSpec, VirtualService, VirtualServiceSpec,
};

/// A plain type that can be watched: what its kind is called, and how it looks on the wire.
pub trait Watchable: Clone + Debug + Send + Sync + 'static {
    /// Empty for the core group.
    const GROUP: &'static str;
    /// The version that umbra reads; the API server converts from the others.
    const VERSION: &'static str;
    /// As in `kind:`.
    const KIND: &'static str;
    /// As in the URL.
    const PLURAL: &'static str;
    /// Of a namespace, or of the cluster.
    type Scope: k8s_openapi::ResourceScope;
    /// The object as it is decoded.
    type Wire: DeserializeOwned;

    /// The plain value, and the resourceVersion that is no part of it: it would make equal values differ.
    fn from_wire(wire: Self::Wire) -> (Self, String);
    /// The plain value's metadata.
    fn metadata(&self) -> &Meta;
}

/// A plain value on its way out of a watch.
#[derive(Clone, Debug)]
pub struct Watched<T> {
    /// The plain value, whole.
    pub object: T,
    /// Only name, namespace, uid, resourceVersion and generation: what a watch and an Event's reference use.
    metadata: ObjectMeta,
}

/// What to watch: an object that cannot be decoded is handed out as such, and never stops the LIST it is in.
pub type Guarded<T> = DeserializeGuard<Watched<T>>;

/// An object that the API server holds and umbra cannot read. Its author's fault, or a newer schema's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {key}: cannot be read: {error}; umbra leaves it out until it is corrected")]
pub struct Undecodable {
    /// The object's kind.
    pub kind: &'static str,
    /// Its namespace and name.
    pub key: ObjectKey,
    /// Tells it from an older object of the same name.
    pub uid: String,
    /// Which state of its spec cannot be read.
    pub generation: i64,
    /// What the decoder said.
    pub error: String,
}

/// The plain value, or which object could not be read and why.
///
/// # Errors
/// [`Undecodable`] also for the deletion of such an object: its key says what is gone.
pub fn opened<T: Watchable>(guarded: Guarded<T>) -> Result<T, Undecodable> {
    guarded.0.map(|watched| watched.object).map_err(|invalid| Undecodable {
        kind: T::KIND,
        key: ObjectKey::new(
            invalid.metadata.namespace.unwrap_or_default(),
            invalid.metadata.name.unwrap_or_default(),
        ),
        uid: invalid.metadata.uid.unwrap_or_default(),
        generation: invalid.metadata.generation.unwrap_or_default(),
        error: invalid.error,
    })
}

impl<'de, T: Watchable> Deserialize<'de> for Watched<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (object, resource_version) = T::from_wire(T::Wire::deserialize(deserializer)?);
        let metadata = kube_metadata(object.metadata(), resource_version);
        Ok(Self { object, metadata })
    }
}

fn kube_metadata(meta: &Meta, resource_version: String) -> ObjectMeta {
    let some = |text: &String| (!text.is_empty()).then(|| text.clone());
    ObjectMeta {
        name: some(&meta.name),
        namespace: some(&meta.namespace),
        uid: some(&meta.uid),
        resource_version: some(&resource_version),
        generation: Some(meta.generation),
        ..ObjectMeta::default()
    }
}

impl<T: Watchable> Resource for Watched<T> {
    type DynamicType = ();
    type Scope = T::Scope;

    fn kind((): &()) -> Cow<'_, str> {
        T::KIND.into()
    }

    fn group((): &()) -> Cow<'_, str> {
        T::GROUP.into()
    }

    fn version((): &()) -> Cow<'_, str> {
        T::VERSION.into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        T::PLURAL.into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// [`Meta`] and the resourceVersion. Field by field: `flatten` would buffer `managedFields` first.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct WireMeta {
    namespace: String,
    name: String,
    uid: String,
    resource_version: String,
    generation: i64,
    #[serde(deserialize_with = "null_is_default")]
    creation_timestamp: String,
    #[serde(deserialize_with = "null_is_default")]
    labels: Labels,
    #[serde(deserialize_with = "null_is_default")]
    owner_references: Vec<OwnerReference>,
    deletion_timestamp: Option<String>,
}

impl WireMeta {
    fn split(self) -> (Meta, String) {
        let meta = Meta {
            namespace: self.namespace,
            name: self.name,
            uid: self.uid,
            generation: self.generation,
            creation_timestamp: self.creation_timestamp,
            labels: self.labels,
            owner_references: self.owner_references,
            deletion_timestamp: self.deletion_timestamp,
        };
        (meta, self.resource_version)
    }
}

/// Names a kind and lists its top-level fields; a field added to the plain type and not here does not compile.
macro_rules! watchable {
    ($kind:ident, $group:literal, $version:literal, $plural:literal, $scope:ty,
     $wire:ident { $($(#[$attribute:meta])* $field:ident: $type:ty),+ }) => {
        #[doc = concat!("A ", stringify!($kind), " as it is decoded.")]
        #[derive(Deserialize, Default)]
        #[serde(rename_all = "camelCase", default)]
        pub struct $wire {
            metadata: WireMeta,
            $($(#[$attribute])* $field: $type),+
        }

        impl Watchable for $kind {
            const GROUP: &'static str = $group;
            const VERSION: &'static str = $version;
            const KIND: &'static str = stringify!($kind);
            const PLURAL: &'static str = $plural;
            type Scope = $scope;
            type Wire = $wire;

            fn from_wire(wire: $wire) -> (Self, String) {
                let (metadata, resource_version) = wire.metadata.split();
                (Self { metadata, $($field: wire.$field),+ }, resource_version)
            }

            fn metadata(&self) -> &Meta {
                &self.metadata
            }
        }
    };
}

watchable!(
    VirtualService,
    "networking.istio.io",
    "v1",
    "virtualservices",
    NamespaceResourceScope,
    VirtualServiceWire {
        #[serde(deserialize_with = "null_is_default")]
        spec: VirtualServiceSpec
    }
);
watchable!(
    DestinationRule,
    "networking.istio.io",
    "v1",
    "destinationrules",
    NamespaceResourceScope,
    DestinationRuleWire {
        #[serde(deserialize_with = "null_is_default")]
        spec: DestinationRuleSpec
    }
);
watchable!(
    NetworkPolicy,
    "networking.k8s.io",
    "v1",
    "networkpolicies",
    NamespaceResourceScope,
    NetworkPolicyWire { spec: NetworkPolicySpec }
);
watchable!(Service, "", "v1", "services", NamespaceResourceScope, ServiceWire { spec: ServiceSpec });
watchable!(Pod, "", "v1", "pods", NamespaceResourceScope, PodWire { spec: PodSpec, status: PodStatus });
watchable!(Node, "", "v1", "nodes", ClusterResourceScope, NodeWire { spec: NodeSpec, status: NodeStatus });
watchable!(EndpointSlice, "discovery.k8s.io", "v1", "endpointslices", NamespaceResourceScope,
EndpointSliceWire {
    address_type: String,
    #[serde(deserialize_with = "null_is_default")] endpoints: Vec<Endpoint>,
    #[serde(deserialize_with = "null_is_default")] ports: Vec<EndpointPort>
});

#[cfg(test)]
mod tests {
    use kube::core::ObjectList;
    use serde_json::json;

    use super::*;

    #[test]
    fn keeps_what_the_plain_type_keeps_and_the_resource_version() {
        let object = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "v1-a", "namespace": "default", "uid": "u", "resourceVersion": "7",
                "labels": {"app": "sa-logic"}, "creationTimestamp": "2026-11-22T10:00:00Z",
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "v1", "uid": "r", "controller": true}],
                "managedFields": [{"manager": "kubelet", "fieldsV1": {"f:spec": {}}}]},
            "spec": {"nodeName": "node1", "containers": [{"name": "c"}]},
            "status": {"phase": "Running", "podIPs": [{"ip": "10.244.0.2"}]},
        });
        let watched: Watched<Pod> = serde_json::from_value(object.clone()).unwrap();
        assert_eq!(watched.object, serde_json::from_value::<Pod>(object).unwrap());
        assert_eq!(watched.meta().resource_version.as_deref(), Some("7"));
        assert!(watched.meta().managed_fields.is_none());
    }

    #[test]
    fn an_undecodable_object_does_not_stop_its_list() {
        let list = json!({
            "apiVersion": "networking.istio.io/v1", "kind": "VirtualServiceList", "metadata": {"resourceVersion": "9"},
            "items": [
                {"metadata": {"name": "good", "namespace": "a"}, "spec": {"hosts": ["x"], "timeout": {"odd": 1}}},
                {"metadata": {"name": "bad", "namespace": "a", "uid": "u"}, "spec": {"hosts": "x"}},
            ],
        });
        let list: ObjectList<Guarded<VirtualService>> = serde_json::from_value(list).unwrap();
        let mut opened = list.items.into_iter().map(opened);
        assert_eq!(opened.next().unwrap().unwrap().spec.hosts, ["x"]);
        let bad = opened.next().unwrap().unwrap_err();
        assert_eq!((bad.key.to_string().as_str(), bad.uid.as_str()), ("a/bad", "u"));
        assert_eq!(
            bad.to_string(),
            "VirtualService a/bad: cannot be read: Invalid type string \"x\". Expected a sequence; \
             umbra leaves it out until it is corrected"
        );
    }

    #[test]
    fn urls_are_those_of_the_api_server() {
        assert_eq!(
            Watched::<VirtualService>::url_path(&(), Some("a")),
            "/apis/networking.istio.io/v1/namespaces/a/virtualservices"
        );
        assert_eq!(Watched::<EndpointSlice>::url_path(&(), None), "/apis/discovery.k8s.io/v1/endpointslices");
        assert_eq!(
            Watched::<NetworkPolicy>::url_path(&(), None),
            "/apis/networking.k8s.io/v1/networkpolicies"
        );
        assert_eq!(Watched::<Node>::url_path(&(), None), "/api/v1/nodes");
    }
}
