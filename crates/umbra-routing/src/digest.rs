//! Digests: one number that says whether two ends hold the same configuration.
//!
//! A configuration's digest is the wrapping sum of its parts' hashes, so it does not depend on their order and is
//! kept up to date by adding what came and taking away what went. It guards against mistakes, not against forgers:
//! mutual TLS does that.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use xxhash_rust::xxh3::xxh3_128;

use crate::key::Key;

/// 128 bits, written as 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(u128);

impl Digest {
    /// With the part `hash` in it.
    #[must_use]
    pub fn plus(self, hash: Digest) -> Self {
        Self(self.0.wrapping_add(hash.0))
    }

    /// Without the part `hash`.
    #[must_use]
    pub fn minus(self, hash: Digest) -> Self {
        Self(self.0.wrapping_sub(hash.0))
    }
}

/// The hash of bytes on their own.
pub(crate) fn of_bytes(bytes: &[u8]) -> Digest {
    Digest(xxh3_128(bytes))
}

/// The hash of one resource's bytes (a backend set's without its endpoints).
pub(crate) fn of_resource(key: &Key, bytes: &[u8]) -> Digest {
    of_part(key, b"=", bytes)
}

/// The hash of one endpoint of the set `key`.
pub(crate) fn of_endpoint(key: &Key, bytes: &[u8]) -> Digest {
    of_part(key, b"+", bytes)
}

fn of_part(key: &Key, kind: &[u8], bytes: &[u8]) -> Digest {
    let mut text = key.to_string().into_bytes();
    text.extend_from_slice(kind);
    text.extend_from_slice(bytes);
    of_bytes(&text)
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl FromStr for Digest {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u128::from_str_radix(text, 16).map(Self)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}
