//! Reading the index.

use umbra_api::{
    DestinationRule, EndpointSlice, NetworkPolicy, Node, ObjectKey, Problem, Service, TargetRef,
    VirtualService,
};

use crate::event::ObjectName;
use crate::host;
use crate::index::Index;
use crate::pods::PodEntry;

/// The objects as they are now, with the lookups that compiling needs. Every list is in a fixed order that does not
/// depend on the order of events.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    pub(crate) index: &'a Index,
}

impl<'a> View<'a> {
    /// A Service.
    pub fn service(&self, key: &ObjectKey) -> Option<&'a Service> {
        self.index.services.get(key)
    }

    /// All Services.
    pub fn services(&self) -> impl Iterator<Item = &'a Service> + use<'a> {
        self.index.services.values()
    }

    /// A VirtualService.
    pub fn virtual_service(&self, key: &ObjectKey) -> Option<&'a VirtualService> {
        self.index.rules.virtual_service(key)
    }

    /// All VirtualServices.
    pub fn virtual_services(&self) -> impl Iterator<Item = &'a VirtualService> + use<'a> {
        self.index.rules.virtual_services().map(|(_, object)| object)
    }

    /// What `validate()` says of a VirtualService or DestinationRule: it was asked when this version came.
    pub fn problems(&self, object: &ObjectName) -> &'a [Problem] {
        self.index.rules.problems(object)
    }

    /// The VirtualServices whose `hosts` name `service` or cover it with a wildcard, oldest first, then by name and
    /// namespace; those of gateways too.
    pub fn virtual_services_for(
        &self,
        service: &ObjectKey,
    ) -> impl Iterator<Item = &'a VirtualService> + use<'a> {
        self.index.rules.naming(service)
    }

    /// The VirtualServices that delegate to this one, by namespace and name.
    pub fn roots_of(&self, delegate: &ObjectKey) -> impl Iterator<Item = &'a VirtualService> + use<'a> {
        self.index.rules.roots_of(delegate)
    }

    /// Some Service has a name that this host, perhaps a wildcard, covers.
    pub fn covers_a_service(&self, host: &str) -> bool {
        self.index.services.keys().any(|service| host::covers(host, &host::name_of(service)))
    }

    /// A DestinationRule.
    pub fn destination_rule(&self, key: &ObjectKey) -> Option<&'a DestinationRule> {
        self.index.rules.destination_rule(key)
    }

    /// All DestinationRules.
    pub fn destination_rules(&self) -> impl Iterator<Item = &'a DestinationRule> + use<'a> {
        self.index.rules.destination_rules().map(|(_, object)| object)
    }

    /// The DestinationRules whose host is `service` or a wildcard that covers it, of all namespaces, oldest first,
    /// then by name and namespace.
    pub fn destination_rules_for(&self, service: &ObjectKey) -> Vec<&'a DestinationRule> {
        self.index.rules.covering(service)
    }

    /// The EndpointSlices of a service.
    pub fn slices(&self, service: &ObjectKey) -> impl Iterator<Item = &'a EndpointSlice> + use<'a> {
        self.index.slices.of(service)
    }

    /// The pod that an endpoint of a slice refers to; also one that has been deleted, while the slice still names it.
    pub fn endpoint_pod(&self, reference: &TargetRef) -> Option<&'a PodEntry> {
        self.index.pods.of(reference)
    }

    /// A pod that lives.
    pub fn pod(&self, key: &ObjectKey) -> Option<&'a PodEntry> {
        self.index.pods.get(key)
    }

    /// The pods that run on a node, by namespace and name.
    pub fn pods_on(&self, node: &str) -> impl Iterator<Item = &'a PodEntry> + use<'a> {
        self.index.pods.on(node)
    }

    /// The NetworkPolicies of a namespace, by name.
    pub fn policies_in(&self, namespace: &str) -> impl Iterator<Item = &'a NetworkPolicy> + use<'a> {
        self.index.policies.in_namespace(namespace).map(|(_, policy)| policy)
    }

    /// Some NetworkPolicy, wherever, says where pods may connect to.
    pub fn has_egress_policies(&self) -> bool {
        self.index.policies.any_egress()
    }

    /// A Node.
    pub fn node(&self, name: &str) -> Option<&'a Node> {
        self.index.nodes.get(name)
    }

    /// All Nodes.
    pub fn nodes(&self) -> impl Iterator<Item = &'a Node> + use<'a> {
        self.index.nodes.values()
    }
}
