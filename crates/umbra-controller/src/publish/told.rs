//! What is known of each object, for whoever tells its author: collected from all services that it takes part in.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::time::Instant;
use umbra_compile::ObjectRef;
use umbra_index::{Kind, ObjectName};
use umbra_routing::BackendRef;

use super::objects::{Collected, ObjectState};
use super::publisher::Publisher;
use super::served::Served;
use crate::metrics::KindLabels;

impl Publisher {
    pub(super) fn refresh_objects(&mut self, names: &[ObjectName], now: Instant) {
        if names.is_empty() {
            return;
        }
        let mut collected = self.collect(names);
        let mut objects = Arc::clone(&self.objects);
        let all = Arc::make_mut(&mut objects);
        for name in names {
            let state = self.state(name, collected.remove(name).unwrap_or_default(), now);
            match state {
                Some(state) => drop(all.insert(name.clone(), state.follow(self.objects.get(name)))),
                None => drop(all.remove(name)),
            }
        }
        self.objects = objects;
        self.count_objects();
    }

    fn state(&self, name: &ObjectName, mut collected: Collected, now: Instant) -> Option<ObjectState> {
        let view = self.index.view();
        let undecodable = self.undecodable.get(name);
        let readable = match name.kind {
            Kind::VirtualService => view.virtual_service(&name.key).map(|object| &object.metadata),
            Kind::DestinationRule => view.destination_rule(&name.key).map(|object| &object.metadata),
        };
        if readable.is_some() {
            collected.findings.extend(umbra_compile::object_findings(view, name));
        }
        let object = match (undecodable, readable) {
            (Some(undecodable), _) => undecodable.object.clone(),
            (None, Some(metadata)) => ObjectRef::new(name.kind, metadata),
            (None, None) => return None,
        };
        Some(ObjectState {
            object,
            findings: collected.findings.into_iter().collect(),
            undecodable: undecodable.map(|undecodable| undecodable.error.clone()),
            services: collected.services,
            empty: collected.empty,
            version: self.snapshot.version,
            since: now,
        })
    }

    /// What all services say of these objects.
    fn collect(&self, names: &[ObjectName]) -> BTreeMap<ObjectName, Collected> {
        let mut all: BTreeMap<ObjectName, Collected> =
            names.iter().map(|name| (name.clone(), Collected::default())).collect();
        for (service, served) in &self.services {
            for finding in &served.findings {
                if let Some(collected) = all.get_mut(&finding.object.name()) {
                    collected.findings.insert(finding.clone());
                }
            }
            for object in &served.governed_by {
                if let Some(collected) = all.get_mut(&object.name()) {
                    collected.services.insert(service.clone(), served.part_of(object));
                    collected.empty.extend(self.empty_sets(served));
                }
            }
        }
        all
    }

    fn empty_sets(&self, served: &Served) -> impl Iterator<Item = BackendRef> {
        let used = served.references.iter().filter_map(|reference| self.backends.get(&reference.key()?));
        used.filter(|used| used.empty).map(|used| used.reference.clone())
    }

    fn count_objects(&self) {
        for (kind, word) in
            [(Kind::VirtualService, "VirtualService"), (Kind::DestinationRule, "DestinationRule")]
        {
            let count = self.objects.keys().filter(|name| name.kind == kind).count();
            let labels = KindLabels { kind: word.into() };
            self.metrics.objects.get_or_create(&labels).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }
}
