//! EndpointSlice, slim.

use serde::{Deserialize, Serialize};

use crate::meta::{Meta, null_is_default};

/// What umbra uses of a discovery.k8s.io/v1 EndpointSlice.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointSlice {
    /// The label `kubernetes.io/service-name` says whose endpoints these are.
    pub metadata: Meta,
    /// `IPv4`, `IPv6` or `FQDN`.
    pub address_type: String,
    /// The endpoints.
    #[serde(deserialize_with = "null_is_default")]
    pub endpoints: Vec<Endpoint>,
    /// The ports that each endpoint here serves.
    #[serde(deserialize_with = "null_is_default")]
    pub ports: Vec<EndpointPort>,
}

/// One endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Endpoint {
    /// Only the first one counts (Kubernetes says so).
    #[serde(deserialize_with = "null_is_default")]
    pub addresses: Vec<String>,
    /// Ready, serving, terminating.
    #[serde(deserialize_with = "null_is_default")]
    pub conditions: EndpointConditions,
    /// The pod behind it, when there is one.
    pub target_ref: Option<TargetRef>,
    /// Where it runs.
    pub node_name: Option<String>,
    /// Its zone.
    pub zone: Option<String>,
}

/// State of an endpoint; an absent `ready` counts as true.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EndpointConditions {
    /// May receive new connections.
    pub ready: Option<bool>,
    /// Answers, even while it ends.
    pub serving: Option<bool>,
    /// Is being stopped.
    pub terminating: Option<bool>,
}

/// A reference to a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TargetRef {
    /// `Pod` for what umbra can look up.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

/// A named port of the endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EndpointPort {
    /// The name of the Service's port; empty for an unnamed one.
    #[serde(deserialize_with = "null_is_default")]
    pub name: String,
    /// `TCP`, `UDP` or `SCTP`.
    #[serde(deserialize_with = "null_is_default")]
    pub protocol: String,
    /// The pods' own port.
    pub port: Option<u16>,
}
