//! VirtualServices and DestinationRules, found by the services they are about.

use std::collections::{BTreeMap, BTreeSet};

use umbra_api::{DestinationRule, HttpRoute, Meta, ObjectKey, Problem, Service, VirtualService};

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

/// An object, and what its own checks say: they are asked once, when it comes.
#[derive(Debug)]
pub(crate) struct Checked<T> {
    pub(crate) object: T,
    pub(crate) problems: Vec<Problem>,
}

#[derive(Debug, Default)]
pub(crate) struct Rules {
    virtual_services: BTreeMap<ObjectKey, Checked<VirtualService>>,
    destination_rules: BTreeMap<ObjectKey, Checked<DestinationRule>>,
    /// Full host, or wildcard, to the VirtualServices whose `hosts` have it.
    naming: BTreeMap<String, BTreeSet<Age>>,
    /// Service to the VirtualServices that have it as a destination or mirror.
    sending: BTreeMap<ObjectKey, BTreeSet<ObjectKey>>,
    /// VirtualService to those that delegate to it.
    delegating: BTreeMap<ObjectKey, BTreeSet<ObjectKey>>,
    /// Full host, or wildcard, to DestinationRules.
    covering: BTreeMap<String, BTreeSet<Age>>,
}

/// The Services that are there: those that a wildcard may be about.
pub(crate) type Services = BTreeMap<ObjectKey, Service>;

impl Rules {
    pub(crate) fn virtual_service(&self, key: &ObjectKey) -> Option<&VirtualService> {
        self.virtual_services.get(key).map(|checked| &checked.object)
    }

    pub(crate) fn virtual_services(&self) -> impl Iterator<Item = (&ObjectKey, &VirtualService)> {
        self.virtual_services.iter().map(|(key, checked)| (key, &checked.object))
    }

    pub(crate) fn destination_rule(&self, key: &ObjectKey) -> Option<&DestinationRule> {
        self.destination_rules.get(key).map(|checked| &checked.object)
    }

    pub(crate) fn destination_rules(&self) -> impl Iterator<Item = (&ObjectKey, &DestinationRule)> {
        self.destination_rules.iter().map(|(key, checked)| (key, &checked.object))
    }

    /// None for an object that is not there.
    pub(crate) fn problems(&self, object: &ObjectName) -> &[Problem] {
        let problems = match object.kind {
            Kind::VirtualService => self.virtual_services.get(&object.key).map(|checked| &checked.problems),
            Kind::DestinationRule => self.destination_rules.get(&object.key).map(|checked| &checked.problems),
        };
        problems.map(Vec::as_slice).unwrap_or_default()
    }

