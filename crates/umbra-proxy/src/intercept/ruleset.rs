//! The table `inet umbra`, as messages to the kernel. Pure.
//!
//! ```text
//! table inet umbra { flags owner
//!   counter intercepted, refused
//!   set v4 { type ipv4_addr . inet_service }   set v6 { type ipv6_addr . inet_service }    # ClusterIP . port
//!   set src4 { type ipv4_addr; flags interval }  set src6 { type ipv6_addr; flags interval }  # local pods
//!   set alive { type inet_proto; flags timeout }                                           # dead-man switch
//!   chain nat { type nat hook prerouting priority dstnat - 10
//!     ip saddr @src4 ip daddr . tcp dport @v4 meta l4proto @alive counter name intercepted dnat ip to NODE:15001 }
//!   chain guard { type filter hook input priority filter - 20
//!     tcp dport 15001 ct status & dnat == 0 counter name refused reject with tcp reset } }
//! ```
//! Why so, and what else was tried: spec/interception.md 3.

use std::net::{IpAddr, SocketAddr};

use netlink_packet_core::{DefaultNla, NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, DataAttribute, Hook, InetHookNumber, ListAttribute, NfTablesMessage,
    RuleAttribute, RuleMessage, SetAttribute, SetElementAttribute, SetElementFlags, SetElementList,
    SetElementMessage, SetFlags, SetMessage, TableAttribute, TableFlags, TableMessage,
};

use super::expression::{self, Expression, REGISTER_1, REGISTER_1_PLUS_4, REGISTER_2};
use super::sources::Sources;

/// The table's name.
pub(super) const TABLE: &str = "umbra";
/// Counts connections given to the listener.
pub(super) const INTERCEPTED: &str = "intercepted";
const REFUSED: &str = "refused";
const ALIVE: &str = "alive";
/// How long the rules work without a beat (spec/interception.md 3), in milliseconds.
const ALIVE_FOR_MS: u64 = 3_000;
/// Before kube-proxy, which sits at `dstnat`, and before the place of the fallback table at `dstnat - 5`.
const NAT_PRIORITY: i32 = libc::NF_IP_PRI_NAT_DST - 10;
/// Before other programs' filters.
const GUARD_PRIORITY: i32 = libc::NF_IP_PRI_FILTER - 20;
/// `IPS_DST_NAT` of the connection's status word.
const DNATED: u32 = 1 << 5;
const ACCEPT: u32 = 1;
/// Elements in one message: an attribute holds 64 KiB, and an element takes at most 40 bytes.
const ELEMENTS_PER_MESSAGE: usize = 1_000;

/// nft's own numbers for types, which make `nft list` print addresses as such.
const TYPE_IPV4: u32 = 7;
const TYPE_IPV6: u32 = 8;
const TYPE_PROTOCOL: u32 = 12;
const TYPE_PORT: u32 = 13;
const CONCAT_BITS: u32 = 6;

/// One change, to be sent in a batch.
#[derive(Clone, Debug)]
pub(super) struct Change {
    /// What.
    pub(super) message: NfTablesMessage,
    /// Netlink flags besides request and acknowledge.
    pub(super) flags: u16,
}

/// A ClusterIP and port to take over.
pub type Target = SocketAddr;

