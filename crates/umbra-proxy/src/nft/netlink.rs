//! A netlink socket: batches out, acknowledgements in.
//!
//! The kernel deletes a table that this socket owns when it closes, that is, however the process ends. The socket is
//! closed on exec, so no child can keep such a table alive.

use std::io;
use std::time::Duration;

use netlink_packet_core::{
    DecodeError, DefaultNla, NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR,
    NetlinkBuffer, NetlinkMessage, NetlinkPayload, NlaBuffer, NlasIterator, Parseable,
};
use netlink_packet_netfilter::nftables::NfTablesMessage;
use netlink_packet_netfilter::none::ControlMessage;
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use nix::sys::socket::sockopt::SndBufForce;

use super::listing;
use super::table::{Change, Element, Table};

/// The kernel answers from within the call; this only keeps a mistake of ours from hanging the proxy.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Room for a batch, in bytes. Without the right to ask for more than others the kernel gives less; see
/// [`MAX_BATCH_BYTES`].
const SEND_BUFFER: usize = 32 << 20;
/// The kernel makes its answers to a listing as long as what it was last offered, up to 32 KiB, and looks for its place in
/// the set anew for each of them: a large buffer makes a large set's listing many times faster.
const RECEIVE_BUFFER: usize = 64 << 10;
/// Attempts at a listing that others' changes interrupt. kube-proxy changes its tables some times a second at most, and a
/// listing takes milliseconds.
const LISTINGS: usize = 10;
/// What fits the least send buffer that Linux gives by default (`net.core.wmem_max` = 212,992).
pub(crate) const MAX_BATCH_BYTES: usize = 200_000;

/// Why the kernel's table is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// The environment's fault: no netlink, or out of memory.
    #[error("netlink: {0}")]
    Socket(#[from] io::Error),
    /// The kernel refused a batch as a whole; nothing has changed.
    #[error("nftables: {what}: {source}{}", advice(.source))]
    Refused {
        /// The first message that was refused.
        what: &'static str,
        /// The kernel's reason.
        source: io::Error,
    },
    /// The kernel did not acknowledge; a fault of ours.
    #[error("nftables: no acknowledgement from the kernel within 5 s")]
    Silent,
    /// An answer that makes no sense; a fault of ours.
    #[error("nftables: the kernel's answer is not understood: {0}")]
    Answer(String),
}

fn advice(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EPERM) => " (the proxy needs CAP_NET_ADMIN, and to be the only umbra-proxy on this node)",
        Some(libc::EEXIST) => {
            " (if it is the table, another umbra-proxy runs on this node, or somebody made a table inet umbra: \
             nft delete table inet umbra)"
        }
        _ => "",
    }
}

impl NetlinkError {
    /// What to do when this kernel has not what a table needs, for an error of making one. Kernels before 5.12 refuse
    /// the owner flag as an invalid argument, later ones what they do not know as not supported; without `nf_tables`
    /// the whole batch, or the socket, is refused so, and without one of its modules an object is not found.
    pub(crate) fn cannot(&self) -> Option<&'static str> {
        const NO_TABLES: &str = "this kernel has no nf_tables: load the modules nf_tables, nft_nat, nft_ct and \
            nft_reject_inet on the node, then restart umbra-proxy there";
        const NO_OWNERS: &str = "this kernel has no tables with an owner (Linux 5.12): run umbra on nodes with a newer \
            kernel";
        match self {
            Self::Socket(error) => match error.raw_os_error()? {
                libc::EPROTONOSUPPORT | libc::EAFNOSUPPORT => Some(NO_TABLES),
                _ => None,
            },
            Self::Refused { what, source } => match (*what, source.raw_os_error()?) {
                ("creating the table", libc::EOPNOTSUPP | libc::EINVAL) => Some(NO_OWNERS),
                (_, libc::EOPNOTSUPP | libc::ENOENT | libc::EAFNOSUPPORT | libc::EPROTONOSUPPORT) => {
                    Some(NO_TABLES)
                }
                _ => None,
            },
            Self::Silent | Self::Answer(_) => None,
        }
    }
}

