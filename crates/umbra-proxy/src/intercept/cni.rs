//! Pod networks that translate ClusterIPs before the host's netfilter sees a packet: there is nothing to take over.
//!
//! Takes: the names of the node's network interfaces. Gives: the network that one of them belongs to. Those that translate
//! packets are known by that only: a pod's call of a ClusterIP that never comes by looks like no call at all.

use std::net::SocketAddr;

/// How it is known that nothing can be taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hidden {
    /// A pod network's interface is there.
    Network(&'static Network),
    /// A connection to this ClusterIP left under another address ([`super::canary`]).
    Canary(SocketAddr),
}

/// A pod network in whose presence nothing can be taken over.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Network {
    interface: &'static str,
    name: &'static str,
}

/// spec/interception.md 8; the interfaces are those that each makes on every node.
const KNOWN: [Network; 5] = [
    Network { interface: "cilium_host", name: "Cilium" },
    Network { interface: "antrea-gw0", name: "Antrea's proxy" },
    Network { interface: "ovn-k8s-mp0", name: "OVN-Kubernetes" },
    Network { interface: "bpfin.cali", name: "Calico's eBPF data plane" },
    Network { interface: "bpfout.cali", name: "Calico's eBPF data plane" },
];

/// Whether to look for such networks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Cni {
    /// Look, and take over nothing in their presence.
    #[default]
    Check,
    /// Whoever runs the cluster knows that pods' connections to ClusterIPs pass the host's netfilter.
    Trust,
}

impl Hidden {
    /// For the status of those who wait for it.
    pub(crate) fn reason(&self) -> String {
        let because = match self {
            Self::Network(Network { interface, name }) => {
                format!("interface {interface} says so ({name} translates them before)")
            }
            Self::Canary(canary) => format!(
                "a connection to {canary} left under another address: something translates them inside connect(2), as \
                 CNIs with socket load balancing do"
            ),
        };
        format!(
            "not armed: pods' connections to ClusterIPs do not pass this node's netfilter: {because}: umbra cannot take \
             them over; if they do pass, start umbra-proxy with --cni=trust"
        )
    }
}

/// The first of the known networks among these interfaces.
fn known<'a>(interfaces: impl IntoIterator<Item = &'a str>) -> Option<Hidden> {
    let network = interfaces.into_iter().find_map(|name| KNOWN.iter().find(|known| known.interface == name));
    network.map(Hidden::Network)
}

/// Looks at this network namespace's interfaces, not at /sys, which may show another one's.
///
/// # Errors
/// The kernel does not list them.
pub(crate) fn look() -> std::io::Result<Option<Hidden>> {
    let interfaces = nix::net::if_::if_nameindex()?;
    let names: Vec<String> =
        interfaces.iter().map(|interface| interface.name().to_string_lossy().into_owned()).collect();
    Ok(known(names.iter().map(String::as_str)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_interface_is_named_and_others_are_not_taken_for_it() {
        assert_eq!(known(["lo", "eth0", "cali12345678", "cilium_hosts", "cni0"]), None);
        let found = known(["lo", "antrea-gw0"]).expect("known");
        let reason = found.reason();
        assert!(reason.contains("interface antrea-gw0") && reason.contains("--cni=trust"), "{reason}");
    }

    #[test]
    fn this_machine_s_interfaces_can_be_listed() {
        look().expect("the kernel lists them");
    }
}
