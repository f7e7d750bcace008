//! The seven kinds of objects that umbra reads, by their manifests' names.

use std::fmt;

use serde::de::DeserializeOwned;
use serde_json::Value;
use umbra_api::{
    DestinationRule, EndpointSlice, Meta, NetworkPolicy, Node, ObjectKey, Pod, Service, VirtualService,
};
use umbra_index::{Change, Event, Index};

/// A kind that umbra reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ObjectKind {
    /// core/v1
    Node,
    /// core/v1
    Pod,
    /// core/v1
    Service,
    /// discovery.k8s.io/v1
    EndpointSlice,
    /// networking.k8s.io/v1
    NetworkPolicy,
    /// networking.istio.io, any version: they share one schema
    DestinationRule,
    /// networking.istio.io, any version
    VirtualService,
}

impl ObjectKind {
    /// All kinds; what others refer to comes first.
    pub const ALL: [Self; 7] = [
        Self::Node,
        Self::Pod,
        Self::Service,
        Self::EndpointSlice,
        Self::NetworkPolicy,
        Self::DestinationRule,
        Self::VirtualService,
    ];

    /// The kind that a manifest's `apiVersion` and `kind` name.
    pub fn of(api_version: &str, kind: &str) -> Option<Self> {
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        match (group, kind) {
            ("", "Node") => Some(Self::Node),
            ("", "Pod") => Some(Self::Pod),
            ("", "Service") => Some(Self::Service),
            ("discovery.k8s.io", "EndpointSlice") => Some(Self::EndpointSlice),
            ("networking.k8s.io", "NetworkPolicy") => Some(Self::NetworkPolicy),
            ("networking.istio.io", "DestinationRule") => Some(Self::DestinationRule),
            ("networking.istio.io", "VirtualService") => Some(Self::VirtualService),
            _ => None,
        }
    }

    /// The event that says: these are all there are.
    pub fn relist(self, objects: Vec<Object>) -> Event {
        match self {
            Self::Node => Event::Node(Change::Relist(only(objects, Object::node))),
            Self::Pod => Event::Pod(Change::Relist(only(objects, Object::pod))),
            Self::Service => Event::Service(Change::Relist(only(objects, Object::service))),
            Self::EndpointSlice => {
                Event::EndpointSlice(Change::Relist(only(objects, Object::endpoint_slice)))
            }
            Self::NetworkPolicy => {
                Event::NetworkPolicy(Change::Relist(only(objects, Object::network_policy)))
            }
            Self::DestinationRule => {
                Event::DestinationRule(Change::Relist(only(objects, Object::destination_rule)))
            }
            Self::VirtualService => {
                Event::VirtualService(Change::Relist(only(objects, Object::virtual_service)))
            }
        }
    }

    /// The event that says: this one has gone.
    pub fn delete(self, key: ObjectKey) -> Event {
        match self {
            Self::Node => Event::Node(Change::Delete(key)),
            Self::Pod => Event::Pod(Change::Delete(key)),
            Self::Service => Event::Service(Change::Delete(key)),
            Self::EndpointSlice => Event::EndpointSlice(Change::Delete(key)),
            Self::NetworkPolicy => Event::NetworkPolicy(Change::Delete(key)),
            Self::DestinationRule => Event::DestinationRule(Change::Delete(key)),
            Self::VirtualService => Event::VirtualService(Change::Delete(key)),
        }
    }
}

impl fmt::Display for ObjectKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Node => "node",
            Self::Pod => "pod",
            Self::Service => "service",
            Self::EndpointSlice => "endpointslice",
            Self::NetworkPolicy => "networkpolicy",
            Self::DestinationRule => "destinationrule",
            Self::VirtualService => "virtualservice",
        })
    }
}

/// Kind, namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectId {
    /// The kind.
    pub kind: ObjectKind,
    /// Namespace (empty for a Node) and name.
    pub key: ObjectKey,
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            ObjectKind::Node => write!(f, "{} {}", self.kind, self.key.name),
            _ => write!(f, "{} {}", self.kind, self.key),
        }
    }
}

/// An object as it was read.
#[derive(Clone, Debug, PartialEq)]
pub enum Object {
    /// Nodes' pod ranges.
    Node(Node),
    /// Endpoints and clients.
    Pod(Pod),
    /// What clients call.
    Service(Service),
    /// Where it is.
    EndpointSlice(EndpointSlice),
    /// What is to be left alone.
    NetworkPolicy(NetworkPolicy),
    /// Its subsets.
    DestinationRule(DestinationRule),
    /// Its rules.
    VirtualService(VirtualService),
}

