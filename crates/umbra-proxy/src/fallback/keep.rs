//! What the kernel's fallback should hold, and when each entry is to be renewed. Pure: the caller passes the time.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use umbra_routing::{SLOTS, Slots};

use crate::intercept::{Sources, Target};

/// Whose connections are led.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Origin {
    /// This node's pod ranges.
    pub(crate) ranges: Sources,
    /// The interface of the node's own address: where there are no ranges, whatever did not come in by it is a pod's.
    pub(crate) interface: Option<String>,
}

impl Origin {
    /// The interface that tells for this family; `None`: the ranges do.
    pub(super) fn interface(&self, v4: bool) -> Option<&str> {
        let none = if v4 { self.ranges.v4.is_empty() } else { self.ranges.v6.is_empty() };
        self.interface.as_deref().filter(|_| none)
    }
}

/// What a push changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Change {
    /// The first one after the start: what is not in `set` goes.
    pub(crate) whole: bool,
    /// Governed ClusterIPs and ports, with where their slots lead; `None`: nowhere the kernel knows of.
    pub(crate) set: BTreeMap<Target, Option<Slots>>,
    /// Those that are governed no longer.
    pub(crate) gone: BTreeSet<Target>,
    /// Whose connections are led, when that is new.
    pub(crate) origin: Option<Origin>,
}

/// One governed ClusterIP and port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) slots: Option<Slots>,
    pub(super) renew_at: Instant,
}

/// What the kernel should hold.
#[derive(Debug, Default)]
pub(super) struct Kept {
    pub(super) entries: BTreeMap<Target, Entry>,
    pub(super) origin: Origin,
}

/// One ClusterIP and port to write: as it is in the kernel and as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Write {
    pub(super) target: Target,
    /// Its elements are there and go first.
    pub(super) had: bool,
    /// Absent: it goes altogether.
    pub(super) entry: Option<Option<Slots>>,
}

impl Change {
    /// What goes, by itself: it is left before its table is dropped. Of a whole change nothing is taken off.
    pub(crate) fn take_gone(&mut self) -> Option<Self> {
        let gone = std::mem::take(&mut self.gone);
        (!gone.is_empty()).then(|| Self { gone, ..Self::default() })
    }

    /// It changes nothing.
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Kept {
    /// Takes a change in and gives what is to be written for it.
    pub(super) fn take(&mut self, change: &Change, now: Instant, interval: Duration) -> Vec<Write> {
        let mut writes = Vec::new();
        let absent = |target: &&Target| change.whole && !change.set.contains_key(*target);
        let gone: Vec<Target> = self.entries.keys().filter(absent).chain(&change.gone).copied().collect();
        for target in gone {
            if let Some(old) = self.entries.remove(&target) {
                writes.push(Write { target, had: old.slots.is_some(), entry: None });
            }
        }
        for (target, slots) in &change.set {
            let old = self.entries.get(target).copied();
            if old.is_some_and(|old| old.slots == *slots) {
                continue;
            }
            let entry = Entry { slots: *slots, renew_at: first_renewal(target, now, interval) };
            self.entries.insert(*target, entry);
            let had = old.is_some_and(|old| old.slots.is_some());
            writes.push(Write { target: *target, had, entry: Some(*slots) });
        }
        writes
    }

    /// The entries to renew by then, at most so many; their next time is `next`, which is later than `by`.
    pub(super) fn due(&mut self, by: Instant, next: Instant, most: usize) -> Vec<Write> {
        let due = self.entries.iter_mut().filter(|(_, entry)| entry.renew_at <= by);
        due.take(most)
            .map(|(target, entry)| {
                entry.renew_at = next;
                Write { target: *target, had: entry.slots.is_some(), entry: Some(entry.slots) }
            })
            .collect()
    }

    /// Everything, for a table that holds nothing.
    pub(super) fn all(&mut self, now: Instant, interval: Duration) -> Vec<Write> {
        let all = self.entries.iter_mut().map(|(target, entry)| {
            entry.renew_at = first_renewal(target, now, interval);
            Write { target: *target, had: false, entry: Some(entry.slots) }
        });
        all.collect()
    }

    /// Endpoints on this node: they may call their own service. Without ranges it could be any.
    pub(super) fn own(&self) -> BTreeSet<IpAddr> {
        let slots = self.entries.values().filter_map(|entry| entry.slots);
        let ips = slots.flat_map(|slots| slots.into_iter().flatten().map(|to| to.ip()));
        ips.filter(|ip| self.origin.interface(ip.is_ipv4()).is_some() || self.origin.ranges.contain(*ip))
            .collect()
    }
}

/// Entries that come together are not renewed together: the second half of the interval is theirs, by address.
fn first_renewal(target: &Target, now: Instant, interval: Duration) -> Instant {
    let port = u32::from(target.port());
    let number = match target.ip() {
        IpAddr::V4(ip) => ip.to_bits(),
        IpAddr::V6(ip) => ip.to_bits() as u32,
    };
    // Knuth's multiplicative hash: neighbours end far apart.
    let scattered = number.wrapping_add(port).wrapping_mul(2_654_435_769);
    now + interval.mul_f64(0.5 + f64::from(scattered) / f64::from(u32::MAX) / 2.0)
}

/// What was found in the kernel, slot by slot.
#[derive(Debug, Default)]
pub(super) struct Found {
    slots: BTreeMap<Target, FoundSlots>,
    known: BTreeSet<Target>,
}

#[derive(Debug, Default)]
struct FoundSlots {
    to: BTreeMap<usize, SocketAddr>,
    /// How long the first of them to end has left.
    left: Option<Duration>,
}

impl Found {
    pub(super) fn slot(&mut self, target: Target, slot: usize, to: SocketAddr, left: Duration) {
        let found = self.slots.entry(target).or_default();
        found.to.insert(slot, to);
        found.left = Some(found.left.map_or(left, |least| least.min(left)));
    }

