//! What each object's author is told.
//!
//! Takes: what is known of an object ([`ObjectState`]), the live nodes and what they have acknowledged. Gives: its
//! three conditions. Pure: the caller passes the time. Messages are fixed texts without figures that move, so that a
//! status is written only when something has changed. `write` brings them to the API server.

mod merge;
#[cfg(feature = "kubernetes")]
pub mod write;

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;
use umbra_compile::{Condition, Finding};
use umbra_routing::{Key, NOT_ARMED_UNRESOLVED, ServiceName};

pub use merge::merge;

use crate::publish::{ObjectState, Part};
use crate::push::{Ack, Acks, Nodes};

/// How long a node may take before it is named. Pushes take milliseconds; a proxy that restarts takes seconds.
pub const GRACE: Duration = Duration::from_secs(10);
/// Nodes and fields named in one message; who needs more looks at the metrics or at the next message.
const NAMED: usize = 3;

/// `status` of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Truth {
    /// It is so.
    True,
    /// It is not so.
    False,
    /// Not known yet.
    Unknown,
}

/// A condition as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// `Accepted`, `ResolvedRefs` or `Programmed`.
    pub kind: &'static str,
    /// Whether it is so.
    pub truth: Truth,
    /// A CamelCase word.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

/// What is known of the nodes.
#[derive(Clone, Copy, Debug)]
pub struct World<'a> {
    /// The live nodes.
    pub nodes: &'a Nodes,
    /// What they have acknowledged.
    pub acks: &'a Acks,
    /// When this controller began to push: soon after, silence of a node says nothing.
    pub started: Instant,
    /// The time.
    pub now: Instant,
}

impl Truth {
    /// As Kubernetes writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

impl Wanted {
    fn new(kind: &'static str, truth: Truth, reason: &'static str, message: impl Into<String>) -> Self {
        Self { kind, truth, reason, message: message.into() }
    }

    /// Time alone may change it: it has to be computed again.
    pub fn is_passing(&self) -> bool {
        self.truth == Truth::Unknown || self.reason == "NodesPending"
    }
}

/// The conditions of one object.
pub fn conditions(state: &ObjectState, world: &World<'_>) -> [Wanted; 3] {
    [accepted(state), resolved_refs(state), programmed(state, world)]
}

fn accepted(state: &ObjectState) -> Wanted {
    const KIND: &str = "Accepted";
    if let Some(error) = &state.undecodable {
        // A controller that began later has never read it.
        let stays = match state.services.is_empty() {
            true => "no generation of it is in force",
            false => "its last readable generation stays in force",
        };
        let message = format!("cannot be read: {error}; {stays}");
        return Wanted::new(KIND, Truth::False, "Invalid", message);
    }
    let about = |condition| state.findings.iter().filter(move |finding| finding.condition == condition);
    match about(Some(Condition::Accepted)).next() {
        Some(first) => {
            Wanted::new(KIND, Truth::False, first.reason.as_str(), text(about(Some(Condition::Accepted))))
        }
        None => Wanted::new(KIND, Truth::True, KIND, text(about(None))),
    }
}

fn resolved_refs(state: &ObjectState) -> Wanted {
    const KIND: &str = "ResolvedRefs";
    if state.undecodable.is_some() {
        return Wanted::new(KIND, Truth::Unknown, "Invalid", "cannot be read: see Accepted");
    }
    let unresolved = || state.findings.iter().filter(|f| f.condition == Some(Condition::ResolvedRefs));
    match unresolved().next() {
        Some(first) => Wanted::new(KIND, Truth::False, first.reason.as_str(), text(unresolved())),
        // Defined is resolved, as in Istio and the Gateway API; that nobody is there is still worth a word.
        None if !state.empty.is_empty() => {
            Wanted::new(KIND, Truth::True, "NoEndpoints", without_endpoints(state))
        }
        None => Wanted::new(KIND, Truth::True, KIND, ""),
    }
}

fn without_endpoints(state: &ObjectState) -> String {
    let all = state.empty.iter().map(|reference| {
        let host = reference.service.fqdn();
        let of = reference.subset.as_ref().map(|subset| format!("subset {subset:?} of ")).unwrap_or_default();
        format!(
            "{of}{host}, port {}, has no ready endpoint: requests get 503, copies are dropped",
            reference.port
        )
    });
    listed(all.collect())
}

fn text<'a>(findings: impl Iterator<Item = &'a Finding>) -> String {
    let all: Vec<String> = findings.map(|finding| format!("{}: {}", finding.path, finding.message)).collect();
    listed(all)
}

