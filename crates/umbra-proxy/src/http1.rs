//! HTTP/1 on the wire (RFC 9112).
//!
//! Takes: bytes as a socket gave them. Gives: heads as the types of the `http` crate and bodies as chunks, or what is wrong
//! with them; and heads and chunks as bytes. `head`, `body` and `write` are pure; `wire` is one end of a connection with
//! its buffers. Nothing here decides about a request but where it ends: what is ambiguous about that is refused, never
//! guessed, and a message is written in one form only.

pub(crate) mod body;
pub(crate) mod head;
pub(crate) mod wire;
pub(crate) mod write;

#[cfg(test)]
mod against_hyper;
#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod looked;

pub(crate) use body::{BodyError, Decoded, Decoder};
pub(crate) use head::{HeadError, RequestHead};
pub(crate) use wire::Wire;

/// Heads and trailers of more fields than this are refused; Envoy's default.
pub(crate) const MAX_HEADERS: usize = 100;

/// Where a message's body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// There is none.
    None,
    /// After as many bytes.
    Length(u64),
    /// With the last chunk.
    Chunked,
    /// With the connection: answers alone.
    UntilClose,
}

/// Where `byte` is first.
fn find(byte: u8, bytes: &[u8]) -> Option<usize> {
    let at = memchr::memchr(byte, bytes);
    #[cfg(test)]
    looked::at(at.map_or(bytes.len(), |at| at + 1));
    at
}

/// Where a line's end is first that an empty line follows.
fn find_empty_line(bytes: &[u8]) -> Option<usize> {
    let at = memchr::memmem::find(bytes, b"\r\n\r\n");
    #[cfg(test)]
    looked::at(at.map_or(bytes.len(), |at| at + 4));
    at
}