    pub(super) fn known(&mut self, target: Target) {
        self.known.insert(target);
    }

    /// As entries to be renewed unchanged. One whose slots are not all there is left as it is: writing it at the first
    /// push meets what is there, and the maps are written anew.
    pub(super) fn entries(self, now: Instant, interval: Duration) -> BTreeMap<Target, Entry> {
        let mut entries = BTreeMap::new();
        for target in self.known {
            entries.insert(target, Entry { slots: None, renew_at: now });
        }
        for (target, found) in self.slots {
            let slots: Slots = std::array::from_fn(|slot| found.to.get(&slot).copied());
            if found.to.len() == SLOTS {
                // Spread over the first half of an interval; what has not got that long is due at once.
                let spread = first_renewal(&target, now, interval) - interval / 2;
                let in_time = found.left.is_some_and(|left| left >= interval);
                let renew_at = if in_time { spread } else { now };
                entries.insert(target, Entry { slots: Some(slots), renew_at });
            }
        }
        entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(100);

    fn target(number: u8) -> Target {
        SocketAddr::from(([10, 96, 0, number], 80))
    }

    fn to(number: u8) -> Option<Slots> {
        Some([Some(SocketAddr::from(([10, 244, 1, number], 8080))); SLOTS])
    }

    fn set(all: &[(u8, Option<Slots>)]) -> Change {
        Change {
            set: all.iter().map(|(number, slots)| (target(*number), *slots)).collect(),
            ..Change::default()
        }
    }

    #[test]
    fn only_what_changed_is_written() {
        let (mut kept, now) = (Kept::default(), Instant::now());
        let first = kept.take(&set(&[(1, to(1)), (2, None)]), now, INTERVAL);
        let new = |number, slots| Write { target: target(number), had: false, entry: Some(slots) };
        assert_eq!(first, [new(1, to(1)), new(2, None)]);
        assert_eq!(kept.take(&set(&[(1, to(1)), (2, None)]), now, INTERVAL), []);
        let changed = kept.take(&set(&[(1, to(9))]), now, INTERVAL);
        assert_eq!(changed, [Write { target: target(1), had: true, entry: Some(to(9)) }]);
        let gone = Change { gone: BTreeSet::from([target(1), target(2), target(3)]), ..Change::default() };
        let written = kept.take(&gone, now, INTERVAL);
        let leaves = |number, had| Write { target: target(number), had, entry: None };
        assert_eq!(written, [leaves(1, true), leaves(2, false)]);
    }

    #[test]
    fn a_whole_change_removes_what_it_does_not_name() {
        let (mut kept, now) = (Kept::default(), Instant::now());
        kept.take(&set(&[(1, to(1)), (2, to(2))]), now, INTERVAL);
        let written = kept.take(&Change { whole: true, ..set(&[(2, to(2))]) }, now, INTERVAL);
        assert_eq!(written, [Write { target: target(1), had: true, entry: None }]);
    }

    #[test]
    fn every_entry_is_renewed_once_an_interval_and_never_many_at_once() {
        let (mut kept, start) = (Kept::default(), Instant::now());
        let many: Vec<_> = (0..200).map(|number| (number, to(1))).collect();
        kept.take(&set(&many), start, INTERVAL);
        let mut renewed = BTreeMap::<Target, u32>::new();
        for second in 0..=300_u64 {
            let now = start + Duration::from_secs(second);
            let due = kept.due(now, now + INTERVAL, 64);
            assert!(due.len() <= 12, "{} in one second", due.len());
            due.iter().for_each(|write| *renewed.entry(write.target).or_default() += 1);
        }
        assert!(renewed.len() == 200 && renewed.values().all(|times| (2..=3).contains(times)), "{renewed:?}");
    }

    #[test]
    fn what_is_found_is_kept_when_it_is_whole() {
        let mut found = Found::default();
        let at = "10.244.1.1:8080".parse().unwrap();
        (0..SLOTS).for_each(|slot| found.slot(target(1), slot, at, INTERVAL));
        found.slot(target(2), 3, at, INTERVAL);
        found.known(target(3));
        for slot in 0..SLOTS {
            found.slot(target(4), slot, at, if slot == 7 { INTERVAL / 2 } else { 2 * INTERVAL });
        }
        let now = Instant::now();
        let entries = found.entries(now, INTERVAL);
        assert_eq!(
            entries.iter().map(|(target, e)| (*target, e.slots)).collect::<Vec<_>>(),
            [(target(1), to(1)), (target(3), None), (target(4), to(1))]
        );
        assert!(entries[&target(1)].renew_at <= now + INTERVAL / 2);
        assert_eq!(entries[&target(4)].renew_at, now, "one of its slots would end too soon");
    }
}
