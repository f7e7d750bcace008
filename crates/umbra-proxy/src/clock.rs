//! The time, as a worker reads it: once for all that became ready while it waited.
//!
//! Takes: that this thread has waited. Gives: the time, at most [`READS`] questions old. On a thread that does not say when
//! it has waited, it is read each time. For how long exchanges take; what is waited for has timers.

use std::cell::Cell;
use std::time::Instant;

/// So many get the same time: a worker that always has something to do does not come to wait, and for it the time goes on,
/// too. Some ten requests.
const READS: u8 = 32;

thread_local! {
    static TURN: Cell<Turn> = const { Cell::new(Turn::Unknown) };
}

/// What this thread knows of the time.
#[derive(Clone, Copy)]
enum Turn {
    /// It has not said that it waits.
    Unknown,
    /// It has waited, and nobody has asked since.
    Begun,
    Read {
        at: Instant,
        left: u8,
    },
}

/// This thread has waited.
pub(crate) fn waited() {
    TURN.set(Turn::Begun);
}

/// The time, up to a turn old. Reading the clock costs some 25 ns, which a request would pay three times.
pub(crate) fn now() -> Instant {
    let turn = TURN.get();
    if let Turn::Read { at, left: left @ 1.. } = turn {
        TURN.set(Turn::Read { at, left: left - 1 });
        return at;
    }
    let at = Instant::now();
    if !matches!(turn, Turn::Unknown) {
        TURN.set(Turn::Read { at, left: READS - 1 });
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns when the clock has gone on.
    fn after(at: Instant) {
        while Instant::now() <= at {
            std::hint::spin_loop();
        }
    }

    #[test]
    fn the_time_is_that_of_the_turn_and_goes_on_without_one() {
        let first = now();
        after(first);
        assert!(now() > first, "a thread that has not waited");
        waited();
        let began = now();
        after(began);
        let same = (1..READS).filter(|_| now() == began).count();
        assert_eq!(same, usize::from(READS) - 1);
        let later = now();
        assert!(later > began, "it has been asked too often");
        after(later);
        waited();
        assert!(now() > later, "the next turn");
    }
}
