//! Sampling: which requests a mirror gets.
//!
//! Takes: a request's head and its client's address. Gives: in or out. By chance each request is drawn for itself; by a
//! key whatever has the same key has the same fate, on each node, in each rule and for each service, and who is in at a
//! share is in at every larger one. Never draws where a key decides.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, header};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::matcher::MatchError;
use crate::route::{MIRROR_DENOMINATOR, happens};
use crate::select::Draw;

/// What decides whether a request is in a mirror's share, where chance does not.
///
/// A request without the header or cookie belongs to nobody: it is out of every share but that of all requests, so that a
/// smaller share stays a part of a larger one. A node that knows nothing of this goes by chance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "by")]
pub enum SampleBy {
    /// The first value of this header.
    Header {
        /// Its name, in any case.
        name: String,
    },
    /// The first value of this cookie, as sent.
    Cookie {
        /// Its name, to the letter.
        name: String,
    },
    /// The address of the client's pod.
    Source,
}

/// A mirror's share, ready to use.
pub(crate) struct Sampling {
    per_million: u32,
    key: Key,
}

enum Key {
    Chance,
    Header(HeaderName),
    Cookie(String),
    Source,
}

impl Sampling {
    pub(crate) fn new(per_million: u32, by: Option<&SampleBy>) -> Result<Self, MatchError> {
        let key = match by {
            None => Key::Chance,
            Some(SampleBy::Header { name }) => {
                Key::Header(name.parse().map_err(|_| MatchError::HeaderName(name.clone()))?)
            }
            Some(SampleBy::Cookie { name }) => Key::Cookie(name.clone()),
            Some(SampleBy::Source) => Key::Source,
        };
        Ok(Self { per_million, key })
    }

    pub(crate) fn takes(&self, headers: &HeaderMap, source: IpAddr, draw: &mut impl Draw) -> bool {
        match &self.key {
            _ if self.per_million >= MIRROR_DENOMINATOR => true,
            Key::Chance => happens(self.per_million, draw),
            Key::Header(name) => headers.get(name).is_some_and(|value| self.has_in_it(value.as_bytes())),
            Key::Cookie(name) => cookie(headers, name).is_some_and(|value| self.has_in_it(value)),
            Key::Source => match source.to_canonical() {
                IpAddr::V4(ip) => self.has_in_it(&ip.octets()),
                IpAddr::V6(ip) => self.has_in_it(&ip.octets()),
            },
        }
    }

    /// Nodes of different versions agree on this, so the hash is not to be changed.
    fn has_in_it(&self, key: &[u8]) -> bool {
        let place = (u128::from(xxh3_64(key)) * u128::from(MIRROR_DENOMINATOR)) >> 64;
        place < u128::from(self.per_million)
    }
}

/// RFC 6265 section 5.4: pairs with `; ` between them. Quotes are part of a value.
fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    let headers = headers.get_all(header::COOKIE).iter();
    let mut pairs = headers.flat_map(|header| header.as_bytes().split(|byte| *byte == b';'));
    pairs.find_map(|pair| pair.trim_ascii().strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}
