//! The table `inet umbra-fallback`, as messages to the kernel. Pure.
//!
//! ```text
//! table inet umbra-fallback {                                  # nobody's: it stays when the proxy has gone
//!   counter connections, fallback, kube-proxy, layout-...
//!   map eps4 { type ipv4_addr . inet_service . mark : ipv4_addr . inet_service; flags timeout }   # ClusterIP . port . slot
//!   set known4 { type ipv4_addr . inet_service }               # every governed ClusterIP . port
//!   set src4 { type ipv4_addr; flags interval }                # this node's pods
//!   set self4 { type ipv4_addr . ipv4_addr; flags timeout }    # endpoints on this node, twice
//!   set beat { type inet_proto; size 64; flags dynamic,timeout } # when a proxy last held this node
//!   ct timeout resets { protocol tcp; policy = { close : 0 } }   # a connection that was reset is forgotten (`resets`)
//!   chain resets { type filter hook prerouting priority mangle
//!     ct state new ip saddr @src4 ip daddr . tcp dport @known4 ct timeout set "resets" }
//!   chain count { type nat hook prerouting priority dstnat - 15
//!     ip saddr @src4 ip daddr . tcp dport @known4 counter name connections }
//!   chain nat { type nat hook prerouting priority dstnat - 5
//!     ip saddr @src4 dnat ip to ip daddr . tcp dport . numgen random mod 16 map @eps4   (counter name fallback)
//!     ip saddr @src4 ip daddr . tcp dport @known4 counter name kube-proxy }
//!   chain post { type nat hook postrouting priority srcnat - 5
//!     ct status dnat ip saddr . ip daddr @self4 masquerade }
//!   chain beats { type filter hook output priority -450
//!     ip daddr 127.0.0.1 udp dport 15001 @th,64,64 WORD update @beat { tcp timeout 1h } drop } }
//! ```
//! and the same for IPv6. Why so: spec/interception.md 10. A nat chain sees first packets only, and the first chain
//! that binds a connection is the last one it meets: what umbra took is `connections - fallback - kube-proxy`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use netlink_packet_netfilter::nftables::{
    DataAttribute, InetHookNumber, SetAttribute, SetElementAttribute, SetFlags, TableFlags,
};
use umbra_routing::{SLOTS, Slots};

use super::keep::{Origin, Write};
use super::resets::{self, Resets};
use crate::intercept::Target;
use crate::nft::beat::{self, Pulse};
use crate::nft::expression::{
    self, Expression, REGISTER_1, REGISTER_1_PLUS_4, REGISTER_1_PLUS_8, REGISTER_2, REGISTER_2_PLUS_4,
};
use crate::nft::table::{
    Change, Element, Set, TYPE_IPV4, TYPE_IPV6, TYPE_MARK, TYPE_PORT, Table, concat, interval, key,
};

/// The table.
pub(super) const TABLE: Table = Table("umbra-fallback");
/// Connections of this node's pods to governed services.
pub(super) const CONNECTIONS: &str = "connections";
/// Those that this table sent to a primary.
pub(super) const FALLBACK: &str = "fallback";
/// Those that nobody took: kube-proxy serves them.
pub(super) const KUBE_PROXY: &str = "kube-proxy";
/// When a proxy last held this node.
pub(super) const BEAT: &str = "beat";
/// Longer than anybody leaves a node without a proxy and asks for how long.
pub(super) const BEAT_FOR: Duration = Duration::from_secs(3_600);
/// The name of a counter that counts nothing: it says of which version the table is.
pub(super) const LAYOUT: &str = "layout-3";
/// Chains and their rules, those of both families.
const RULES: [(&str, u32); 4] = [("count", 2), ("nat", 4), ("post", 2), ("beats", 1)];

/// Chains and how many rules each has.
pub(super) fn rules(resets: Resets) -> impl Iterator<Item = (&'static str, u32)> {
    let of_resets = (resets == Resets::Forgotten).then_some((resets::NAME, 2));
    RULES.into_iter().chain(of_resets)
}

