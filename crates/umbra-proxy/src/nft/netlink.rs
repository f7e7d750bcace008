//! A netlink socket: batches out, acknowledgements in.
//!
//! The kernel deletes a table that this socket owns when it closes, that is, however the process ends. The socket is
//! closed on exec, so no child can keep such a table alive.

use std::io;
use std::time::Duration;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer,
    NetlinkMessage, NetlinkPayload,
};
use netlink_packet_netfilter::nftables::NfTablesMessage;
use netlink_packet_netfilter::none::ControlMessage;
use netlink_packet_netfilter::{NetfilterMessage, NetfilterMessageInner};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use nix::sys::socket::sockopt::SndBufForce;

use super::error::NetlinkError;
use super::listing;
use super::message::{
    append, batch_edge, deserialized, error_of, messages_in, name_of, not_understood, of_table, packets,
    refused,
};
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
