//! What the kernel's sets hold, and how they come to hold something else.

use super::{Interception, NetlinkError, Target, ruleset};
use crate::nft::netlink::{MAX_BATCH_BYTES, Netlink};

/// Targets in one batch: an IPv6 element takes 36 bytes.
const TARGETS_PER_BATCH: usize = MAX_BATCH_BYTES / 40;

/// The socket that owns the table, and what its sets hold.
pub(super) struct Sets {
    pub(super) netlink: Netlink,
    current: Interception,
}

impl Sets {
    /// Of a table just made.
    pub(super) fn new(netlink: Netlink) -> Self {
        Self { netlink, current: Interception::default() }
    }

    /// Going to `wanted` takes nothing away.
    pub(super) fn only_gains(&self, wanted: &Interception) -> bool {
        self.current.targets.is_subset(&wanted.targets) && self.current.sources == wanted.sources
    }

    /// They hold exactly `wanted` afterwards; after an error, something between.
    pub(super) fn bring_to(&mut self, wanted: &Interception) -> Result<(), NetlinkError> {
        self.change_to(wanted).or_else(|error| {
            tracing::warn!(%error, "writing all sets anew");
            self.write_all(wanted)
        })
    }

    fn change_to(&mut self, wanted: &Interception) -> Result<(), NetlinkError> {
        let gone: Vec<Target> = self.current.targets.difference(&wanted.targets).copied().collect();
        let new: Vec<Target> = wanted.targets.difference(&self.current.targets).copied().collect();
        for some in gone.chunks(TARGETS_PER_BATCH) {
            self.netlink.commit(&ruleset::delete_targets(some))?;
            self.current.targets.retain(|target| some.binary_search(target).is_err());
        }
        if self.current.sources != wanted.sources {
            self.netlink.commit(&ruleset::replace_sources(&wanted.sources))?;
            self.current.sources = wanted.sources.clone();
        }
        for some in new.chunks(TARGETS_PER_BATCH) {
            self.netlink.commit(&ruleset::add_targets(some))?;
            self.current.targets.extend(some);
        }
        Ok(())
    }

    /// Whatever the sets hold, they hold `wanted` afterwards.
    fn write_all(&mut self, wanted: &Interception) -> Result<(), NetlinkError> {
        let mut changes = ruleset::flush_targets();
        changes.extend(ruleset::replace_sources(&wanted.sources));
        let targets: Vec<Target> = wanted.targets.iter().copied().collect();
        let (first, rest) = targets.split_at(targets.len().min(TARGETS_PER_BATCH / 2));
        changes.extend(ruleset::add_targets(first));
        self.netlink.commit(&changes)?;
        self.current =
            Interception { targets: first.iter().copied().collect(), sources: wanted.sources.clone() };
        for some in rest.chunks(TARGETS_PER_BATCH) {
            self.netlink.commit(&ruleset::add_targets(some))?;
            self.current.targets.extend(some);
        }
        Ok(())
    }
}