    pub(crate) fn naming(&self, service: &ObjectKey) -> impl Iterator<Item = &VirtualService> + use<'_> {
        let ages = about(&self.naming, service);
        ages.into_iter().filter_map(|age| self.virtual_service(&age.key()))
    }

    pub(crate) fn covering(&self, service: &ObjectKey) -> Vec<&DestinationRule> {
        let ages = about(&self.covering, service);
        ages.into_iter().filter_map(|age| self.destination_rule(&age.key())).collect()
    }

    /// The VirtualServices that delegate to this one.
    pub(crate) fn roots_of(&self, delegate: &ObjectKey) -> impl Iterator<Item = &VirtualService> + use<'_> {
        let roots = self.delegating.get(delegate).into_iter().flatten();
        roots.filter_map(|root| self.virtual_service(root))
    }

    /// The services that some VirtualService's `hosts` name.
    pub(crate) fn named(&self, services: &Services) -> BTreeSet<ObjectKey> {
        self.naming.keys().flat_map(|host| services_of_host(host, services)).collect()
    }

    /// Puts, replaces or (with `None`) removes a VirtualService.
    pub(crate) fn set_virtual_service(
        &mut self,
        key: &ObjectKey,
        new: Option<VirtualService>,
        services: &Services,
    ) -> Dirty {
        let mut dirty = Dirty::default();
        let old = self.virtual_service(key);
        if old == new.as_ref() {
            return dirty;
        }
        dirty.objects.insert(ObjectName::new(Kind::VirtualService, key.clone()));
        for vs in old.into_iter().chain(&new) {
            dirty.services.extend(self.services_governed_by(vs, services));
            let delegates = delegates_of(vs).into_iter();
            let delegates = delegates.filter(|delegate| self.virtual_services.contains_key(delegate));
            dirty.objects.extend(delegates.map(|delegate| ObjectName::new(Kind::VirtualService, delegate)));
        }
        if let Some(old) = self.virtual_services.remove(key) {
            self.unlink(&old.object);
        }
        if let Some(object) = new {
            self.link(&object);
            let problems = object.validate();
            self.virtual_services.insert(key.clone(), Checked { object, problems });
        }
        dirty
    }

    fn link(&mut self, vs: &VirtualService) {
        let key = vs.metadata.key();
        for host in hosts_of(vs) {
            self.naming.entry(host).or_default().insert(Age::of(&vs.metadata));
        }
        for service in services_sent_to(vs) {
            self.sending.entry(service).or_default().insert(key.clone());
        }
        for delegate in delegates_of(vs) {
            self.delegating.entry(delegate).or_default().insert(key.clone());
        }
    }

    fn unlink(&mut self, vs: &VirtualService) {
        let key = vs.metadata.key();
        for host in hosts_of(vs) {
            remove_from(&mut self.naming, &host, &Age::of(&vs.metadata));
        }
        for service in services_sent_to(vs) {
            remove_from(&mut self.sending, &service, &key);
        }
        for delegate in delegates_of(vs) {
            remove_from(&mut self.delegating, &delegate, &key);
        }
    }

    /// Puts, replaces or (with `None`) removes a DestinationRule.
    pub(crate) fn set_destination_rule(
        &mut self,
        key: &ObjectKey,
        new: Option<DestinationRule>,
        services: &Services,
    ) -> Dirty {
        let mut dirty = Dirty::default();
        let old = self.destination_rule(key);
        if old == new.as_ref() {
            return dirty;
        }
        dirty.objects.insert(ObjectName::new(Kind::DestinationRule, key.clone()));
        for host in old.into_iter().chain(&new).map(host_of) {
            dirty.services.extend(self.services_using_host(&host, services));
        }
        if let Some(Checked { object: old, .. }) = self.destination_rules.remove(key) {
            remove_from(&mut self.covering, &host_of(&old), &Age::of(&old.metadata));
        }
        if let Some(object) = new {
            self.covering.entry(host_of(&object)).or_default().insert(Age::of(&object.metadata));
            let problems = object.validate();
            self.destination_rules.insert(key.clone(), Checked { object, problems });
        }
        dirty
    }

    /// What a Service's coming, going or changing leads to.
    pub(crate) fn service_changed(&self, service: &ObjectKey, services: &Services) -> Dirty {
        let mut dirty = Dirty::default();
        if self.naming(service).next().is_some() {
            dirty.services.insert(service.clone());
        }
        dirty.services.extend(self.services_sending_to(service, services));
        let named = self.naming(service).map(|vs| ObjectName::new(Kind::VirtualService, vs.metadata.key()));
        let covered = self.covering(service);
        let covered = covered.iter().map(|dr| ObjectName::new(Kind::DestinationRule, dr.metadata.key()));
        dirty.objects.extend(named.chain(covered));
        dirty
    }

    /// The services whose rules come from a VirtualService: those it names, or those that its roots name.
    fn services_governed_by(&self, vs: &VirtualService, services: &Services) -> BTreeSet<ObjectKey> {
        let roots = self.roots_of(&vs.metadata.key());
        let hosts = std::iter::once(vs).chain(roots).flat_map(hosts_of);
        hosts.flat_map(|host| services_of_host(&host, services)).collect()
    }

    /// The services governed by VirtualServices that have `service` as a destination or mirror.
    fn services_sending_to(&self, service: &ObjectKey, services: &Services) -> BTreeSet<ObjectKey> {
        let senders = self.sending.get(service).into_iter().flatten();
        let senders = senders.filter_map(|key| self.virtual_service(key));
        senders.flat_map(|vs| self.services_governed_by(vs, services)).collect()
    }

    /// Of a DestinationRule's full host; only a wildcard is compared with all that there are.
    fn services_using_host(&self, host: &str, services: &Services) -> BTreeSet<ObjectKey> {
        if !host.starts_with('*') {
            let named = host::service_of(host, "");
            return named.map(|service| self.services_sending_to(&service, services)).unwrap_or_default();
        }
        let used = self.sending.keys().filter(|service| host::covers(host, &host::name_of(service)));
        used.flat_map(|service| self.services_sending_to(service, services)).collect()
    }
}

/// Everything whose host is a service, or a wildcard that covers it.
fn about<'m>(hosts: &'m BTreeMap<String, BTreeSet<Age>>, service: &ObjectKey) -> BTreeSet<&'m Age> {
    let name = host::name_of(service);
    // Wildcards sort together, from `*` to before `+`.
    let wildcards = hosts.range("*".to_owned().."+".to_owned());
    let wildcards = wildcards.filter(|(host, _)| host::covers(host, &name)).flat_map(|(_, ages)| ages);
    wildcards.chain(hosts.get(&name).into_iter().flatten()).collect()
}

/// The service that a full host names, whether it is there or not; those that are there for a wildcard.
fn services_of_host(host: &str, services: &Services) -> Vec<ObjectKey> {
    if host.starts_with('*') {
        return services
            .keys()
            .filter(|service| host::covers(host, &host::name_of(service)))
            .cloned()
            .collect();
    }
    host::service_of(host, "").into_iter().collect()
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

fn hosts_of(vs: &VirtualService) -> BTreeSet<String> {
    vs.spec.hosts.iter().map(|host| host::claimed_name(host, &vs.metadata.namespace)).collect()
}

/// The VirtualServices whose rules are to stand in for some of its own.
fn delegates_of(vs: &VirtualService) -> BTreeSet<ObjectKey> {
    let delegates = vs.spec.http.iter().filter_map(|rule| rule.delegate.as_ref());
    delegates.map(|delegate| delegate.key(&vs.metadata.namespace)).collect()
}

/// The services that rules send requests or copies to.
fn services_sent_to(vs: &VirtualService) -> BTreeSet<ObjectKey> {
    let destinations = vs.spec.http.iter().flat_map(HttpRoute::destinations);
    destinations.filter_map(|to| host::service_of(&to.host, &vs.metadata.namespace)).collect()
}
