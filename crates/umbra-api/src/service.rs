//! Service, slim.

use serde::{Deserialize, Serialize};

use crate::meta::{Labels, Meta, null_is_default};

/// What umbra uses of a core/v1 Service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Service {
    /// Name and namespace.
    pub metadata: Meta,
    /// Addresses and ports.
    pub spec: ServiceSpec,
}

/// `spec` of a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceSpec {
    /// `ClusterIP` (also when empty), `NodePort`, `LoadBalancer` or `ExternalName`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `None` for a headless service, else the first of `clusterIPs`.
    #[serde(rename = "clusterIP")]
    pub cluster_ip: String,
    /// One address per IP family.
    #[serde(rename = "clusterIPs", deserialize_with = "null_is_default")]
    pub cluster_ips: Vec<String>,
    /// The service's ports.
    #[serde(deserialize_with = "null_is_default")]
    pub ports: Vec<ServicePort>,
    /// Which pods it selects.
    #[serde(deserialize_with = "null_is_default")]
    pub selector: Labels,
    /// `None` or `ClientIP`.
    pub session_affinity: String,
    /// `Cluster` (also when empty) or `Local`.
    pub internal_traffic_policy: String,
    /// Addresses outside the cluster's ranges that its nodes answer for.
    #[serde(rename = "externalIPs", deserialize_with = "null_is_default")]
    pub external_ips: Vec<String>,
    /// `PreferSameZone` and others; absent: any endpoint.
    pub traffic_distribution: Option<String>,
    /// Endpoints count before they are ready.
    pub publish_not_ready_addresses: bool,
}

/// A port of a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServicePort {
    /// Empty when the service has one unnamed port. EndpointSlices refer to it.
    pub name: String,
    /// `TCP` (also when empty), `UDP` or `SCTP`.
    pub protocol: String,
    /// Beats the name's prefix in saying what is spoken.
    pub app_protocol: Option<String>,
    /// The port clients use.
    pub port: u16,
}
