//! What may happen to the index, and what it leads to.

use std::collections::BTreeSet;
use std::fmt;

use umbra_api::{
    DestinationRule, EndpointSlice, NetworkPolicy, Node, ObjectKey, Pod, Service, VirtualService,
};

/// A change of one kind of object.
///
/// An object that was there and no longer decodes makes no event: the index keeps its last value.
#[derive(Clone, Debug)]
pub enum Event {
    /// Rules for hosts.
    VirtualService(Change<VirtualService>),
    /// Subsets of services.
    DestinationRule(Change<DestinationRule>),
    /// Services.
    Service(Change<Service>),
    /// Services' endpoints.
    EndpointSlice(Change<EndpointSlice>),
    /// Pods, as endpoints and as clients.
    Pod(Change<Pod>),
    /// Nodes.
    Node(Change<Node>),
    /// Who may connect to pods, and where pods may connect to.
    NetworkPolicy(Change<NetworkPolicy>),
}

/// What happened to objects of one kind.
#[derive(Clone, Debug)]
pub enum Change<T> {
    /// An object came or changed.
    Apply(T),
    /// An object went.
    Delete(ObjectKey),
    /// Everything there is of this kind; what is not in it has gone.
    Relist(Vec<T>),
}

/// The kinds whose authors get findings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// `virtualservice`
    VirtualService,
    /// `destinationrule`
    DestinationRule,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::VirtualService => "virtualservice",
            Self::DestinationRule => "destinationrule",
        })
    }
}

/// One VirtualService or DestinationRule, by name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectName {
    /// Which kind.
    pub kind: Kind,
    /// Namespace and name.
    pub key: ObjectKey,
}

impl ObjectName {
    /// The object `key` of this kind.
    pub fn new(kind: Kind, key: ObjectKey) -> Self {
        Self { kind, key }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.key)
    }
}

/// What has to be computed again. Empty when an event changed nothing that matters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dirty {
    /// Services whose table may differ: compile each again (also those that have gone).
    pub services: BTreeSet<ObjectKey>,
    /// Services whose endpoints may differ: every published backend set of these, and no table.
    pub backends: BTreeSet<ObjectKey>,
    /// Services whose pods other NetworkPolicies may select than before: compile each service again whose table names
    /// one of these.
    pub policed: BTreeSet<ObjectKey>,
    /// Nodes whose clients or settings may differ (also those that have gone).
    pub nodes: BTreeSet<String>,
    /// Objects whose own findings may differ (also those that have gone).
    pub objects: BTreeSet<ObjectName>,
}

impl Dirty {
    /// Nothing to do.
    pub fn is_empty(&self) -> bool {
        !self.touches_config() && self.backends.is_empty() && self.nodes.is_empty()
    }

    /// No table or finding is touched: only endpoints or clients moved, and the quicker debounce applies.
    pub fn endpoints_only(&self) -> bool {
        !self.touches_config()
    }

    /// Takes in what another event led to.
    pub fn merge(&mut self, other: Self) {
        self.services.extend(other.services);
        self.backends.extend(other.backends);
        self.policed.extend(other.policed);
        self.nodes.extend(other.nodes);
        self.objects.extend(other.objects);
    }

    fn touches_config(&self) -> bool {
        !self.services.is_empty() || !self.objects.is_empty() || !self.policed.is_empty()
    }
}
