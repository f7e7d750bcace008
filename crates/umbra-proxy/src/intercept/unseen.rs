//! Rules for connections that pass umbra by although their service is armed, as messages to the kernel. Pure.
//!
//! ```text
//! set seen { typeof ct id; size 65536; flags dynamic,timeout; timeout 1h }
//! chain unseen { type filter hook forward priority filter - 20
//!   meta l4proto tcp ct status dnat ct direction original
//!     ct original ip saddr @src4 ct original ip daddr . ct original proto-dst @v4 goto past }
//! chain past {
//!   ct id @seen update @seen { ct id } accept
//!   tcp flags rst accept
//!   add @seen { ct id } counter name unseen accept
//!   counter name unlisted }
//! ```
//! A connection is bound once, by its first packet: one that was opened before its service was armed, or while the
//! proxy was away, stays where kube-proxy or the fallback led it. Its packets are forwarded, and that is where each is
//! counted, once; a reset is a connection's end, not its use. With [`Adopt::Reset`] it is reset when its client next sends something, while the element of `adopt`
//! lives, so that the client connects anew and is seen:
//! ```text
//! set adopt { type inet_proto; size 64; flags dynamic,timeout }
//! chain past { .. goto reset, in place of accept }
//! chain reset { tcp flags psh meta l4proto @adopt reject with tcp reset }
//! ```
//! Only what carries data from the client (PSH) is answered so, and only the client is told: an answer under way comes to
//! its end, and a client that waits for one is not left waiting. The server's end goes when it next says something, to
//! which the client's kernel answers with a reset, or by its own time limit.
//!
//! Each forwarded packet of the node meets the first test, each of a TCP connection that was translated the second.

use netlink_packet_netfilter::nftables::{InetHookNumber, SetAttribute, SetDescription, SetFlags};

use super::ruleset::TABLE;
use crate::nft::beat;
use crate::nft::expression::{self, Expression, REGISTER_1_PLUS_4, REGISTER_2, TcpFlag};
use crate::nft::table::{Change, Set};

/// Counts connections, each once.
pub(super) const UNSEEN: &str = "unseen";
/// Counts packets of connections that `seen` had no room for.
pub(super) const UNLISTED: &str = "unlisted";
/// While its element lives, connections are reset.
pub(super) const ADOPT: &str = "adopt";
const SEEN: &str = "seen";
const PAST: &str = "past";
const RESET: &str = "reset";
/// Connections that are remembered: 4 MB of kernel memory at most. What is beyond is counted by packets.
const SEEN_SIZE: u32 = 65_536;
/// After an hour of silence a connection is forgotten, and counted again should it speak: an HTTP client has closed a
/// connection long before.
const SEEN_FOR_MS: u64 = 3_600_000;
/// nft's `integer`; what it means is in [`typeof_ct_id`].
const TYPE_INTEGER: u32 = 4;
/// Before other programs' filters, as the guard.
const PRIORITY: i32 = libc::NF_IP_PRI_FILTER - 20;

/// What becomes of connections that were opened before their service was armed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Adopt {
    /// They go on as they are, unseen, and are counted.
    #[default]
    Leave,
    /// They are counted and reset, so that clients connect anew and are seen.
    Reset,
}

/// The sets, chains and rules.
pub(super) fn create(adopt: Adopt) -> Vec<Change> {
    let mut changes = [UNSEEN, UNLISTED].map(|name| TABLE.counter(name)).to_vec();
    changes.push(seen());
    changes.push(TABLE.chain_of_rules(PAST));
    if adopt == Adopt::Reset {
        changes.extend([beat::set(TABLE, ADOPT, 7), TABLE.chain_of_rules(RESET)]);
        let mut rule = expression::is_tcp().to_vec();
        rule.extend(expression::tcp_flag(TcpFlag::Push));
        rule.extend([expression::transport_protocol(), expression::in_set(ADOPT), expression::reset()]);
        changes.push(TABLE.rule(RESET, rule));
    }
    let end = || match adopt {
        Adopt::Leave => expression::accept(),
        Adopt::Reset => expression::go_to(RESET),
    };
    let known = [expression::ct_id(), expression::in_set(SEEN)];
    let renewed = [expression::ct_id(), expression::renew_in(SEEN), end()];
    changes.push(TABLE.rule(PAST, known.into_iter().chain(renewed).collect()));
    let mut reset = expression::is_tcp().to_vec();
    reset.extend(expression::tcp_flag(TcpFlag::Reset));
    reset.push(expression::accept());
    changes.push(TABLE.rule(PAST, reset));
    let new = [expression::ct_id(), expression::add_to(SEEN), expression::count(UNSEEN), end()];
    changes.push(TABLE.rule(PAST, new.to_vec()));
    changes.push(TABLE.rule(PAST, vec![expression::count(UNLISTED), end()]));
    changes.push(TABLE.chain("unseen", "filter", InetHookNumber::Forward, PRIORITY));
    changes.extend([true, false].map(|v4| TABLE.rule("unseen", passes_by(v4))));
    changes
}

fn passes_by(v4: bool) -> Vec<Expression> {
    let (sources, targets, port) = match v4 {
        true => ("src4", "v4", REGISTER_1_PLUS_4),
        false => ("src6", "v6", REGISTER_2),
    };
    let mut rule = expression::is_tcp().to_vec();
    rule.extend(expression::ct_is_dnated());
    rule.extend(expression::ct_is_original());
    rule.extend([
        expression::ct_original_source(v4),
        expression::in_set(sources),
        expression::ct_original_destination(v4),
        expression::ct_original_port(port),
        expression::in_set(targets),
        expression::go_to(PAST),
    ]);
    rule
}

fn seen() -> Change {
    let more = vec![
        SetAttribute::Description(vec![SetDescription::Size(SEEN_SIZE)]),
        SetAttribute::Timeout(SEEN_FOR_MS),
        SetAttribute::UserData(typeof_ct_id()),
    ];
    let flags = SetFlags::Timeout | SetFlags::Eval;
    TABLE.set(Set { name: SEEN, id: 6, key_type: TYPE_INTEGER, key_len: 4, flags, more })
}

/// For `nft list` alone: the key's byte order (2, the network's), and that it is expression 12 (`ct`) of key 23 (`id`)
/// without a direction. Its own attributes: a byte for the kind, one for the length.
fn typeof_ct_id() -> Vec<u8> {
    let attribute = |kind: u8, value: &[u8]| [&[kind, value.len() as u8], value].concat();
    let number = |kind: u8, value: u32| attribute(kind, &value.to_ne_bytes());
    let of_ct = [number(0, 23), number(1, u32::MAX)].concat();
    let expression = [number(0, 12), attribute(1, &of_ct)].concat();
    [number(0, 2), attribute(3, &expression)].concat()
}
