//! Node, slim.

use serde::{Deserialize, Serialize};

use crate::meta::{Meta, null_is_default};

/// What umbra uses of a core/v1 Node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Node {
    /// Its name.
    pub metadata: Meta,
    /// Its pods' address ranges.
    pub spec: NodeSpec,
    /// Whether it lives.
    pub status: NodeStatus,
}

/// `status` of a Node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeStatus {
    /// `Ready` and others.
    #[serde(deserialize_with = "null_is_default")]
    pub conditions: Vec<NodeCondition>,
}

/// One condition, without its times: they move with every heartbeat.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeCondition {
    /// `Ready`, `DiskPressure`, ...
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
}

impl Node {
    /// Its kubelet has not been heard for so long that the control plane has given it up (40 s by default): it is off,
    /// or cut off.
    pub fn is_lost(&self) -> bool {
        self.status
            .conditions
            .iter()
            .any(|condition| condition.kind == "Ready" && condition.status == "Unknown")
    }
}

/// `spec` of a Node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeSpec {
    /// One range per IP family; empty when the CNI hands out addresses itself.
    #[serde(rename = "podCIDRs", deserialize_with = "null_is_default")]
    pub pod_cidrs: Vec<String>,
}
