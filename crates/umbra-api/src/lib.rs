//! The Kubernetes objects umbra reads, as their users write them.
//!
//! Takes: JSON as the API server or `kubectl get -o yaml` gives it. Gives: plain values with only the fields that
//! umbra uses; of VirtualService and DestinationRule every field of Istio's, and any other in `rest`, so that it can
//! be named.
//! Never does I/O. The feature `kubernetes` adds what the `kube` crates need, and the CRDs' schemas.

mod base64;
#[cfg(feature = "kubernetes")]
pub mod crd;
mod destination_rule;
pub mod duration;
mod endpoint_slice;
pub mod header_name;
mod host;
mod meta;
mod network_policy;
mod node;
mod pod;
mod service;
mod status;
mod validate;
pub mod values;
mod virtual_service;
#[cfg(feature = "kubernetes")]
mod watched;
pub mod words;

pub use destination_rule::{
    ClientTlsSettings, ConnectionPoolSettings, ConsistentHash, DestinationRule, DestinationRuleSpec,
    Http2KeepAlive, HttpCookie, HttpCookieAttribute, HttpSettings, LoadBalancerSettings, LocalityDistribute,
    LocalityFailover, LocalityLbSetting, Maglev, OutlierDetection, PortTrafficPolicy, ProxyProtocol,
    RetryBudget, RingHash, Subset, TcpKeepalive, TcpSettings, TrafficPolicy, TunnelSettings, Warmup,
    WorkloadSelector, ZoneAwareLbSetting,
};
pub use endpoint_slice::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice, TargetRef};
pub use host::covers;
pub use meta::{Labels, Meta, ObjectKey, Rest};
pub use network_policy::{LabelExpression, LabelSelector, NetworkPolicy, NetworkPolicySpec};
pub use node::{Node, NodeCondition, NodeSpec, NodeStatus};
pub use pod::{OwnerReference, Pod, PodIp, PodSpec, PodStatus};
pub use service::{Service, ServicePort, ServiceSpec};
pub use status::{Condition, Generation, Status};
pub use validate::{Code, Problem, Severity};
pub use virtual_service::{
    CorsPolicy, Delegate, Destination, FaultAbort, FaultDelay, HeaderOperations, Headers, HttpBody,
    HttpDirectResponse, HttpFaultInjection, HttpMatchRequest, HttpMirrorPolicy, HttpRedirect, HttpRetry,
    HttpRewrite, HttpRoute, HttpRouteDestination, L4MatchAttributes, Percent, PortSelector, RegexRewrite,
    RouteDestination, StringMatch, TcpRoute, TlsMatchAttributes, TlsRoute, VirtualService,
    VirtualServiceSpec,
};
#[cfg(feature = "kubernetes")]
pub use watched::{Guarded, Undecodable, Watchable, Watched, opened};
