//! What copies hold of bodies: each on its own, and together with others of its mirror and of its worker.
//!
//! Takes: bytes that are about to be held. Gives: a charge that counts until it is dropped, or nothing, past any of the
//! limits. Never waits, and counts nothing of what it refuses.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes that are held. Clones count together.
#[derive(Clone, Default)]
pub(crate) struct Used(Arc<AtomicUsize>);

/// Bytes that may be held together with others.
pub(crate) struct Budget {
    used: Used,
    limit: usize,
}

/// What one copy may hold: on its own, and together with others of its mirror and of its worker.
pub(crate) struct Budgets {
    own: AtomicUsize,
    own_limit: usize,
    shared: [Budget; 2],
}

/// Bytes of one copy.
pub(super) struct Charge {
    of: Arc<Budgets>,
    bytes: usize,
}

impl Used {
    #[cfg(test)]
    pub(super) fn now(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// A share in these, of which there may be `limit`.
    pub(crate) fn up_to(&self, limit: usize) -> Budget {
        Budget { used: self.clone(), limit }
    }
}

impl Budgets {
    /// `own_limit` for one copy, and what it has with others.
    pub(crate) fn new(own_limit: usize, shared: [Budget; 2]) -> Self {
        Self { own: AtomicUsize::new(0), own_limit, shared }
    }

    /// Each count with its limit.
    fn counts(&self) -> [(&AtomicUsize, usize); 3] {
        let [a, b] = &self.shared;
        [(&self.own, self.own_limit), (&a.used.0, a.limit), (&b.used.0, b.limit)]
    }

    /// All of it, or nothing.
    pub(super) fn charge(self: &Arc<Self>, bytes: usize) -> Option<Charge> {
        let counts = self.counts();
        for (at, (used, limit)) in counts.iter().enumerate() {
            let more = |used: usize| used.checked_add(bytes).filter(|used| used <= limit);
            if used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_err() {
                give_back(&counts[..at], bytes);
                return None;
            }
        }
        Some(Charge { of: Arc::clone(self), bytes })
    }
}

fn give_back(counts: &[(&AtomicUsize, usize)], bytes: usize) {
    for (used, _) in counts {
        used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        give_back(&self.of.counts(), self.bytes);
    }
}
