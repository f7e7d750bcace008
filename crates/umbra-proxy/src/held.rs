//! What a worker holds of what all workers share.
//!
//! Takes: something behind an `Arc`. Gives: a [`Held`], which its worker's requests take and give back by a count that is
//! the worker's own. The count of an `Arc` is on a line of memory that each worker would write for each of its requests, and
//! a core waits whenever the other one was there last. Never keeps what nobody has asked for lately.

use std::cell::{Cell, RefCell};
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;

use umbra_routing::{Client, Route};

use crate::balance::{Backends, Upstream};
use crate::tables::{Governed, Target};

/// So many of each kind are found again, in 2 KiB. What shares its place with another costs an allocation more.
const PLACES: usize = 256;

/// A sweep looks at one place of so many: each comes to its turn every 1.6 s, and nothing is kept for twice that.
const TURNS: usize = 16;

/// Something that all workers share, held by one of them. Does not leave its thread.
pub(crate) struct Held<T>(Rc<Kept<T>>);

struct Kept<T> {
    shared: Arc<T>,
    /// Since the last sweep.
    asked_for: Cell<bool>,
}

impl<T> Held<T> {
    /// What others can hold, too.
    pub(crate) fn shared(&self) -> &Arc<T> {
        &self.0.shared
    }
}

impl<T> Clone for Held<T> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<T> Deref for Held<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.shared
    }
}

/// One worker's.
#[derive(Default)]
pub(crate) struct AtHand {
    pub(crate) clients: Kind<Client>,
    pub(crate) governed: Kind<Governed>,
    pub(crate) routes: Kind<Route<Target>>,
    pub(crate) sets: Kind<Backends>,
    pub(crate) upstreams: Kind<Upstream>,
    turn: Cell<usize>,
}

impl AtHand {
    /// Lets go of what nobody has asked for since its place was last looked at.
    pub(crate) fn sweep(&self) {
        let turn = self.turn.replace((self.turn.get() + 1) % TURNS);
        self.clients.sweep(turn);
        self.governed.sweep(turn);
        self.routes.sweep(turn);
        self.sets.sweep(turn);
        self.upstreams.sweep(turn);
    }
}

/// What is at hand of one kind, each at the place that its address leads to.
pub(crate) struct Kind<T>(RefCell<Box<[Option<Held<T>>]>>);

impl<T> Default for Kind<T> {
    fn default() -> Self {
        Self(RefCell::new((0..PLACES).map(|_| None).collect()))
    }
}

impl<T> Kind<T> {
    /// The worker's own handle.
    pub(crate) fn get(&self, shared: &Arc<T>) -> Held<T> {
        let at_hand = &mut self.0.borrow_mut()[place::<PLACES>([Arc::as_ptr(shared) as u64])];
        match at_hand {
            Some(held) if Arc::ptr_eq(held.shared(), shared) => {
                held.0.asked_for.set(true);
                held.clone()
            }
            _ => {
                let kept = Kept { shared: Arc::clone(shared), asked_for: Cell::new(true) };
                at_hand.insert(Held(Rc::new(kept))).clone()
            }
        }
    }

    fn sweep(&self, turn: usize) {
        for at_hand in self.0.borrow_mut().iter_mut().skip(turn).step_by(TURNS) {
            at_hand.take_if(|held| !held.0.asked_for.replace(false));
        }
    }
}

/// Which of `PLACES`, a power of two, these words lead to. Multiplying by 2^64 over the golden ratio spreads low bits upwards,
/// and the highest ones are used: for words that nobody chooses, so that nobody can make them meet on purpose.
pub(crate) fn place<const PLACES: usize>(words: impl IntoIterator<Item = u64>) -> usize {
    let mix = |mixed: u64, word: u64| (mixed.rotate_left(5) ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (words.into_iter().fold(0, mix) >> (u64::BITS - PLACES.ilog2())) as usize
}

#[cfg(test)]
mod tests {
    use umbra_testkit::allocations;

    use super::*;

    #[test]
    fn what_was_asked_for_is_found_again_and_what_was_not_is_let_go() {
        let (kind, shared) = (Kind::default(), Arc::new(7));
        let held = kind.get(&shared);
        assert_eq!((*held, Arc::strong_count(&shared)), (7, 2));
        let (again, asked_for) = allocations(|| kind.get(&shared));
        assert_eq!((asked_for, Arc::strong_count(&shared)), (0, 2), "nothing is counted where others count");
        (0..TURNS).for_each(|turn| kind.sweep(turn));
        drop((held, again));
        assert_eq!(Arc::strong_count(&shared), 2, "it was asked for until now");
        (0..TURNS).for_each(|turn| kind.sweep(turn));
        assert_eq!(Arc::strong_count(&shared), 1);
    }

    #[test]
    fn those_that_share_a_place_replace_each_other() {
        let kind = Kind::default();
        let all: Vec<_> = (0..=PLACES).map(Arc::new).collect();
        for shared in &all {
            assert_eq!(*kind.get(shared), **shared);
        }
        let kept = all.iter().filter(|shared| Arc::strong_count(shared) == 2).count();
        assert!((1..=PLACES).contains(&kept), "{kept}");
    }
}
