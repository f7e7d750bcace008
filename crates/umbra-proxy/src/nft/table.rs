//! One table's objects, as messages to the kernel. Pure.
//!
//! Takes: names, keys, expressions. Gives: [`Change`]s for [`super::netlink::Netlink::commit`]. Knows nothing of what
//! umbra's two tables are for: `intercept::ruleset` and `fallback::ruleset` say that.

use std::time::Duration;

use netlink_packet_core::{DefaultNla, NLM_F_APPEND, NLM_F_CREATE};
use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, DataAttribute, Hook, InetHookNumber, ListAttribute, NfTablesMessage,
    RuleAttribute, RuleMessage, SetAttribute, SetElementAttribute, SetElementFlags, SetElementList,
    SetElementMessage, SetFlags, SetMessage, TableAttribute, TableFlags, TableMessage,
};

use super::expression::{self, Expression};

const ACCEPT: u32 = 1;
/// Elements in one message: an attribute holds 64 KiB, and an element takes at most 76 bytes (an IPv6 key with a
/// slot, an IPv6 address with a port, a timeout, and their headers).
const ELEMENTS_PER_MESSAGE: usize = 800;

/// nft's own numbers for types, which make `nft list` print addresses as such.
pub(crate) const TYPE_IPV4: u32 = 7;
/// `ipv6_addr`
pub(crate) const TYPE_IPV6: u32 = 8;
/// `inet_proto`
pub(crate) const TYPE_PROTOCOL: u32 = 12;
/// `inet_service`
pub(crate) const TYPE_PORT: u32 = 13;
/// `mark`: any 32 bits in the host's byte order
pub(crate) const TYPE_MARK: u32 = 19;
const CONCAT_BITS: u32 = 6;

/// The type of a key made of several, `first . second`.
pub(crate) const fn concat(first: u32, second: u32) -> u32 {
    (first << CONCAT_BITS) | second
}

/// One change, to be sent in a batch.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    /// What.
    pub(crate) message: NfTablesMessage,
    /// Netlink flags besides request and acknowledge.
    pub(crate) flags: u16,
}

/// What an element is made of: its key first.
pub(crate) type Element = Vec<SetElementAttribute>;

/// A table `inet NAME`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Table(pub(crate) &'static str);

/// What a set is like.
pub(crate) struct Set {
    /// Its name.
    pub(crate) name: &'static str,
    /// Unique in its batch.
    pub(crate) id: u32,
    /// For people: how `nft list` prints keys.
    pub(crate) key_type: u32,
    /// Bytes; each part of a key fills whole words.
    pub(crate) key_len: u32,
    /// Of its kind.
    pub(crate) flags: SetFlags,
    /// What else there is to say of it.
    pub(crate) more: Vec<SetAttribute>,
}

impl Table {
    /// Creates the table. `flags` are netlink's, besides create.
    pub(crate) fn create(self, kind: TableFlags, flags: u16) -> Change {
        let attributes = vec![TableAttribute::Name(self.0.into()), TableAttribute::Flags(kind)];
        Change {
            message: NfTablesMessage::NewTable(TableMessage { attributes }),
            flags: NLM_F_CREATE | flags,
        }
    }

    /// Attributes that name the counter `name`.
    pub(crate) fn counter_name(self, name: &str) -> Vec<DefaultNla> {
        vec![
            expression::text(1, self.0),
            expression::text(2, name),
            expression::number(3, expression::OBJECT_COUNTER),
        ]
    }

    /// Creates a counter.
    pub(crate) fn counter(self, name: &str) -> Change {
        let mut attributes = self.counter_name(name);
        attributes.push(expression::nested(4, &[]));
        Change { message: NfTablesMessage::NewObject(attributes), flags: NLM_F_CREATE }
    }

    /// Creates timeouts for TCP connections: the node's own as they are now, and `closed_for` once one was reset, in whole
    /// seconds. For both IP families.
    pub(crate) fn tcp_timeouts(self, name: &str, closed_for: Duration) -> Change {
        /// `CTA_TIMEOUT_TCP_CLOSE`
        const CLOSE: u16 = 8;
        let seconds = u32::try_from(closed_for.as_secs()).unwrap_or(u32::MAX);
        let attributes = vec![
            expression::text(1, self.0),
            expression::text(2, name),
            expression::number(3, expression::OBJECT_TIMEOUTS),
            expression::nested(
                4,
                &[
                    DefaultNla::new(2, vec![libc::IPPROTO_TCP as u8]),
                    expression::nested(3, &[expression::number(CLOSE, seconds)]),
                ],
            ),
        ];
        Change { message: NfTablesMessage::NewObject(attributes), flags: NLM_F_CREATE }
    }

    /// Creates a set or a map.
    pub(crate) fn set(self, set: Set) -> Change {
        let mut attributes = vec![
            SetAttribute::Table(self.0.into()),
            SetAttribute::Name(set.name.into()),
            SetAttribute::Id(set.id),
            SetAttribute::Flags(set.flags),
            SetAttribute::KeyType(set.key_type),
            SetAttribute::KeyLen(set.key_len),
        ];
        attributes.extend(set.more);
        Change { message: NfTablesMessage::NewSet(SetMessage { attributes }), flags: NLM_F_CREATE }
    }

