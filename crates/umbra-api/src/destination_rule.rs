//! DestinationRule, `networking.istio.io`: subsets, and how their endpoints are used.
//!
//! Meaning of each field: <https://istio.io/latest/docs/reference/config/networking/destination-rule/>. Durations are
//! kept as written (`1.5s`), words too: what they mean is checked by `validate()`.

use serde::{Deserialize, Serialize};

use crate::meta::{Labels, Meta, Rest, null_is_default};

mod connection_pool;
mod load_balancer;
mod outlier_detection;
mod traffic_policy;

pub use connection_pool::{
    ClientTlsSettings, ConnectionPoolSettings, Http2KeepAlive, HttpSettings, TcpKeepalive, TcpSettings,
};
pub use load_balancer::{
    ConsistentHash, HttpCookie, HttpCookieAttribute, LoadBalancerSettings, LocalityDistribute,
    LocalityFailover, LocalityLbSetting, Maglev, RingHash, Warmup, ZoneAwareLbSetting,
};
pub use outlier_detection::OutlierDetection;
pub use traffic_policy::{PortTrafficPolicy, ProxyProtocol, RetryBudget, TrafficPolicy, TunnelSettings};

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
    /// How the service's endpoints are used; a subset may say otherwise, block by block.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traffic_policy: Option<Box<TrafficPolicy>>,
    /// The service's subsets.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub subsets: Vec<Subset>,
    /// Namespaces whose clients it is for: `.`, `*`, names; absent is all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub export_to: Option<Vec<String>>,
    /// For clients of this namespace with these labels only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workload_selector: Option<WorkloadSelector>,
    /// Fields umbra does not know.
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
    /// How its endpoints are used; what it leaves out is as the DestinationRule has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traffic_policy: Option<Box<TrafficPolicy>>,
    /// Fields umbra does not know.
    #[serde(flatten)]
    pub rest: Rest,
}

/// Pods by their labels.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct WorkloadSelector {
    /// All of these must be among a pod's labels; none takes every pod of the namespace.
    #[serde(skip_serializing_if = "Labels::is_empty", deserialize_with = "null_is_default")]
    pub match_labels: Labels,
    /// Fields umbra does not know.
    #[serde(flatten)]
    pub rest: Rest,
}
