//! Rule expressions, as the kernel's nf_tables takes them.
//!
//! The numbers are those of `include/uapi/linux/netfilter/nf_tables.h`; `nft --debug=netlink` prints the same bytecode.
//! Every expression is written with raw attributes, since the library knows about half of those used here and two ways
//! of writing would only hide the shape.

use std::net::IpAddr;

use netlink_packet_core::{DefaultNla, Emitable, NLA_F_NESTED};
use netlink_packet_netfilter::nftables::{ExpressionAttribute, Expressions, ListAttribute};

/// One expression of a rule.
pub(crate) type Expression = ListAttribute<ExpressionAttribute>;

/// A 16-byte register; [`REGISTER_1_PLUS_4`] is the second 4-byte word inside the first of them.
pub(crate) const REGISTER_1: u32 = 1;
/// The next 4 bytes.
pub(crate) const REGISTER_1_PLUS_8: u32 = 10;
/// The next 16-byte register.
pub(crate) const REGISTER_2: u32 = 2;
/// The 4 bytes after a word in [`REGISTER_2`].
pub(crate) const REGISTER_2_PLUS_4: u32 = 13;
/// The 4 bytes after an IPv4 address in [`REGISTER_1`].
pub(crate) const REGISTER_1_PLUS_4: u32 = 9;

const META_NFPROTO: u32 = 15;
const META_L4PROTO: u32 = 16;
const PAYLOAD_NETWORK: u32 = 1;
const PAYLOAD_TRANSPORT: u32 = 2;
const CT_STATUS: u32 = 2;
const CMP_EQ: u32 = 0;
const CMP_NEQ: u32 = 1;
const META_IIFNAME: u32 = 6;
/// `NFT_NG_RANDOM`
const RANDOM: u32 = 1;
const DATA_VALUE: u16 = 1;
const NAT_DNAT: u32 = 1;
/// `NF_NAT_RANGE_PROTO_SPECIFIED`: the port is given, too.
const NAT_PORT_GIVEN: u32 = 2;
const REJECT_TCP_RESET: u32 = 1;
/// `NFT_OBJECT_COUNTER`.
pub(crate) const OBJECT_COUNTER: u32 = 1;

/// `meta nfproto` is `family`.
pub(crate) fn family_is(family: u8) -> [Expression; 2] {
    [meta(META_NFPROTO), equal(&[family])]
}

/// `meta l4proto tcp`.
pub(crate) fn is_tcp() -> [Expression; 2] {
    [meta(META_L4PROTO), equal(&[libc::IPPROTO_TCP as u8])]
}

/// Loads the transport protocol.
pub(crate) fn transport_protocol() -> Expression {
    meta(META_L4PROTO)
}

/// Loads `len` bytes of the IP header into `register`.
pub(crate) fn network(offset: u32, len: u32, register: u32) -> Expression {
    payload(PAYLOAD_NETWORK, offset, len, register)
}

/// Loads the destination port into `register`.
pub(crate) fn destination_port(register: u32) -> Expression {
    payload(PAYLOAD_TRANSPORT, 2, 2, register)
}

/// What starts at register 1 equals `bytes`.
pub(crate) fn equal(bytes: &[u8]) -> Expression {
    expression("cmp", vec![number(1, REGISTER_1), number(2, CMP_EQ), data(3, bytes)])
}

/// What starts at register 1 is an element of `set`.
pub(crate) fn in_set(set: &str) -> Expression {
    expression("lookup", vec![text(1, set), number(2, REGISTER_1)])
}

/// Gives the data of the map's element whose key starts at register 1, from register 1 on.
pub(crate) fn in_map(map: &str) -> Expression {
    expression("lookup", vec![text(1, map), number(2, REGISTER_1), number(3, REGISTER_1)])
}

/// A random number below `bound`, in the host's byte order.
pub(crate) fn random_below(bound: u32, register: u32) -> Expression {
    expression("numgen", vec![number(1, register), number(2, bound), number(3, RANDOM)])
}

