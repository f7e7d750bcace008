//! Destinations' endpoints.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use umbra_index::View;
use umbra_index::api::{self, EndpointConditions, EndpointSlice, Labels, ObjectKey, Service};
use umbra_routing::{BackendRef, BackendSet, Endpoint, ServiceTable, SpokenTo};

use crate::identity::Identity;
use crate::protocol;

/// The endpoints of a destination as they are now; also for a held table, whose selectors may be of the past. An
/// unresolved destination, or one whose service or port has gone, has none.
pub fn backends(view: View<'_>, reference: &BackendRef) -> BackendSet {
    let selector = reference.selector.clone().unwrap_or_default();
    let mut endpoints = BTreeMap::new();
    let mut spoken_to = SpokenTo::default();
    let key = ObjectKey::new(reference.service.namespace.clone(), reference.service.name.clone());
    if let Some(service) = view.service(&key)
        && !reference.is_unresolved()
    {
        let finder = Finder { view, service, selector: &selector };
        spoken_to = finder.port(reference.port).map(protocol::spoken_to).unwrap_or_default();
        // As kube-proxy does it: rather an endpoint that is ending than none.
        for usable in [Finder::is_usable, Finder::is_ending] {
            if endpoints.is_empty() {
                for slice in view.slices(&key) {
                    finder.collect(slice, reference.port, usable, &mut endpoints);
                }
            }
        }
    }
    BackendSet {
        service: reference.service.clone(),
        port: reference.port,
        selector,
        spoken_to,
        endpoints: endpoints.into_values().collect(),
    }
}

/// Every destination and mirror of a table that something defines: the backend sets to publish with it.
pub fn backend_refs(table: &ServiceTable) -> BTreeSet<BackendRef> {
    table.backends().filter(|backend| !backend.is_unresolved()).cloned().collect()
}

struct Finder<'a> {
    view: View<'a>,
    service: &'a Service,
    selector: &'a Labels,
}

impl Finder<'_> {
    /// Adds a slice's endpoints; of an address in several slices the first usable entry counts.
    fn collect(
        &self,
        slice: &EndpointSlice,
        port: u16,
        usable: fn(&Self, &EndpointConditions) -> bool,
        endpoints: &mut BTreeMap<SocketAddr, Endpoint>,
    ) {
        let Some(target) = self.target_port(slice, port) else { return };
        for endpoint in slice.endpoints.iter().filter(|endpoint| usable(self, &endpoint.conditions)) {
            // Kubernetes: only the first address counts.
            let address = endpoint.addresses.first().and_then(|address| address.parse::<IpAddr>().ok());
            if let Some(address) = address
                && let Some(found) = self.endpoint(endpoint, SocketAddr::new(address, target))
            {
                endpoints.entry(found.address).or_insert(found);
            }
        }
    }

    /// The Service's port of this number.
    fn port(&self, number: u16) -> Option<&api::ServicePort> {
        self.service.spec.ports.iter().find(|port| port.port == number && protocol::is_tcp(port))
    }

    /// The pods' port: the slice's port of the same name as the Service's.
    fn target_port(&self, slice: &EndpointSlice, port: u16) -> Option<u16> {
        let is_tcp = |protocol: &str| protocol.is_empty() || protocol == "TCP";
        let named = self.port(port)?;
        let target =
            slice.ports.iter().find(|target| target.name == named.name && is_tcp(&target.protocol))?;
        target.port
    }

    /// Ready or not said, and not ending (spec/istio.md 2.8); a service that publishes unready addresses asks for more.
    fn is_usable(&self, conditions: &EndpointConditions) -> bool {
        let ready = conditions.ready.unwrap_or(true);
        let terminating = conditions.terminating.unwrap_or(false);
        if self.service.spec.publish_not_ready_addresses {
            ready || !terminating
        } else {
            ready && !terminating
        }
    }

    /// Still answers, though it is on its way out.
    fn is_ending(&self, conditions: &EndpointConditions) -> bool {
        conditions.serving.unwrap_or(true) && conditions.terminating.unwrap_or(false)
    }

    /// `None`: not in this set. An endpoint without a pod, or whose pod is not known, has no labels.
    fn endpoint(&self, endpoint: &api::Endpoint, address: SocketAddr) -> Option<Endpoint> {
        let target = endpoint.target_ref.as_ref().filter(|target| target.kind == "Pod");
        let entry = target.and_then(|target| self.view.endpoint_pod(target));
        let has = |(name, value): (&String, &String)| {
            entry.is_some_and(|entry| entry.labels.get(name) == Some(value))
        };
        if !self.selector.iter().all(has) {
            return None;
        }
        let identity = entry.map_or_else(Identity::unknown, Identity::of);
        let namespace = target.map_or(&self.service.metadata.namespace, |target| &target.namespace);
        Some(Endpoint {
            address,
            pod: target.map(|target| target.name.clone()),
            namespace: namespace.clone(),
            workload: identity.workload,
            app: identity.app,
            version: identity.version,
            canonical_name: identity.canonical_name,
            canonical_revision: identity.canonical_revision,
            zone: endpoint.zone.clone(),
        })
    }
}
