//! One service as it is served: the newest result, with what a hold keeps of the one before.
//!
//! A table is published also while its primary is unresolved: only a node knows whether it has the service armed
//! already, and then it must keep it (also when this controller has just started); otherwise it does not arm it.

use std::collections::BTreeSet;

use umbra_compile::{Compiled, Finding, ObjectRef, Outcome};
use umbra_routing::{BackendRef, ServiceTable};

use super::objects::Part;

/// The last result for a service that somebody governs.
pub(super) struct Served {
    /// As published; absent when it is held and nothing was published before.
    pub(super) table: Option<ServiceTable>,
    pub(super) references: BTreeSet<BackendRef>,
    pub(super) findings: Vec<Finding>,
    pub(super) governed_by: Vec<ObjectRef>,
    /// Uids of the objects that hold it.
    held_by: BTreeSet<String>,
    /// There are no rules to hold on to here; nodes may have some.
    pub(super) sought: bool,
}

impl Served {
    pub(super) fn part_of(&self, object: &ObjectRef) -> Part {
        if self.held_by.contains(&object.uid) {
            let has = |table: &ServiceTable| table.rules_of.contains(&object.uid);
            match &self.table {
                Some(table) if has(table) => Part::Held,
                _ if self.sought => Part::Sought,
                _ => Part::Invalid,
            }
        } else if let Some(table) = &self.table {
            table.leave_alone.clone().map_or(Part::Published, Part::LeftAlone)
        } else {
            Part::Waiting
        }
    }
}

/// `None` when nobody governs the service and there is nothing to say. `previous` is what a hold goes on with;
/// `leave_alone` says why nodes are not to take over a table: what a hold keeps may name other pods than the newest rules.
pub(super) fn served(
    compiled: Compiled,
    previous: Option<&ServiceTable>,
    leave_alone: impl FnOnce(&ServiceTable) -> Option<String>,
) -> Option<Served> {
    let Compiled { outcome, findings, governed_by } = compiled;
    let (table, held_by) = match outcome {
        Outcome::Table(table) => (Some(table), BTreeSet::new()),
        Outcome::NotGoverned if findings.is_empty() && governed_by.is_empty() => return None,
        Outcome::NotGoverned => (None, BTreeSet::new()),
        Outcome::Hold(hold) => {
            let mut table = umbra_compile::held(previous, &hold);
            if let Some(table) = &mut table {
                table.leave_alone = leave_alone(table);
            }
            (table, hold.holders())
        }
    };
    let references = table.as_ref().map(umbra_compile::backend_refs).unwrap_or_default();
    let sought = table.is_none() && previous.is_none() && !held_by.is_empty();
    Some(Served { table, references, findings, governed_by, held_by, sought })
}
