//! Backend sets: the endpoints of one destination.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::digest;
use crate::key::Key;
use crate::table::ServiceName;

/// Service, port and selector: what a destination means. Two destinations that mean the same share one set.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BackendRef {
    /// The service whose endpoints these are.
    pub service: ServiceName,
    /// The Service's port.
    pub port: u16,
    /// The subset's name as users say it; absent: all endpoints. For messages and metrics.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subset: Option<String>,
    /// The subset's labels; absent with a `subset` when nothing defines it, or when the service or the port does not
    /// exist: the destination is unresolved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<BTreeMap<String, String>>,
}

impl BackendRef {
    /// A destination without a subset.
    pub fn all(service: ServiceName, port: u16) -> Self {
        Self { service, port, subset: None, selector: Some(BTreeMap::new()) }
    }

    /// Nothing defines it: no key, no endpoints; a primary answers 503, a mirror drops.
    pub fn is_unresolved(&self) -> bool {
        self.selector.is_none()
    }

    /// The key of its backend set: a digest of service, port and selector, so that the same destination written in
    /// several rules is sent once. `None` when unresolved.
    pub fn key(&self) -> Option<Key> {
        let selector = self.selector.as_ref()?;
        let identity =
            serde_json::to_vec(&(&self.service, self.port, selector)).expect("plain maps serialise");
        Some(Key::Backends(digest::of_bytes(&identity)))
    }
}

/// The endpoints of a destination, the value of key `backends/<digest>`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendSet {
    /// The service.
    pub service: ServiceName,
    /// The Service's port.
    pub port: u16,
    /// The labels its pods have; empty: all.
    pub selector: BTreeMap<String, String>,
    /// Which HTTP its endpoints are spoken to.
    #[serde(default)]
    pub spoken_to: SpokenTo,
    /// Ready endpoints, ordered by address.
    pub endpoints: Vec<Endpoint>,
}

/// Which version of HTTP is spoken to endpoints, as their Service's port says (spec/istio.md 2.10).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SpokenTo {
    /// HTTP/1.1, also for clients of HTTP/2.
    Http1,
    /// HTTP/2 without TLS, by prior knowledge, also for clients of HTTP/1.
    Http2,
    /// What the client speaks: the port says nothing.
    #[default]
    AsClient,
}

/// One address to send requests to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// Pod address and port. Unique in a set.
    pub address: SocketAddr,
    /// The pod's name, when there is a pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// The pod's namespace, or the service's.
    pub namespace: String,
    /// Istio's workload name, or `unknown`.
    pub workload: String,
    /// `app` label, or `unknown`.
    pub app: String,
    /// `version` label, or `unknown`.
    pub version: String,
    /// Istio's canonical service.
    pub canonical_name: String,
    /// Istio's canonical revision.
    pub canonical_revision: String,
    /// The zone it runs in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
}