/// The packet did not come in by this interface.
pub(crate) fn not_from_interface(name: &str) -> [Expression; 2] {
    let mut padded = [0; libc::IFNAMSIZ];
    // A name is shorter than the field: the kernel gave it.
    let bytes = name.as_bytes();
    let len = bytes.len().min(libc::IFNAMSIZ - 1);
    padded[..len].copy_from_slice(&bytes[..len]);
    [meta(META_IIFNAME), expression("cmp", vec![number(1, REGISTER_1), number(2, CMP_NEQ), data(3, &padded)])]
}

/// The connection's status word has one of `bits`.
pub(crate) fn ct_status_with(bits: u32) -> [Expression; 3] {
    let [load, mask, _] = ct_status_without(bits);
    let not_zero = expression("cmp", vec![number(1, REGISTER_1), number(2, CMP_NEQ), data(3, &[0; 4])]);
    [load, mask, not_zero]
}

/// The source becomes the address of the interface that the packet leaves by.
pub(crate) fn masquerade() -> Expression {
    expression("masq", Vec::new())
}

/// Binds the connection to the destination that stands in register 1 and in `port`.
pub(crate) fn dnat_to_registers(family: u32, port: u32) -> Expression {
    let nat = vec![
        number(1, NAT_DNAT),
        number(2, family),
        number(3, REGISTER_1),
        number(5, port),
        number(7, NAT_PORT_GIVEN),
    ];
    expression("nat", nat)
}

/// The connection's status word has none of `bits`. The kernel keeps it in host byte order.
pub(crate) fn ct_status_without(bits: u32) -> [Expression; 3] {
    let mask = vec![
        number(1, REGISTER_1),
        number(2, REGISTER_1),
        number(3, 4),
        data(4, &bits.to_ne_bytes()),
        data(5, &[0; 4]),
    ];
    [
        expression("ct", vec![number(1, REGISTER_1), number(2, CT_STATUS)]),
        expression("bitwise", mask),
        equal(&[0; 4]),
    ]
}

/// Counts into the table's counter `name`.
pub(crate) fn count(name: &str) -> Expression {
    expression("objref", vec![number(1, OBJECT_COUNTER), text(2, name)])
}

/// Binds the connection to another destination.
pub(crate) fn dnat(to: IpAddr, port: u16) -> [Expression; 3] {
    let (family, address) = match to {
        IpAddr::V4(ip) => (libc::NFPROTO_IPV4, ip.octets().to_vec()),
        IpAddr::V6(ip) => (libc::NFPROTO_IPV6, ip.octets().to_vec()),
    };
    [
        expression("immediate", vec![number(1, REGISTER_1), data(2, &address)]),
        expression("immediate", vec![number(1, REGISTER_2), data(2, &port.to_be_bytes())]),
        dnat_to_registers(family as u32, REGISTER_2),
    ]
}

/// Answers with a TCP reset.
pub(crate) fn reset() -> Expression {
    expression("reject", vec![number(1, REJECT_TCP_RESET), DefaultNla::new(2, vec![0])])
}

fn meta(key: u32) -> Expression {
    expression("meta", vec![number(1, REGISTER_1), number(2, key)])
}

fn payload(base: u32, offset: u32, len: u32, register: u32) -> Expression {
    expression("payload", vec![number(1, register), number(2, base), number(3, offset), number(4, len)])
}

fn expression(name: &str, attributes: Vec<DefaultNla>) -> Expression {
    Expressions::Other { expression_type: name.to_owned(), attributes }.into()
}

/// A number, in network byte order as everywhere in nf_tables.
pub(crate) fn number(kind: u16, value: u32) -> DefaultNla {
    DefaultNla::new(kind, value.to_be_bytes().to_vec())
}

/// A text, ended by a zero.
pub(crate) fn text(kind: u16, value: &str) -> DefaultNla {
    let mut bytes = value.as_bytes().to_vec();
    bytes.push(0);
    DefaultNla::new(kind, bytes)
}

fn data(kind: u16, bytes: &[u8]) -> DefaultNla {
    nested(kind, &[DefaultNla::new(DATA_VALUE, bytes.to_vec())])
}

/// Attributes inside an attribute.
pub(crate) fn nested(kind: u16, attributes: &[DefaultNla]) -> DefaultNla {
    let mut bytes = vec![0; attributes.buffer_len()];
    attributes.emit(&mut bytes);
    DefaultNla::new(kind | NLA_F_NESTED, bytes)
}
