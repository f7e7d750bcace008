//! Whose connections are taken over: this node's pod ranges, or its known pods one by one; never those that are to be
//! skipped. Pure.

use std::net::IpAddr;

use umbra_routing::{Config, Key, NodeSettings, Resource};

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
    /// The node's pod ranges; its known pods when it has none, or is told to take no others. Without pods to skip.
    pub fn of(config: &Config) -> (Self, Vec<CidrError>) {
        let settings = match config.get(&Key::Node) {
            Some(Resource::Node(settings)) => settings.clone(),
            _ => NodeSettings::default(),
        };
        let pods = |skip: bool| {
            config.iter().filter_map(move |(key, resource)| match (key, resource) {
                (Key::Client(ip), Resource::Client(client)) if client.skip == skip => {
                    Some((ip.to_canonical(), 0))
                }
                _ => None,
            })
        };
        if settings.pod_cidrs.is_empty() || settings.known_pods_only {
            return (Self::from_blocks(pods(false)), Vec::new());
        }
        let (blocks, errors): (Vec<_>, Vec<_>) =
            settings.pod_cidrs.iter().map(|cidr| parse(cidr)).partition(Result::is_ok);
        let all = Self::from_blocks(blocks.into_iter().filter_map(Result::ok));
        let skipped = Self::from_blocks(pods(true));
        (all.without(&skipped), errors.into_iter().filter_map(Result::err).collect())
    }

    fn without(&self, skipped: &Self) -> Self {
        Self { v4: apart_from(&self.v4, &skipped.v4), v6: apart_from(&self.v6, &skipped.v6) }
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

/// What of `ranges` is in none of `holes`; both are ascending.
fn apart_from<T>(ranges: &[(T, T)], holes: &[(T, T)]) -> Vec<(T, T)>
where
    T: Copy + Ord + std::ops::Sub<Output = T> + std::ops::Add<Output = T> + From<u8>,
{
    let mut left = Vec::with_capacity(ranges.len() + holes.len());
    for &(first, last) in ranges {
        // The next address that may be left; none when a hole reaches to the end.
        let mut next = Some(first);
        for &(hole, end) in holes.iter().filter(|(hole, end)| *hole <= last && *end >= first) {
            if let Some(from) = next
                && from < hole
            {
                left.push((from, hole - T::from(1)));
            }
            next = (end < last).then(|| end + T::from(1));
        }
        left.extend(next.map(|from| (from, last)));
    }
    left
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

    fn client(pod: &str, skip: bool) -> serde_json::Value {
        serde_json::json!({"pod": pod, "namespace": "n", "workload": "w", "app": "a", "version": "v",
            "canonicalName": "c", "canonicalRevision": "r", "skip": skip})
    }

    fn of(node: serde_json::Value) -> Sources {
        let config = crate::config::tests::config_of(&[
            ("node", node),
            ("client/10.0.0.0", client("first", true)),
            ("client/10.0.0.7", client("skipped", true)),
            ("client/10.0.0.8", client("next", true)),
            ("client/10.0.0.9", client("taken", false)),
            ("client/10.0.0.255", client("last", true)),
            ("client/10.7.0.1", client("elsewhere", true)),
            ("client/fd00::1", client("six", true)),
        ]);
        let (sources, errors) = Sources::of(&config);
        assert_eq!(errors, []);
        sources
    }

    #[test]
    fn pods_to_skip_are_no_source() {
        let sources = of(serde_json::json!({"podCidrs": ["10.0.0.0/24", "fd00::/126"]}));
        let at = |last: u8| u32::from_be_bytes([10, 0, 0, last]);
        assert_eq!(sources.v4, [(at(1), at(6)), (at(9), at(254))]);
        let six = 0xfd00_u128 << 112;
        assert_eq!(sources.v6, [(six, six), (six + 2, six + 3)]);
    }

    #[test]
    fn strangers_are_no_source_when_known_pods_alone_are() {
        let taken = u32::from_be_bytes([10, 0, 0, 9]);
        let only = Sources { v4: vec![(taken, taken)], v6: Vec::new() };
        assert_eq!(of(serde_json::json!({"podCidrs": ["10.0.0.0/24"], "knownPodsOnly": true})), only);
        assert_eq!(of(serde_json::json!({})), only, "without ranges");
    }

    #[test]
    fn the_whole_space_can_be_skipped() {
        let all = blocks(&["0.0.0.0/0"]);
        assert_eq!(all.without(&all), Sources::default());
        assert_eq!(all.without(&blocks(&["128.0.0.0/1"])).v4, [(0, u32::MAX / 2)]);
        assert_eq!(all.without(&Sources::default()), all);
    }

    #[test]
    fn a_range_that_is_none_is_named() {
        for wrong in ["10.0.0.0", "10.0.0.0/33", "pods/8", "10.0.0.0/-1"] {
            assert_eq!(parse(wrong), Err(CidrError(wrong.into())));
        }
    }
}
