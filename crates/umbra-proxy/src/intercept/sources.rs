//! Whose connections are taken over: this node's pod ranges, or its known pods one by one. Pure.

use std::net::IpAddr;

use umbra_routing::{Config, Key, Resource};

/// Ranges of addresses, first and last, ascending and apart from each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    /// IPv4, as numbers.
    pub v4: Vec<(u32, u32)>,
    /// IPv6, as numbers.
    pub v6: Vec<(u128, u128)>,
}

/// The controller's fault: the range is not used; the others are.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("node: podCidrs: {0:?} is not an address range such as 10.244.1.0/24")]
pub struct CidrError(String);

impl Sources {
    /// The node's pod ranges; its known pods when it has none.
    pub fn of(config: &Config) -> (Self, Vec<CidrError>) {
        let cidrs = match config.get(&Key::Node) {
            Some(Resource::Node(settings)) => settings.pod_cidrs.as_slice(),
            _ => &[],
        };
        if cidrs.is_empty() {
            let pods = config.iter().filter_map(|(key, _)| match key {
                Key::Client(ip) => Some((*ip, 0)),
                _ => None,
            });
            return (Self::from_blocks(pods), Vec::new());
        }
        let (blocks, errors): (Vec<_>, Vec<_>) =
            cidrs.iter().map(|cidr| parse(cidr)).partition(Result::is_ok);
        let blocks = blocks.into_iter().filter_map(Result::ok);
        (Self::from_blocks(blocks), errors.into_iter().filter_map(Result::err).collect())
    }

    /// The node's pod ranges alone, less what cannot be read.
    pub(crate) fn pod_ranges(config: &Config) -> Self {
        let cidrs = match config.get(&Key::Node) {
            Some(Resource::Node(settings)) => settings.pod_cidrs.as_slice(),
            _ => &[],
        };
        Self::from_blocks(cidrs.iter().filter_map(|cidr| parse(cidr).ok()))
    }

    /// Whether an address is in one of them.
    pub(crate) fn contain(&self, ip: IpAddr) -> bool {
        match ip {
            IpAddr::V4(ip) => self.v4.iter().any(|(first, last)| (*first..=*last).contains(&ip.to_bits())),
            IpAddr::V6(ip) => self.v6.iter().any(|(first, last)| (*first..=*last).contains(&ip.to_bits())),
        }
    }

    /// From addresses and the number of low bits that may be anything.
    fn from_blocks(blocks: impl IntoIterator<Item = (IpAddr, u32)>) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for (ip, free) in blocks {
            match ip {
                IpAddr::V4(ip) => {
                    let mask = u32::MAX.checked_shr(32 - free).unwrap_or(0);
                    v4.push((ip.to_bits() & !mask, ip.to_bits() | mask));
                }
                IpAddr::V6(ip) => {
                    let mask = u128::MAX.checked_shr(128 - free).unwrap_or(0);
                    v6.push((ip.to_bits() & !mask, ip.to_bits() | mask));
                }
            }
        }
        Self { v4: merged(v4), v6: merged(v6) }
    }
}

fn parse(cidr: &str) -> Result<(IpAddr, u32), CidrError> {
    let error = || CidrError(cidr.to_owned());
    let (ip, bits) = cidr.split_once('/').ok_or_else(error)?;
    let ip: IpAddr = ip.parse().map_err(|_| error())?;
    let bits: u32 = bits.parse().map_err(|_| error())?;
    let width = if ip.is_ipv4() { 32 } else { 128 };
    Ok((ip, u32::checked_sub(width, bits).ok_or_else(error)?))
}

/// Sorted, with what overlaps or touches made one: the kernel refuses overlapping ranges.
fn merged<T>(mut ranges: Vec<(T, T)>) -> Vec<(T, T)>
where
    T: Copy + Ord + std::ops::Sub<Output = T> + From<u8>,
{
    ranges.sort_unstable();
    let mut apart: Vec<(T, T)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match apart.last_mut() {
            Some((_, end)) if first <= *end || first - *end == T::from(1) => *end = last.max(*end),
            _ => apart.push((first, last)),
        }
    }
    apart
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks(cidrs: &[&str]) -> Sources {
        Sources::from_blocks(cidrs.iter().map(|cidr| parse(cidr).unwrap()))
    }

    #[test]
    fn ranges_that_touch_or_overlap_become_one() {
        let sources = blocks(&["10.0.1.0/24", "10.0.0.0/24", "10.0.1.128/25", "10.9.0.7/32", "fd00::/64"]);
        let [a, b] = [u32::from_be_bytes([10, 0, 0, 0]), u32::from_be_bytes([10, 9, 0, 7])];
        assert_eq!(sources.v4, [(a, a + 511), (b, b)]);
        assert_eq!(sources.v6, [(0xfd00 << 112, (0xfd00 << 112) + u128::from(u64::MAX))]);
    }

    #[test]
    fn the_whole_space_is_a_range() {
        let sources = blocks(&["0.0.0.0/0", "::/0"]);
        assert_eq!(sources.v4, [(0, u32::MAX)]);
        assert_eq!(sources.v6, [(0, u128::MAX)]);
    }

    #[test]
    fn a_range_that_is_none_is_named() {
        for wrong in ["10.0.0.0", "10.0.0.0/33", "pods/8", "10.0.0.0/-1"] {
            assert_eq!(parse(wrong), Err(CidrError(wrong.into())));
        }
    }
}
