//! The wire format from both ends, and what a request gets.

mod acting;
mod asked;
mod delta;
mod fallback;
mod keys;
mod many;
mod matching;
mod sampling;
mod select;
