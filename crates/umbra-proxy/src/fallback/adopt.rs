//! What a starting proxy finds in the kernel: the fallback of the one before it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use netlink_packet_core::Nla;
use netlink_packet_netfilter::nftables::{
    ChainAttribute, DataAttribute, NfTablesMessage, SetElementAttribute, SetElementFlags, TableAttribute,
    TableFlags,
};

use super::Settings;
use super::keep::{Found, Kept, Origin};
use super::resets::Resets;
use super::ruleset::{self, TABLE};
use crate::intercept::{Sources, Target};
use crate::nft::error::NetlinkError;
use crate::nft::netlink::Netlink;
use crate::nft::table::Element;

/// `NFTA_OBJ_NAME`
const OBJECT_NAME: u16 = 2;

/// A table of ours that was there.
pub(super) struct Adopted {
    /// How it was made.
    pub(super) marker: String,
    /// What it holds, as far as it is of use.
    pub(super) kept: Kept,
    /// For how long no proxy has held this node.
    pub(super) unheld: Option<Duration>,
}

impl Adopted {
    /// `None`: nothing is there, or something of another version, which stays as it is until the first push.
    pub(super) fn read(netlink: &mut Netlink, settings: &Settings, now: Instant) -> Option<Self> {
        let marker = marker(netlink)?;
        let mut found = Found::default();
        for v4 in [true, false] {
            for element in elements(netlink, ruleset::map_of(v4)) {
                if let Some((target, slot, to)) = slot(&element, v4) {
                    found.slot(target, slot, to, left(&element).unwrap_or_default());
                }
            }
            for element in elements(netlink, ruleset::known_of(v4)) {
                if let Some((target, _)) = value(&element, true).and_then(|key| ruleset::read_pair(key, v4)) {
                    found.known(target);
                }
            }
        }
        let unheld = elements(netlink, ruleset::BEAT).iter().find_map(|element| left(element));
        let unheld = unheld.map(|left| ruleset::BEAT_FOR.saturating_sub(left));
        let ranges =
            Sources { v4: ranges(&elements(netlink, "src4")), v6: ranges(&elements(netlink, "src6")) };
        let origin = Origin { ranges, interface: settings.interface.clone() };
        let kept = Kept { entries: found.entries(now, settings.interval()), origin };
        tracing::info!(entries = kept.entries.len(), ?unheld, "adopted the fallback of the proxy before");
        Some(Self { marker, kept, unheld })
    }
}

/// The table is there with all its rules, made as `marker` says. A kernel that does not answer has told nothing.
pub(super) fn is_whole(netlink: &mut Netlink, marker: &str, resets: Resets) -> bool {
    let told = |answer: Result<NfTablesMessage, NetlinkError>| match answer {
        Ok(message) => Some(message),
        Err(NetlinkError::Refused { source, .. }) if source.raw_os_error() == Some(libc::ENOENT) => None,
        Err(error) => {
            tracing::debug!(%error, "the fallback cannot be looked at");
            Some(NfTablesMessage::NewObject(Vec::new()))
        }
    };
    let table = told(netlink.ask(TABLE.describe())).is_some_and(|table| !is_dormant(&table));
    let mut has = |chain: &str, rules: u32| {
        told(netlink.ask(TABLE.describe_chain(chain))).is_some_and(|chain| !has_other_rules(&chain, rules))
    };
    let chains = ruleset::rules(resets).all(|(chain, rules)| has(chain, rules));
    table && chains && told(netlink.ask(TABLE.describe_counter(marker))).is_some()
}

/// Somebody has switched the table off.
fn is_dormant(message: &NfTablesMessage) -> bool {
    let NfTablesMessage::NewTable(table) = message else { return false };
    let dormant = |attribute: &TableAttribute| matches!(attribute, TableAttribute::Flags(flags) if flags.contains(TableFlags::Dormant));
    table.attributes.iter().any(dormant)
}

/// The kernel counts a chain's rules as its uses.
fn has_other_rules(message: &NfTablesMessage, rules: u32) -> bool {
    let NfTablesMessage::NewChain(chain) = message else { return false };
    chain.attributes.iter().any(|a| matches!(a, ChainAttribute::Use(uses) if *uses != rules))
}

