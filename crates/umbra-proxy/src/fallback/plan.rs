//! From the configuration to what the fallback should hold. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use umbra_routing::{Config, Key, Resource, ServiceName, Slots, sets_of, slots_of};

use super::keep::{Change, Origin};
use crate::intercept::Sources;

/// What the fallback was last told, by service.
#[derive(Debug)]
pub(crate) struct Plan {
    node: String,
    /// The interface of the node's own address.
    interface: Option<String>,
    services: BTreeMap<ServiceName, Planned>,
    begun: bool,
}

#[derive(Debug)]
struct Planned {
    ways: Vec<(SocketAddr, Option<Slots>)>,
    /// The backend sets that the ways are made from.
    sets: BTreeSet<Key>,
}

impl Plan {
    /// For this node, with nothing planned.
    pub(crate) fn new(node: String, interface: Option<String>) -> Self {
        Self { node, interface, services: BTreeMap::new(), begun: false }
    }

    /// What changes because these resources did; the first time everything is said.
    pub(crate) fn change(&mut self, config: &Config, changed: &BTreeSet<Key>) -> Change {
        let whole = !std::mem::replace(&mut self.begun, true);
        let mut gone = BTreeSet::new();
        let mut set = BTreeMap::new();
        for service in self.touched(config, changed, whole) {
            let before = self.services.remove(&service);
            gone.extend(before.iter().flat_map(|before| before.ways.iter().map(|(at, _)| *at)));
            if let Some(Resource::Service(table)) = config.get(&Key::Service(service.clone())) {
                let planned = Planned { ways: slots_of(table, config, &self.node), sets: sets_of(table) };
                set.extend(planned.ways.iter().copied());
                self.services.insert(service, planned);
            }
        }
        gone.retain(|at| !set.contains_key(at));
        if !gone.is_empty() {
            // Another service may have had the address before this one lost it.
            let held = self.services.values().flat_map(|planned| &planned.ways);
            for (at, _) in held {
                gone.remove(at);
            }
        }
        let origin = (whole || changed.contains(&Key::Node)).then(|| self.origin(config));
        Change { whole, set, gone, origin }
    }

    fn touched(&self, config: &Config, changed: &BTreeSet<Key>, whole: bool) -> BTreeSet<ServiceName> {
        let service = |key: &Key| match key {
            Key::Service(service) => Some(service.clone()),
            _ => None,
        };
        if whole {
            return config.iter().filter_map(|(key, _)| service(key)).collect();
        }
        let sets: Vec<&Key> = changed.iter().filter(|key| matches!(key, Key::Backends(_))).collect();
        let uses = |planned: &Planned| sets.iter().any(|set| planned.sets.contains(*set));
        let users =
            self.services.iter().filter(|(_, planned)| uses(planned)).map(|(service, _)| service.clone());
        changed.iter().filter_map(service).chain(users).collect()
    }

    fn origin(&self, config: &Config) -> Origin {
        Origin { ranges: Sources::pod_ranges(config), interface: self.interface.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::{config_of, service_of};

    fn keys(all: &[&str]) -> BTreeSet<Key> {
        all.iter().map(|key| key.parse().unwrap()).collect()
    }

    fn targets(change: &Change) -> Vec<String> {
        change.set.keys().map(ToString::to_string).collect()
    }

    #[test]
    fn the_first_change_is_the_whole_and_later_ones_say_what_moved() {
        let mut plan = Plan::new("n1".into(), None);
        let a = |address: &str| ("service/default/a", service_of("a", &[address], &[80], true));
        let b = ("service/default/b", service_of("b", &["10.0.0.2"], &[80], true));
        let first = plan.change(&config_of(&[a("10.0.0.1"), b.clone()]), &BTreeSet::new());
        assert!(first.whole && first.origin.is_some());
        assert_eq!(targets(&first), ["10.0.0.1:80", "10.0.0.2:80"]);
        let moved = plan.change(&config_of(&[a("10.0.0.9"), b.clone()]), &keys(&["service/default/a"]));
        assert!(!moved.whole && moved.origin.is_none());
        assert_eq!(targets(&moved), ["10.0.0.9:80"]);
        assert_eq!(moved.gone, BTreeSet::from(["10.0.0.1:80".parse().unwrap()]));
        let nothing = plan.change(&config_of(&[a("10.0.0.9"), b]), &keys(&["client/10.244.1.5"]));
        assert_eq!(nothing, Change::default());
    }

    #[test]
    fn an_address_that_changes_hands_is_not_gone() {
        let mut plan = Plan::new("n1".into(), None);
        let of = |name: &str, address: &str| service_of(name, &[address], &[80], true);
        plan.change(&config_of(&[("service/default/a", of("a", "10.0.0.1"))]), &BTreeSet::new());
        let handed = config_of(&[("service/default/b", of("b", "10.0.0.1"))]);
        let change = plan.change(&handed, &keys(&["service/default/a", "service/default/b"]));
        assert_eq!((targets(&change), change.gone), (vec!["10.0.0.1:80".to_owned()], BTreeSet::new()));
    }
}
