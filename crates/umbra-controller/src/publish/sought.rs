//! Services in hold whose rules this controller does not know: it began after their objects became invalid.
//!
//! Takes: which services these are, and the tables that nodes hold. Gives: what nodes are told to keep meanwhile
//! ([`Holds`]), and for each service the rules that were found. Never believes a table whose rules are not those of an
//! object that holds the service now.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::time::Instant;
use umbra_routing::{Holds, Key, ServiceName, ServiceTable};

/// What is sought, and what was found.
#[derive(Debug, Default)]
pub(super) struct Sought {
    services: BTreeMap<ServiceName, Search>,
    holds: Arc<Holds>,
}

#[derive(Debug)]
struct Search {
    since: Instant,
    found: Option<ServiceTable>,
}

impl Sought {
    /// Seeks rules of these objects for a service, or goes on; gives since when.
    pub(super) fn seek(&mut self, service: &ServiceName, holders: BTreeSet<String>, now: Instant) -> Instant {
        let search = self.services.entry(service.clone()).or_insert(Search { since: now, found: None });
        // What was found for objects that have gone is not in the way of what these have.
        search.found.take_if(|found| !found.rests_on(&holders));
        let key = Key::Service(service.clone());
        if self.holds.get(&key) != Some(&holders) {
            Arc::make_mut(&mut self.holds).insert(key, holders);
        }
        search.since
    }

    /// Nothing is sought for this service any more.
    pub(super) fn end(&mut self, service: &ServiceName) {
        if self.services.remove(service).is_some() {
            Arc::make_mut(&mut self.holds).remove(&Key::Service(service.clone()));
        }
    }

    /// Takes a table that a node holds, if it is sought; says whether. Nodes that missed a push before the controller
    /// died may hold different ones: the first one that fits wins, and all nodes get it.
    pub(super) fn offer(&mut self, table: ServiceTable) -> bool {
        let Some(search) = self.services.get_mut(&table.service) else { return false };
        let holders = self.holds.get(&Key::Service(table.service.clone()));
        if search.found.is_some() || !holders.is_some_and(|holders| table.rests_on(holders)) {
            return false;
        }
        tracing::info!(service = %table.service, "a node has the rules of an object that is invalid now");
        search.found = Some(table);
        true
    }

    /// The rules that were found for a service.
    pub(super) fn found(&self, service: &ServiceName) -> Option<&ServiceTable> {
        self.services.get(service)?.found.as_ref()
    }

    /// What nodes are to keep.
    pub(super) fn holds(&self) -> Arc<Holds> {
        Arc::clone(&self.holds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(uid: &str) -> ServiceTable {
        ServiceTable {
            service: ServiceName::new("default", "a"),
            addresses: Vec::new(),
            ports: Vec::new(),
            leave_alone: None,
            rules_of: [uid.to_owned()].into(),
        }
    }

    #[test]
    fn what_was_found_for_another_object_is_forgotten() {
        let (mut sought, start, service) = (Sought::default(), Instant::now(), table("u").service);
        let seek = |sought: &mut Sought, uid: &str| sought.seek(&service, [uid.to_owned()].into(), start);
        seek(&mut sought, "u");
        assert!(sought.offer(table("u")));
        seek(&mut sought, "u");
        assert!(sought.found(&table("u").service).is_some());
        seek(&mut sought, "v");
        assert_eq!(sought.found(&table("u").service), None);
        assert!(!sought.offer(table("u")) && sought.offer(table("v")));
    }
}
