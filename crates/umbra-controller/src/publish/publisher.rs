//! From the index to the next snapshot: compiles what is dirty, keeps the rest.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use umbra_compile::{Finding, ObjectRef, Outcome};
use umbra_index::api::ObjectKey;
use umbra_index::{Dirty, Index, ObjectName};
use umbra_routing::{BackendRef, Encoded, Key, Port, Resources, ServiceName, ServiceTable, Snapshot};

use super::objects::{Objects, Undecodable};
use super::served::{Served, served};
use super::sought::Sought;
use super::{Input, Published};
use crate::metrics::Metrics;

/// Owner of the index and of everything computed from it.
pub(super) struct Publisher {
    pub(super) index: Index,
    dirty: Dirty,
    options: umbra_compile::Options,
    pub(super) metrics: Arc<Metrics>,
    pub(super) services: BTreeMap<ServiceName, Served>,
    /// Published backend sets.
    pub(super) backends: BTreeMap<Key, Used>,
    /// Services that wait because their primary would become unresolved, or because rules of theirs are sought.
    waiting: BTreeMap<ServiceName, Wait>,
    sought: Sought,
    /// How long such a service waits.
    patience: Duration,
    pub(super) undecodable: BTreeMap<ObjectName, Undecodable>,
    pub(super) objects: Arc<Objects>,
    pub(super) snapshot: Snapshot,
}

/// A backend set that is published.
pub(super) struct Used {
    pub(super) reference: BackendRef,
    /// How many services use it.
    users: usize,
    /// Nobody is ready: what goes there gets 503 or is dropped.
    pub(super) empty: bool,
}

/// A result that is kept back.
struct Wait {
    until: Instant,
    /// Objects whose newest state is in no snapshot as long as the service waits.
    objects: BTreeSet<ObjectName>,
}

impl Publisher {
    pub(super) fn new(options: umbra_compile::Options, patience: Duration, metrics: Arc<Metrics>) -> Self {
        Self {
            index: Index::new(),
            dirty: Dirty::default(),
            options,
            metrics,
            services: BTreeMap::new(),
            backends: BTreeMap::new(),
            waiting: BTreeMap::new(),
            sought: Sought::default(),
            patience,
            undecodable: BTreeMap::new(),
            objects: Arc::default(),
            snapshot: Snapshot::default(),
        }
    }

    /// Takes in one change; says whether anything has to be published, and of which sort.
    pub(super) fn apply(&mut self, input: Input) -> Change {
        let mut dirty = match input {
            Input::Event(event) => {
                let mut dirty = self.read_again(&event);
                dirty.merge(self.index.apply(self.with_last_values(event)));
                dirty
            }
            Input::Undecodable(undecodable) => self.set_undecodable(undecodable),
            Input::Undecodables(kind, all) => self.relist_undecodable(kind, all),
            Input::Recovered(table) => self.recovered(table),
        };
        // Nobody has sets of other services; who comes to use one gets it as it is then.
        let is_used =
            |service: &ObjectKey| self.backends.values().any(|used| is_of(&used.reference, service));
        dirty.backends.retain(is_used);
        dirty.policed.retain(is_used);
        let change = match (dirty.is_empty(), dirty.endpoints_only()) {
            (true, _) => Change::Nothing,
            (false, true) => Change::Endpoints,
            (false, false) => Change::Config,
        };
        self.dirty.merge(dirty);
        change
    }

    fn recovered(&mut self, table: ServiceTable) -> Dirty {
        let service = object_key(&table.service);
        let services = self.sought.offer(table).then_some(service).into_iter().collect();
        Dirty { services, ..Dirty::default() }
    }

    pub(super) fn is_complete(&self) -> bool {
        self.index.is_complete()
    }

    /// When a waiting service has to be looked at again.
    pub(super) fn wait_ends(&self) -> Option<Instant> {
        self.waiting.values().map(|wait| wait.until).min()
    }

