//! Rule expressions, as the kernel's nf_tables takes them.
//!
//! The numbers are those of `include/uapi/linux/netfilter/nf_tables.h`; `nft --debug=netlink` prints the same bytecode.
//! Every expression is written with raw attributes, since the library knows about half of those used here and two ways
//! of writing would only hide the shape.

use std::net::IpAddr;
use std::time::Duration;

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
const CT_STATE: u32 = 0;
const CT_DIRECTION: u32 = 1;
const CT_STATUS: u32 = 2;
const CT_PROTO_DST: u32 = 12;
const CT_SRC_IP: u32 = 19;
const CT_DST_IP: u32 = 20;
const CT_SRC_IP6: u32 = 21;
const CT_DST_IP6: u32 = 22;
const CT_ID: u32 = 23;
/// `IP_CT_DIR_ORIGINAL`: what whoever opened the connection sends.
const DIRECTION_ORIGINAL: u8 = 0;
const CMP_EQ: u32 = 0;
const CMP_NEQ: u32 = 1;
const META_IIFNAME: u32 = 6;
/// `NFT_NG_RANDOM`
const RANDOM: u32 = 1;
const DYNSET_ADD: u32 = 0;
const DYNSET_UPDATE: u32 = 1;
/// `NF_DROP`
const VERDICT_DROP: u32 = 0;
/// `NF_ACCEPT`
const VERDICT_ACCEPT: u32 = 1;
/// `NFT_GOTO`, -4.
const VERDICT_GOTO: u32 = -4_i32 as u32;
/// `IPS_DST_NAT` of a connection's status word.
const STATUS_DNATED: u32 = 1 << 5;
/// `NF_CT_STATE_BIT(IP_CT_NEW)`: no answer has come yet.
const STATE_NEW: u32 = 1 << 3;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const NAT_DNAT: u32 = 1;
/// `NF_NAT_RANGE_PROTO_SPECIFIED`: the port is given, too.
const NAT_PORT_GIVEN: u32 = 2;
const REJECT_TCP_RESET: u32 = 1;
/// `NFT_OBJECT_COUNTER`.
pub(crate) const OBJECT_COUNTER: u32 = 1;
/// `NFT_OBJECT_CT_TIMEOUT`.
pub(crate) const OBJECT_TIMEOUTS: u32 = 7;

/// `meta nfproto` is `family`.
pub(crate) fn family_is(family: u8) -> [Expression; 2] {
    [meta(META_NFPROTO), equal(&[family])]
}

/// `meta l4proto tcp`.
pub(crate) fn is_tcp() -> [Expression; 2] {
    [meta(META_L4PROTO), equal(&[libc::IPPROTO_TCP as u8])]
}

/// `meta l4proto udp`.
pub(crate) fn is_udp() -> [Expression; 2] {
    [meta(META_L4PROTO), equal(&[libc::IPPROTO_UDP as u8])]
}

/// Loads the first `len` bytes that a datagram carries.
pub(crate) fn udp_payload(len: u32) -> Expression {
    const HEADER: u32 = 8;
    payload(PAYLOAD_TRANSPORT, HEADER, len, REGISTER_1)
}

