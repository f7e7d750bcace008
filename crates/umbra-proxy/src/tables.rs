//! Tables in use: what pushes have made of the governed services, shared by all workers.
//!
//! Takes: what a push changed. Gives: routes by original destination or by host name, and pods by address. Each
//! service's routes are swapped as a whole; the request path reads without locks; building happens under a mutex that
//! only pushes take. Never forwards anything itself.

mod runtime;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::watch;
use umbra_routing::{
    Applied, BackendRef, Client, Config, Key, RefusedKey, Resource, ServiceName, ServiceTable,
};

use crate::balance::Backends;
use crate::metrics::Metrics;
pub(crate) use runtime::{Governed, Mirror, PortRoutes, ServiceRoutes, Slot, Target};

/// A table that is gone still serves connections whose handshake had begun: as long as a SYN may be on its way.
const RETIRED_SERVES: Duration = Duration::from_secs(10);

/// Runtime tables, shared by all workers.
pub struct Tables {
    index: ArcSwap<Index>,
    /// Grows whenever the index is another.
    generation: AtomicU64,
    clients: watch::Sender<Arc<HashMap<IpAddr, Arc<Client>>>>,
    /// Pods among them whose connections are not taken over: open ones look at each request.
    skipped: ArcSwap<HashSet<IpAddr>>,
    shadows_stopped: AtomicBool,
    building: Mutex<Building>,
    metrics: Arc<Metrics>,
}

#[derive(Default, Clone)]
struct Index {
    addresses: HashMap<SocketAddr, Arc<Governed>>,
    services: HashMap<ServiceName, Arc<Governed>>,
    /// Addresses that a surviving service has left, and when: they serve what is on its way.
    left: HashMap<SocketAddr, Instant>,
}

/// What only pushes look at.
#[derive(Default)]
struct Building {
    sets: HashMap<Key, Arc<Backends>>,
    mirrors: HashMap<(ServiceName, String, String), Arc<Mirror>>,
    /// Per service in force: where it is reached and which sets its rules name.
    used: HashMap<ServiceName, Used>,
    /// Services whose newest table cannot be used: the one in force keeps the endpoints it has, although the
    /// configuration may no longer name its sets.
    outdated: BTreeSet<ServiceName>,
}

struct Used {
    addresses: Vec<SocketAddr>,
    sets: BTreeSet<Key>,
}