impl Object {
    /// Reads a manifest's JSON.
    ///
    /// # Errors
    /// When a field has the wrong type; says where.
    pub fn decode(kind: ObjectKind, value: &Value) -> Result<Self, String> {
        Ok(match kind {
            ObjectKind::Node => Self::Node(typed(value)?),
            ObjectKind::Pod => Self::Pod(typed(value)?),
            ObjectKind::Service => Self::Service(typed(value)?),
            ObjectKind::EndpointSlice => Self::EndpointSlice(typed(value)?),
            ObjectKind::NetworkPolicy => Self::NetworkPolicy(typed(value)?),
            ObjectKind::DestinationRule => Self::DestinationRule(typed(value)?),
            ObjectKind::VirtualService => Self::VirtualService(typed(value)?),
        })
    }

    /// What an API server would refuse it for, or warn of: a file never meets one.
    pub fn validate(&self) -> Vec<umbra_api::Problem> {
        match self {
            Self::DestinationRule(object) => object.validate(),
            Self::VirtualService(object) => object.validate(),
            Self::Node(_)
            | Self::Pod(_)
            | Self::Service(_)
            | Self::EndpointSlice(_)
            | Self::NetworkPolicy(_) => Vec::new(),
        }
    }

    /// Its kind.
    pub fn kind(&self) -> ObjectKind {
        match self {
            Self::Node(_) => ObjectKind::Node,
            Self::Pod(_) => ObjectKind::Pod,
            Self::Service(_) => ObjectKind::Service,
            Self::EndpointSlice(_) => ObjectKind::EndpointSlice,
            Self::NetworkPolicy(_) => ObjectKind::NetworkPolicy,
            Self::DestinationRule(_) => ObjectKind::DestinationRule,
            Self::VirtualService(_) => ObjectKind::VirtualService,
        }
    }

    /// All objects, as the controller would know them.
    pub fn index<'a>(all: impl Iterator<Item = &'a Self> + Clone) -> Index {
        let mut index = Index::new();
        for kind in ObjectKind::ALL {
            index.apply(kind.relist(all.clone().filter(|object| object.kind() == kind).cloned().collect()));
        }
        index
    }

    /// The object's metadata, to fill in what an API server would.
    pub fn metadata_mut(&mut self) -> &mut Meta {
        match self {
            Self::Node(object) => &mut object.metadata,
            Self::Pod(object) => &mut object.metadata,
            Self::Service(object) => &mut object.metadata,
            Self::EndpointSlice(object) => &mut object.metadata,
            Self::NetworkPolicy(object) => &mut object.metadata,
            Self::DestinationRule(object) => &mut object.metadata,
            Self::VirtualService(object) => &mut object.metadata,
        }
    }

    /// The event that says: it came, or changed.
    pub fn apply(self) -> Event {
        match self {
            Self::Node(object) => Event::Node(Change::Apply(object)),
            Self::Pod(object) => Event::Pod(Change::Apply(object)),
            Self::Service(object) => Event::Service(Change::Apply(object)),
            Self::EndpointSlice(object) => Event::EndpointSlice(Change::Apply(object)),
            Self::NetworkPolicy(object) => Event::NetworkPolicy(Change::Apply(object)),
            Self::DestinationRule(object) => Event::DestinationRule(Change::Apply(object)),
            Self::VirtualService(object) => Event::VirtualService(Change::Apply(object)),
        }
    }

    fn node(self) -> Option<Node> {
        if let Self::Node(object) = self { Some(object) } else { None }
    }

    fn pod(self) -> Option<Pod> {
        if let Self::Pod(object) = self { Some(object) } else { None }
    }

    fn service(self) -> Option<Service> {
        if let Self::Service(object) = self { Some(object) } else { None }
    }

    fn endpoint_slice(self) -> Option<EndpointSlice> {
        if let Self::EndpointSlice(object) = self { Some(object) } else { None }
    }

    fn network_policy(self) -> Option<NetworkPolicy> {
        if let Self::NetworkPolicy(object) = self { Some(object) } else { None }
    }

    fn destination_rule(self) -> Option<DestinationRule> {
        if let Self::DestinationRule(object) = self { Some(object) } else { None }
    }

    fn virtual_service(self) -> Option<VirtualService> {
        if let Self::VirtualService(object) = self { Some(object) } else { None }
    }
}

fn typed<T: DeserializeOwned>(value: &Value) -> Result<T, String> {
    serde_path_to_error::deserialize(value).map_err(|error| match error.path().to_string().as_str() {
        "." => error.inner().to_string(),
        path => format!("{path}: {}", error.inner()),
    })
}

fn only<T>(objects: Vec<Object>, kind: fn(Object) -> Option<T>) -> Vec<T> {
    objects.into_iter().filter_map(kind).collect()
}
