//! Holding: an invalid VirtualService keeps the rules it had.

use std::collections::{BTreeMap, BTreeSet};

use umbra_routing::{BackendRef, Mirror, Port, ServiceName, ServiceTable, Variant};

use crate::finding::ObjectRef;

/// What an invalid VirtualService leaves standing.
#[derive(Clone, Debug, PartialEq)]
pub struct Hold {
    /// By client namespace (`None`: all others), the VirtualService that holds these clients' rules.
    pub scopes: BTreeMap<Option<String>, HeldScope>,
    /// The service as it compiles now; the variants of held scopes are not in it. `None` when the default is held:
    /// without a previous table the service is not taken over at all.
    pub fresh: Option<ServiceTable>,
}

/// One VirtualService that holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldScope {
    /// Its uid: rules of another object are not held, so deletion ends it.
    pub uid: String,
    /// Mirrors that its newest spec still names with a share above 0; all others stop at once.
    pub mirrors_still_named: BTreeSet<HeldMirror>,
}

/// A mirror as a spec names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HeldMirror {
    /// The service.
    pub service: ServiceName,
    /// The subset.
    pub subset: Option<String>,
    /// The port; `None` is the one the client used, which any port may be.
    pub port: Option<u16>,
}

/// What was published before.
#[derive(Clone, Copy, Debug)]
pub struct Previous<'a> {
    /// The table.
    pub table: &'a ServiceTable,
    /// [`Compiled::governed_by`](crate::Compiled::governed_by) of the result that gave it.
    pub governed_by: &'a [ObjectRef],
}

/// The table to publish for a hold: held scopes keep their previous rules, less the mirrors that the newest spec no
/// longer names or sets to 0; everything else is fresh. `None`: nothing to hold on to, the service is not taken over.
pub fn held(previous: Option<Previous<'_>>, hold: &Hold) -> Option<ServiceTable> {
    let previous = previous.map(|previous| Held { previous, hold });
    match (&hold.fresh, previous) {
        (Some(fresh), Some(held)) => Some(held.into_fresh(fresh)),
        (Some(fresh), None) => Some(fresh.clone()),
        (None, Some(held)) => held.alone(),
        (None, None) => None,
    }
}

struct Held<'a> {
    previous: Previous<'a>,
    hold: &'a Hold,
}

impl Held<'_> {
    /// Only foreign namespaces are held: their variants join the fresh table.
    fn into_fresh(&self, fresh: &ServiceTable) -> ServiceTable {
        let mut table = fresh.clone();
        for port in &mut table.ports {
            port.variants
                .extend(self.variants_of(port.number).filter(|variant| variant.client_namespace.is_some()));
            port.variants.sort_by(|a, b| a.client_namespace.cmp(&b.client_namespace));
        }
        table
    }

    /// The default is held: the previous table as a whole.
    fn alone(&self) -> Option<ServiceTable> {
        if !self.belongs(self.hold.scopes.get(&None)?) {
            return None;
        }
        let table = self.previous.table;
        let ports = table.ports.iter().map(|port| Port {
            variants: port.variants.iter().map(|variant| self.pruned(variant)).collect(),
            ..port.clone()
        });
        Some(ServiceTable { ports: ports.collect(), ..table.clone() })
    }

    fn variants_of(&self, port: u16) -> impl Iterator<Item = Variant> {
        let ports = self.previous.table.ports.iter().filter(move |candidate| candidate.number == port);
        let held = |variant: &&Variant| {
            self.hold.scopes.get(&variant.client_namespace).is_some_and(|scope| self.belongs(scope))
        };
        ports.flat_map(|port| &port.variants).filter(held).map(|variant| self.pruned(variant))
    }

    fn belongs(&self, scope: &HeldScope) -> bool {
        self.previous.governed_by.iter().any(|object| object.uid == scope.uid)
    }

    /// A variant without its own scope belongs to the default's.
    fn pruned(&self, variant: &Variant) -> Variant {
        let scopes = &self.hold.scopes;
        let Some(scope) = scopes.get(&variant.client_namespace).or_else(|| scopes.get(&None)) else {
            return variant.clone();
        };
        let mut variant = variant.clone();
        for rule in &mut variant.rules {
            rule.mirrors.retain(|mirror| scope.names(mirror));
        }
        variant
    }
}

impl HeldScope {
    fn names(&self, mirror: &Mirror) -> bool {
        self.mirrors_still_named.iter().any(|named| named.is(&mirror.backend))
    }
}

impl HeldMirror {
    fn is(&self, backend: &BackendRef) -> bool {
        self.service == backend.service
            && self.subset == backend.subset
            && self.port.is_none_or(|port| port == backend.port)
    }
}
