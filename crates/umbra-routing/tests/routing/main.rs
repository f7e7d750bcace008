//! The wire format from both ends, and what a request gets.

mod delta;
mod keys;
mod select;