const COUNT_PRIORITY: i32 = libc::NF_IP_PRI_NAT_DST - 15;
/// After `inet umbra` at `dstnat - 10`, before kube-proxy at `dstnat`.
const NAT_PRIORITY: i32 = libc::NF_IP_PRI_NAT_DST - 5;
/// Before kube-proxy's, which would masquerade with other words.
const POST_PRIORITY: i32 = libc::NF_IP_PRI_NAT_SRC - 5;
/// What differs between the two IP families.
struct Family {
    number: u8,
    /// Offsets of saddr and daddr in the IP header, and their length.
    source: u32,
    destination: u32,
    len: u32,
    /// Where the port and the slot stand after the address in the registers, and the second address.
    port: u32,
    slot: u32,
    second: u32,
    address: u32,
    eps: &'static str,
    known: &'static str,
    src: &'static str,
    own: &'static str,
}

const V4: Family = Family {
    number: libc::NFPROTO_IPV4 as u8,
    source: 12,
    destination: 16,
    len: 4,
    port: REGISTER_1_PLUS_4,
    slot: REGISTER_1_PLUS_8,
    second: REGISTER_1_PLUS_4,
    address: TYPE_IPV4,
    eps: "eps4",
    known: "known4",
    src: "src4",
    own: "self4",
};

const V6: Family = Family {
    number: libc::NFPROTO_IPV6 as u8,
    source: 8,
    destination: 24,
    len: 16,
    port: REGISTER_2,
    slot: REGISTER_2_PLUS_4,
    second: REGISTER_2,
    address: TYPE_IPV6,
    eps: "eps6",
    known: "known6",
    src: "src6",
    own: "self6",
};

/// The map's name for a ClusterIP of this family.
pub(super) fn map_of(v4: bool) -> &'static str {
    if v4 { V4.eps } else { V6.eps }
}

/// The set of governed ClusterIPs and ports of this family.
pub(super) fn known_of(v4: bool) -> &'static str {
    if v4 { V4.known } else { V6.known }
}

/// The counter that says how the table was made. One made otherwise is made anew.
pub(super) fn marker(origin: &Origin, resets: Resets) -> String {
    let side = |by_interface: Option<&str>| by_interface.unwrap_or("ranges").to_owned();
    let layout = match resets {
        Resets::Forgotten => LAYOUT.to_owned(),
        Resets::Remembered => format!("{LAYOUT}-resets"),
    };
    format!("{layout}-{}-{}", side(origin.interface(true)), side(origin.interface(false)))
}

/// The table anew, whatever is there under its name; without elements. One batch with them, so that there is no moment
/// without.
pub(super) fn anew(origin: &Origin, resets: Resets) -> Vec<Change> {
    // Deleting what is not there would fail the batch: so it is made first.
    let mut changes =
        vec![TABLE.create(TableFlags::empty(), 0), TABLE.remove(), TABLE.create(TableFlags::empty(), 0)];
    changes
        .extend([CONNECTIONS, FALLBACK, KUBE_PROXY, &marker(origin, resets)].map(|name| TABLE.counter(name)));
    changes.extend(sets(&V4, 1));
    changes.extend(sets(&V6, 5));
    changes.extend([
        beat::set(TABLE, BEAT, 9),
        TABLE.chain("count", "nat", InetHookNumber::PreRouting, COUNT_PRIORITY),
        TABLE.chain("nat", "nat", InetHookNumber::PreRouting, NAT_PRIORITY),
        TABLE.chain("post", "nat", InetHookNumber::PostRouting, POST_PRIORITY),
    ]);
    let governed = |(family, v4)| [from(family, origin.interface(v4)), known(family)].concat();
    changes.extend(resets.create(TABLE, [(&V4, true), (&V6, false)].map(governed)));
    for (family, v4) in [(&V4, true), (&V6, false)] {
        let from = || from(family, origin.interface(v4));
        changes.push(
            TABLE.rule("count", [from(), known(family), vec![expression::count(CONNECTIONS)]].concat()),
        );
        changes.push(TABLE.rule("nat", [from(), to_slot(family)].concat()));
        changes
            .push(TABLE.rule("nat", [from(), known(family), vec![expression::count(KUBE_PROXY)]].concat()));
        changes.push(TABLE.rule("post", hairpin(family)));
    }
    changes.extend(beat::chain(TABLE, "beats", &[HOLDING]));
    changes
}

