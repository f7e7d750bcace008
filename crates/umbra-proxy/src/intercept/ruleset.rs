//! The table `inet umbra`, as messages to the kernel. Pure.
//!
//! ```text
//! table inet umbra { flags owner
//!   counter intercepted, refused, arrived
//!   set v4 { type ipv4_addr . inet_service }   set v6 { type ipv6_addr . inet_service }    # ClusterIP . port
//!   set src4 { type ipv4_addr; flags interval }  set src6 { type ipv6_addr; flags interval }  # local pods
//!   set alive { type inet_proto; size 64; flags dynamic,timeout }                          # dead-man switch
//!   chain nat { type nat hook prerouting priority dstnat - 10
//!     ip saddr @src4 ip daddr . tcp dport @v4 meta l4proto @alive counter name intercepted dnat ip to NODE:15001 }
//!   chain guard { type filter hook input priority filter - 20
//!     tcp dport 15001 ct status & dnat == 0 counter name refused reject with tcp reset }
//!   chain arrived { type filter hook input priority 299
//!     tcp dport 15001 ct status dnat ct state new counter name arrived }
//!   chain beats { type filter hook output priority -450
//!     ip daddr 127.0.0.1 udp dport 15001 @th,64,64 WORD update @alive { tcp timeout 3s } drop } }
//! ```
//! Why so, and what else was tried: spec/interception.md 3. `arrived` stands behind every filter of INPUT: what is
//! counted by `intercepted` and never there was dropped on this node (`blocked`). The rest of the table is in `unseen`.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use netlink_packet_core::NLM_F_EXCL;
use netlink_packet_netfilter::nftables::{InetHookNumber, SetFlags, TableFlags};

use super::sources::Sources;
use super::unseen::{self, Adopt};
use crate::nft::beat::{self, Pulse};
use crate::nft::expression::{self, Expression, REGISTER_1, REGISTER_1_PLUS_4, REGISTER_2};
use crate::nft::table::{
    Change, Element, Set, TYPE_IPV4, TYPE_IPV6, TYPE_PORT, Table, concat, interval, key,
};

/// The table.
pub(super) const TABLE: Table = Table("umbra");
/// Counts connections given to the listener.
pub(super) const INTERCEPTED: &str = "intercepted";
/// Counts those of them that no filter of this node has eaten.
pub(super) const ARRIVED: &str = "arrived";
const REFUSED: &str = "refused";
const ALIVE: &str = "alive";
/// How long the rules work without a beat (spec/interception.md 3).
pub(super) const ALIVE_FOR: Duration = Duration::from_secs(3);
/// Before kube-proxy, which sits at `dstnat`, and before the fallback table at `dstnat - 5`.
const NAT_PRIORITY: i32 = libc::NF_IP_PRI_NAT_DST - 10;
/// Before other programs' filters.
const GUARD_PRIORITY: i32 = libc::NF_IP_PRI_FILTER - 20;
/// Behind other programs' filters, security modules and address translation, and before the kernel's own last steps.
const ARRIVED_PRIORITY: i32 = libc::NF_IP_PRI_CONNTRACK_HELPER - 1;

/// A ClusterIP and port to take over.
pub type Target = SocketAddr;

/// Everything that is there before the first service is armed. `listeners` are the proxy's own addresses, one for each
/// IP family that is to be taken over.
pub(super) fn create(listeners: &[SocketAddr], adopt: Adopt) -> Vec<Change> {
    // Exclusive: a table of that name that somebody else left is not ours to change.
    let mut changes = vec![TABLE.create(TableFlags::Owner, NLM_F_EXCL)];
    changes.extend([INTERCEPTED, REFUSED, ARRIVED].map(|name| TABLE.counter(name)));
    changes.extend([
        set("v4", 1, concat(TYPE_IPV4, TYPE_PORT), 8, SetFlags::empty()),
        set("v6", 2, concat(TYPE_IPV6, TYPE_PORT), 20, SetFlags::empty()),
        set("src4", 3, TYPE_IPV4, 4, SetFlags::Interval),
        set("src6", 4, TYPE_IPV6, 16, SetFlags::Interval),
        beat::set(TABLE, ALIVE, 5),
        TABLE.chain("nat", "nat", InetHookNumber::PreRouting, NAT_PRIORITY),
        TABLE.chain("guard", "filter", InetHookNumber::LocalIn, GUARD_PRIORITY),
        TABLE.chain("arrived", "filter", InetHookNumber::LocalIn, ARRIVED_PRIORITY),
    ]);
    changes.extend(listeners.iter().map(|listener| TABLE.rule("nat", intercept(*listener))));
    let ports: std::collections::BTreeSet<u16> = listeners.iter().map(SocketAddr::port).collect();
    for port in ports {
        changes.extend([TABLE.rule("guard", guard(port)), TABLE.rule("arrived", arrived(port))]);
    }
    changes.extend(unseen::create(adopt));
    let pulses: &[Pulse] = if adopt == Adopt::Reset { &[LIVING, ADOPTING] } else { &[LIVING] };
    changes.extend(beat::chain(TABLE, "beats", pulses));
    changes
}

