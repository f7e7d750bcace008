//! Rules for connections that are not HTTP. umbra leaves such connections alone and tells the author.

use serde::{Deserialize, Serialize};

use super::Destination;
use crate::meta::{Labels, Rest, null_is_default};

/// A rule for connections of ports that are neither HTTP nor TLS.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct TcpRoute {
    /// Any of these must hold; none given matches every connection.
    #[serde(rename = "match", skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub matches: Vec<L4MatchAttributes>,
    /// Where connections go.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub route: Vec<RouteDestination>,
    /// Fields umbra does not know.
    #[serde(flatten)]
    pub rest: Rest,
}

/// Conditions on a connection; all of one block must hold.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct L4MatchAttributes {
    /// The address that the client asked for lies in one of these, as `10.0.0.0/8`.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub destination_subnets: Vec<String>,
    /// The Service's port that the client used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u32>,
    /// The client's address lies in this one. Istio has the field and leaves it out of its documentation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_subnet: Option<String>,
    /// Labels that the client's pod has.
    #[serde(skip_serializing_if = "Labels::is_empty", deserialize_with = "null_is_default")]
    pub source_labels: Labels,
    /// In place of the object's gateways.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub gateways: Vec<String>,
    /// The namespace of the client's pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_namespace: Option<String>,
    /// Fields umbra does not know.
    #[serde(flatten)]
    pub rest: Rest,
}

/// A rule for TLS connections that are passed on as they are.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct TlsRoute {
    /// Any of these must hold.
    #[serde(rename = "match", skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub matches: Vec<TlsMatchAttributes>,
    /// Where connections go.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub route: Vec<RouteDestination>,
    /// Fields umbra does not know.
    #[serde(flatten)]
    pub rest: Rest,
}

/// Conditions on a TLS connection; all of one block must hold.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct TlsMatchAttributes {
    /// The name that the client asks for is one of these, which are among the object's hosts.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub sni_hosts: Vec<String>,
    /// The address that the client asked for lies in one of these, as `10.0.0.0/8`.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub destination_subnets: Vec<String>,
    /// The Service's port that the client used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u32>,
    /// Labels that the client's pod has.
    #[serde(skip_serializing_if = "Labels::is_empty", deserialize_with = "null_is_default")]
    pub source_labels: Labels,
    /// In place of the object's gateways.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub gateways: Vec<String>,
    /// The namespace of the client's pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_namespace: Option<String>,
    /// Fields umbra does not know.
    #[serde(flatten)]
    pub rest: Rest,
}

/// A destination and its share of the rule's connections.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct RouteDestination {
    /// Where to.
    pub destination: Destination,
    /// Relative share; a single destination gets all, whatever its weight.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<i64>,
    /// Fields umbra does not know.
    #[serde(flatten)]
    pub rest: Rest,
}