/// ClusterIP and port, slot, and where it leads.
fn slot(element: &[SetElementAttribute], v4: bool) -> Option<(Target, usize, SocketAddr)> {
    let (target, slot) = ruleset::read_pair(value(element, true)?, v4)?;
    let (to, _) = ruleset::read_pair(value(element, false)?, v4)?;
    Some((target, u32::from_ne_bytes(slot.try_into().ok()?) as usize, to))
}

/// How long it has left.
fn left(element: &[SetElementAttribute]) -> Option<Duration> {
    element.iter().find_map(|attribute| match attribute {
        SetElementAttribute::Expiration(left) => Some(Duration::from_millis(*left)),
        _ => None,
    })
}

/// The reverse of [`crate::nft::table::interval`], for a whole set in any order.
fn ranges<T: FromOctets>(elements: &[Element]) -> Vec<(T, T)> {
    let is_end = |element: &[SetElementAttribute]| {
        element.iter().any(|attribute| {
            matches!(attribute, SetElementAttribute::Flags(flags) if flags.contains(SetElementFlags::IntervalEnd))
        })
    };
    let mut edges: Vec<(T, bool)> = elements
        .iter()
        .filter_map(|element| Some((T::from_octets(value(element, true)?)?, !is_end(element))))
        .collect();
    // An end comes before a start at the same place.
    edges.sort_unstable();
    let mut ranges = Vec::new();
    let mut edges = edges.into_iter().peekable();
    while let Some((first, is_start)) = edges.next() {
        if is_start {
            let end = edges.next_if(|(_, is_start)| !is_start);
            ranges.push((first, end.map_or(T::LAST, |(end, _)| end.before())));
        }
    }
    ranges
}

/// An address as a number.
trait FromOctets: Ord + Copy {
    /// The last of all.
    const LAST: Self;
    fn from_octets(bytes: &[u8]) -> Option<Self>;
    /// The one before; of the first, itself.
    fn before(self) -> Self;
}

impl FromOctets for u32 {
    const LAST: Self = Self::MAX;
    fn from_octets(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self::from_be_bytes)
    }
    fn before(self) -> Self {
        self.saturating_sub(1)
    }
}

impl FromOctets for u128 {
    const LAST: Self = Self::MAX;
    fn from_octets(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self::from_be_bytes)
    }
    fn before(self) -> Self {
        self.saturating_sub(1)
    }
}

fn marker(netlink: &mut Netlink) -> Option<String> {
    let counters = netlink.dump(&TABLE.list_counters()).ok()?;
    counters.into_iter().find_map(|message| {
        let NfTablesMessage::NewObject(attributes) = message else { return None };
        let name = attributes.iter().find(|attribute| attribute.kind() == OBJECT_NAME)?;
        let mut bytes = vec![0; name.value_len()];
        name.emit_value(&mut bytes);
        let name = String::from_utf8(bytes).ok()?;
        let name = name.trim_end_matches('\0');
        name.starts_with(ruleset::LAYOUT).then(|| name.to_owned())
    })
}

fn elements(netlink: &mut Netlink, set: &str) -> Vec<Element> {
    netlink.elements(TABLE, set).unwrap_or_else(|error| {
        tracing::warn!(%error, set, "the fallback of the proxy before cannot be read");
        Vec::new()
    })
}

fn value(element: &[SetElementAttribute], key: bool) -> Option<&[u8]> {
    element.iter().find_map(|attribute| match attribute {
        SetElementAttribute::Key(DataAttribute::Value(bytes)) if key => Some(bytes.as_slice()),
        SetElementAttribute::Data(DataAttribute::Value(bytes)) if !key => Some(bytes.as_slice()),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nft::table::interval;

    fn there_and_back(all: &[(u32, u32)]) -> Vec<(u32, u32)> {
        let mut elements: Vec<_> =
            all.iter().flat_map(|range| interval(range, |ip| ip.to_be_bytes().to_vec(), u32::MAX)).collect();
        elements.reverse();
        ranges(&elements)
    }

    #[test]
    fn ranges_are_read_as_they_were_written() {
        for all in [&[(1, 4), (6, 9)][..], &[(0, u32::MAX)], &[(7, 7), (100, u32::MAX)], &[]] {
            assert_eq!(there_and_back(all), all);
        }
    }
}
