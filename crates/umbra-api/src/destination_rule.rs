//! DestinationRule, `networking.istio.io`: subsets, and the rest as written.

use serde::{Deserialize, Serialize};

use crate::meta::{Labels, Meta, Rest, null_is_default};

/// Names subsets of a service's pods by their labels.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DestinationRule {
    /// Name, namespace, uid, generation, age.
    pub metadata: Meta,
    /// What the author asks for.
    pub spec: DestinationRuleSpec,
}

/// `spec` of a DestinationRule.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct DestinationRuleSpec {
    /// Service name, short (of this namespace), full, or a wildcard.
    pub host: String,
    /// The service's subsets.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub subsets: Vec<Subset>,
    /// Fields umbra does not know: `trafficPolicy`, `exportTo`, `workloadSelector`.
    #[serde(flatten)]
    pub rest: Rest,
}

/// A named set of pods of the service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct Subset {
    /// The name that destinations use.
    pub name: String,
    /// All of these must be among a pod's labels; none selects every endpoint.
    #[serde(skip_serializing_if = "Labels::is_empty", deserialize_with = "null_is_default")]
    pub labels: Labels,
    /// Fields umbra does not know: `trafficPolicy`.
    #[serde(flatten)]
    pub rest: Rest,
}
