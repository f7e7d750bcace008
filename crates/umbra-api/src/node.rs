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
}

/// `spec` of a Node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeSpec {
    /// One range per IP family; empty when the CNI hands out addresses itself.
    #[serde(rename = "podCIDRs", deserialize_with = "null_is_default")]
    pub pod_cidrs: Vec<String>,
}
