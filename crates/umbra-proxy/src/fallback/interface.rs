//! The interface that has the node's own address: pods' packets do not come in by it.

use std::net::{IpAddr, SocketAddr};

/// The name of the interface of the first of these addresses that one has; `None`: none has.
pub(crate) fn of(addresses: &[SocketAddr]) -> Option<String> {
    let all = nix::ifaddrs::getifaddrs()
        .inspect_err(|error| tracing::warn!(%error, "the interfaces cannot be listed"));
    let mine = |ip: IpAddr| addresses.iter().any(|address| address.ip() == ip);
    all.ok()?.find_map(|interface| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
        let v6 = address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip()));
        v4.or(v6).filter(|ip| mine(*ip)).map(|_| interface.interface_name)
    })
}
