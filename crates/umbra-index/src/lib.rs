//! Objects in, one consistent view out.
