//! How an endpoint is chosen for a request.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::meta::{Rest, null_is_default};

/// How an endpoint is chosen for a request: `simple` or `consistentHash`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct LoadBalancerSettings {
    /// `LEAST_REQUEST` (the default, also as `UNSPECIFIED` and, deprecated, `LEAST_CONN`): the less busy of two drawn
    /// endpoints; `ROUND_ROBIN`; `RANDOM`; or `PASSTHROUGH`: the address that the client asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub simple: Option<String>,
    /// Requests that are alike in one thing meet the same endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consistent_hash: Option<ConsistentHash>,
    /// How requests are shared out between regions and zones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub locality_lb_setting: Option<LocalityLbSetting>,
    /// Prefers endpoints of the client's zone as far as they can take it; not beside `localityLbSetting`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone_aware_lb_setting: Option<ZoneAwareLbSetting>,
    /// Deprecated: `warmup.duration`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warmup_duration_secs: Option<String>,
    /// A new endpoint gets its share little by little.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warmup: Option<Warmup>,
    /// Fields umbra does not know.
    #[serde(flatten)]
    pub rest: Rest,
}

/// Requests that are alike in one thing meet the same endpoint. A request without it may meet any.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct ConsistentHash {
    /// They are alike in this request header.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_header_name: Option<String>,
    /// They are alike in this cookie.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_cookie: Option<HttpCookie>,
    /// They come from the same address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub use_source_ip: Option<bool>,
    /// They are alike in this query parameter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_query_parameter_name: Option<String>,
    /// Endpoints stand on a ring; the default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ring_hash: Option<RingHash>,
    /// Endpoints stand in a table.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub maglev: Option<Maglev>,
    /// Deprecated: `ringHash.minimumRingSize`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub minimum_ring_size: Option<u64>,
    /// Fields umbra does not know.
    #[serde(flatten)]
    pub rest: Rest,
}

/// The cookie that requests are told apart by.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct HttpCookie {
    /// Its name.
    pub name: String,
    /// Its path, when it is made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// It is made for clients that have none, to live so long; `0s` until the browser is closed. Absent: never made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl: Option<String>,
    /// More attributes, when it is made.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub attributes: Vec<HttpCookieAttribute>,
    /// Fields umbra does not know.
    #[serde(flatten)]
    pub rest: Rest,
}

/// An attribute of a cookie.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct HttpCookieAttribute {
    /// Its name, as `SameSite`.
    pub name: String,
    /// Its value; absent for one without, as `Secure`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Fields umbra does not know.
    #[serde(flatten)]
    pub rest: Rest,
}

/// Endpoints stand on a ring.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct RingHash {
    /// More places on the ring share out better; absent is 1024.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub minimum_ring_size: Option<u64>,
    /// Fields umbra does not know.
    #[serde(flatten)]
    pub rest: Rest,
}

/// Endpoints stand in a table.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct Maglev {
    /// The table's size: a prime of at most 5000011; absent is 65537.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table_size: Option<u64>,
    /// Fields umbra does not know.
    #[serde(flatten)]
    pub rest: Rest,
}

/// How requests are shared out between regions and zones. Localities are written `region/zone/sub-zone`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct LocalityLbSetting {
    /// False turns it off, also where it is on for the whole mesh.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Shares by the client's locality; not beside `failover`.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub distribute: Vec<LocalityDistribute>,
    /// Which region takes over when one fails; needs `outlierDetection`.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub failover: Vec<LocalityFailover>,
    /// Labels in order of their weight: endpoints that share more of them with the client come first.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub failover_priority: Vec<String>,
    /// Fields umbra does not know.
    #[serde(flatten)]
    pub rest: Rest,
}

/// How requests of clients of one locality are shared out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct LocalityDistribute {
    /// The clients' locality; `*` at its end stands for the rest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Locality to percentage; all together 100.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_is_default")]
    pub to: BTreeMap<String, u32>,
    /// Fields umbra does not know.
    #[serde(flatten)]
    pub rest: Rest,
}

/// Which region takes over when one fails.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct LocalityFailover {
    /// The region that fails.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The region that takes over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// Fields umbra does not know.
    #[serde(flatten)]
    pub rest: Rest,
}

/// Prefers endpoints of the client's zone as far as they can take it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct ZoneAwareLbSetting {
    /// Turns it on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Which region takes over when one fails.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub failover: Vec<LocalityFailover>,
    /// Labels in order of their weight: endpoints that share more of them with the client come first.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub failover_priority: Vec<String>,
    /// With fewer endpoints than these zones are not looked at; absent is 6.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_cluster_size: Option<u32>,
    /// Fields umbra does not know.
    #[serde(flatten)]
    pub rest: Rest,
}

/// A new endpoint gets its share little by little. With `ROUND_ROBIN` and `LEAST_REQUEST` only.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct Warmup {
    /// How long it takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration: Option<String>,
    /// The percentage to begin with; absent is 10.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub minimum_percent: Option<f64>,
    /// 1 (the default) grows evenly, more grows faster at the beginning.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aggression: Option<f64>,
    /// Fields umbra does not know.
    #[serde(flatten)]
    pub rest: Rest,
}