fn sets(family: &Family, id: u32) -> [Change; 4] {
    let pair = concat(family.address, TYPE_PORT);
    let data = vec![SetAttribute::DataType(pair), SetAttribute::DataLen(family.len + 4)];
    let eps = Set {
        name: family.eps,
        id,
        key_type: concat(pair, TYPE_MARK),
        key_len: family.len + 8,
        flags: SetFlags::Map | SetFlags::Timeout,
        more: data,
    };
    [
        TABLE.set(eps),
        set(family.known, id + 1, pair, family.len + 4, SetFlags::empty()),
        set(family.src, id + 2, family.address, family.len, SetFlags::Interval),
        set(family.own, id + 3, concat(family.address, family.address), 2 * family.len, SetFlags::Timeout),
    ]
}

fn set(name: &'static str, id: u32, key_type: u32, key_len: u32, flags: SetFlags) -> Change {
    TABLE.set(Set { name, id, key_type, key_len, flags, more: Vec::new() })
}

/// A packet of this family from one of this node's pods.
fn from(family: &Family, interface: Option<&str>) -> Vec<Expression> {
    let mut rule = expression::family_is(family.number).to_vec();
    match interface {
        Some(name) => rule.extend(expression::not_from_interface(name)),
        None => rule.extend([
            expression::network(family.source, family.len, REGISTER_1),
            expression::in_set(family.src),
        ]),
    }
    rule.extend(expression::is_tcp());
    rule
}

fn destination(family: &Family) -> [Expression; 2] {
    [
        expression::network(family.destination, family.len, REGISTER_1),
        expression::destination_port(family.port),
    ]
}

fn known(family: &Family) -> Vec<Expression> {
    let mut rule = destination(family).to_vec();
    rule.push(expression::in_set(family.known));
    rule
}

fn to_slot(family: &Family) -> Vec<Expression> {
    let mut rule = destination(family).to_vec();
    rule.extend([
        expression::random_below(SLOTS as u32, family.slot),
        expression::in_map(family.eps),
        expression::count(FALLBACK),
        expression::dnat_to_registers(u32::from(family.number), family.port),
    ]);
    rule
}

fn hairpin(family: &Family) -> Vec<Expression> {
    let mut rule = expression::family_is(family.number).to_vec();
    rule.extend(expression::ct_is_dnated());
    rule.extend([
        expression::network(family.source, family.len, REGISTER_1),
        expression::network(family.destination, family.len, family.second),
        expression::in_set(family.own),
        expression::masquerade(),
    ]);
    rule
}

/// What brings ClusterIPs and ports from how they are in the kernel to how they should be. `listeners` are where slots to
/// nobody lead.
pub(super) fn written(writes: &[Write], listeners: &[SocketAddr], timeout: Duration) -> Vec<Change> {
    let mut changes = Vec::new();
    for (family, v4) in [(&V4, true), (&V6, false)] {
        let nowhere = nowhere(listeners, v4);
        let writes = || writes.iter().filter(move |write| write.target.is_ipv4() == v4);
        let known = |writes: Vec<&Write>| -> Vec<Element> {
            writes.into_iter().map(|write| vec![key(pair(&write.target))]).collect()
        };
        let gone: Vec<_> = writes().filter(|write| write.had).flat_map(|w| slot_keys(&w.target)).collect();
        changes.extend(TABLE.delete(family.eps, &gone));
        let new = writes().filter_map(|write| Some((write.target, write.entry??)));
        let new: Vec<_> = new.flat_map(|(target, all)| slots(&target, &all, nowhere, timeout)).collect();
        changes.extend(TABLE.add(family.eps, &new));
        let left = writes().filter(|write| write.entry.is_none()).collect();
        changes.extend(TABLE.delete(family.known, &known(left)));
        // Also what is known already: adding it again repairs what somebody else took away.
        let stay = writes().filter(|write| write.entry.is_some()).collect();
        changes.extend(TABLE.add(family.known, &known(stay)));
    }
    changes
}

/// The proxy itself; on a node without an address of this family an address that nobody has.
fn nowhere(listeners: &[SocketAddr], v4: bool) -> SocketAddr {
    let nobody: IpAddr = match v4 {
        true => Ipv4Addr::new(192, 0, 2, 1).into(),
        false => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(),
    };
    let listener = listeners.iter().find(|listener| listener.is_ipv4() == v4);
    listener.copied().unwrap_or(SocketAddr::new(nobody, 1))
}

