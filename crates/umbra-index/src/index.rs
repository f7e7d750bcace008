//! The objects, and what an event touches.

use std::collections::{BTreeMap, BTreeSet};

use umbra_api::{
    DestinationRule, EndpointSlice, Meta, NetworkPolicy, Node, NodeStatus, ObjectKey, Pod, Service,
    VirtualService,
};

use crate::event::{Change, Dirty, Event};
use crate::pods::{PodEntry, Pods};
use crate::policies::{Changed, Policies, seen_by};
use crate::rules::Rules;
use crate::slices::{Slices, service_of};
use crate::view::View;

/// Every object that tables are made of. One owner, no locks.
#[derive(Debug, Default)]
pub struct Index {
    pub(crate) rules: Rules,
    pub(crate) services: BTreeMap<ObjectKey, Service>,
    pub(crate) slices: Slices,
    pub(crate) pods: Pods,
    pub(crate) nodes: BTreeMap<String, Node>,
    pub(crate) policies: Policies,
    listed: BTreeSet<Listed>,
}

/// The kinds that have to be listed once before anything is compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Listed {
    VirtualService,
    DestinationRule,
    Service,
    EndpointSlice,
    Pod,
    Node,
    NetworkPolicy,
}

impl Listed {
    const KINDS: usize = 7;
}

/// How objects of one kind are kept.
struct Keeping<T> {
    listed: Listed,
    /// The keys of all that are there.
    keys: fn(&Index) -> Vec<ObjectKey>,
    /// Blanks what nobody reads, so that its changes are no changes; gives the metadata.
    project: fn(&mut T) -> &Meta,
    /// Puts, replaces or (with `None`) removes one.
    set: fn(&mut Index, &ObjectKey, Option<T>) -> Dirty,
}

impl Index {
    /// Without any object.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads what is here now.
    pub fn view(&self) -> View<'_> {
        View { index: self }
    }

    /// Every kind has been listed once: nothing is missing any more.
    pub fn is_complete(&self) -> bool {
        self.listed.len() == Listed::KINDS
    }

    /// Takes in a change; says what has to be computed again, for the old value and the new one.
    pub fn apply(&mut self, event: Event) -> Dirty {
        match event {
            Event::VirtualService(change) => self.take(change, &VIRTUAL_SERVICES),
            Event::DestinationRule(change) => self.take(change, &DESTINATION_RULES),
            Event::Service(change) => self.take(change, &SERVICES),
            Event::EndpointSlice(change) => self.take(change, &SLICES),
            Event::Pod(change) => self.take(change, &PODS),
            Event::Node(change) => self.take(change, &NODES),
            Event::NetworkPolicy(change) => self.take(change, &POLICIES),
        }
    }

    fn take<T>(&mut self, change: Change<T>, keeping: &Keeping<T>) -> Dirty {
        match change {
            Change::Apply(new) => self.apply_one(new, keeping),
            Change::Delete(key) => (keeping.set)(self, &key, None),
            Change::Relist(objects) => {
                self.listed.insert(keeping.listed);
                let mut gone: BTreeSet<ObjectKey> = (keeping.keys)(self).into_iter().collect();
                let mut dirty = Dirty::default();
                for mut new in objects {
                    gone.remove(&(keeping.project)(&mut new).key());
                    dirty.merge(self.apply_one(new, keeping));
                }
                for key in gone {
                    dirty.merge((keeping.set)(self, &key, None));
                }
                dirty
            }
        }
    }

    fn apply_one<T>(&mut self, mut new: T, keeping: &Keeping<T>) -> Dirty {
        let key = (keeping.project)(&mut new).key();
        (keeping.set)(self, &key, Some(new))
    }

    fn set_service(&mut self, key: &ObjectKey, new: Option<Service>) -> Dirty {
        if self.services.get(key) == new.as_ref() {
            return Dirty::default();
        }
        match new {
            Some(new) => self.services.insert(key.clone(), new),
            None => self.services.remove(key),
        };
        let mut dirty = self.rules.service_changed(key, &self.services);
        dirty.backends.insert(key.clone());
        dirty
    }

    fn set_slice(&mut self, key: &ObjectKey, new: Option<EndpointSlice>) -> Dirty {
        if self.slices.get(key) == new.as_ref() {
            return Dirty::default();
        }
        let services = |slice: Option<&EndpointSlice>| slice.and_then(service_of);
        let old = self.slices.get(key);
        let backends: BTreeSet<_> = services(old).into_iter().chain(services(new.as_ref())).collect();
        let seen = |slice| services(slice).zip(Some(seen_by(&self.policies, &self.pods, slice)));
        let policed = |slice| seen(slice).filter(|(_, seen)| !seen.is_empty());
        let stays = policed(old) == policed(new.as_ref());
        let policed = if stays { BTreeSet::new() } else { backends.clone() };
        // The new references come before the old ones go: a pod that both name stays known.
        if let Some(new) = &new {
            self.pods.refer(new);
        }
        let old = self.slices.set(key, new);
        if let Some(old) = &old {
            self.pods.release(old);
        }
        Dirty { backends, policed, ..Dirty::default() }
    }

    fn set_pod(&mut self, key: &ObjectKey, new: Option<Pod>) -> Dirty {
        let new = new.map(|pod| self.pods.intern(pod));
        let old = self.pods.get(key);
        if old == new.as_ref() {
            return Dirty::default();
        }
        let nodes = old.into_iter().chain(&new).map(|entry| entry.pod.spec.node_name.clone());
        let mut dirty = Dirty { nodes: nodes.filter(|node| !node.is_empty()).collect(), ..Dirty::default() };
        if old.map(identity) != new.as_ref().map(identity) {
            dirty.backends = self.pods.services_of(key);
            let is_policed = |entry: &PodEntry| self.policies.ingress_of(entry).next().is_some();
            if old.into_iter().chain(&new).any(is_policed) {
                dirty.policed = dirty.backends.clone();
            }
        }
        self.pods.set(key, new);
        dirty
    }

    fn set_node(&mut self, key: &ObjectKey, new: Option<Node>) -> Dirty {
        if self.nodes.get(&key.name) == new.as_ref() {
            return Dirty::default();
        }
        match new {
            Some(new) => self.nodes.insert(key.name.clone(), new),
            None => self.nodes.remove(&key.name),
        };
        Dirty { nodes: BTreeSet::from([key.name.clone()]), ..Dirty::default() }
    }

    /// Touches the services whose pods, there or to come, it has a say about, and the nodes of its other pods.
    fn set_policy(&mut self, key: &ObjectKey, new: Option<NetworkPolicy>) -> Dirty {
        if self.policies.get(key) == new.as_ref() {
            return Dirty::default();
        }
        let any_egress = self.policies.any_egress();
        let old = self.policies.set(key, new);
        let changed = Changed([old.as_ref(), self.policies.get(key)]);
        let mut dirty = Dirty::default();
        for (pod, entry) in self.pods.in_namespace(&key.namespace) {
            let (ingress, egress) = changed.differs_for(&entry.labels);
            if ingress {
                dirty.policed.extend(self.pods.services_of(pod));
            }
            if egress && !entry.pod.spec.node_name.is_empty() {
                dirty.nodes.insert(entry.pod.spec.node_name.clone());
            }
        }
        let services = self.services.range(ObjectKey::new(key.namespace.clone(), "")..);
        let services = services.take_while(|(service, _)| service.namespace == key.namespace);
        let about = |service: &Service| {
            !service.spec.selector.is_empty() && changed.may_select(&service.spec.selector)
        };
        dirty.policed.extend(services.filter(|(_, s)| about(s)).map(|(service, _)| service.clone()));
        if any_egress != self.policies.any_egress() {
            dirty.nodes.extend(self.nodes.keys().cloned());
            dirty.services.extend(self.rules.named(&self.services));
        }
        dirty
    }
}

