//! What a table is at run time: one governed service with its rules ready to use.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use umbra_routing::{BackendRef, Protocol, RouteTable, RuleError, ServiceName, ServiceTable};

use crate::balance::Backends;
use crate::breaker::Breaker;
use crate::connection::Worker;
use crate::descriptors::{Counter, Sockets};
use crate::metrics::ShadowCounters;
use crate::shadow::budget::Used;
use crate::shadow::hang_ups::HangUps;
use crate::shadow::rate::Bucket;

/// Failed connects in a row after which a mirror is left alone for a while.
const MIRROR_FAILURES: u8 = 5;

/// One governed service, as open connections hold it.
pub(crate) struct Governed {
    pub(crate) service: Arc<ServiceName>,
    pub(crate) routes: ArcSwap<ServiceRoutes>,
    /// Its connections are taken over; when not, open ones go on without mirroring and are told to close.
    armed: AtomicBool,
    /// Since when no table of it is in force: nanoseconds after `born`, and 0 while one is.
    retired: AtomicU64,
    born: Instant,
}

impl Governed {
    pub(crate) fn new(service: ServiceName, routes: ServiceRoutes) -> Arc<Self> {
        Arc::new(Self {
            service: Arc::new(service),
            routes: ArcSwap::from_pointee(routes),
            armed: AtomicBool::new(true),
            retired: AtomicU64::new(0),
            born: Instant::now(),
        })
    }

    pub(crate) fn set_armed(&self, armed: bool) {
        self.armed.store(armed, Ordering::Release);
    }

    pub(crate) fn set_retired(&self, at: Option<Instant>) {
        let nanoseconds = |at: Instant| at.saturating_duration_since(self.born).as_nanos();
        let since = at.map_or(0, |at| u64::try_from(nanoseconds(at)).unwrap_or(u64::MAX).max(1));
        self.retired.store(since, Ordering::Release);
    }

    pub(crate) fn retired_at(&self) -> Option<Instant> {
        let since = self.retired.load(Ordering::Acquire);
        (since > 0).then(|| self.born + Duration::from_nanos(since))
    }

    /// Its connections are wanted here: they are mirrored and kept alive.
    pub(crate) fn is_in_force(&self) -> bool {
        self.armed.load(Ordering::Acquire) && self.retired.load(Ordering::Acquire) == 0
    }
}

/// A service's ports with their rules.
pub(crate) struct ServiceRoutes {
    ports: Vec<PortRoutes>,
}

pub(crate) struct PortRoutes {
    pub(crate) number: u16,
    pub(crate) protocol: Protocol,
    /// The default (no namespace) and those of single client namespaces.
    variants: Vec<(Option<String>, RouteTable<Target>)>,
}

/// What a route keeps for a destination or a mirror.
pub(crate) struct Target {
    /// Absent: nothing defines it.
    pub(crate) set: Option<Arc<Backends>>,
    /// Present for mirrors, set while the table is built.
    mirror: OnceLock<Arc<Mirror>>,
}

impl Target {
    pub(crate) fn mirror(&self) -> Option<&Arc<Mirror>> {
        self.mirror.get()
    }
}

/// A mirror of a rule: what all workers share about it, kept over pushes.
pub(crate) struct Mirror {
    pub(crate) counters: ShadowCounters,
    pub(crate) breaker: Breaker,
    pub(crate) hang_ups: HangUps,
    pub(crate) rate: Bucket,
    /// Bytes of bodies that its copies hold.
    pub(crate) queued: Used,
    connections: Counter,
    in_flight: AtomicUsize,
}

/// A copy in flight to a mirror, until dropped.
pub(crate) struct Slot(Arc<Mirror>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Mirror {
    pub(crate) fn new(counters: ShadowCounters) -> Arc<Self> {
        Arc::new(Self {
            counters,
            breaker: Breaker::new(MIRROR_FAILURES, Instant::now()),
            hang_ups: HangUps::new(),
            rate: Bucket::new(),
            queued: Used::default(),
            connections: Counter::default(),
            in_flight: AtomicUsize::new(0),
        })
    }

    /// The connections of this process that are its own.
    pub(crate) fn sockets(&self, worker: &Worker) -> Sockets {
        worker.sockets.few(&self.connections, worker.limits.shadow.mirror.connections)
    }

    /// One of at most `limit` places, on this node.
    pub(crate) fn slot(self: &Arc<Self>, limit: usize) -> Option<Slot> {
        let more = |now: usize| (now < limit).then_some(now + 1);
        self.in_flight.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).ok()?;
        Some(Slot(Arc::clone(self)))
    }
}

impl ServiceRoutes {
    /// Prepares a pushed table.
    ///
    /// # Errors
    /// A condition or action that cannot be used.
    pub(super) fn new(
        table: &ServiceTable,
        mut set: impl FnMut(&BackendRef) -> Option<Arc<Backends>>,
        mut mirror: impl FnMut(&str, &BackendRef) -> Arc<Mirror>,
    ) -> Result<Self, RuleError> {
        let mut ports = Vec::new();
        for port in &table.ports {
            let mut variants = Vec::new();
            for variant in &port.variants {
                let target = |to: &BackendRef| Target { set: set(to), mirror: OnceLock::new() };
                let routes = RouteTable::new(&variant.rules, target)?;
                for route in routes.routes() {
                    for to in &route.mirrors {
                        to.backend.mirror.get_or_init(|| mirror(&route.name, &to.reference));
                    }
                }
                variants.push((variant.client_namespace.clone(), routes));
            }
            ports.push(PortRoutes { number: port.number, protocol: port.protocol, variants });
        }
        Ok(Self { ports })
    }

    pub(crate) fn port(&self, number: u16) -> Option<&PortRoutes> {
        self.ports.iter().find(|port| port.number == number)
    }

    /// Port 80, or the only one: what a laptop's request without interception means.
    pub(crate) fn default_port(&self) -> Option<&PortRoutes> {
        match self.ports.as_slice() {
            [only] => Some(only),
            _ => self.port(80),
        }
    }
}

impl PortRoutes {
    /// The rules for clients of `namespace`.
    pub(crate) fn variant(&self, namespace: Option<&str>) -> Option<&RouteTable<Target>> {
        let of = |wanted: Option<&str>| self.variants.iter().find(|(name, _)| name.as_deref() == wanted);
        namespace.and_then(|_| of(namespace)).or_else(|| of(None)).map(|(_, routes)| routes)
    }

    /// Who the client is makes a difference.
    pub(crate) fn depends_on_client(&self) -> bool {
        let differs = |(namespace, rules): &(Option<String>, RouteTable<Target>)| {
            namespace.is_some() || rules.asks_for_labels()
        };
        self.variants.len() > 1 || self.variants.iter().any(differs)
    }
}

/// `sa-logic.default.svc.cluster.local|v2`, the label of a mirror.
pub(super) fn mirror_label(reference: &BackendRef) -> String {
    match &reference.subset {
        Some(subset) => format!("{}|{subset}", reference.service.fqdn()),
        None => reference.service.fqdn(),
    }
}