/// Everything that is there before the first service is armed. `listeners` are the proxy's own addresses, one for each
/// IP family that is to be taken over.
pub(super) fn create(listeners: &[SocketAddr]) -> Vec<Change> {
    let mut changes = vec![table()];
    changes.extend([counter(INTERCEPTED), counter(REFUSED)]);
    changes.extend([
        set("v4", 1, (TYPE_IPV4 << CONCAT_BITS) | TYPE_PORT, 8, SetFlags::empty()),
        set("v6", 2, (TYPE_IPV6 << CONCAT_BITS) | TYPE_PORT, 20, SetFlags::empty()),
        set("src4", 3, TYPE_IPV4, 4, SetFlags::Interval),
        set("src6", 4, TYPE_IPV6, 16, SetFlags::Interval),
        set(ALIVE, 5, TYPE_PROTOCOL, 1, SetFlags::Timeout),
        chain("nat", "nat", InetHookNumber::PreRouting, NAT_PRIORITY),
        chain("guard", "filter", InetHookNumber::LocalIn, GUARD_PRIORITY),
    ]);
    changes.extend(listeners.iter().map(|listener| rule("nat", intercept(*listener))));
    let ports: std::collections::BTreeSet<u16> = listeners.iter().map(SocketAddr::port).collect();
    changes.extend(ports.into_iter().map(|port| rule("guard", guard(port))));
    changes
}

/// Adds what is to be taken over.
pub(super) fn add_targets<'a>(targets: impl IntoIterator<Item = &'a Target>) -> Vec<Change> {
    target_changes(targets, |message| Change {
        message: NfTablesMessage::NewSetElement(message),
        flags: NLM_F_CREATE,
    })
}

/// Leaves to others what was taken over.
pub(super) fn delete_targets<'a>(targets: impl IntoIterator<Item = &'a Target>) -> Vec<Change> {
    target_changes(targets, |message| Change {
        message: NfTablesMessage::DeleteSetElement(message),
        flags: 0,
    })
}

/// Empties both sets of targets.
pub(super) fn flush_targets() -> Vec<Change> {
    vec![flush("v4"), flush("v6")]
}

/// Says anew whose connections are taken over. The sets are small (a node's pods), so they are written whole.
pub(super) fn replace_sources(sources: &Sources) -> Vec<Change> {
    let mut changes = vec![flush("src4"), flush("src6")];
    let v4 =
        sources.v4.iter().flat_map(|range| interval(range, |ip: u32| ip.to_be_bytes().to_vec(), u32::MAX));
    changes.extend(add("src4", v4.collect()));
    let v6 =
        sources.v6.iter().flat_map(|range| interval(range, |ip: u128| ip.to_be_bytes().to_vec(), u128::MAX));
    changes.extend(add("src6", v6.collect()));
    changes
}

/// Makes the rules work for another three seconds. Adding an element again does not renew it, and deleting one that
/// has expired fails the batch: hence add, delete, add.
pub(super) fn beat() -> Vec<Change> {
    let protocol = || vec![libc::IPPROTO_TCP as u8];
    let living = || vec![vec![key(protocol()), SetElementAttribute::Timeout(ALIVE_FOR_MS)]];
    let mut changes = add(ALIVE, living());
    changes.push(Change {
        message: NfTablesMessage::DeleteSetElement(elements(ALIVE, vec![vec![key(protocol())]])),
        flags: 0,
    });
    changes.extend(add(ALIVE, living()));
    changes
}

fn table() -> Change {
    let attributes = vec![TableAttribute::Name(TABLE.into()), TableAttribute::Flags(TableFlags::Owner)];
    // Exclusive: a table of that name that somebody else left is not ours to change.
    Change {
        message: NfTablesMessage::NewTable(TableMessage { attributes }),
        flags: NLM_F_CREATE | NLM_F_EXCL,
    }
}

/// Attributes that name the counter `name`.
pub(super) fn counter_name(name: &str) -> Vec<DefaultNla> {
    vec![
        expression::text(1, TABLE),
        expression::text(2, name),
        expression::number(3, expression::OBJECT_COUNTER),
    ]
}

fn counter(name: &str) -> Change {
    let mut attributes = counter_name(name);
    attributes.push(expression::nested(4, &[]));
    Change { message: NfTablesMessage::NewObject(attributes), flags: NLM_F_CREATE }
}

