//! VirtualServices and DestinationRules, found by the services they are about.

use std::collections::{BTreeMap, BTreeSet};

use umbra_api::{DestinationRule, HttpRoute, Meta, ObjectKey, VirtualService};

use crate::event::{Dirty, Kind, ObjectName};
use crate::host;

/// Sorts as Istio does: oldest first, then name, then namespace (spec/istio.md 2.4).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Age {
    created: String,
    name: String,
    namespace: String,
}

impl Age {
    fn of(meta: &Meta) -> Self {
        Self {
            created: meta.creation_timestamp.clone(),
            name: meta.name.clone(),
            namespace: meta.namespace.clone(),
        }
    }

    fn key(&self) -> ObjectKey {
        ObjectKey::new(self.namespace.clone(), self.name.clone())
    }
}

#[derive(Debug, Default)]
pub(crate) struct Rules {
    pub(crate) virtual_services: BTreeMap<ObjectKey, VirtualService>,
    pub(crate) destination_rules: BTreeMap<ObjectKey, DestinationRule>,
    /// Service to the VirtualServices whose `hosts` name it.
    naming: BTreeMap<ObjectKey, BTreeSet<Age>>,
    /// Service to the VirtualServices that have it as a destination or mirror.
    sending: BTreeMap<ObjectKey, BTreeSet<ObjectKey>>,
    /// Full host, or wildcard, to DestinationRules.
    covering: BTreeMap<String, BTreeSet<Age>>,
}

impl Rules {
    pub(crate) fn naming(&self, service: &ObjectKey) -> impl Iterator<Item = &VirtualService> + use<'_> {
        let ages = self.naming.get(service).into_iter().flatten();
        ages.filter_map(|age| self.virtual_services.get(&age.key()))
    }

    pub(crate) fn covering(&self, service: &ObjectKey) -> Vec<&DestinationRule> {
        let name = host::name_of(service);
        // Wildcards sort together, from `*` to before `+`.
        let wildcards = self.covering.range("*".to_owned().."+".to_owned());
        let wildcards = wildcards.filter(|(host, _)| host::covers(host, &name)).flat_map(|(_, ages)| ages);
        let ages: BTreeSet<&Age> = wildcards.chain(self.covering.get(&name).into_iter().flatten()).collect();
        ages.into_iter().filter_map(|age| self.destination_rules.get(&age.key())).collect()
    }

    /// The services that some VirtualService's `hosts` name.
    pub(crate) fn named(&self) -> impl Iterator<Item = &ObjectKey> {
        self.naming.keys()
    }

    /// Puts, replaces or (with `None`) removes a VirtualService.
    pub(crate) fn set_virtual_service(&mut self, key: &ObjectKey, new: Option<VirtualService>) -> Dirty {
        let mut dirty = Dirty::default();
        let old = self.virtual_services.get(key);
        if old == new.as_ref() {
            return dirty;
        }
        dirty.objects.insert(ObjectName::new(Kind::VirtualService, key.clone()));
        dirty.services.extend(old.into_iter().chain(&new).flat_map(services_named));
        if let Some(old) = self.virtual_services.remove(key) {
            for service in services_named(&old) {
                remove_from(&mut self.naming, &service, &Age::of(&old.metadata));
            }
            for service in services_sent_to(&old) {
                remove_from(&mut self.sending, &service, key);
            }
        }
        if let Some(new) = new {
            for service in services_named(&new) {
                self.naming.entry(service).or_default().insert(Age::of(&new.metadata));
            }
            for service in services_sent_to(&new) {
                self.sending.entry(service).or_default().insert(key.clone());
            }
            self.virtual_services.insert(key.clone(), new);
        }
        dirty
    }

    /// Puts, replaces or (with `None`) removes a DestinationRule.
    pub(crate) fn set_destination_rule(&mut self, key: &ObjectKey, new: Option<DestinationRule>) -> Dirty {
        let mut dirty = Dirty::default();
        let old = self.destination_rules.get(key);
        if old == new.as_ref() {
            return dirty;
        }
        dirty.objects.insert(ObjectName::new(Kind::DestinationRule, key.clone()));
        for host in old.into_iter().chain(&new).map(host_of) {
            dirty.services.extend(self.services_using_host(&host));
        }
        if let Some(old) = self.destination_rules.remove(key) {
            remove_from(&mut self.covering, &host_of(&old), &Age::of(&old.metadata));
        }
        if let Some(new) = new {
            self.covering.entry(host_of(&new)).or_default().insert(Age::of(&new.metadata));
            self.destination_rules.insert(key.clone(), new);
        }
        dirty
    }

    /// What a Service's coming, going or changing leads to.
    pub(crate) fn service_changed(&self, service: &ObjectKey) -> Dirty {
        let mut dirty = Dirty::default();
        if self.naming.contains_key(service) {
            dirty.services.insert(service.clone());
        }
        dirty.services.extend(self.services_sending_to(service));
        let named = self.naming(service).map(|vs| ObjectName::new(Kind::VirtualService, vs.metadata.key()));
        let covered = self.covering(service);
        let covered = covered.iter().map(|dr| ObjectName::new(Kind::DestinationRule, dr.metadata.key()));
        dirty.objects.extend(named.chain(covered));
        dirty
    }

    /// The services named by VirtualServices that have `service` as a destination or mirror.
    fn services_sending_to(&self, service: &ObjectKey) -> impl Iterator<Item = ObjectKey> + use<'_> {
        let senders = self.sending.get(service).into_iter().flatten();
        senders.filter_map(|key| self.virtual_services.get(key)).flat_map(services_named)
    }

    fn services_using_host(&self, host: &str) -> BTreeSet<ObjectKey> {
        let used = self.sending.keys().filter(|service| host::covers(host, &host::name_of(service)));
        used.flat_map(|service| self.services_sending_to(service)).collect()
    }
}

fn remove_from<K: Ord, V: Ord>(map: &mut BTreeMap<K, BTreeSet<V>>, key: &K, value: &V) {
    if let Some(set) = map.get_mut(key) {
        set.remove(value);
        if set.is_empty() {
            map.remove(key);
        }
    }
}

fn host_of(rule: &DestinationRule) -> String {
    host::full_name(&rule.spec.host, &rule.metadata.namespace)
}

/// The services in `hosts`; a VirtualService's hosts ignore case (spec/istio.md 4.7).
fn services_named(vs: &VirtualService) -> BTreeSet<ObjectKey> {
    let hosts = vs.spec.hosts.iter().map(|host| host.to_ascii_lowercase());
    hosts.filter_map(|host| host::service_of(&host, &vs.metadata.namespace)).collect()
}

/// The services that rules send requests or copies to.
fn services_sent_to(vs: &VirtualService) -> BTreeSet<ObjectKey> {
    let destinations = vs.spec.http.iter().flat_map(HttpRoute::destinations);
    destinations.filter_map(|to| host::service_of(&to.host, &vs.metadata.namespace)).collect()
}