/// The socket.
pub(crate) struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    /// Opens the socket.
    pub(crate) fn open() -> Result<Self, NetlinkError> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        // Short acknowledgements: without the message that they are about.
        socket.set_cap_ack(true)?;
        let options = socket2::SockRef::from(&socket);
        options.set_read_timeout(Some(ANSWER_WITHIN))?;
        // Beyond `wmem_max`, which CAP_NET_ADMIN allows: a fallback of 5,000 services is rewritten in one batch of
        // some 5 MB, since between two of them users would be without it.
        if let Err(error) = nix::sys::socket::setsockopt(&socket, SndBufForce, &SEND_BUFFER) {
            tracing::warn!(%error, "large batches may be refused");
            options.set_send_buffer_size(SEND_BUFFER)?;
        }
        Ok(Self { socket, sequence: 0 })
    }

    /// Applies all changes, or none of them.
    pub(crate) fn commit(&mut self, changes: &[Change]) -> Result<(), NetlinkError> {
        if changes.is_empty() {
            return Ok(());
        }
        let begin = self.next();
        let mut bytes = Vec::new();
        append(&mut bytes, batch_edge(ControlMessage::BatchBegin), NLM_F_REQUEST, begin);
        for change in changes {
            let sequence = self.next();
            append(
                &mut bytes,
                of_table(change.message.clone()),
                NLM_F_REQUEST | NLM_F_ACK | change.flags,
                sequence,
            );
        }
        let end = self.next();
        append(&mut bytes, batch_edge(ControlMessage::BatchEnd), NLM_F_REQUEST, end);
        self.socket.send(&bytes, 0)?;
        self.acknowledged(begin, changes)
    }

    /// Waits for one answer to each change. A refusal of the whole batch comes as an answer to its beginning.
    fn acknowledged(&self, begin: u32, changes: &[Change]) -> Result<(), NetlinkError> {
        let mut first_refusal = None;
        let mut missing = changes.len();
        while missing > 0 {
            for answer in self.receive()? {
                let NetlinkPayload::Error(error) = answer.payload else { continue };
                let about = answer.header.sequence_number.wrapping_sub(begin) as usize;
                if about > changes.len() {
                    continue; // left over from a batch that was refused as a whole
                }
                if let Some(code) = error.code {
                    let what =
                        about.checked_sub(1).map_or("the batch", |index| name_of(&changes[index].message));
                    let refused =
                        NetlinkError::Refused { what, source: io::Error::from_raw_os_error(-code.get()) };
                    if about == 0 {
                        return Err(refused);
                    }
                    first_refusal.get_or_insert(refused);
                }
                missing -= usize::from(about > 0);
            }
        }
        first_refusal.map_or(Ok(()), Err)
    }

    /// Packets that the table's counter `name` has seen: connections, in nat chains, which see first packets only.
    pub(crate) fn counter(&mut self, table: Table, name: &str) -> Result<u64, NetlinkError> {
        packets(&self.ask(table.describe_counter(name))?)
    }

    /// The kernel's description of one object.
    pub(crate) fn ask(&mut self, question: NfTablesMessage) -> Result<NfTablesMessage, NetlinkError> {
        let sequence = self.next();
        let mut bytes = Vec::new();
        append(&mut bytes, of_table(question), NLM_F_REQUEST, sequence);
        self.socket.send(&bytes, 0)?;
        loop {
            for answer in self.receive()? {
                if answer.header.sequence_number != sequence {
                    continue;
                }
                return match answer.payload {
                    NetlinkPayload::InnerMessage(NetfilterMessage {
                        inner: NetfilterMessageInner::NfTables(message),
                        ..
                    }) => Ok(message),
                    NetlinkPayload::Error(error) => Err(refused("reading a table", error.code)),
                    other => Err(NetlinkError::Answer(format!("{other:?}"))),
                };
            }
        }
    }

    /// Everything that the kernel lists for a question.
    pub(crate) fn dump(&mut self, question: &NfTablesMessage) -> Result<Vec<NfTablesMessage>, NetlinkError> {
        self.list(question, |message| match deserialized(message)?.payload {
            NetlinkPayload::InnerMessage(NetfilterMessage {
                inner: NetfilterMessageInner::NfTables(message),
                ..
            }) => Ok(vec![message]),
            other => Err(NetlinkError::Answer(format!("{other:?}"))),
        })
    }

    /// All elements of a set.
    pub(crate) fn elements(&mut self, table: Table, set: &str) -> Result<Vec<Element>, NetlinkError> {
        self.list(&table.list_elements(set), |message| {
            listing::elements_of(message.payload()).map_err(not_understood)
        })
    }

    /// A listing that was interrupted by somebody's change may miss something, and is begun anew.
    fn list<T>(
        &mut self,
        question: &NfTablesMessage,
        read: impl Fn(&NetlinkBuffer<&[u8]>) -> Result<Vec<T>, NetlinkError>,
    ) -> Result<Vec<T>, NetlinkError> {
        for _ in 0..LISTINGS {
            if let Some(listed) = self.list_once(question, &read)? {
                return Ok(listed);
            }
        }
        Err(NetlinkError::Answer(format!("{LISTINGS} listings were interrupted by changes")))
    }

    fn list_once<T>(
        &mut self,
        question: &NfTablesMessage,
        read: impl Fn(&NetlinkBuffer<&[u8]>) -> Result<Vec<T>, NetlinkError>,
    ) -> Result<Option<Vec<T>>, NetlinkError> {
        let sequence = self.next();
        let mut bytes = Vec::new();
        append(&mut bytes, of_table(question.clone()), NLM_F_REQUEST | NLM_F_DUMP, sequence);
        self.socket.send(&bytes, 0)?;
        let (mut listed, mut interrupted) = (Vec::new(), false);
        loop {
            let datagram = self.datagram()?;
            for message in messages_in(&datagram) {
                let message = message?;
                if message.sequence_number() != sequence {
                    continue;
                }
                interrupted |= message.flags() & NLM_F_DUMP_INTR != 0;
                match message.message_type() {
                    NLMSG_DONE => return Ok((!interrupted).then_some(listed)),
                    NLMSG_ERROR => return Err(error_of(&message)),
                    _ => listed.extend(read(&message)?),
                }
            }
        }
    }

    fn receive(&self) -> Result<Vec<NetlinkMessage<NetfilterMessage>>, NetlinkError> {
        let datagram = self.datagram()?;
        messages_in(&datagram).map(|message| deserialized(&message?)).collect()
    }

    fn datagram(&self) -> Result<Vec<u8>, NetlinkError> {
        let mut datagram = Vec::with_capacity(RECEIVE_BUFFER);
        let length =
            self.socket.recv(&mut datagram, libc::MSG_TRUNC).map_err(|error| match error.kind() {
                io::ErrorKind::WouldBlock => NetlinkError::Silent,
                _ => NetlinkError::Socket(error),
            })?;
        if length > datagram.len() {
            return Err(NetlinkError::Answer(format!("it has {length} bytes")));
        }
        Ok(datagram)
    }

    fn next(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }
}