impl Tables {
    /// Empty tables that count in `metrics`.
    pub fn new(metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            index: ArcSwap::default(),
            generation: AtomicU64::new(0),
            clients: watch::Sender::default(),
            skipped: ArcSwap::default(),
            shadows_stopped: AtomicBool::new(false),
            building: Mutex::default(),
            metrics,
        })
    }

    /// Turns what a push changed into routes. Returns resources that cannot be used; what they had stays in force.
    /// In force on every worker when this returns.
    pub fn apply(&self, config: &Config, applied: &Applied) -> Vec<RefusedKey> {
        let mut building = self.building();
        let mut refused = Vec::new();
        let mut index = Index::clone(&self.index.load());
        // Sets first, so that new routes find endpoints.
        for key in applied.changed.iter().filter(|key| matches!(key, Key::Backends(_))) {
            if let Some(Resource::Backends(set)) = config.get(key) {
                building.set(key, &set.service).follow(set);
            }
        }
        for key in &applied.changed {
            let Key::Service(service) = key else { continue };
            match config.get(key) {
                Some(Resource::Service(table)) => {
                    if let Err(error) = self.put_service(&mut building, &mut index, table) {
                        building.outdated.insert(service.clone());
                        refused.push(RefusedKey { key: key.clone(), reason: error.to_string() });
                    }
                }
                _ => building.retire(&index, service),
            }
        }
        drop_retired(&mut index, &building, Instant::now());
        self.put_index(index);
        if applied.changed.iter().any(|key| config.get(key).is_none() || matches!(key, Key::Service(_))) {
            building.drop_sets(config);
        }
        self.apply_clients(config, applied);
        refused
    }

    fn put_index(&self, index: Index) {
        self.index.store(Arc::new(index));
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// What names and addresses lead to is the same as long as this is.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    fn put_service(
        &self,
        building: &mut Building,
        index: &mut Index,
        table: &ServiceTable,
    ) -> Result<(), umbra_routing::RuleError> {
        let Building { sets, mirrors, used, outdated } = building;
        let mut keys = BTreeSet::new();
        let set = |to: &BackendRef| {
            let key = to.key()?;
            let set = sets.entry(key.clone()).or_insert_with(|| Backends::new(to.service.clone()));
            keys.insert(key);
            Some(Arc::clone(set))
        };
        let fqdn = table.service.fqdn();
        let mirror = |rule: &str, to: &BackendRef| {
            let label = runtime::mirror_label(to);
            let new = || Mirror::new(self.metrics.shadow(&fqdn, rule, &label));
            let name = (table.service.clone(), rule.to_owned(), label.clone());
            Arc::clone(mirrors.entry(name).or_insert_with(new))
        };
        let routes = ServiceRoutes::new(table, set, mirror)?;
        let addresses: Vec<SocketAddr> = table
            .addresses
            .iter()
            .flat_map(|ip| {
                table.ports.iter().map(move |port| SocketAddr::new(ip.to_canonical(), port.number))
            })
            .collect();
        index.put(table, routes, &addresses, used.get(&table.service));
        used.insert(table.service.clone(), Used { addresses, sets: keys });
        outdated.remove(&table.service);
        // What a connection or a worker still has at hand stays known until this service's next table.
        mirrors.retain(|(service, _, _), mirror| *service != table.service || Arc::strong_count(mirror) > 1);
        Ok(())
    }

    fn apply_clients(&self, config: &Config, applied: &Applied) {
        let touched = applied.changed.iter().filter_map(|key| match key {
            Key::Client(ip) => Some((ip.to_canonical(), config.get(key))),
            _ => None,
        });
        let mut clients: Option<HashMap<_, _>> = None;
        for (ip, resource) in touched {
            let clients = clients.get_or_insert_with(|| HashMap::clone(&self.clients.borrow()));
            match resource {
                Some(Resource::Client(client)) => clients.insert(ip, Arc::new(client.clone())),
                _ => clients.remove(&ip),
            };
        }
        if let Some(clients) = clients {
            let skipped = clients.iter().filter(|(_, client)| client.skip).map(|(ip, _)| *ip);
            self.skipped.store(Arc::new(skipped.collect()));
            self.clients.send_replace(Arc::new(clients));
        }
    }

    /// Open connections to `service` keep their last routes, without mirroring, and get `Connection: close`.
    pub fn disarm(&self, service: &ServiceName) {
        self.set_armed(service, false);
    }

    /// Undoes [`Tables::disarm`]. Services are armed when they first appear.
    pub fn arm(&self, service: &ServiceName) {
        self.set_armed(service, true);
    }

    fn set_armed(&self, service: &ServiceName, armed: bool) {
        if let Some(governed) = self.index.load().services.get(service) {
            governed.set_armed(armed);
        }
    }

    /// Stops (or starts again) all shadows: the controller has not been heard of for 10 minutes, so a mirror's
    /// addresses may belong to others by now. Primaries go on.
    pub fn stop_shadows(&self, stopped: bool) {
        self.shadows_stopped.store(stopped, Ordering::Release);
    }

    pub(crate) fn shadows_stopped(&self) -> bool {
        self.shadows_stopped.load(Ordering::Acquire)
    }

    /// The service behind an original destination.
    pub(crate) fn by_address(&self, address: SocketAddr) -> Option<Arc<Governed>> {
        self.index
            .load()
            .addresses
            .get(&SocketAddr::new(address.ip().to_canonical(), address.port()))
            .cloned()
    }

    /// The service that a Host header names: `svc`, `svc.ns`, `svc.ns.svc` or the whole name, any port. A short name
    /// means the namespace `default`, or the only service of that name.
    pub(crate) fn by_host(&self, host: &str) -> Option<Arc<Governed>> {
        let index = self.index.load();
        let host =
            host.rsplit_once(':').map_or(host, |(name, _)| name).trim_end_matches('.').to_ascii_lowercase();
        let mut labels = host.splitn(3, '.');
        let name = labels.next()?;
        let namespace = labels.next();
        if !matches!(labels.next(), None | Some("svc" | "svc.cluster.local")) {
            return None;
        }
        let exact = ServiceName::new(namespace.unwrap_or("default"), name);
        if let Some(governed) = index.services.get(&exact) {
            return Some(Arc::clone(governed));
        }
        let mut same_name =
            index.services.iter().filter(|(service, _)| namespace.is_none() && service.name == name);
        match (same_name.next(), same_name.next()) {
            (Some((_, only)), None) => Some(Arc::clone(only)),
            _ => None,
        }
    }

    /// The local pod at `ip`.
    pub(crate) fn client(&self, ip: IpAddr) -> Option<Arc<Client>> {
        self.clients.borrow().get(&ip.to_canonical()).cloned()
    }

    /// Connections of the pod at `ip` are not to be taken over.
    pub(crate) fn skips(&self, ip: IpAddr) -> bool {
        let skipped = self.skipped.load();
        !skipped.is_empty() && skipped.contains(&ip.to_canonical())
    }

    /// The local pod at `ip`, once a push names it. Waits for ever: the caller bounds it. Cancel safe.
    pub(crate) async fn client_to_come(&self, ip: IpAddr) -> Arc<Client> {
        let mut clients = self.clients.subscribe();
        let ip = ip.to_canonical();
        let known = clients.wait_for(|clients| clients.contains_key(&ip)).await;
        let known = known.expect("the sender lives in the tables");
        Arc::clone(&known[&ip])
    }

    /// Forgets tables that went so long ago that no connection can be on its way to them.
    pub(crate) fn forget_retired(&self, now: Instant) {
        let now_in_force = self.index.load();
        let retired = now_in_force.services.values().any(|governed| governed.retired_at().is_some());
        if !retired && now_in_force.left.is_empty() {
            return;
        }
        let building = self.building();
        let mut index = Index::clone(&self.index.load());
        drop_retired(&mut index, &building, now);
        self.put_index(index);
    }

    fn building(&self) -> MutexGuard<'_, Building> {
        self.building.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Index {
    fn put(
        &mut self,
        table: &ServiceTable,
        routes: ServiceRoutes,
        addresses: &[SocketAddr],
        before: Option<&Used>,
    ) {
        let governed = match self.services.get(&table.service) {
            Some(governed) => {
                governed.routes.store(Arc::new(routes));
                governed.set_retired(None);
                Arc::clone(governed)
            }
            None => Governed::new(table.service.clone(), routes),
        };
        let gone = before.iter().flat_map(|used| &used.addresses).filter(|gone| !addresses.contains(gone));
        // Another service may have got the address in the same push, before or after this one.
        let ours = |gone: &SocketAddr| self.addresses.get(gone).is_some_and(|at| Arc::ptr_eq(at, &governed));
        let left: Vec<_> = gone.filter(|gone| ours(gone)).map(|gone| (*gone, Instant::now())).collect();
        self.left.extend(left);
        self.left.retain(|left, _| !addresses.contains(left));
        self.addresses.extend(addresses.iter().map(|address| (*address, Arc::clone(&governed))));
        self.services.insert(table.service.clone(), governed);
    }
}