/// Adds what is to be taken over.
pub(super) fn add_targets<'a>(targets: impl IntoIterator<Item = &'a Target>) -> Vec<Change> {
    of_each_family(targets, |set, all| TABLE.add(set, all))
}

/// Leaves to others what was taken over.
pub(super) fn delete_targets<'a>(targets: impl IntoIterator<Item = &'a Target>) -> Vec<Change> {
    of_each_family(targets, |set, all| TABLE.delete(set, all))
}

/// Empties both sets of targets.
pub(super) fn flush_targets() -> Vec<Change> {
    vec![TABLE.flush("v4"), TABLE.flush("v6")]
}

/// Says anew whose connections are taken over. The sets are small (a node's pods), so they are written whole.
pub(super) fn replace_sources(sources: &Sources) -> Vec<Change> {
    let mut changes = vec![TABLE.flush("src4"), TABLE.flush("src6")];
    let v4 =
        sources.v4.iter().flat_map(|range| interval(range, |ip: u32| ip.to_be_bytes().to_vec(), u32::MAX));
    changes.extend(TABLE.add("src4", &v4.collect::<Vec<_>>()));
    let v6 =
        sources.v6.iter().flat_map(|range| interval(range, |ip: u128| ip.to_be_bytes().to_vec(), u128::MAX));
    changes.extend(TABLE.add("src6", &v6.collect::<Vec<_>>()));
    changes
}

/// Makes the rules work for another three seconds.
pub(super) const LIVING: Pulse = Pulse { set: ALIVE, word: *b"umbra:al", lasts: ALIVE_FOR };
/// Has connections past umbra reset for another three seconds; for a table made with [`Adopt::Reset`].
pub(super) const ADOPTING: Pulse = Pulse { set: unseen::ADOPT, word: *b"umbra:ad", lasts: ALIVE_FOR };

fn set(name: &'static str, id: u32, key_type: u32, key_len: u32, flags: SetFlags) -> Change {
    TABLE.set(Set { name, id, key_type, key_len, flags, more: Vec::new() })
}

fn intercept(listener: SocketAddr) -> Vec<Expression> {
    // Offsets of saddr and daddr in the IP header, and their length.
    let (family, source, destination, len, port_register, sources, targets) = match listener {
        SocketAddr::V4(_) => (libc::NFPROTO_IPV4, 12, 16, 4, REGISTER_1_PLUS_4, "src4", "v4"),
        SocketAddr::V6(_) => (libc::NFPROTO_IPV6, 8, 24, 16, REGISTER_2, "src6", "v6"),
    };
    let mut rule = expression::family_is(family as u8).to_vec();
    rule.extend([expression::network(source, len, REGISTER_1), expression::in_set(sources)]);
    rule.extend(expression::is_tcp());
    rule.extend([
        expression::network(destination, len, REGISTER_1),
        expression::destination_port(port_register),
        expression::in_set(targets),
    ]);
    rule.extend([
        expression::transport_protocol(),
        expression::in_set(ALIVE),
        expression::count(INTERCEPTED),
    ]);
    rule.extend(expression::dnat(listener.ip(), listener.port()));
    rule
}

fn guard(port: u16) -> Vec<Expression> {
    let mut rule = expression::is_tcp().to_vec();
    rule.extend([expression::destination_port(REGISTER_1), expression::equal(&port.to_be_bytes())]);
    rule.extend(expression::ct_is_not_dnated());
    rule.extend([expression::count(REFUSED), expression::reset()]);
    rule
}

/// Counts first packets, like `intercepted`: a SYN that is sent again is counted again by both.
fn arrived(port: u16) -> Vec<Expression> {
    let mut rule = expression::is_tcp().to_vec();
    rule.extend([expression::destination_port(REGISTER_1), expression::equal(&port.to_be_bytes())]);
    rule.extend(expression::ct_is_dnated());
    rule.extend(expression::ct_is_new());
    rule.push(expression::count(ARRIVED));
    rule
}

fn of_each_family<'a>(
    targets: impl IntoIterator<Item = &'a Target>,
    change: impl Fn(&str, &[Element]) -> Vec<Change>,
) -> Vec<Change> {
    let (v4, v6): (Vec<&Target>, Vec<&Target>) = targets.into_iter().partition(|target| target.is_ipv4());
    let elements = |targets: Vec<&Target>| -> Vec<Element> {
        targets.into_iter().map(|target| vec![key(target_bytes(target))]).collect()
    };
    let mut changes = change("v4", &elements(v4));
    changes.extend(change("v6", &elements(v6)));
    changes
}

/// Address, port, and zeros up to a whole word.
fn target_bytes(target: &Target) -> Vec<u8> {
    let mut bytes = match target.ip() {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    bytes.extend(target.port().to_be_bytes());
    bytes.extend([0, 0]);
    bytes
}