/// The first few of them.
fn listed(mut all: Vec<String>) -> String {
    // The same fault in several services reads the same.
    all.dedup();
    let more = all.len() > NAMED;
    all.truncate(NAMED);
    let mut text = all.join("; ");
    if more {
        text.push_str("; and more");
    }
    text
}

fn programmed(state: &ObjectState, world: &World<'_>) -> Wanted {
    let (truth, reason, message) = match unprogrammable(state) {
        Some((reason, message)) => (Truth::False, reason, message),
        None => sought(state, world).unwrap_or_else(|| on_nodes(state, world)),
    };
    Wanted::new("Programmed", truth, reason, message)
}

/// Why no node can serve this generation, whatever nodes do.
fn unprogrammable(state: &ObjectState) -> Option<(&'static str, String)> {
    let with = |part: Part| parts(state, &part);
    let has = |part| state.services.values().any(|candidate| *candidate == part);
    if state.undecodable.is_some() {
        return Some(("Held", "this generation is not in force: see Accepted".into()));
    }
    if has(Part::Held) {
        let services = with(Part::Held);
        let message =
            format!("{services} keeps the rules it had: this generation is not in force, see Accepted");
        return Some(("Held", message));
    }
    if has(Part::Invalid) {
        return Some(("Invalid", without_rules(&with(Part::Invalid))));
    }
    let left_alone: Vec<_> = state.services.iter().filter_map(left_alone).collect();
    if !left_alone.is_empty() {
        return Some(("LeftAlone", listed(left_alone)));
    }
    if has(Part::Waiting) {
        let services = with(Part::Waiting);
        let message = format!("{services} not taken over yet: see ResolvedRefs of the rules for it");
        return Some(("Waiting", message));
    }
    state.services.is_empty().then(|| ("NoGovernedService", "it governs no service of the mesh".into()))
}

/// The services of an object whose part is this one.
fn parts(state: &ObjectState, part: &Part) -> String {
    let services = state.services.iter().filter(|(_, candidate)| *candidate == part);
    listed(services.map(|(service, _)| service.to_string()).collect())
}

fn left_alone((service, part): (&ServiceName, &Part)) -> Option<String> {
    match part {
        Part::LeftAlone(why) => Some(format!("{service} is not taken over: {why}")),
        _ => None,
    }
}

fn without_rules(services: &str) -> String {
    format!(
        "{services} has no rules of an earlier generation to keep, and this one is not in force: see Accepted"
    )
}

/// An invalid object whose rules only nodes can know: until they have been asked, nothing is known.
fn sought(state: &ObjectState, world: &World<'_>) -> Option<(Truth, &'static str, String)> {
    let of = state.services.iter().filter(|(_, part)| **part == Part::Sought);
    let keys: BTreeSet<Key> = of.map(|(service, _)| Key::Service(service.clone())).collect();
    if keys.is_empty() {
        return None;
    }
    let services = parts(state, &Part::Sought);
    let is_open = |node: &String| match world.acks.get(node) {
        // Who does not answer is not waited for: when it comes back it is asked like the others.
        None => world.now < world.started.max(state.since) + GRACE,
        Some(ack) if ack.version.is_none_or(|version| version < state.version) => {
            world.now < ack.since.max(state.since) + GRACE
        }
        // Found, and about to be published.
        Some(ack) => !ack.held.is_disjoint(&keys),
    };
    if world.nodes.as_ref().is_none_or(|nodes| nodes.keys().any(is_open)) {
        let message = format!(
            "this generation is not in force, see Accepted; nodes are asked for the rules that {services} had"
        );
        return Some((Truth::Unknown, "Recovering", message));
    }
    Some((Truth::False, "Invalid", without_rules(&services)))
}

