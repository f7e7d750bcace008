//! One service: its table, or why there is none.

use umbra_index::View;
use umbra_index::api::ObjectKey;
use umbra_routing::ServiceTable;

use crate::finding::{Finding, ObjectRef};
use crate::hold::Hold;

/// What the cluster's administrator decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// A VirtualService applies to clients of all namespaces, as in Istio, also when it is not in the service's own
    /// namespace (`--foreign-virtualservices=istio`).
    pub foreign_virtual_services: bool,
}

/// What became of a service.
#[derive(Clone, Debug, PartialEq)]
pub struct Compiled {
    /// What nodes get.
    pub outcome: Outcome,
    /// What authors should know, of every object that was read; sorted, each once.
    pub findings: Vec<Finding>,
    /// The VirtualServices and DestinationRules that the outcome rests on, sorted; also those that hold.
    pub governed_by: Vec<ObjectRef>,
}

/// What nodes get.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Take this service over.
    Table(ServiceTable),
    /// Leave it alone.
    NotGoverned,
    /// A VirtualService is invalid: keep its rules ([`held`](crate::held)).
    Hold(Hold),
}

/// Compiles one service. A service that does not exist is not governed.
pub fn service(_view: View<'_>, _service: &ObjectKey, _options: &Options) -> Compiled {
    Compiled { outcome: Outcome::NotGoverned, findings: Vec::new(), governed_by: Vec::new() }
}
