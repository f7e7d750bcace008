//! The wire format from both ends, and what a request gets.

mod delta;
mod fallback;
mod keys;
mod select;
