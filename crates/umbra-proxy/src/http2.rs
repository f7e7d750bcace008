//! HTTP/2's streams (RFC 9113), of either end: `received` is a body that comes on one, `pump` carries one into it. Frames,
//! windows and tables of headers are the `h2` crate's.

mod pump;
mod received;

pub(crate) use pump::{Chunk, pump};
pub(crate) use received::Received;
