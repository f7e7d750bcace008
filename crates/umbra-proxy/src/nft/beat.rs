//! Beats: a process tells the kernel that it lives, by a packet, not by a change of the ruleset.
//!
//! Takes: which set's element is to be renewed, and for how long. Gives: the chain that renews it when a certain datagram
//! leaves this process, and the datagram. Each committed change, however small, starts every listing of nf_tables anew
//! that is under way in the network namespace; whoever lists for longer than the time between two changes never comes to
//! an end. A commit a second did that to `nft list`, and to kube-proxy, on a node of 5,000 services.
//!
//! The rule drops its datagram, so that sending it fails with EPERM: that is how the beat is known to have been heard.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use netlink_packet_netfilter::nftables::{InetHookNumber, SetAttribute, SetDescription, SetFlags};

use super::expression::{self, REGISTER_1};
use super::table::{Change, Set, TYPE_PROTOCOL, Table};

/// Where the datagrams go, and never arrive: the proxy's own port, where nothing listens for UDP.
const TO: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 15_001);
/// Before whoever else may drop what leaves.
const PRIORITY: i32 = libc::NF_IP_PRI_RAW_BEFORE_DEFRAG;
/// One element is renewed. Those that have expired take room until the kernel collects them.
const ROOM: u32 = 64;

/// What is renewed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pulse {
    /// The set, of [`set`].
    pub(crate) set: &'static str,
    /// The datagram: eight bytes, its own.
    pub(crate) word: [u8; 8],
    /// How long the element lives.
    pub(crate) lasts: Duration,
}

/// Why a beat did not reach its set.
#[derive(Debug, thiserror::Error)]
pub enum BeatError {
    /// No datagram can be sent to this host itself.
    #[error("a beat cannot be sent: {0}; is the loopback interface up?")]
    Socket(#[source] std::io::Error),
    /// The rule is not there, or its set is full.
    #[error("a beat was not heard: the rule that renews set {0} is not there")]
    Unheard(&'static str),
}

/// A set whose element, `tcp`, has to be renewed to stay. The id is unique in its batch.
pub(crate) fn set(table: Table, name: &'static str, id: u32) -> Change {
    let more = vec![SetAttribute::Description(vec![SetDescription::Size(ROOM)])];
    let flags = SetFlags::Timeout | SetFlags::Eval;
    table.set(Set { name, id, key_type: TYPE_PROTOCOL, key_len: 1, flags, more })
}

/// The chain that hears the pulses, one rule for each.
pub(crate) fn chain(table: Table, name: &'static str, pulses: &[Pulse]) -> Vec<Change> {
    let mut changes = vec![table.chain(name, "filter", InetHookNumber::LocalOut, PRIORITY)];
    changes.extend(pulses.iter().map(|pulse| table.rule(name, heard(pulse))));
    changes
}

fn heard(pulse: &Pulse) -> Vec<expression::Expression> {
    let mut rule = expression::family_is(libc::NFPROTO_IPV4 as u8).to_vec();
    rule.extend(expression::is_udp());
    rule.extend([
        expression::network(16, 4, REGISTER_1),
        expression::equal(&Ipv4Addr::LOCALHOST.octets()),
        expression::destination_port(REGISTER_1),
        expression::equal(&TO.port().to_be_bytes()),
        expression::udp_payload(pulse.word.len() as u32),
        expression::equal(&pulse.word),
        expression::value(&[libc::IPPROTO_TCP as u8]),
        expression::renew_for(pulse.set, pulse.lasts),
        expression::drop_packet(),
    ]);
    rule
}

/// What beats.
#[derive(Debug)]
pub(crate) struct Beats(UdpSocket);

impl Beats {
    /// # Errors
    /// No socket.
    pub(crate) fn new() -> Result<Self, BeatError> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).map_err(BeatError::Socket)?;
        socket.set_nonblocking(true).map_err(BeatError::Socket)?;
        Ok(Self(socket))
    }

    /// Renews the element; when this returns without an error, it is.
    ///
    /// # Errors
    /// It is not.
    pub(crate) fn beat(&self, pulse: &Pulse) -> Result<(), BeatError> {
        match self.0.send_to(&pulse.word, TO) {
            Err(dropped) if dropped.kind() == ErrorKind::PermissionDenied => Ok(()),
            Err(error) => Err(BeatError::Socket(error)),
            Ok(_) => Err(BeatError::Unheard(pulse.set)),
        }
    }
}
