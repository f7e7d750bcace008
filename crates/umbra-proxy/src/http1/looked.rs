//! How many bytes the parsers have looked at: what a test holds against what came, where a clock would say something else
//! each time.

use std::cell::Cell;

thread_local! {
    static LOOKED: Cell<usize> = const { Cell::new(0) };
}

/// So many bytes are looked at.
pub(super) fn at(bytes: usize) {
    LOOKED.set(LOOKED.get() + bytes);
}

/// How many since this was asked last, on this thread.
pub(super) fn since() -> usize {
    LOOKED.take()
}