fn messages_in(datagram: &[u8]) -> impl Iterator<Item = Result<NetlinkBuffer<&[u8]>, NetlinkError>> {
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

fn not_understood(error: DecodeError) -> NetlinkError {
    NetlinkError::Answer(error.to_string())
}

fn deserialized(message: &NetlinkBuffer<&[u8]>) -> Result<NetlinkMessage<NetfilterMessage>, NetlinkError> {
    NetlinkMessage::deserialize(message.clone().into_inner()).map_err(not_understood)
}

fn error_of(message: &NetlinkBuffer<&[u8]>) -> NetlinkError {
    match deserialized(message) {
        Ok(NetlinkMessage { payload: NetlinkPayload::Error(error), .. }) => refused("listing", error.code),
        Ok(other) => NetlinkError::Answer(format!("{other:?}")),
        Err(error) => error,
    }
}

fn refused(what: &'static str, code: Option<std::num::NonZeroI32>) -> NetlinkError {
    let code = -code.map_or(0, std::num::NonZeroI32::get);
    NetlinkError::Refused { what, source: io::Error::from_raw_os_error(code) }
}

fn batch_edge(edge: ControlMessage) -> NetfilterMessage {
    let subsystem = libc::NFNL_SUBSYS_NFTABLES as u16;
    NetfilterMessage::new(NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, subsystem.to_be()), edge)
}

fn of_table(message: NfTablesMessage) -> NetfilterMessage {
    NetfilterMessage::new(NetfilterHeader::new(NetfilterProtoFamily::Inet, 0, 0), message)
}

fn append(bytes: &mut Vec<u8>, message: NetfilterMessage, flags: u16, sequence: u32) {
    let mut message = NetlinkMessage::from(message);
    message.header.flags = flags;
    message.header.sequence_number = sequence;
    message.finalize();
    let start = bytes.len();
    // Messages start at multiples of four bytes.
    bytes.resize(start + message.buffer_len().next_multiple_of(4), 0);
    message.serialize(&mut bytes[start..]);
}

fn name_of(message: &NfTablesMessage) -> &'static str {
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
fn packets(message: &NfTablesMessage) -> Result<u64, NetlinkError> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_kernel_cannot_is_told_from_what_it_forbids() {
        let refused = |what, code| NetlinkError::Refused { what, source: io::Error::from_raw_os_error(code) };
        let socket = |code| NetlinkError::Socket(io::Error::from_raw_os_error(code));
        let owners =
            [refused("creating the table", libc::EOPNOTSUPP), refused("creating the table", libc::EINVAL)];
        assert!(owners.iter().all(|error| error.cannot().is_some_and(|what| what.contains("5.12"))));
        let tables = [
            socket(libc::EPROTONOSUPPORT),
            refused("the batch", libc::EOPNOTSUPP),
            refused("creating a rule", libc::ENOENT),
        ];
        assert!(tables.iter().all(|error| error.cannot().is_some_and(|what| what.contains("nf_tables"))));
        let others = [
            refused("the batch", libc::EPERM),
            refused("creating the table", libc::EPERM),
            refused("creating the table", libc::EEXIST),
            refused("creating a set", libc::EINVAL),
            socket(libc::ENOMEM),
            NetlinkError::Silent,
        ];
        assert!(others.iter().all(|error| error.cannot().is_none()));
    }
}