/// What an endpoint shows of its pod.
fn identity(entry: &PodEntry) -> impl PartialEq + '_ {
    let meta = &entry.pod.metadata;
    (&meta.uid, &entry.labels, &meta.owner_references)
}

const VIRTUAL_SERVICES: Keeping<VirtualService> = Keeping {
    listed: Listed::VirtualService,
    keys: |index| index.rules.virtual_services().map(|(key, _)| key.clone()).collect(),
    project: |vs| without_labels(&mut vs.metadata),
    set: |index, key, new| index.rules.set_virtual_service(key, new, &index.services),
};

const DESTINATION_RULES: Keeping<DestinationRule> = Keeping {
    listed: Listed::DestinationRule,
    keys: |index| index.rules.destination_rules().map(|(key, _)| key.clone()).collect(),
    project: |rule| without_labels(&mut rule.metadata),
    set: |index, key, new| index.rules.set_destination_rule(key, new, &index.services),
};

const SERVICES: Keeping<Service> = Keeping {
    listed: Listed::Service,
    keys: |index| index.services.keys().cloned().collect(),
    project: |service| without_generation(without_labels(&mut service.metadata)),
    set: Index::set_service,
};

const SLICES: Keeping<EndpointSlice> = Keeping {
    listed: Listed::EndpointSlice,
    keys: |index| index.slices.keys(),
    project: |slice| without_generation(&mut slice.metadata),
    set: Index::set_slice,
};

const PODS: Keeping<Pod> = Keeping {
    listed: Listed::Pod,
    keys: |index| index.pods.keys(),
    project: |pod| without_generation(&mut pod.metadata),
    set: Index::set_pod,
};

const NODES: Keeping<Node> = Keeping {
    listed: Listed::Node,
    keys: |index| index.nodes.keys().map(|name| ObjectKey::new("", name.clone())).collect(),
    project: |node| {
        node.status = NodeStatus::default();
        without_generation(without_labels(&mut node.metadata))
    },
    set: Index::set_node,
};

const POLICIES: Keeping<NetworkPolicy> = Keeping {
    listed: Listed::NetworkPolicy,
    keys: |index| index.policies.keys(),
    project: |policy| without_generation(without_labels(&mut policy.metadata)),
    set: Index::set_policy,
};

fn without_labels(meta: &mut Meta) -> &mut Meta {
    meta.labels.clear();
    meta.owner_references.clear();
    meta.deletion_timestamp = None;
    meta
}

/// Only the authors of VirtualServices and DestinationRules are told a generation.
fn without_generation(meta: &mut Meta) -> &mut Meta {
    meta.generation = 0;
    meta.deletion_timestamp = None;
    meta
}
