//! Pod, slim.

use serde::{Deserialize, Serialize};

use crate::meta::{Meta, null_is_default};

/// What umbra uses of a core/v1 Pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pod {
    /// Name, uid, labels, owner.
    pub metadata: Meta,
    /// Where it runs.
    pub spec: PodSpec,
    /// Its addresses.
    pub status: PodStatus,
}

/// `spec` of a Pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSpec {
    /// Empty until scheduled.
    pub node_name: String,
    /// Shares the node's network: its connections are not a pod's.
    pub host_network: bool,
}

/// `status` of a Pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodStatus {
    /// `Pending`, `Running`, `Succeeded`, `Failed`.
    pub phase: String,
    /// One per IP family.
    #[serde(rename = "podIPs", deserialize_with = "null_is_default")]
    pub pod_ips: Vec<PodIp>,
}

/// One of a pod's addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PodIp {
    /// IPv4 or IPv6 text.
    pub ip: String,
}

/// Who owns an object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OwnerReference {
    /// `ReplicaSet`, `StatefulSet`, ...
    pub kind: String,
    /// Its name.
    pub name: String,
    /// The one that manages it.
    pub controller: bool,
}