    /// Compiles what is dirty, and gives what everybody should have from now on.
    pub(super) fn publish(&mut self, now: Instant) -> Published {
        let mut dirty = std::mem::take(&mut self.dirty);
        let ended = self.waiting.iter().filter(|(_, wait)| wait.until <= now);
        dirty.services.extend(ended.map(|(service, _)| object_key(service)));
        dirty.services.extend(self.naming_pods_of(&dirty.policed));
        self.snapshot.version += 1;
        let touched: BTreeSet<&ObjectKey> = dirty.services.iter().chain(&dirty.backends).collect();
        self.metrics.services_compiled.inc_by(touched.len() as u64);
        let mut shared = Arc::clone(&self.snapshot.shared);
        let mut objects = dirty.objects;
        for key in &dirty.services {
            self.compile(key, now, Arc::make_mut(&mut shared), &mut objects);
        }
        objects.extend(self.refresh_backends(&touched, &mut shared));
        self.snapshot.shared = shared;
        self.snapshot.hold = self.sought.holds();
        for node in &dirty.nodes {
            self.refresh_node(node);
        }
        // Their newest state is not in this snapshot: they are looked at again with their service.
        let kept_back = |name: &ObjectName| self.waiting.values().any(|wait| wait.objects.contains(name));
        let (kept_back, objects): (Vec<_>, Vec<_>) = objects.into_iter().partition(kept_back);
        self.dirty.objects.extend(kept_back);
        self.refresh_objects(&objects, now);
        self.metrics.snapshots.inc();
        let left_alone = Arc::new(self.left_alone());
        Published { snapshot: self.snapshot.clone(), left_alone, objects: Arc::clone(&self.objects) }
    }

    fn left_alone(&self) -> BTreeSet<Key> {
        let is_so = |served: &Served| served.table.as_ref().is_some_and(|table| table.leave_alone.is_some());
        let left = self.services.iter().filter(|(_, served)| is_so(served));
        left.map(|(service, _)| Key::Service(service.clone())).collect()
    }

    /// The services whose published tables have destinations or mirrors at these.
    fn naming_pods_of(&self, services: &BTreeSet<ObjectKey>) -> BTreeSet<ObjectKey> {
        let names = |served: &Served| {
            !services.is_empty()
                && served.references.iter().any(|to| services.contains(&object_key(&to.service)))
        };
        let naming = self.services.iter().filter(|(_, served)| names(served));
        naming.map(|(service, _)| object_key(service)).collect()
    }

    fn compile(
        &mut self,
        key: &ObjectKey,
        now: Instant,
        shared: &mut Resources,
        objects: &mut BTreeSet<ObjectName>,
    ) {
        let service = ServiceName::new(key.namespace.clone(), key.name.clone());
        let compiled = umbra_compile::service(self.index.view(), key, &self.options);
        let named = named_objects(&compiled.governed_by, &compiled.findings).collect();
        let previous = self.previous(&service, &compiled.outcome);
        let until = self.waits_until(&service, &compiled.outcome, previous.as_ref(), now);
        if let Some(until) = until.filter(|until| now < *until) {
            self.waiting.insert(service, Wait { until, objects: named });
            return;
        }
        objects.extend(named);
        self.waiting.remove(&service);
        let before = self.services.remove(&service);
        if let Some(before) = &before {
            objects.extend(named_objects(&before.governed_by, &before.findings));
        }
        let leave_alone = |table: &_| umbra_compile::leave_alone(self.index.view(), table, &self.options);
        let after = served(compiled, previous.as_ref(), leave_alone);
        if !after.as_ref().is_some_and(|after| after.sought) {
            self.sought.end(&service);
        }
        self.replace(&service, before.as_ref(), after.as_ref(), shared);
        if let Some(after) = after {
            self.services.insert(service, after);
        }
    }

    /// What a hold goes on with: what this controller has published, or what a node has had all the time.
    fn previous(&self, service: &ServiceName, outcome: &Outcome) -> Option<ServiceTable> {
        let Outcome::Hold(hold) = outcome else { return None };
        let known = [self.published(service), self.sought.found(service)];
        known.into_iter().flatten().find(|table| hold.fits(table)).cloned()
    }

    fn published(&self, service: &ServiceName) -> Option<&ServiceTable> {
        self.services.get(service)?.table.as_ref()
    }

    /// Until when a result is kept back, if it is. A hold without rules has them sought; where others' rules could do
    /// without them, they wait a little for what nodes say, since publishing would overwrite it there.
    fn waits_until(
        &mut self,
        service: &ServiceName,
        outcome: &Outcome,
        previous: Option<&ServiceTable>,
        now: Instant,
    ) -> Option<Instant> {
        match outcome {
            Outcome::Hold(hold) if previous.is_none() => {
                let since = self.sought.seek(service, hold.holders(), now);
                let waits = hold.fresh_governed && self.published(service).is_none();
                waits.then_some(since + self.patience)
            }
            Outcome::Table(table) if self.breaks(service, table) => {
                Some(self.waiting.get(service).map_or(now + self.patience, |wait| wait.until))
            }
            _ => None,
        }
    }

