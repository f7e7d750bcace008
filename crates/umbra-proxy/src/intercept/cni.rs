//! Pod networks that translate ClusterIPs before the host's netfilter sees a packet: there is nothing to take over.
//!
//! Takes: the names of the node's network interfaces. Gives: the network that one of them belongs to. It is known by
//! that only: a pod's call of a ClusterIP that never comes by looks like no call at all.

/// A pod network in whose presence nothing can be taken over.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Hidden {
    interface: &'static str,
    network: &'static str,
}

/// spec/interception.md 8; the interfaces are those that each makes on every node.
const KNOWN: [Hidden; 5] = [
    Hidden { interface: "cilium_host", network: "Cilium" },
    Hidden { interface: "antrea-gw0", network: "Antrea's proxy" },
    Hidden { interface: "ovn-k8s-mp0", network: "OVN-Kubernetes" },
    Hidden { interface: "bpfin.cali", network: "Calico's eBPF data plane" },
    Hidden { interface: "bpfout.cali", network: "Calico's eBPF data plane" },
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
        format!(
            "not armed: interface {} says that pods' connections to ClusterIPs do not pass this node's netfilter \
             ({} translates them before): umbra cannot take them over; if they do pass, start umbra-proxy with \
             --cni=trust",
            self.interface, self.network
        )
    }
}

/// The first of the known networks among these interfaces.
pub(crate) fn hidden<'a>(interfaces: impl IntoIterator<Item = &'a str>) -> Option<&'static Hidden> {
    interfaces.into_iter().find_map(|name| KNOWN.iter().find(|known| known.interface == name))
}

/// Looks at this network namespace's interfaces, not at /sys, which may show another one's.
///
/// # Errors
/// The kernel does not list them.
pub(crate) fn look() -> std::io::Result<Option<&'static Hidden>> {
    let interfaces = nix::net::if_::if_nameindex()?;
    let names: Vec<String> =
        interfaces.iter().map(|interface| interface.name().to_string_lossy().into_owned()).collect();
    Ok(hidden(names.iter().map(String::as_str)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_interface_is_named_and_others_are_not_taken_for_it() {
        assert_eq!(hidden(["lo", "eth0", "cali12345678", "cilium_hosts", "cni0"]), None);
        let found = hidden(["lo", "antrea-gw0"]).expect("known");
        let reason = found.reason();
        assert!(reason.contains("interface antrea-gw0") && reason.contains("--cni=trust"), "{reason}");
    }

    #[test]
    fn this_machine_s_interfaces_can_be_listed() {
        look().expect("the kernel lists them");
    }
}