fn on_nodes(state: &ObjectState, world: &World<'_>) -> (Truth, &'static str, String) {
    let Some(nodes) = world.nodes else {
        return (Truth::Unknown, "NodesUnknown", "the nodes are not known yet".into());
    };
    if nodes.is_empty() {
        return (Truth::False, "NoNodes", "no proxy is running".into());
    }
    let blocked: Vec<_> = nodes
        .keys()
        .filter_map(|node| Some((node, blocks(state, world.acks.get(node))?, world.acks.get(node))))
        .collect();
    if blocked.is_empty() {
        return (Truth::True, "Programmed", "every live node serves it".into());
    }
    let unheard = blocked.iter().any(|(_, _, ack)| ack.is_none_or(|ack| ack.version.is_none()));
    if unheard && world.now < world.started + GRACE {
        return (Truth::Unknown, "NodesUnknown", "not every node has been asked yet".into());
    }
    if let Some((node, block, _)) = blocked.iter().find(|(_, block, _)| matches!(block, Block::Refused(..))) {
        return (Truth::False, "Refused", format!("node {node}: {block}"));
    }
    if let Some((_, block, _)) = blocked.iter().find(|(_, block, _)| matches!(block, Block::Waiting(_))) {
        return (Truth::False, "Waiting", block.to_string());
    }
    let late = |ack: &Option<&Ack>| {
        let since = ack.map_or(world.now, |ack| ack.since.max(state.since));
        world.now >= since + GRACE
    };
    let named: Vec<String> = blocked
        .iter()
        .filter(|(_, _, ack)| late(ack))
        .map(|(node, block, _)| format!("node {node}: {block}"))
        .collect();
    if !named.is_empty() {
        return (Truth::False, "NodesPending", listed(named));
    }
    // Nodes that came, or came back, after this was published: they have their grace before what is known of this
    // generation is doubted. True it cannot become by that.
    if blocked.iter().all(|(_, _, ack)| ack.is_none_or(|ack| ack.since > state.since)) {
        return (Truth::Unknown, "NodesJoining", "nodes have joined and are being asked".into());
    }
    (Truth::False, "NodesPending", "waiting for nodes".into())
}

/// Why a node does not serve an object.
enum Block {
    /// No push has come through.
    Failing(String),
    /// It has not answered.
    Pending,
    /// It cannot use a table.
    Refused(Key, String),
    /// It does not take the service over before its primary exists.
    Waiting(ServiceName),
    /// It has the table and does not take the service's connections.
    Unarmed(ServiceName),
}

impl std::fmt::Display for Block {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Failing(reason) => write!(f, "push failing: {reason}"),
            Self::Pending => f.write_str("has not acknowledged it"),
            Self::Refused(key, reason) => write!(f, "refuses {key}: {reason}"),
            Self::Waiting(service) => {
                write!(f, "{service} not taken over yet: see ResolvedRefs of the rules for it")
            }
            Self::Unarmed(service) => write!(f, "does not take over {service}"),
        }
    }
}

fn blocks(state: &ObjectState, ack: Option<&Ack>) -> Option<Block> {
    let Some(ack) = ack else { return Some(Block::Pending) };
    if ack.version.is_none_or(|version| version < state.version) {
        return Some(ack.failing.clone().map_or(Block::Pending, Block::Failing));
    }
    state.services.keys().find_map(|service| {
        let key = Key::Service(service.clone());
        if let Some(reason) = ack.refused.get(&key) {
            return Some(if reason.starts_with(NOT_ARMED_UNRESOLVED) {
                Block::Waiting(service.clone())
            } else {
                Block::Refused(key, reason.clone())
            });
        }
        (!ack.armed.contains(&key)).then(|| Block::Unarmed(service.clone()))
    })
}

#[cfg(test)]
mod tests;
