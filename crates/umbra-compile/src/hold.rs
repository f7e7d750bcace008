//! Holding: an invalid VirtualService keeps the rules it had.

use std::collections::{BTreeMap, BTreeSet};

use umbra_routing::{BackendRef, Port, ServiceName, ServiceTable, Variant};

use crate::variants::push_variant;

/// What invalid VirtualServices leave standing.
#[derive(Clone, Debug, PartialEq)]
pub struct Hold {
    /// By client namespace (`None`: all others) and port, the VirtualService that holds these clients' rules there.
    pub scopes: BTreeMap<(Option<String>, u16), HeldScope>,
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

impl Hold {
    /// Uids of the objects that hold.
    pub fn holders(&self) -> BTreeSet<String> {
        self.scopes.values().map(|scope| scope.uid.clone()).collect()
    }

    /// Some of this table's rules are those of an object that holds: there is something to hold on to.
    pub fn fits(&self, previous: &ServiceTable) -> bool {
        self.scopes.values().any(|scope| scope.held(previous))
    }
}

/// The table to publish for a hold: held scopes keep the rules of the `previous` table, less the mirrors that the
/// newest spec no longer names or sets to 0; everything else is fresh. `None`: nothing to hold on to and nobody else's
/// rules, the service is not taken over.
pub fn held(previous: Option<&ServiceTable>, hold: &Hold) -> Option<ServiceTable> {
    if !hold.fresh_governed && !previous.is_some_and(|previous| hold.fits(previous)) {
        return None;
    }
    let mut table = hold.fresh.clone();
    if let Some(previous) = previous {
        keep(&mut table, previous, hold);
    }
    table.ports.retain(has_default);
    (!table.ports.is_empty()).then_some(table)
}

/// Adds what is held; of an object whose rules `previous` does not have, nothing.
fn keep(table: &mut ServiceTable, previous: &ServiceTable, hold: &Hold) {
    // The default comes first, which the others are compared with.
    for ((client, number), scope) in hold.scopes.iter().filter(|(_, scope)| scope.held(previous)) {
        table.rules_of.insert(scope.uid.clone());
        let before = previous.ports.iter().find(|before| before.number == *number);
        let variant = before.and_then(|before| before.variant(client.as_deref()));
        let port = table.ports.iter_mut().find(|port| port.number == *number);
        if let Some((port, variant)) = port.zip(variant) {
            push_variant(port, client.as_deref(), scope.prune(variant).rules);
        }
    }
    for port in &mut table.ports {
        port.variants.sort_by(|a, b| a.client_namespace.cmp(&b.client_namespace));
    }
}

impl HeldScope {
    /// What was before rests on this object.
    fn held(&self, previous: &ServiceTable) -> bool {
        previous.rules_of.contains(&self.uid)
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
