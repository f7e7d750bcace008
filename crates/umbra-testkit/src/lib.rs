//! Builders and stand-ins for tests. Never part of a program.

mod skip;

pub use skip::skip;
