//! Holding: an invalid VirtualService keeps the rules it had.

use std::collections::{BTreeMap, BTreeSet};

use umbra_routing::{BackendRef, Port, ServiceName, ServiceTable, Variant};

use crate::finding::ObjectRef;

/// What invalid VirtualServices leave standing.
#[derive(Clone, Debug, PartialEq)]
pub struct Hold {
    /// By client namespace (`None`: all others), the VirtualService that holds these clients' rules.
    pub scopes: BTreeMap<Option<String>, HeldScope>,
    /// The service as it compiles now: addresses, ports, and the variants that nobody holds. A port may lack its
    /// default variant here, so only [`held`] gives a table to publish.
    pub fresh: ServiceTable,
    /// Some clients that nobody holds have a VirtualService: the service is taken over whatever was before.
    pub fresh_governed: bool,
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
/// longer names or sets to 0; everything else is fresh. `None`: nothing to hold on to and nobody else's rules, the service is not taken over.
pub fn held(previous: Option<Previous<'_>>, hold: &Hold) -> Option<ServiceTable> {
    let holds_on = |previous: Previous<'_>| hold.scopes.values().any(|scope| scope.held(&previous));
    if !hold.fresh_governed && !previous.is_some_and(holds_on) {
        return None;
    }
    let mut table = hold.fresh.clone();
    for port in &mut table.ports {
        port.variants.extend(previous.iter().flat_map(|previous| kept(previous, hold, port.number)));
        port.variants.sort_by(|a, b| a.client_namespace.cmp(&b.client_namespace));
    }
    table.ports.retain(has_default);
    (!table.ports.is_empty()).then_some(table)
}

/// The previous variants of a port that are held by the object they came from.
fn kept(previous: &Previous<'_>, hold: &Hold, port: u16) -> Vec<Variant> {
    let ports = previous.table.ports.iter().filter(|candidate| candidate.number == port);
    let variants = ports.flat_map(|port| &port.variants).filter_map(|variant| {
        let scope = hold.scopes.get(&variant.client_namespace)?;
        scope.held(previous).then(|| scope.prune(variant))
    });
    variants.collect()
}

impl HeldScope {
    /// What was before rests on this object.
    fn held(&self, previous: &Previous<'_>) -> bool {
        previous.governed_by.iter().any(|object| object.uid == self.uid)
    }

    fn prune(&self, variant: &Variant) -> Variant {
        let mut variant = variant.clone();
        for rule in &mut variant.rules {
            rule.mirrors
                .retain(|mirror| self.mirrors_still_named.iter().any(|named| named.is(&mirror.backend)));
        }
        variant
    }
}

impl HeldMirror {
    fn is(&self, backend: &BackendRef) -> bool {
        self.service == backend.service
            && self.subset == backend.subset
            && self.port.is_none_or(|port| port == backend.port)
    }
}

fn has_default(port: &Port) -> bool {
    port.variants.iter().any(|variant| variant.client_namespace.is_none())
}
