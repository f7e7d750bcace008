//! What the cluster's administrator decides.

/// What compiling may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// A VirtualService applies to clients of all namespaces, as in Istio, also when it is not in the service's own
    /// namespace (`--foreign-virtualservices=istio`).
    pub foreign_virtual_services: bool,
    /// What becomes of traffic that a NetworkPolicy is about (`--network-policies`).
    pub network_policies: NetworkPolicies,
    /// The namespace whose DestinationRules are for services that have none of their own (`--root-namespace`).
    pub root_namespace: String,
}

/// What becomes of traffic that a NetworkPolicy is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NetworkPolicies {
    /// It is not taken over: the policy goes on seeing who connects where.
    #[default]
    Guard,
    /// It is taken over: the policy sees the node's address in place of the client's.
    Ignore,
}

/// Istio's root namespace unless a cluster says otherwise.
pub const DEFAULT_ROOT_NAMESPACE: &str = "istio-system";

impl Default for Options {
    fn default() -> Self {
        Self {
            foreign_virtual_services: false,
            network_policies: NetworkPolicies::default(),
            root_namespace: DEFAULT_ROOT_NAMESPACE.to_owned(),
        }
    }
}