fn set(name: &str, id: u32, key_type: u32, key_len: u32, flags: SetFlags) -> Change {
    let attributes = vec![
        SetAttribute::Table(TABLE.into()),
        SetAttribute::Name(name.into()),
        SetAttribute::Id(id),
        SetAttribute::Flags(flags),
        SetAttribute::KeyType(key_type),
        SetAttribute::KeyLen(key_len),
    ];
    Change { message: NfTablesMessage::NewSet(SetMessage { attributes }), flags: NLM_F_CREATE }
}

fn chain(name: &str, kind: &str, hook: InetHookNumber, priority: i32) -> Change {
    let attributes = vec![
        ChainAttribute::Table(TABLE.into()),
        ChainAttribute::Name(name.into()),
        ChainAttribute::Hook(vec![Hook::Number(hook.into()), Hook::Priority(priority as u32)]),
        ChainAttribute::Policy(ACCEPT),
        ChainAttribute::Type(kind.into()),
    ];
    Change { message: NfTablesMessage::NewChain(ChainMessage { attributes }), flags: NLM_F_CREATE }
}

fn rule(chain: &str, expressions: Vec<Expression>) -> Change {
    let attributes = vec![
        RuleAttribute::Table(TABLE.into()),
        RuleAttribute::Chain(chain.into()),
        RuleAttribute::Expressions(expressions),
    ];
    Change {
        message: NfTablesMessage::NewRule(RuleMessage { attributes }),
        flags: NLM_F_CREATE | NLM_F_APPEND,
    }
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
    rule.extend(expression::ct_status_without(DNATED));
    rule.extend([expression::count(REFUSED), expression::reset()]);
    rule
}

type Element = Vec<SetElementAttribute>;

fn target_changes<'a>(
    targets: impl IntoIterator<Item = &'a Target>,
    change: impl Fn(SetElementMessage) -> Change,
) -> Vec<Change> {
    let (v4, v6): (Vec<&Target>, Vec<&Target>) = targets.into_iter().partition(|target| target.is_ipv4());
    let of = |set: &str, targets: Vec<&Target>| -> Vec<Change> {
        let all: Vec<Element> = targets.into_iter().map(|target| vec![key(target_bytes(target))]).collect();
        all.chunks(ELEMENTS_PER_MESSAGE).map(|some| change(elements(set, some.to_vec()))).collect()
    };
    let mut changes = of("v4", v4);
    changes.extend(of("v6", v6));
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

/// A range is two elements: its first address, and the one after its last, which a range up to `max` does not have.
fn interval<T: Copy + PartialEq + std::ops::Add<Output = T> + From<u8>>(
    &(first, last): &(T, T),
    bytes: impl Fn(T) -> Vec<u8>,
    max: T,
) -> Vec<Element> {
    let mut elements = vec![vec![key(bytes(first))]];
    if last != max {
        let end = SetElementAttribute::Flags(SetElementFlags::IntervalEnd);
        elements.push(vec![key(bytes(last + T::from(1))), end]);
    }
    elements
}

fn add(set: &str, all: Vec<Element>) -> Vec<Change> {
    let message = |some: &[Element]| NfTablesMessage::NewSetElement(elements(set, some.to_vec()));
    all.chunks(ELEMENTS_PER_MESSAGE)
        .map(|some| Change { message: message(some), flags: NLM_F_CREATE })
        .collect()
}

fn flush(set: &str) -> Change {
    let attributes = vec![SetElementList::Table(TABLE.into()), SetElementList::Set(set.into())];
    Change { message: NfTablesMessage::DeleteSetElement(SetElementMessage { attributes }), flags: 0 }
}

fn elements(set: &str, elements: Vec<Element>) -> SetElementMessage {
    let elements = elements.into_iter().map(ListAttribute::Element).collect();
    let attributes = vec![
        SetElementList::Table(TABLE.into()),
        SetElementList::Set(set.into()),
        SetElementList::Elements(elements),
    ];
    SetElementMessage { attributes }
}

fn key(bytes: Vec<u8>) -> SetElementAttribute {
    SetElementAttribute::Key(DataAttribute::Value(bytes))
}
