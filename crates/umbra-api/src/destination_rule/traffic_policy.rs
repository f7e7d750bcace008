//! How connections to a service, a subset or a port are made and shared out.

use serde::{Deserialize, Serialize};

use super::connection_pool::{ClientTlsSettings, ConnectionPoolSettings};
use super::load_balancer::LoadBalancerSettings;
use super::outlier_detection::OutlierDetection;
use crate::PortSelector;
use crate::meta::{Rest, null_is_default};

/// How connections to the endpoints are made and shared out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct TrafficPolicy {
    /// How an endpoint is chosen for a request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load_balancer: Option<LoadBalancerSettings>,
    /// How many connections and requests there may be, and how long they live.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connection_pool: Option<ConnectionPoolSettings>,
    /// When an endpoint that fails is left out for a while.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outlier_detection: Option<OutlierDetection>,
    /// Whether connections to the endpoints are encrypted, and with what.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<ClientTlsSettings>,
    /// Other settings for some of the Service's ports. What one of them leaves out has its default there, not the
    /// value above.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub port_level_settings: Vec<PortTrafficPolicy>,
    /// Sends TCP and TLS connections through another proxy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tunnel: Option<TunnelSettings>,
    /// Begins each connection with a PROXY header that tells the client's address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy_protocol: Option<ProxyProtocol>,
    /// How many of the requests in flight may be retries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_budget: Option<RetryBudget>,
    /// Fields umbra does not know.
    #[serde(flatten)]
    pub rest: Rest,
}

/// Settings for one port of the Service; they stand in for all of the policy around them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct PortTrafficPolicy {
    /// The Service's port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<PortSelector>,
    /// How an endpoint is chosen for a request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load_balancer: Option<LoadBalancerSettings>,
    /// How many connections and requests there may be, and how long they live.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connection_pool: Option<ConnectionPoolSettings>,
    /// When an endpoint that fails is left out for a while.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outlier_detection: Option<OutlierDetection>,
    /// Whether connections to the endpoints are encrypted, and with what.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<ClientTlsSettings>,
    /// Fields umbra does not know.
    #[serde(flatten)]
    pub rest: Rest,
}

/// Sends TCP and TLS connections through another proxy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct TunnelSettings {
    /// How the proxy is asked: `CONNECT` (the default) or `POST`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// Where the tunnel leads to: a name or an address.
    pub target_host: String,
    /// The port there.
    pub target_port: u32,
    /// Fields umbra does not know.
    #[serde(flatten)]
    pub rest: Rest,
}

/// Begins each connection with a PROXY header that tells the client's address.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct ProxyProtocol {
    /// `V1`, the text form and the default, or `V2`, the binary form.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Fields umbra does not know.
    #[serde(flatten)]
    pub rest: Rest,
}

/// How many of the requests in flight may be retries.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct RetryBudget {
    /// Retries in percent of the requests in flight; absent is 20.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub percent: Option<f64>,
    /// This many retries may be in flight whatever the percentage; absent is 3.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_retry_concurrency: Option<u32>,
    /// Over how long requests are counted; absent, only those in flight are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget_interval: Option<String>,
    /// Fields umbra does not know.
    #[serde(flatten)]
    pub rest: Rest,
}
