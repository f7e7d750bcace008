//! Tables: everything a node needs for one service, as data.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::action::{Answer, Cors, Fault, HeaderChanges, Retries, Rewrite};
use crate::backends::BackendRef;
use crate::matcher::RequestMatch;
use crate::sample::SampleBy;

/// Namespace and name of a Service.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ServiceName {
    /// The Service's namespace.
    pub namespace: String,
    /// The Service's name.
    pub name: String,
}

impl ServiceName {
    /// The service `name` in `namespace`.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    /// `name.namespace.svc.cluster.local`, the name Istio's metrics use.
    pub fn fqdn(&self) -> String {
        format!("{}.{}.svc.cluster.local", self.name, self.namespace)
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// One governed service, the value of key `service/<namespace>/<name>`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceTable {
    /// Which service.
    pub service: ServiceName,
    /// Its ClusterIPs: the original destinations that select it. Empty on a laptop.
    pub addresses: Vec<IpAddr>,
    /// The ports to take over; others are left alone.
    pub ports: Vec<Port>,
    /// Why nodes are not to take it over although it is governed (a NetworkPolicy): for people. Its users stay on its
    /// primary by the fallback's entries, and nothing is copied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leave_alone: Option<String>,
    /// Uids of the VirtualServices that its rules come from: a controller that has lost the rules of an object that is
    /// invalid now finds them on nodes by it.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub rules_of: BTreeSet<String>,
}

/// One port of a governed service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Port {
    /// The Service's port number.
    pub number: u16,
    /// What is spoken on it.
    pub protocol: Protocol,
    /// The default variant first (`client_namespace` absent), then those of single client namespaces.
    /// A client whose namespace has no variant gets the default.
    pub variants: Vec<Variant>,
}

impl ServiceTable {
    /// A destination that nothing defines, when that is what users would meet on every port. Such a service is not
    /// taken over for the first time: users stay where they are. One port that resolves is enough.
    pub fn unresolved_primary(&self) -> Option<&BackendRef> {
        let all: Option<Vec<_>> = self.ports.iter().map(|port| port.unresolved_primary(None)).collect();
        all?.first().copied()
    }

    /// Every destination and mirror of its rules, unresolved ones too; one that several rules name comes as often.
    pub fn backends(&self) -> impl Iterator<Item = &BackendRef> {
        let rules = self.ports.iter().flat_map(|port| &port.variants).flat_map(|variant| &variant.rules);
        rules.flat_map(|rule| {
            let destinations = rule.destinations.iter().map(|to| &to.backend);
            destinations.chain(rule.mirrors.iter().map(|mirror| &mirror.backend))
        })
    }

    /// Some of its rules come from one of these objects.
    pub fn rests_on(&self, uids: &BTreeSet<String>) -> bool {
        !self.rules_of.is_disjoint(uids)
    }
}

impl Port {
    /// The first destination that nothing defines among the rules for clients of this namespace; `None` as the
    /// namespace: the default variant, which alone decides whether the port is taken over for the first time, so that
    /// what somebody writes for clients of one namespace harms no other. Mirrors do not matter.
    pub fn unresolved_primary(&self, client_namespace: Option<&str>) -> Option<&BackendRef> {
        let variant = self.variant(client_namespace)?;
        let destinations = variant.rules.iter().flat_map(|rule| &rule.destinations);
        destinations.map(|to| &to.backend).find(|backend| backend.is_unresolved())
    }

    /// The variant for clients of this namespace: their own, or the default.
    pub fn variant(&self, client_namespace: Option<&str>) -> Option<&Variant> {
        let of = |client: Option<&str>| {
            self.variants.iter().find(move |variant| variant.client_namespace.as_deref() == client)
        };
        client_namespace.and_then(|client| of(Some(client))).or_else(|| of(None))
    }
}

/// How the reason begins with which a node refuses a table that it is not to take over yet: the controller tells such
/// a wait from a fault by it.
pub const NOT_ARMED_UNRESOLVED: &str = "not armed: destination ";

