//! VirtualService, `networking.istio.io`: every field of Istio's, and unknown ones as written.
//!
//! Meaning of each field: <https://istio.io/latest/docs/reference/config/networking/virtual-service/>.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::meta::{Labels, Meta, Rest, null_is_default};

mod actions;
mod layer4;

pub use actions::{
    CorsPolicy, Delegate, FaultAbort, FaultDelay, HeaderOperations, Headers, HttpBody, HttpDirectResponse,
    HttpFaultInjection, HttpRedirect, HttpRetry, HttpRewrite, RegexRewrite,
};
pub use layer4::{L4MatchAttributes, RouteDestination, TcpRoute, TlsMatchAttributes, TlsRoute};

/// Routes requests for hosts to destinations, and copies of them to mirrors.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct VirtualService {
    /// Name, namespace, uid, generation, age.
    pub metadata: Meta,
    /// What the author asks for.
    pub spec: VirtualServiceSpec,
}

/// `spec` of a VirtualService.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct VirtualServiceSpec {
    /// Service names, short (of this namespace) or full. None: the rules are for others to delegate to.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub hosts: Vec<String>,
    /// Absent or containing `mesh`: applies to calls between pods.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub gateways: Vec<String>,
    /// Rules in order; the first that matches serves.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub http: Vec<HttpRoute>,
    /// Rules for TLS connections that are passed on as they are. umbra leaves such connections alone.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub tls: Vec<TlsRoute>,
    /// Rules for other connections. umbra leaves such connections alone.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub tcp: Vec<TcpRoute>,
    /// Namespaces whose clients it is for: `.`, `*`, names; absent is all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub export_to: Option<Vec<String>>,
    /// Fields umbra does not know.
    #[serde(flatten)]
    pub rest: Rest,
}

/// One rule.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct HttpRoute {
    /// A name for people and metrics.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Any of these must hold; none given matches every request.
    #[serde(rename = "match", skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub matches: Vec<HttpMatchRequest>,
    /// Where users' answers come from.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub route: Vec<HttpRouteDestination>,
    /// One mirror; `mirrorPercentage` is its share.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mirror: Option<Destination>,
    /// Several mirrors, each with its own share.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub mirrors: Vec<HttpMirrorPolicy>,
    /// Share of `mirror`; absent is 100 %.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mirror_percentage: Option<Percent>,
    /// Deprecated whole-number share of `mirror`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mirror_percent: Option<i64>,
    /// The second spelling that Istio's CRD has of `mirrorPercent`.
    #[serde(rename = "mirror_percent", skip_serializing_if = "Option::is_none")]
    pub mirror_percent_snake: Option<i64>,
    /// Header changes for every destination.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub headers: Option<Headers>,
    /// Answers with another address, instead of a destination.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redirect: Option<HttpRedirect>,
    /// Answers by itself, instead of a destination.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub direct_response: Option<HttpDirectResponse>,
    /// The rules of another VirtualService stand in for this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delegate: Option<Delegate>,
    /// Changes path and authority.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rewrite: Option<HttpRewrite>,
    /// How long the whole request may take; absent: as long as it takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<String>,
    /// Sends a request again that failed; absent: twice, when it never reached a destination.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retries: Option<HttpRetry>,
    /// Failures on purpose.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<HttpFaultInjection>,
    /// Which pages of other origins may call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cors_policy: Option<CorsPolicy>,
    /// Actions umbra does not know.
    #[serde(flatten)]
    pub rest: Rest,
}

/// All conditions of one block must hold.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct HttpMatchRequest {
    /// A name for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The path without its query.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uri: Option<StringMatch>,
    /// The request method.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<StringMatch>,
    /// `http` or `https`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheme: Option<StringMatch>,
    /// The Host header or `:authority`, as sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authority: Option<StringMatch>,
    /// Header name to condition; an empty condition asks for presence.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_is_default")]
    pub headers: BTreeMap<String, StringMatch>,
    /// Headers whose condition must not hold; an empty condition asks for absence.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_is_default")]
    pub without_headers: BTreeMap<String, StringMatch>,
    /// Query parameter to condition on its first value.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_is_default")]
    pub query_params: BTreeMap<String, StringMatch>,
    /// Exact and prefix conditions on the uri ignore case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ignore_uri_case: Option<bool>,
    /// The Service's port that the client used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u32>,
    /// Labels that the client's pod has.
    #[serde(skip_serializing_if = "Labels::is_empty", deserialize_with = "null_is_default")]
    pub source_labels: Labels,
    /// The namespace of the client's pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_namespace: Option<String>,
    /// In place of the object's gateways.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub gateways: Vec<String>,
    /// A prefix for Istio's statistics; umbra has none by it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stat_prefix: Option<String>,
    /// Conditions umbra does not know: the block then never matches.
    #[serde(flatten)]
    pub rest: Rest,
}

/// One of exact, prefix or regex; all absent means "present".
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct StringMatch {
    /// Equal, case-sensitive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exact: Option<String>,
    /// Begins with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// RE2 syntax, matches the whole value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub regex: Option<String>,
    /// Forms umbra does not know: the condition then never holds.
    #[serde(flatten)]
    pub rest: Rest,
}

impl VirtualServiceSpec {
    /// It applies to calls between pods (spec/istio.md 1A, `gateways`).
    pub fn is_for_mesh(&self) -> bool {
        self.gateways.is_empty() || self.gateways.iter().any(|gateway| gateway == "mesh")
    }
}

impl HttpRoute {
    /// Where it sends requests and copies, in the order of the fields.
    pub fn destinations(&self) -> impl Iterator<Item = &Destination> {
        let mirrors = self.mirrors.iter().map(|mirror| &mirror.destination);
        self.route.iter().map(|route| &route.destination).chain(&self.mirror).chain(mirrors)
    }
}

/// A destination and its share of the rule's requests.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct HttpRouteDestination {
    /// Where to.
    pub destination: Destination,
    /// Relative share; a single destination gets all, whatever its weight.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<i64>,
    /// Header changes for this destination alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub headers: Option<Headers>,
    /// Fields umbra does not know.
    #[serde(flatten)]
    pub rest: Rest,
}

/// Service, subset and port.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct Destination {
    /// Service name, short or full.
    pub host: String,
    /// A subset that a DestinationRule defines.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subset: Option<String>,
    /// A port of the Service; absent is the port the client used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<PortSelector>,
    /// Fields umbra does not know.
    #[serde(flatten)]
    pub rest: Rest,
}

impl Destination {
    /// The subset; an empty one is none.
    pub fn subset_name(&self) -> Option<&str> {
        self.subset.as_deref().filter(|subset| !subset.is_empty())
    }
}

/// A Service port by number.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct PortSelector {
    /// The Service's port, never a targetPort.
    pub number: u32,
    /// Fields umbra does not know.
    #[serde(flatten)]
    pub rest: Rest,
}

/// A mirror and its share.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct HttpMirrorPolicy {
    /// Where copies go.
    pub destination: Destination,
    /// Absent is 100 %.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub percentage: Option<Percent>,
    /// Fields umbra does not know.
    #[serde(flatten)]
    pub rest: Rest,
}

/// A share in percent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Percent {
    /// 0 to 100; absent inside `{}` is 0, as in Istio.
    pub value: f64,
    /// Fields umbra does not know.
    #[serde(flatten)]
    pub rest: Rest,
}
