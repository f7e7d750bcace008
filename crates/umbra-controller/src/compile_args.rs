//! Flags about compiling: the controller's, and the same ones of `umbra`, which compiles as a cluster's controller does.

use clap::ValueEnum;

/// What compiling may do.
#[derive(Clone, Debug, clap::Args)]
pub struct CompileArgs {
    /// To which clients a VirtualService applies whose namespace is not the service's.
    #[arg(long, env = "UMBRA_FOREIGN_VIRTUALSERVICES", value_enum, default_value_t = Foreign::OwnNamespace)]
    pub foreign_virtualservices: Foreign,
    /// What becomes of traffic that a NetworkPolicy is about: pods reached, and pods calling.
    #[arg(long, env = "UMBRA_NETWORK_POLICIES", value_enum, default_value_t = NetworkPolicies::Guard)]
    pub network_policies: NetworkPolicies,
    /// The namespace whose DestinationRules are for services without any of their own: Istio's root namespace.
    #[arg(long, env = "UMBRA_ROOT_NAMESPACE", value_name = "NAMESPACE",
        default_value = umbra_compile::DEFAULT_ROOT_NAMESPACE)]
    pub root_namespace: String,
}

impl CompileArgs {
    /// For the compiler.
    pub fn options(&self) -> umbra_compile::Options {
        umbra_compile::Options {
            foreign_virtual_services: self.foreign_virtualservices == Foreign::Istio,
            network_policies: match self.network_policies {
                NetworkPolicies::Guard => umbra_compile::NetworkPolicies::Guard,
                NetworkPolicies::Ignore => umbra_compile::NetworkPolicies::Ignore,
            },
            root_namespace: self.root_namespace.clone(),
        }
    }
}

/// Clients of a VirtualService in a foreign namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Foreign {
    /// Those of the VirtualService's own namespace.
    OwnNamespace,
    /// All, as in Istio.
    Istio,
}

/// Traffic that a NetworkPolicy is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum NetworkPolicies {
    /// It is not taken over, and so not copied.
    Guard,
    /// It is copied; the author is told.
    Ignore,
}
