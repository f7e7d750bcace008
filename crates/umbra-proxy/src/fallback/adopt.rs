//! What a starting proxy finds in the kernel: the fallback of the one before it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use netlink_packet_core::Nla;
use netlink_packet_netfilter::nftables::{
    DataAttribute, ListAttribute, NfTablesMessage, SetElementAttribute, SetElementList,
};

use super::keep::{Entry, Found};
use super::ruleset::{self, TABLE};
use crate::intercept::Target;
use crate::nft::netlink::Netlink;

/// `NFTA_OBJ_NAME`
const OBJECT_NAME: u16 = 2;

/// A table of ours that was there.
pub(super) struct Adopted {
    /// How it was made.
    pub(super) marker: String,
    pub(super) entries: BTreeMap<Target, Entry>,
    /// For how long no proxy has held this node.
    pub(super) unheld: Option<Duration>,
}

impl Adopted {
    /// `None`: nothing is there, or something of another version, which stays as it is until the first push.
    pub(super) fn read(netlink: &mut Netlink, now: Instant, interval: Duration) -> Option<Self> {
        let marker = marker(netlink)?;
        let mut found = Found::default();
        for v4 in [true, false] {
            for element in elements(netlink, ruleset::map_of(v4)) {
                let (Some(key), Some(data)) = (value(&element, true), value(&element, false)) else {
                    continue;
                };
                let Some((target, slot)) = ruleset::read_pair(key, v4) else { continue };
                let (Some((to, _)), Ok(slot)) = (ruleset::read_pair(data, v4), slot.try_into()) else {
                    continue;
                };
                found.slot(target, u32::from_ne_bytes(slot) as usize, to);
            }
            for element in elements(netlink, ruleset::known_of(v4)) {
                if let Some((target, _)) = value(&element, true).and_then(|key| ruleset::read_pair(key, v4)) {
                    found.known(target);
                }
            }
        }
        let unheld =
            elements(netlink, ruleset::BEAT).iter().flatten().find_map(|attribute| match attribute {
                SetElementAttribute::Expiration(left) => {
                    Some(Duration::from_millis(ruleset::BEAT_FOR_MS.saturating_sub(*left)))
                }
                _ => None,
            });
        let entries = found.entries(now, interval);
        tracing::info!(entries = entries.len(), ?unheld, "adopted the fallback of the proxy before");
        Some(Self { marker, entries, unheld })
    }
}

/// The table is there with all its rules, made as `marker` says.
pub(super) fn is_whole(netlink: &mut Netlink, marker: &str) -> bool {
    let rules = netlink.dump(TABLE.list_rules()).map_or(0, |rules| {
        rules.iter().filter(|message| matches!(message, NfTablesMessage::NewRule(_))).count()
    });
    rules == ruleset::RULES && netlink.counter(TABLE, marker).is_ok()
}

fn marker(netlink: &mut Netlink) -> Option<String> {
    let counters = netlink.dump(TABLE.list_counters()).ok()?;
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

fn elements(netlink: &mut Netlink, set: &str) -> Vec<Vec<SetElementAttribute>> {
    let listed = netlink.dump(TABLE.list_elements(set)).unwrap_or_else(|error| {
        tracing::warn!(%error, set, "the fallback of the proxy before cannot be read");
        Vec::new()
    });
    let lists = listed.into_iter().filter_map(|message| match message {
        NfTablesMessage::NewSetElement(message) => Some(message.attributes),
        _ => None,
    });
    let elements = lists.flatten().filter_map(|attribute| match attribute {
        SetElementList::Elements(elements) => Some(elements),
        _ => None,
    });
    let attributes = elements.flatten().filter_map(|element| match element {
        ListAttribute::Element(attributes) => Some(attributes),
        _ => None,
    });
    attributes.collect()
}

fn value(element: &[SetElementAttribute], key: bool) -> Option<&[u8]> {
    element.iter().find_map(|attribute| match attribute {
        SetElementAttribute::Key(DataAttribute::Value(bytes)) if key => Some(bytes.as_slice()),
        SetElementAttribute::Data(DataAttribute::Value(bytes)) if !key => Some(bytes.as_slice()),
        _ => None,
    })
}
