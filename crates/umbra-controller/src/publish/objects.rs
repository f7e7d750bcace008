//! What is known of each VirtualService and DestinationRule, for their status.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::time::Instant;
use umbra_compile::{Finding, ObjectRef};
use umbra_index::ObjectName;
use umbra_routing::{BackendRef, ServiceName};

/// All objects by name.
pub type Objects = BTreeMap<ObjectName, Arc<ObjectState>>;

/// One object as the newest snapshot has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectState {
    /// Which object, at which generation.
    pub object: ObjectRef,
    /// What is wrong with it, of all services it takes part in.
    pub findings: Vec<Finding>,
    /// It cannot be read: the decoder's words. Its last readable value stays in force.
    pub undecodable: Option<String>,
    /// Services it takes part in, and what became of each.
    pub services: BTreeMap<ServiceName, Part>,
    /// Destinations and mirrors of these services that exist and have no ready endpoint.
    pub empty: BTreeSet<BackendRef>,
    /// The first version that contains this state of it.
    pub version: u64,
    /// When that was published.
    pub since: Instant,
}

/// What became of a service that an object takes part in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Its table is published; whether it is taken over yet, nodes say.
    Published,
    /// Its table is published, and no node takes it over: why.
    LeftAlone(String),
    /// This object is invalid: the service keeps the rules it had of it.
    Held,
    /// This object is invalid, and this controller does not know which rules the service had of it: nodes are asked.
    Sought,
    /// This object is invalid, and there are no rules of it to keep.
    Invalid,
    /// Not published: another object holds it back, or the Service cannot be taken over.
    Waiting,
}

/// An object that the API server holds and umbra cannot read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undecodable {
    /// Which object.
    pub object: ObjectRef,
    /// The decoder's words.
    pub error: String,
}

/// Findings and services of one object, collected from all that was compiled.
#[derive(Debug, Default)]
pub(super) struct Collected {
    pub(super) findings: BTreeSet<Finding>,
    pub(super) services: BTreeMap<ServiceName, Part>,
    pub(super) empty: BTreeSet<BackendRef>,
}

impl ObjectState {
    /// Keeps the version of `before` when nothing has changed that nodes have to hear of.
    pub(super) fn follow(mut self, before: Option<&Arc<Self>>) -> Arc<Self> {
        if let Some(before) = before
            && before.object == self.object
            && before.services == self.services
        {
            self.version = before.version;
            self.since = before.since;
            if **before == self {
                return Arc::clone(before);
            }
        }
        Arc::new(self)
    }
}
