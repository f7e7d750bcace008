//! Objects in, one consistent View out.
//!
//! Takes: one [`Event`] at a time, in any order, as the watches (or files) give them. Gives: a [`Dirty`] that says
//! what has to be computed again, and a [`View`] for `umbra-compile` to compute it from.
//! Never does I/O, never judges: what objects mean is decided by `umbra-compile`.

pub use umbra_api as api;

mod event;
pub mod host;
mod index;
mod pods;
mod policies;
mod rules;
mod slices;
mod view;

pub use event::{Change, Dirty, Event, Kind, ObjectName};
pub use index::Index;
pub use pods::PodEntry;
pub use view::View;
