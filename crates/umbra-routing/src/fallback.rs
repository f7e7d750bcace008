//! Where the kernel sends users of a service while no proxy runs: the catch-all rule's weights, in sixteen slots.
//!
//! Takes: a table and the node's backend sets. Gives: for each ClusterIP and port, sixteen endpoints of the primary.
//! The kernel sees no request, only a connection: rules in front of the catch-all, and client namespaces, do not count.
//! Never gives an endpoint of a mirror.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use xxhash_rust::xxh3::xxh3_64;

use crate::backends::{BackendSet, Endpoint};
use crate::config::{Config, Resource};
use crate::key::Key;
use crate::matcher::{RequestMatch, StringMatch};
use crate::table::{Port, Rule, ServiceTable, WeightedBackend};

/// Slots of one ClusterIP and port; the kernel draws one for each connection (spec/interception.md 10).
pub const SLOTS: usize = 16;

/// Where each slot leads; `None`: to nobody, since the primary that the slot belongs to has no endpoint there.
pub type Slots = [Option<SocketAddr>; SLOTS];

impl RequestMatch {
    /// Every request fits this block.
    pub fn takes_everything(&self) -> bool {
        let any_path = match &self.uri {
            None | Some(StringMatch::Present) => true,
            Some(StringMatch::Prefix(prefix)) => prefix.is_empty() || prefix == "/",
            Some(StringMatch::Regex(regex)) => regex == ".*",
            Some(StringMatch::Exact(_)) => false,
        };
        let only_uri =
            Self { uri: self.uri.clone(), ignore_uri_case: self.ignore_uri_case, ..Self::default() };
        any_path && *self == only_uri
    }
}

impl Rule {
    /// Every request that comes to this rule gets it.
    pub fn takes_everything(&self) -> bool {
        self.matches.is_empty() || self.matches.iter().any(RequestMatch::takes_everything)
    }
}

impl Port {
    /// The default variant's rule that takes every request.
    fn catch_all(&self) -> Option<&Rule> {
        let default = self.variants.iter().find(|variant| variant.client_namespace.is_none())?;
        default.rules.iter().find(|rule| rule.takes_everything())
    }
}

/// Every ClusterIP and port of a table, with its slots. `None` as slots: the kernel has no way to a primary there (no
/// rule takes every request, or nothing defines where it leads).
pub fn slots_of(table: &ServiceTable, config: &Config, node: &str) -> Vec<(SocketAddr, Option<Slots>)> {
    let addresses = table.addresses.iter().map(IpAddr::to_canonical);
    let all = addresses.flat_map(|ip| table.ports.iter().map(move |port| (ip, port)));
    all.map(|(ip, port)| {
        let slots = port.catch_all().and_then(|rule| slots_of_rule(rule, config, ip.is_ipv4(), node));
        (SocketAddr::new(ip, port.number), slots)
    })
    .collect()
}

/// The backend sets that a table's slots are made from.
pub fn sets_of(table: &ServiceTable) -> BTreeSet<Key> {
    let rules = table.ports.iter().filter_map(Port::catch_all);
    rules.flat_map(|rule| &rule.destinations).filter_map(|to| to.backend.key()).collect()
}

fn slots_of_rule(rule: &Rule, config: &Config, v4: bool, node: &str) -> Option<Slots> {
    let shares = shares(&rule.destinations);
    let served = || rule.destinations.iter().zip(&shares).filter(|(_, share)| **share > 0);
    if served().all(|(to, _)| to.backend.is_unresolved()) {
        return None;
    }
    let mut slots = [None; SLOTS];
    let mut next = 0;
    for (to, share) in served() {
        let mine = spread(&chosen(endpoints(to, config), v4, *share, node), *share, node);
        for (slot, address) in slots[next..].iter_mut().zip(mine) {
            *slot = Some(address);
        }
        next += share;
    }
    Some(slots)
}

fn endpoints<'c>(to: &WeightedBackend, config: &'c Config) -> &'c [Endpoint] {
    match to.backend.key().and_then(|key| config.get(&key)) {
        Some(Resource::Backends(BackendSet { endpoints, .. })) => endpoints,
        _ => &[],
    }
}