    /// A change that takes the primary away from users may be half of one that does not: VirtualService and
    /// DestinationRule are applied and deleted in either order. It waits for the other half.
    fn breaks(&self, service: &ServiceName, table: &ServiceTable) -> bool {
        let published = self.published(service).into_iter().flat_map(|published| &published.ports);
        published.into_iter().any(|before| {
            let after = table.ports.iter().find(|after| after.number == before.number);
            after.is_some_and(|after| loses_primary(before, after))
        })
    }

    /// Puts a service's table and backend sets in place of what was there.
    fn replace(
        &mut self,
        service: &ServiceName,
        before: Option<&Served>,
        after: Option<&Served>,
        shared: &mut Resources,
    ) {
        match after.and_then(|after| after.table.as_ref()) {
            Some(table) => shared.insert(Encoded::service(table)),
            None => shared.remove(&Key::Service(service.clone())),
        }
        // First in, then out: a set that both use is not dropped in between.
        for reference in after.iter().flat_map(|after| &after.references) {
            let Some(key) = reference.key() else { continue };
            let used = self.backends.entry(key.clone()).or_insert_with(|| {
                let set = umbra_compile::backends(self.index.view(), reference);
                shared.insert(Encoded::backends(key, &set));
                Used { reference: reference.clone(), users: 0, empty: set.endpoints.is_empty() }
            });
            used.users += 1;
        }
        for key in before.iter().flat_map(|before| &before.references).filter_map(BackendRef::key) {
            let Some(used) = self.backends.get_mut(&key) else { continue };
            used.users -= 1;
            if used.users == 0 {
                self.backends.remove(&key);
                shared.remove(&key);
            }
        }
    }

    /// Gives the objects whose authors should know: a set of theirs has lost its last endpoint, or has some again.
    fn refresh_backends(
        &mut self,
        touched: &BTreeSet<&ObjectKey>,
        shared: &mut Arc<Resources>,
    ) -> BTreeSet<ObjectName> {
        let mut turned = BTreeSet::new();
        for (key, used) in &mut self.backends {
            if !touched.iter().any(|service| is_of(&used.reference, service)) {
                continue;
            }
            let set = umbra_compile::backends(self.index.view(), &used.reference);
            if used.empty != set.endpoints.is_empty() {
                used.empty = set.endpoints.is_empty();
                turned.insert(key.clone());
            }
            let encoded = Encoded::backends(key.clone(), &set);
            if shared.get(key).is_none_or(|old| old.hash() != encoded.1.hash()) {
                Arc::make_mut(shared).insert(encoded);
            }
        }
        let uses = |served: &&Served| {
            served.references.iter().filter_map(BackendRef::key).any(|k| turned.contains(&k))
        };
        let users = self.services.values().filter(|_| !turned.is_empty()).filter(uses);
        users.flat_map(|served| named_objects(&served.governed_by, &[])).collect()
    }

    fn refresh_node(&mut self, node: &str) {
        let view = self.index.view();
        let clients = umbra_compile::clients(view, node, &self.options);
        let mut own: Resources = clients.iter().map(|(ip, client)| Encoded::client(*ip, client)).collect();
        if own.is_empty() && view.node(node).is_none() {
            self.snapshot.nodes.remove(node);
            return;
        }
        own.insert(Encoded::node(&umbra_compile::node_settings(view, node, &self.options)));
        self.snapshot.nodes.insert(node.to_owned(), Arc::new(own));
    }
}

/// Clients of some namespace had a primary and would have none.
fn loses_primary(before: &Port, after: &Port) -> bool {
    let variants = before.variants.iter().chain(&after.variants);
    variants.map(|variant| variant.client_namespace.as_deref()).any(|client| {
        before.unresolved_primary(client).is_none() && after.unresolved_primary(client).is_some()
    })
}

/// What an input asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Nothing,
    Endpoints,
    Config,
}

fn named_objects<'a>(
    governed_by: &'a [ObjectRef],
    findings: &'a [Finding],
) -> impl Iterator<Item = ObjectName> + use<'a> {
    governed_by.iter().map(ObjectRef::name).chain(findings.iter().map(|finding| finding.object.name()))
}

fn is_of(reference: &BackendRef, service: &ObjectKey) -> bool {
    reference.service.name == service.name && reference.service.namespace == service.namespace
}

fn object_key(service: &ServiceName) -> ObjectKey {
    ObjectKey::new(service.namespace.clone(), service.name.clone())
}
