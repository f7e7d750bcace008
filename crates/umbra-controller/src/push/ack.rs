//! What nodes have acknowledged, for status and for people.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::time::Instant;
use umbra_routing::{Key, Reply};

/// Acknowledgements by node name. A node is listed as long as it is live.
pub type Acks = BTreeMap<String, Ack>;

/// What one live node has said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ack {
    /// Since when the node is known to this controller, or has lost what it had (its proxy has been restarted).
    pub since: Instant,
    /// The last version it holds in full; absent before the first, and after a restart of its proxy.
    pub version: Option<u64>,
    /// Services whose connections it takes over.
    pub armed: Arc<BTreeSet<Key>>,
    /// Resources it holds but cannot use, with its reason.
    pub refused: Arc<BTreeMap<Key, String>>,
    /// Services whose rules it holds although this controller does not have them.
    pub held: Arc<BTreeSet<Key>>,
    /// Why the last push failed; absent after a success. A fixed text.
    pub failing: Option<String>,
}

impl Ack {
    /// A node nobody has talked to yet.
    pub(crate) fn new(since: Instant) -> Self {
        let (armed, refused, held) = Default::default();
        Self { since, version: None, armed, refused, held, failing: None }
    }

    /// Takes over what the node says of itself.
    pub(crate) fn observe(&mut self, reply: &Reply) {
        let armed: BTreeSet<Key> = reply.armed.iter().cloned().collect();
        if *self.armed != armed {
            self.armed = Arc::new(armed);
        }
        let refused: BTreeMap<_, _> =
            reply.refused.iter().map(|r| (r.key.clone(), r.reason.clone())).collect();
        if *self.refused != refused {
            self.refused = Arc::new(refused);
        }
        let held: BTreeSet<Key> = reply.held.keys().cloned().collect();
        if *self.held != held {
            self.held = Arc::new(held);
        }
    }
}