/// How many slots each destination gets: by largest remainder, and none for a share that is less than half a slot.
fn shares(destinations: &[WeightedBackend]) -> Vec<usize> {
    let slots = SLOTS as u64;
    let weights: Vec<u64> = match destinations {
        // A single one gets everything, whatever its weight.
        [_] => vec![1],
        several => several.iter().map(|to| u64::from(to.weight)).collect(),
    };
    let total: u64 = weights.iter().sum();
    let half_a_slot = |weight: &u64| weight * 2 * slots >= total;
    // So many destinations that each is too small: then none is.
    let all_small = !weights.iter().any(half_a_slot);
    let counts = |weight: &u64| if all_small || half_a_slot(weight) { *weight } else { 0 };
    let weights: Vec<u64> = weights.iter().map(counts).collect();
    let total: u64 = weights.iter().sum::<u64>().max(1);
    let mut shares: Vec<usize> = weights.iter().map(|weight| (weight * slots / total) as usize).collect();
    let mut by_remainder: Vec<usize> = (0..weights.len()).filter(|index| weights[*index] > 0).collect();
    by_remainder.sort_by_key(|index| (std::cmp::Reverse(weights[*index] * slots % total), shares[*index]));
    let left = SLOTS - shares.iter().sum::<usize>();
    for index in by_remainder.into_iter().cycle().take(left) {
        shares[index] += 1;
    }
    shares
}

/// At most `count` endpoints of one IP family. With more of them each node takes some of its own, so that together they
/// use all.
fn chosen(endpoints: &[Endpoint], v4: bool, count: usize, node: &str) -> Vec<SocketAddr> {
    let of_family =
        endpoints.iter().map(|endpoint| endpoint.address).filter(|address| address.is_ipv4() == v4);
    let mut ordered: Vec<SocketAddr> = of_family.collect();
    ordered.sort_by_cached_key(|address| (xxh3_64(format!("{node} {address}").as_bytes()), *address));
    ordered.truncate(count);
    ordered
}

/// So many slots for these endpoints, as evenly as possible. Which endpoint has which slot hangs on hashes of the two
/// alone, so that one that comes or goes moves few others.
fn spread(chosen: &[SocketAddr], slots: usize, node: &str) -> Vec<SocketAddr> {
    let pairs = (0..slots).flat_map(|slot| (0..chosen.len()).map(move |index| (slot, index)));
    let mut pairs: Vec<(usize, usize)> = pairs.collect();
    pairs.sort_by_cached_key(|(slot, index)| xxh3_64(format!("{node} {} {slot}", chosen[*index]).as_bytes()));
    let mut taken: Vec<Option<usize>> = vec![None; slots];
    let mut has = vec![0; chosen.len()];
    let least = slots / chosen.len().max(1);
    for most in [least, least + 1] {
        for (slot, index) in &pairs {
            if taken[*slot].is_none() && has[*index] < most {
                taken[*slot] = Some(*index);
                has[*index] += 1;
            }
        }
    }
    taken.into_iter().flatten().map(|index| chosen[index]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backends::BackendRef;
    use crate::table::ServiceName;

    fn weighted(weights: &[u32]) -> Vec<usize> {
        let to = |weight: &u32| {
            WeightedBackend::new(*weight, BackendRef::all(ServiceName::new("default", "a"), 80))
        };
        shares(&weights.iter().map(to).collect::<Vec<_>>())
    }

    #[test]
    fn slots_are_shared_by_weight_and_small_shares_get_none() {
        assert_eq!(weighted(&[0]), [16], "a single destination gets all");
        assert_eq!(weighted(&[80, 20]), [13, 3]);
        assert_eq!(weighted(&[1, 1, 1]), [6, 5, 5]);
        assert_eq!(weighted(&[99, 1]), [16, 0], "under 1/32");
        assert_eq!(weighted(&[31, 1]), [15, 1], "1/32: of equal remainders the smaller share is rounded up");
        assert_eq!(weighted(&[0, 100]), [0, 16]);
        assert_eq!(weighted(&[1; 40]).iter().sum::<usize>(), 16, "all of them are under 1/32");
    }
}
