//! A connection that nobody needs, to a ClusterIP: does the kernel's netfilter see it leave under that address?
//!
//! Takes: a ClusterIP and port (the API server's, unless told). Gives: whether something gives connections another address
//! inside connect(2), as CNIs do whose service load balancing is attached to sockets (Cilium, Calico's eBPF): then no
//! packet of a pod to a ClusterIP ever comes by. Never ends a handshake: the socket is closed at once, so that nobody's
//! log has a line of it. Networks that translate packets, not sockets, are known by their interfaces only ([`super::cni`]).

use std::net::{IpAddr, SocketAddr};

use netlink_packet_netfilter::nftables::InetHookNumber;
use socket2::{Domain, Protocol, Socket, Type};

use super::{NetlinkError, ruleset::TABLE};
use crate::nft::expression::{self, REGISTER_1, TcpFlag};
use crate::nft::netlink::Netlink;
use crate::nft::table::Change;

/// Counts the canary's first packets.
const SEEN: &str = "canary";
/// Before whoever may drop or change what leaves.
const PRIORITY: i32 = libc::NF_IP_PRI_RAW_BEFORE_DEFRAG;

/// The chain that sees it leave.
pub(super) fn create(canary: SocketAddr) -> Vec<Change> {
    let (family, destination, address) = match canary.ip() {
        IpAddr::V4(ip) => (libc::NFPROTO_IPV4, 16, ip.octets().to_vec()),
        IpAddr::V6(ip) => (libc::NFPROTO_IPV6, 24, ip.octets().to_vec()),
    };
    let mut rule = expression::family_is(family as u8).to_vec();
    rule.extend(expression::is_tcp());
    rule.extend(expression::tcp_flag(TcpFlag::Open));
    rule.extend([
        expression::network(destination, address.len() as u32, REGISTER_1),
        expression::equal(&address),
        expression::destination_port(REGISTER_1),
        expression::equal(&canary.port().to_be_bytes()),
        expression::count(SEEN),
    ]);
    vec![
        TABLE.counter(SEEN),
        TABLE.chain("canary", "filter", InetHookNumber::LocalOut, PRIORITY),
        TABLE.rule("canary", rule),
    ]
}

/// Whether a connection to the canary leaves under another address; `None`: none could be begun, so nothing is known.
/// Does not wait for an answer.
///
/// # Errors
/// The kernel does not tell its counter.
pub(super) fn is_hidden(netlink: &mut Netlink, canary: SocketAddr) -> Result<Option<bool>, NetlinkError> {
    let before = netlink.counter(TABLE, SEEN)?;
    if let Err(error) = begin(canary) {
        tracing::debug!(%canary, %error, "no connection could be begun to see whether ClusterIPs are translated");
        return Ok(None);
    }
    Ok(Some(netlink.counter(TABLE, SEEN)? == before))
}

/// Sends a first packet: it has passed the hook when this returns.
fn begin(canary: SocketAddr) -> std::io::Result<()> {
    let socket = Socket::new(Domain::for_address(canary), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    match socket.connect(&canary.into()) {
        // An answer may come within the call where the other end is this node.
        Err(error) if !matches!(error.raw_os_error(), Some(libc::EINPROGRESS | libc::ECONNREFUSED)) => {
            Err(error)
        }
        _ => Ok(()),
    }
}
