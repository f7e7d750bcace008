//! Whether connections that the kernel gives to the listener get there. Pure: a clock and two counters in, verdicts out.
//!
//! Both counters are the kernel's and count first packets: `given` where they are turned to the listener, `arrived`
//! behind the last filter on their way to it. So a client that is slow, or never ends its handshake, has arrived, and
//! only what this node itself drops has not: an INPUT firewall. A SYN that is sent again counts again in both, since its
//! connection is known to nobody yet; what matters is only whether a counter has moved.

use std::time::{Duration, Instant};

/// Given, and nothing arrived for so long: blocked (design: Node).
const BLOCKED_AFTER: Duration = Duration::from_secs(1);
/// Left to others for so long, the first time; it doubles from one failed trial to the next.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
/// And never for longer: somebody who mends the firewall waits for it.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// A trial that nobody put to the test for so long is taken as passed; the next connection tells.
const QUIET_TRIAL: Duration = Duration::from_secs(10);

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing.
    GoOn,
    /// Leave connections to others.
    Leave,
    /// Take them over again, and see.
    Try,
    /// They arrive, or nothing says that they do not.
    Passed,
}

/// What is known.
#[derive(Debug)]
pub(super) struct Watch {
    phase: Phase,
    given: u64,
    arrived: u64,
    /// Of the next block.
    pause: Duration,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    /// Taking over. `since`: given, and nothing arrived from then on.
    Armed { since: Option<Instant> },
    /// Taking over, after a block, to see whether it is gone.
    Trial { since: Option<Instant>, began: Instant },
    /// Connections are left to others.
    Blocked { until: Instant },
}

impl Watch {
    /// Nothing is known against anybody.
    pub(super) fn new() -> Self {
        Self { phase: Phase::Armed { since: None }, given: 0, arrived: 0, pause: FIRST_PAUSE }
    }

    /// Connections are left to others.
    pub(super) fn is_blocked(&self) -> bool {
        matches!(self.phase, Phase::Blocked { .. })
    }

    /// Nothing speaks against taking over: neither blocked nor on trial.
    pub(super) fn is_armed(&self) -> bool {
        matches!(self.phase, Phase::Armed { .. })
    }

    /// Judges. `arrived` must have been read before `given`, so that it never counts a connection that `given` lacks.
    pub(super) fn look(&mut self, now: Instant, given: u64, arrived: u64) -> Verdict {
        let (some_given, some_arrived) = (given > self.given, arrived > self.arrived);
        (self.given, self.arrived) = (given, arrived);
        let since = |since: Option<Instant>| match (some_arrived, some_given) {
            (true, _) => None,
            (false, true) => since.or(Some(now)),
            (false, false) => since,
        };
        let is_late = |since: Option<Instant>| since.is_some_and(|since| now >= since + BLOCKED_AFTER);
        match self.phase {
            Phase::Armed { since: before } | Phase::Trial { since: before, .. } if is_late(since(before)) => {
                self.phase = Phase::Blocked { until: now + self.pause };
                self.pause = (self.pause * 2).min(LONGEST_PAUSE);
                Verdict::Leave
            }
            Phase::Armed { since: before } => {
                if some_arrived {
                    self.pause = FIRST_PAUSE;
                }
                self.phase = Phase::Armed { since: since(before) };
                Verdict::GoOn
            }
            Phase::Trial { since: before, began } => {
                let since = since(before);
                if some_arrived || (since.is_none() && now >= began + QUIET_TRIAL) {
                    if some_arrived {
                        self.pause = FIRST_PAUSE;
                    }
                    self.phase = Phase::Armed { since };
                    return Verdict::Passed;
                }
                self.phase = Phase::Trial { since, began };
                Verdict::GoOn
            }
            Phase::Blocked { until } if now >= until => {
                self.phase = Phase::Trial { since: None, began: now };
                Verdict::Try
            }
            Phase::Blocked { .. } => Verdict::GoOn,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A node whose firewall can be closed, looked at each second.
    struct Node {
        watch: Watch,
        start: Instant,
        second: u64,
        counters: (u64, u64),
        open: bool,
    }

    impl Node {
        fn new() -> Self {
            let start = Instant::now();
            Self { watch: Watch::new(), start, second: 0, counters: (0, 0), open: true }
        }

        /// A second passes, with so many first packets.
        fn second(&mut self, packets: u64) -> Verdict {
            self.second += 1;
            if !self.watch.is_blocked() {
                self.counters.0 += packets;
                self.counters.1 += if self.open { packets } else { 0 };
            }
            let now = self.start + Duration::from_secs(self.second);
            self.watch.look(now, self.counters.0, self.counters.1)
        }

        /// Seconds until something else than nothing is to be done, while each brings a packet.
        fn until(&mut self, wanted: Verdict) -> u64 {
            let began = self.second;
            for _ in 0..1_000 {
                match self.second(1) {
                    Verdict::GoOn => {}
                    verdict if verdict == wanted => return self.second - began,
                    other => panic!("{other:?} after {} s", self.second - began),
                }
            }
            panic!("never {wanted:?}");
        }
    }

    #[test]
    fn what_is_given_and_does_not_arrive_is_left_to_others_and_tried_again_ever_more_rarely() {
        let mut node = Node::new();
        assert_eq!(node.second(3), Verdict::GoOn);
        node.open = false;
        assert_eq!(node.until(Verdict::Leave), 2, "a second after it was first seen");
        let mut pauses = Vec::new();
        for _ in 0..6 {
            pauses.push(node.until(Verdict::Try));
            assert!(!node.watch.is_blocked() && !node.watch.is_armed());
            assert_eq!(node.until(Verdict::Leave), 2);
        }
        assert_eq!(pauses, [5, 10, 20, 40, 60, 60]);
        node.open = true;
        node.until(Verdict::Try);
        assert_eq!(node.until(Verdict::Passed), 1);
        node.open = false;
        node.until(Verdict::Leave);
        assert_eq!(node.until(Verdict::Try), 5, "as the first time");
    }

    #[test]
    fn one_lost_packet_is_enough_and_silence_is_not() {
        let mut node = Node::new();
        for _ in 0..100 {
            assert_eq!(node.second(0), Verdict::GoOn);
        }
        node.open = false;
        assert_eq!(node.second(1), Verdict::GoOn);
        assert_eq!(node.second(0), Verdict::Leave);
    }

    #[test]
    fn whatever_arrives_is_good_news() {
        let mut node = Node::new();
        let start = node.start;
        let mut look =
            |second, given, arrived| node.watch.look(start + Duration::from_secs(second), given, arrived);
        assert_eq!(look(1, 1, 0), Verdict::GoOn, "on its way while the counters were read");
        assert_eq!(look(2, 1, 1), Verdict::GoOn, "it has arrived");
        assert_eq!(look(9, 1, 1), Verdict::GoOn);
        assert_eq!(look(10, 2, 1), Verdict::GoOn);
        assert_eq!(look(11, 3, 2), Verdict::GoOn, "one of two");
    }

    #[test]
    fn a_trial_that_nobody_puts_to_the_test_ends_but_the_pause_stays_long() {
        let mut node = Node::new();
        node.open = false;
        node.until(Verdict::Leave);
        node.until(Verdict::Try);
        let quiet = (1..).find(|_| node.second(0) == Verdict::Passed).unwrap();
        assert_eq!(quiet, 10);
        node.until(Verdict::Leave);
        assert_eq!(node.until(Verdict::Try), 10);
    }
}
