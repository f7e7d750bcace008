//! Messages of nf_tables as netlink carries them.
//!
//! Takes: objects of tables, and datagrams. Gives: bytes to send, and what the kernel has said. No socket here.

use std::io;

use netlink_packet_core::{
    DecodeError, DefaultNla, NetlinkBuffer, NetlinkMessage, NetlinkPayload, NlaBuffer, NlasIterator,
    Parseable,
};
use netlink_packet_netfilter::nftables::NfTablesMessage;
use netlink_packet_netfilter::none::ControlMessage;
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage, NetfilterProtoFamily};

use super::error::NetlinkError;

pub(super) fn messages_in(
    datagram: &[u8],
) -> impl Iterator<Item = Result<NetlinkBuffer<&[u8]>, NetlinkError>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let message = match NetlinkBuffer::new_checked(rest) {
            Ok(message) => message,
            Err(error) => {
                rest = &[];
                return Some(Err(not_understood(error)));
            }
        };
        // Messages start at multiples of four bytes.
        rest = &rest[(message.length() as usize).next_multiple_of(4).min(rest.len())..];
        Some(Ok(message))
    })
}

pub(super) fn not_understood(error: DecodeError) -> NetlinkError {
    NetlinkError::Answer(error.to_string())
}

pub(super) fn deserialized(
    message: &NetlinkBuffer<&[u8]>,
) -> Result<NetlinkMessage<NetfilterMessage>, NetlinkError> {
    NetlinkMessage::deserialize(message.clone().into_inner()).map_err(not_understood)
}

pub(super) fn error_of(message: &NetlinkBuffer<&[u8]>) -> NetlinkError {
    match deserialized(message) {
        Ok(NetlinkMessage { payload: NetlinkPayload::Error(error), .. }) => refused("listing", error.code),
        Ok(other) => NetlinkError::Answer(format!("{other:?}")),
        Err(error) => error,
    }
}

pub(super) fn refused(what: &'static str, code: Option<std::num::NonZeroI32>) -> NetlinkError {
    let code = -code.map_or(0, std::num::NonZeroI32::get);
    NetlinkError::Refused { what, source: io::Error::from_raw_os_error(code) }
}

pub(super) fn batch_edge(edge: ControlMessage) -> NetfilterMessage {
    let subsystem = libc::NFNL_SUBSYS_NFTABLES as u16;
    NetfilterMessage::new(NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, subsystem.to_be()), edge)
}

pub(super) fn of_table(message: NfTablesMessage) -> NetfilterMessage {
    NetfilterMessage::new(NetfilterHeader::new(NetfilterProtoFamily::Inet, 0, 0), message)
}

pub(super) fn append(bytes: &mut Vec<u8>, message: NetfilterMessage, flags: u16, sequence: u32) {
    let mut message = NetlinkMessage::from(message);
    message.header.flags = flags;
    message.header.sequence_number = sequence;
    message.finalize();
    let start = bytes.len();
    // Messages start at multiples of four bytes.
    bytes.resize(start + message.buffer_len().next_multiple_of(4), 0);
    message.serialize(&mut bytes[start..]);
}

pub(super) fn name_of(message: &NfTablesMessage) -> &'static str {
    match message {
        NfTablesMessage::NewTable(_) => "creating the table",
        NfTablesMessage::NewSet(_) => "creating a set",
        NfTablesMessage::NewChain(_) => "creating a chain",
        NfTablesMessage::NewRule(_) => "creating a rule",
        NfTablesMessage::NewObject(_) => "creating an object",
        NfTablesMessage::NewSetElement(_) => "adding elements",
        NfTablesMessage::DeleteSetElement(_) => "deleting elements",
        _ => "a change",
    }
}

/// `NFTA_OBJ_DATA` of a counter holds `NFTA_COUNTER_PACKETS`.
pub(super) fn packets(message: &NfTablesMessage) -> Result<u64, NetlinkError> {
    const OBJECT_DATA: u16 = 4;
    const COUNTER_PACKETS: u16 = 2;
    let wrong = || NetlinkError::Answer(format!("{message:?}"));
    let NfTablesMessage::NewObject(attributes) = message else {
        return Err(wrong());
    };
    let find = |kind: u16, all: &[DefaultNla]| -> Option<Vec<u8>> {
        use netlink_packet_core::Nla;
        let nla = all.iter().find(|nla| nla.kind() & !netlink_packet_core::NLA_F_NESTED == kind)?;
        let mut value = vec![0; nla.value_len()];
        nla.emit_value(&mut value);
        Some(value)
    };
    let data = find(OBJECT_DATA, attributes).ok_or_else(wrong)?;
    let inner: Result<Vec<DefaultNla>, _> = NlasIterator::new(&data)
        .map(|nla| nla.and_then(|nla: NlaBuffer<_>| DefaultNla::parse(&nla)))
        .collect();
    let packets = find(COUNTER_PACKETS, &inner.map_err(|_| wrong())?).ok_or_else(wrong)?;
    Ok(u64::from_be_bytes(packets.try_into().map_err(|_| wrong())?))
}
