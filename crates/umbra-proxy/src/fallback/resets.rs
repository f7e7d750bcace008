//! What the kernel remembers of a connection that was reset: nothing.
//!
//! A proxy that is killed resets what it has not read yet. Connection tracking goes on remembering such a connection for
//! `nf_conntrack_tcp_timeout_close` (10 s), and since it was the proxy that reset it, a new connection from the same port
//! counts as the old one (`nf_conntrack_proto_tcp.c`: only one that its own side has closed or reset is opened anew): it is
//! led to the listener as before, without a look at any rule, and refused there while there is no proxy. Linux picks
//! ports anew every 10 s, so a client of a hundred connections a second meets such a port now and then. So connections to
//! governed services get timeouts of their own: once reset they are forgotten at once, and the next one is new.
//!
//! The table of the fallback says so, not the owner's: with the owner's the timeouts would go at the very moment when they
//! are needed.

use std::time::Duration;

use netlink_packet_netfilter::nftables::{InetHookNumber, TableFlags};

use crate::nft::error::NetlinkError;
use crate::nft::expression::{self, Expression};
use crate::nft::netlink::Netlink;
use crate::nft::table::{Change, Table};

/// The chain and the timeouts.
pub(super) const NAME: &str = "resets";
/// After connection tracking (-200), before anybody translates addresses: only then may timeouts be given.
const PRIORITY: i32 = libc::NF_IP_PRI_MANGLE;

/// What this kernel can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resets {
    /// Forgotten at once.
    Forgotten,
    /// Remembered for as long as the node has it: a kernel without `CONFIG_NF_CONNTRACK_TIMEOUT`.
    Remembered,
}

impl Resets {
    /// Asks the kernel, in a batch that leaves nothing behind. One that does not tell is asked again when the table is made.
    pub(super) fn of_kernel(netlink: &mut Netlink) -> Self {
        const TRIAL: Table = Table("umbra-trial");
        let none = TableFlags::empty();
        let trial = [TRIAL.create(none, 0), TRIAL.tcp_timeouts(NAME, Duration::ZERO), TRIAL.remove()];
        match netlink.commit(&trial).as_ref().err().and_then(NetlinkError::cannot) {
            None => Self::Forgotten,
            Some(_) => {
                tracing::warn!(
                    "this kernel has no CONFIG_NF_CONNTRACK_TIMEOUT: after a crash of umbra-proxy a client that uses a \
                     port again within 10 s may be refused once"
                );
                Self::Remembered
            }
        }
    }

    /// In a table without the chain; `governed` are the conditions of a packet to a governed service, one for each IP
    /// family.
    pub(super) fn create(
        self,
        table: Table,
        governed: impl IntoIterator<Item = Vec<Expression>>,
    ) -> Vec<Change> {
        if self == Self::Remembered {
            return Vec::new();
        }
        let mut changes = vec![
            table.tcp_timeouts(NAME, Duration::ZERO),
            table.chain(NAME, "filter", InetHookNumber::PreRouting, PRIORITY),
        ];
        for governed in governed {
            let mut rule = expression::ct_is_new().to_vec();
            rule.extend(governed);
            rule.push(expression::set_timeouts(NAME));
            changes.push(table.rule(NAME, rule));
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::super::keep::Origin;
    use super::super::ruleset;
    use super::*;

    #[test]
    fn a_kernel_that_cannot_forget_gets_a_table_without_the_chain_and_known_as_such() {
        let origin = Origin::default();
        let [forgotten, remembered] =
            [Resets::Forgotten, Resets::Remembered].map(|resets| ruleset::anew(&origin, resets).len());
        // The timeouts, the chain, a rule for each family.
        assert_eq!(forgotten, remembered + 4);
        assert!(ruleset::rules(Resets::Remembered).all(|(chain, _)| chain != NAME));
        let markers = [Resets::Forgotten, Resets::Remembered].map(|resets| ruleset::marker(&origin, resets));
        assert_ne!(markers[0], markers[1]);
        assert!(markers.iter().all(|marker| marker.starts_with(ruleset::LAYOUT)));
    }
}
