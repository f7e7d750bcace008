//! HTTP/2's streams (RFC 9113), of either end: `received` is a body that comes on one, `ahead` what of it waits, `pump`
//! carries one into it; `hushed` is an endpoint's connection without its DATA frames of nothing. Frames, windows and tables
//! of headers are the `h2` crate's.

mod ahead;
#[cfg(test)]
mod endless;
mod hushed;
mod pump;
mod received;

pub(crate) use ahead::ReadAhead;
#[cfg(test)]
pub(crate) use endless::Endless;
pub(crate) use hushed::Hushed;
pub(crate) use pump::{Chunk, pump};
pub(crate) use received::Received;