impl Building {
    fn set(&mut self, key: &Key, service: &ServiceName) -> &Arc<Backends> {
        self.sets.entry(key.clone()).or_insert_with(|| Backends::new(service.clone()))
    }

    /// The table went: it serves what is open or on its way, and nothing counts on its sets any more.
    fn retire(&mut self, index: &Index, service: &ServiceName) {
        self.used.remove(service);
        self.outdated.remove(service);
        if let Some(governed) = index.services.get(service) {
            governed.set_retired(Some(Instant::now()));
        }
    }

    /// A set that is gone has no endpoints for rules in force; connections of retired tables keep what they had.
    fn drop_sets(&mut self, config: &Config) {
        let Self { sets, used, outdated, .. } = self;
        let uses = |key: &Key, outdated_too: bool| {
            let counts = |service: &ServiceName| outdated_too || !outdated.contains(service);
            used.iter().any(|(service, used)| counts(service) && used.sets.contains(key))
        };
        sets.retain(|key, set| {
            if config.get(key).is_some() {
                return true;
            }
            if uses(key, false) {
                set.clear();
                return true;
            }
            uses(key, true)
        });
    }
}

fn drop_retired(index: &mut Index, building: &Building, now: Instant) {
    let stays = |governed: &Arc<Governed>| {
        building.used.contains_key(&*governed.service)
            || governed.retired_at().is_none_or(|at| now.saturating_duration_since(at) < RETIRED_SERVES)
    };
    let Index { addresses, left, .. } = index;
    left.retain(|address, at| {
        let serves = now.saturating_duration_since(*at) < RETIRED_SERVES;
        if !serves {
            addresses.remove(address);
        }
        serves
    });
    index.addresses.retain(|_, governed| stays(governed));
    index.services.retain(|_, governed| stays(governed));
}

#[cfg(test)]
mod tests;
