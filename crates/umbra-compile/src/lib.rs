//! From the View to tables, endpoints and findings.
//!
//! Takes: the objects as `umbra-index` holds them. Gives: one service's table ([`service`]), the endpoints of one
//! destination ([`backends`]), a node's clients and settings ([`clients`], [`node_settings`]), and what authors should
//! know ([`Finding`]; of everything at once [`findings`]). Pure: the same View gives the same bytes. Never widens a match, never lets one object's
//! mistake change what another object does.

mod actions;
mod all_findings;
mod audience;
mod backends;
mod claim_findings;
mod claims;
mod clients;
mod delegates;
mod destination;
mod exported;
mod finding;
mod hold;
mod identity;
mod matches;
mod object_findings;
mod options;
mod policies;
mod protocol;
mod report;
mod rule_spec;
mod selector;
mod service;
mod spec;
mod subsets;
mod variants;

pub use all_findings::findings;
pub use backends::{backend_refs, backends};
pub use clients::{clients, node_settings};
pub use finding::{Condition, Finding, ObjectRef, Reason};
pub use hold::{HeldMirror, HeldScope, Hold, held};
pub use object_findings::object_findings;
pub use options::{DEFAULT_ROOT_NAMESPACE, NetworkPolicies, Options};
pub use policies::leave_alone;
pub use service::{Compiled, Outcome, service};