/// What a port's name or appProtocol says of it (spec/istio.md 2.10).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Declared HTTP or gRPC.
    Http,
    /// Unnamed: the first bytes tell.
    Unknown,
}

/// The rules of one port for clients of one namespace, or of all others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Variant {
    /// Absent for the default variant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_namespace: Option<String>,
    /// In order; the first match serves; none matching answers 404, as does [`Answer::NoRoute`]. A service without a VirtualService for these
    /// clients has one catch-all rule to all its endpoints.
    pub rules: Vec<Rule>,
}

/// One rule.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Rule {
    /// `name` of the rule, or `http[N]`; a metric label.
    pub name: String,
    /// Where it is written: for people, and for whoever explains what a node does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<RuleOrigin>,
    /// Any of these; empty matches all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub matches: Vec<RequestMatch>,
    /// Where the user's answer comes from; a single one gets all. None when there is an `answer`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub destinations: Vec<WeightedBackend>,
    /// Where copies go.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mirrors: Vec<Mirror>,
    /// The answer itself, in place of destinations: nothing of what is below but `headers.response` applies then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer: Option<Answer>,
    /// Changes of path and authority.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rewrite: Option<Rewrite>,
    /// Changes of headers. With several destinations those of the destination come first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub headers: Option<HeaderChanges>,
    /// How long a request may take, with all its retries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// When it is sent again; absent: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retries: Option<Retries>,
    /// Failures on purpose.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<Fault>,
    /// Which pages of other origins may call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cors: Option<Cors>,
}

/// Where a rule is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RuleOrigin {
    /// `namespace/name`; of a delegate's rule, the delegate.
    pub virtual_service: String,
    /// Index into its `spec.http`.
    pub rule: usize,
}

/// A destination with its weight.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WeightedBackend {
    /// Share of the sum of the rule's weights; 0 gets nothing unless it stands alone.
    pub weight: u32,
    /// Which backend set; a set that is not defined answers 503.
    pub backend: BackendRef,
    /// Changes of headers for this destination alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headers: Option<HeaderChanges>,
}

impl WeightedBackend {
    /// A destination without header changes.
    pub fn new(weight: u32, backend: BackendRef) -> Self {
        Self { weight, backend, headers: None }
    }
}

/// A mirror with its share.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mirror {
    /// Which backend set; one that is not defined drops its copies, counted.
    pub backend: BackendRef,
    /// Share of the requests in millionths (Istio's resolution is 0.0001 %).
    pub per_million: u32,
    /// What decides who is in that share; absent: chance, request by request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample: Option<SampleBy>,
}

impl Mirror {
    /// A mirror of a share that chance chooses.
    pub fn new(per_million: u32, backend: BackendRef) -> Self {
        Self { backend, per_million, sample: None }
    }
}

/// A local pod, the value of key `client/<pod ip>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Client {
    /// The pod's name.
    pub pod: String,
    /// Its namespace; selects the variant.
    pub namespace: String,
    /// Metric labels, as Istio computes them (spec/shadowing.md 3.3).
    pub workload: String,
    /// `app` label or `unknown`.
    pub app: String,
    /// `version` label or `unknown`.
    pub version: String,
    /// Istio's canonical service.
    pub canonical_name: String,
    /// Istio's canonical revision.
    pub canonical_revision: String,
    /// The pod's labels, for `sourceLabels`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Its connections are not taken over: an egress NetworkPolicy selects it, which a proxy would get it past.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub skip: bool,
}

/// What a node is told about itself, the value of key `node`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeSettings {
    /// Sources to take over: this node's pod address ranges (CIDR text). Empty: known pods only.
    pub pod_cidrs: Vec<String>,
    /// Only known pods are taken over, whatever the ranges: some egress NetworkPolicy exists, and a pod that is not
    /// known yet may be under it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub known_pods_only: bool,
}