/// Loads these bytes.
pub(crate) fn value(bytes: &[u8]) -> Expression {
    expression("immediate", vec![number(1, REGISTER_1), data(2, bytes)])
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

/// The segment has this one of TCP's flags.
pub(crate) fn tcp_flag(flag: TcpFlag) -> [Expression; 3] {
    const FLAGS: u32 = 13;
    [payload(PAYLOAD_TRANSPORT, FLAGS, 1, REGISTER_1), masked(&[flag as u8]), compare(CMP_NEQ, &[0])]
}

/// Flags of a TCP segment.
#[derive(Clone, Copy, Debug)]
pub(crate) enum TcpFlag {
    /// It opens a connection.
    Open = 1 << 1,
    /// It ends the connection at once.
    Reset = 1 << 2,
    /// It carries data to be read now.
    Push = 1 << 3,
}

/// What starts at register 1 equals `bytes`.
pub(crate) fn equal(bytes: &[u8]) -> Expression {
    compare(CMP_EQ, bytes)
}

fn compare(how: u32, bytes: &[u8]) -> Expression {
    expression("cmp", vec![number(1, REGISTER_1), number(2, how), data(3, bytes)])
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

/// The connection was bound to another destination.
pub(crate) fn ct_is_dnated() -> [Expression; 3] {
    ct_bits(CT_STATUS, STATUS_DNATED, CMP_NEQ)
}

/// The connection goes where it was headed.
pub(crate) fn ct_is_not_dnated() -> [Expression; 3] {
    ct_bits(CT_STATUS, STATUS_DNATED, CMP_EQ)
}

/// No answer has come yet: the packet is a connection's first, or the first again.
pub(crate) fn ct_is_new() -> [Expression; 3] {
    ct_bits(CT_STATE, STATE_NEW, CMP_NEQ)
}

/// The packet comes from whoever opened the connection.
pub(crate) fn ct_is_original() -> [Expression; 2] {
    [ct(CT_DIRECTION, REGISTER_1), equal(&[DIRECTION_ORIGINAL])]
}

/// Loads who opened the connection, as an address of this family (another one's connection does not match).
pub(crate) fn ct_original_source(v4: bool) -> Expression {
    ct_original(if v4 { CT_SRC_IP } else { CT_SRC_IP6 }, REGISTER_1)
}

/// Loads where the connection was headed before any translation.
pub(crate) fn ct_original_destination(v4: bool) -> Expression {
    ct_original(if v4 { CT_DST_IP } else { CT_DST_IP6 }, REGISTER_1)
}

/// Loads the port that the connection was headed to.
pub(crate) fn ct_original_port(register: u32) -> Expression {
    ct_original(CT_PROTO_DST, register)
}

/// Loads the connection's number.
pub(crate) fn ct_id() -> Expression {
    ct(CT_ID, REGISTER_1)
}

/// Adds what starts at register 1 to `set`; one that is there stays as it is. A full set ends the rule.
pub(crate) fn add_to(set: &str) -> Expression {
    dynset(set, DYNSET_ADD)
}

/// The same, and its time begins anew.
pub(crate) fn renew_in(set: &str) -> Expression {
    dynset(set, DYNSET_UPDATE)
}

/// The same, for so long.
pub(crate) fn renew_for(set: &str, lasts: Duration) -> Expression {
    let millis = u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX);
    let lasts = DefaultNla::new(6, millis.to_be_bytes().to_vec());
    expression("dynset", vec![text(1, set), number(3, DYNSET_UPDATE), number(4, REGISTER_1), lasts])
}

/// The packet goes no further; its sender is told.
pub(crate) fn drop_packet() -> Expression {
    verdict(&[number(1, VERDICT_DROP)])
}

/// Ends this table's part of the hook.
pub(crate) fn accept() -> Expression {
    verdict(&[number(1, VERDICT_ACCEPT)])
}

/// Goes on in another chain, for good.
pub(crate) fn go_to(chain: &str) -> Expression {
    verdict(&[number(1, VERDICT_GOTO), text(2, chain)])
}

/// Counts into the table's counter `name`.
pub(crate) fn count(name: &str) -> Expression {
    expression("objref", vec![number(1, OBJECT_COUNTER), text(2, name)])
}

/// Gives a new connection the timeouts of the table's object `name`.
pub(crate) fn set_timeouts(name: &str) -> Expression {
    expression("objref", vec![number(1, OBJECT_TIMEOUTS), text(2, name)])
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

/// One bit of a word about the connection, which the kernel keeps in host byte order.
fn ct_bits(key: u32, bit: u32, zero_is: u32) -> [Expression; 3] {
    [ct(key, REGISTER_1), masked(&bit.to_ne_bytes()), compare(zero_is, &[0; 4])]
}

/// Leaves these bits of register 1.
fn masked(bits: &[u8]) -> Expression {
    let zeros = vec![0; bits.len()];
    let length = number(3, bits.len() as u32);
    let mask = vec![number(1, REGISTER_1), number(2, REGISTER_1), length, data(4, bits), data(5, &zeros)];
    expression("bitwise", mask)
}

fn ct(key: u32, register: u32) -> Expression {
    expression("ct", vec![number(1, register), number(2, key)])
}

fn ct_original(key: u32, register: u32) -> Expression {
    let direction = DefaultNla::new(3, vec![DIRECTION_ORIGINAL]);
    expression("ct", vec![number(1, register), number(2, key), direction])
}

fn dynset(set: &str, operation: u32) -> Expression {
    expression("dynset", vec![text(1, set), number(3, operation), number(4, REGISTER_1)])
}

fn verdict(verdict: &[DefaultNla]) -> Expression {
    const VERDICT_REGISTER: u32 = 0;
    let verdict = nested(2, &[nested(DATA_VERDICT, verdict)]);
    expression("immediate", vec![number(1, VERDICT_REGISTER), verdict])
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