/// The sixteen elements of a ClusterIP and port: where each slot leads, for so long.
fn slots(target: &Target, slots: &Slots, nowhere: SocketAddr, timeout: Duration) -> Vec<Element> {
    let element = |(slot, to): (usize, &Option<SocketAddr>)| {
        vec![
            key(slot_key(target, slot)),
            SetElementAttribute::Data(DataAttribute::Value(pair(&to.unwrap_or(nowhere)))),
            SetElementAttribute::Timeout(millis(timeout)),
        ]
    };
    slots.iter().enumerate().map(element).collect()
}

/// Their keys, to delete them.
fn slot_keys(target: &Target) -> Vec<Element> {
    (0..SLOTS).map(|slot| vec![key(slot_key(target, slot))]).collect()
}

fn millis(duration: Duration) -> u64 {
    duration.as_millis().try_into().unwrap_or(u64::MAX)
}

/// Whose connections are led, written whole.
pub(super) fn replace_sources(origin: &Origin) -> Vec<Change> {
    let mut changes = vec![TABLE.flush(V4.src), TABLE.flush(V6.src)];
    let v4 = origin.ranges.v4.iter().flat_map(|r| interval(r, |ip: u32| ip.to_be_bytes().to_vec(), u32::MAX));
    changes.extend(TABLE.add(V4.src, &v4.collect::<Vec<_>>()));
    let v6 =
        origin.ranges.v6.iter().flat_map(|r| interval(r, |ip: u128| ip.to_be_bytes().to_vec(), u128::MAX));
    changes.extend(TABLE.add(V6.src, &v6.collect::<Vec<_>>()));
    changes
}

/// Endpoints of this node that may call themselves, written whole.
pub(super) fn replace_own<'a>(own: impl IntoIterator<Item = &'a IpAddr>, timeout: Duration) -> Vec<Change> {
    let (v4, v6): (Vec<&IpAddr>, Vec<&IpAddr>) = own.into_iter().partition(|ip| ip.is_ipv4());
    let timeout = SetElementAttribute::Timeout(millis(timeout));
    let element = |ip: &&IpAddr| vec![key([octets(ip), octets(ip)].concat()), timeout.clone()];
    let mut changes = vec![TABLE.flush(V4.own), TABLE.flush(V6.own)];
    changes.extend(TABLE.add(V4.own, &v4.iter().map(element).collect::<Vec<_>>()));
    changes.extend(TABLE.add(V6.own, &v6.iter().map(element).collect::<Vec<_>>()));
    changes
}

/// Empties what holds entries of services.
pub(super) fn flush_services() -> Vec<Change> {
    [V4.eps, V6.eps, V4.known, V6.known].map(|set| TABLE.flush(set)).to_vec()
}

/// A proxy holds this node now.
pub(super) const HOLDING: Pulse = Pulse { set: BEAT, word: *b"umbra:fb", lasts: BEAT_FOR };

fn octets(ip: &IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

/// Address, port, and zeros up to a whole word.
fn pair(at: &SocketAddr) -> Vec<u8> {
    let mut bytes = octets(&at.ip());
    bytes.extend(at.port().to_be_bytes());
    bytes.extend([0, 0]);
    bytes
}

/// The slot as the kernel's random number is: in the host's byte order.
fn slot_key(target: &Target, slot: usize) -> Vec<u8> {
    let mut bytes = pair(target);
    bytes.extend((slot as u32).to_ne_bytes());
    bytes
}

/// The reverse of [`pair`], and what follows it.
pub(super) fn read_pair(bytes: &[u8], v4: bool) -> Option<(SocketAddr, &[u8])> {
    let (ip, rest) = if v4 {
        let (ip, rest) = bytes.split_first_chunk::<4>()?;
        (IpAddr::from(*ip), rest)
    } else {
        let (ip, rest) = bytes.split_first_chunk::<16>()?;
        (IpAddr::from(*ip), rest)
    };
    let (port, rest) = rest.split_first_chunk::<4>()?;
    Some((SocketAddr::new(ip, u16::from_be_bytes([port[0], port[1]])), rest))
}