    /// Deletes the table, with all that is in it.
    pub(crate) fn remove(self) -> Change {
        let attributes = vec![TableAttribute::Name(self.0.into())];
        Change { message: NfTablesMessage::DeleteTable(TableMessage { attributes }), flags: 0 }
    }

    /// Asks for all elements of a set.
    pub(crate) fn list_elements(self, set: &str) -> NfTablesMessage {
        let attributes = vec![SetElementList::Table(self.0.into()), SetElementList::Set(set.into())];
        NfTablesMessage::GetSetElement(SetElementMessage { attributes })
    }

    /// Asks for the table itself.
    pub(crate) fn describe(self) -> NfTablesMessage {
        NfTablesMessage::GetTable(TableMessage { attributes: vec![TableAttribute::Name(self.0.into())] })
    }

    /// Asks for a chain.
    pub(crate) fn describe_chain(self, name: &str) -> NfTablesMessage {
        let attributes = vec![ChainAttribute::Table(self.0.into()), ChainAttribute::Name(name.into())];
        NfTablesMessage::GetChain(ChainMessage { attributes })
    }

    /// Asks for a counter.
    pub(crate) fn describe_counter(self, name: &str) -> NfTablesMessage {
        NfTablesMessage::GetObject(self.counter_name(name))
    }

    /// Asks for all counters.
    pub(crate) fn list_counters(self) -> NfTablesMessage {
        NfTablesMessage::GetObject(vec![expression::text(1, self.0)])
    }

    /// Creates a base chain that accepts.
    pub(crate) fn chain(self, name: &str, kind: &str, hook: InetHookNumber, priority: i32) -> Change {
        let attributes = vec![
            ChainAttribute::Table(self.0.into()),
            ChainAttribute::Name(name.into()),
            ChainAttribute::Hook(vec![Hook::Number(hook.into()), Hook::Priority(priority as u32)]),
            ChainAttribute::Policy(ACCEPT),
            ChainAttribute::Type(kind.into()),
        ];
        Change { message: NfTablesMessage::NewChain(ChainMessage { attributes }), flags: NLM_F_CREATE }
    }

    /// Creates a chain that rules of others lead to.
    pub(crate) fn chain_of_rules(self, name: &str) -> Change {
        let attributes = vec![ChainAttribute::Table(self.0.into()), ChainAttribute::Name(name.into())];
        Change { message: NfTablesMessage::NewChain(ChainMessage { attributes }), flags: NLM_F_CREATE }
    }

    /// Appends a rule.
    pub(crate) fn rule(self, chain: &str, expressions: Vec<Expression>) -> Change {
        let attributes = vec![
            RuleAttribute::Table(self.0.into()),
            RuleAttribute::Chain(chain.into()),
            RuleAttribute::Expressions(expressions),
        ];
        Change {
            message: NfTablesMessage::NewRule(RuleMessage { attributes }),
            flags: NLM_F_CREATE | NLM_F_APPEND,
        }
    }

    /// Adds elements.
    pub(crate) fn add(self, set: &str, all: &[Element]) -> Vec<Change> {
        self.in_messages(set, all, |message| Change {
            message: NfTablesMessage::NewSetElement(message),
            flags: NLM_F_CREATE,
        })
    }

    /// Deletes elements; one that is not there fails the batch.
    pub(crate) fn delete(self, set: &str, all: &[Element]) -> Vec<Change> {
        self.in_messages(set, all, |message| Change {
            message: NfTablesMessage::DeleteSetElement(message),
            flags: 0,
        })
    }

    /// Empties a set.
    pub(crate) fn flush(self, set: &str) -> Change {
        let attributes = vec![SetElementList::Table(self.0.into()), SetElementList::Set(set.into())];
        Change { message: NfTablesMessage::DeleteSetElement(SetElementMessage { attributes }), flags: 0 }
    }

    fn in_messages(
        self,
        set: &str,
        all: &[Element],
        change: impl Fn(SetElementMessage) -> Change,
    ) -> Vec<Change> {
        all.chunks(ELEMENTS_PER_MESSAGE).map(|some| change(self.elements(set, some))).collect()
    }

    fn elements(self, set: &str, elements: &[Element]) -> SetElementMessage {
        let elements = elements.iter().cloned().map(ListAttribute::Element).collect();
        let attributes = vec![
            SetElementList::Table(self.0.into()),
            SetElementList::Set(set.into()),
            SetElementList::Elements(elements),
        ];
        SetElementMessage { attributes }
    }
}

/// An element's key.
pub(crate) fn key(bytes: Vec<u8>) -> SetElementAttribute {
    SetElementAttribute::Key(DataAttribute::Value(bytes))
}

/// A range is two elements: its first address, and the one after its last, which a range up to `max` does not have.
pub(crate) fn interval<T: Copy + PartialEq + std::ops::Add<Output = T> + From<u8>>(
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
