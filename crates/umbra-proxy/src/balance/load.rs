//! How busy an endpoint is, in figures that all workers share.
//!
//! Takes: when users' requests begin and end there, and how long answers took. Gives: its load, for comparison: the time
//! an answer is expected to take, times the requests that would be there with one more (spec/data-plane.md 5).
//!
//! The figures are hints, so relaxed ordering is enough; each changes as a whole, so none is lost.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// An answer's weight falls to 37 % in this time. Shorter forgets a slow endpoint while it is slow; longer keeps one that
/// was slow once away for longer: one of 1 s is asked again when it is down to the others' time, after 5 times this at 5 ms.
const MEMORY: Duration = Duration::from_secs(5);

/// So slow counts an answer that is an error, so that an endpoint that fails quickly attracts nobody; and an endpoint that
/// has never answered, once it was asked.
const PENALTY: Duration = Duration::from_secs(1);

/// Answers that come within this are not told apart. Istio's LEAST_REQUEST, whose shares users know, tells none apart; what
/// requests in flight do not show by themselves is an endpoint that is slower than this.
const SOON: Duration = Duration::from_millis(100);

/// Below the time of any answer; keeps endpoints that were quiet for long comparable by their requests.
const FLOOR_MICROS: f32 = 1.0;

/// On lines of the processor's cache that hold nothing else, for all workers write here.
#[repr(align(64))]
pub(super) struct Load {
    /// Times count from here.
    born: Instant,
    /// Users' requests that are there: the lower half all, the upper half those that wait for an answer to begin.
    requests: AtomicU64,
    copies: AtomicU32,
    /// Of users' answers.
    latency: AtomicU64,
}

const WAITING: u64 = 1 << 32;

impl Load {
    pub(super) fn new(born: Instant) -> Self {
        Self {
            born,
            requests: AtomicU64::new(0),
            copies: AtomicU32::new(0),
            latency: AtomicU64::new(Latency::UNKNOWN.bits()),
        }
    }

    /// A user's request is on its way there, and waits.
    pub(super) fn begins(&self) {
        self.requests.fetch_add(WAITING | 1, Ordering::Relaxed);
    }

    /// It waits no more.
    pub(super) fn has_waited(&self) {
        self.requests.fetch_sub(WAITING, Ordering::Relaxed);
    }

    /// And is over.
    pub(super) fn ends(&self) {
        self.requests.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn copy_begins(&self) {
        self.copies.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn copy_ends(&self) {
        self.copies.fetch_sub(1, Ordering::Relaxed);
    }

    /// An answer began after so long.
    pub(super) fn answered(&self, after: Duration, now: Instant) {
        self.update(|latency, at| latency.observed(micros(after), at), now);
    }

    /// There was an error after so long.
    pub(super) fn failed(&self, after: Duration, now: Instant) {
        self.answered(after.max(PENALTY), now);
    }

    /// There was nothing for so long: an answer would have taken longer.
    pub(super) fn silent(&self, so_long: Duration, now: Instant) {
        self.update(|latency, at| latency.raised(micros(so_long), at), now);
    }

    fn update(&self, change: impl Fn(Latency, u32) -> Latency, now: Instant) {
        let at = self.time(now);
        let update = |bits| Some(change(Latency::from_bits(bits), at).bits());
        self.latency.fetch_update(Ordering::Relaxed, Ordering::Relaxed, update).expect("always a new value");
    }

    /// As users' requests compare it. What is expected falls with time while nobody waits there, so that an endpoint that
    /// was slow is tried again, by one request: until that is answered, the last figure stands.
    pub(super) fn of_users(&self, now: Instant) -> f32 {
        let (expected, there) = self.expected(now);
        // Whoever answers soon is as good as any other that does: among them requests alone count, so that equals get
        // equal shares, and one slow answer of many is no reason to leave its endpoint.
        expected.max(micros(SOON)) * (there as f32 + 1.0)
    }

    /// How long an answer is expected to take, in microseconds, and how many requests are there.
    pub(super) fn expected(&self, now: Instant) -> (f32, u32) {
        let requests = self.requests.load(Ordering::Relaxed);
        let latency = Latency::from_bits(self.latency.load(Ordering::Relaxed));
        let (waiting, there) = (requests >> 32, requests as u32);
        let expected = match (latency.is_unknown(), waiting) {
            (true, 0) => 0.0,
            (true, _) => micros(PENALTY),
            (false, 0) => latency.decayed(self.time(now)),
            (false, _) => latency.micros,
        };
        (expected, there)
    }

    /// As copies compare it: by whoever is there.
    pub(super) fn of_all(&self) -> f32 {
        let users = self.requests.load(Ordering::Relaxed) as u32;
        users as f32 + self.copies.load(Ordering::Relaxed) as f32
    }

    /// In hundredths of a second. Starts anew after 497 days.
    fn time(&self, at: Instant) -> u32 {
        let since = at.saturating_duration_since(self.born);
        ((since.as_secs() * 100) as u32).wrapping_add(since.subsec_millis() / 10)
    }
}

fn micros(time: Duration) -> f32 {
    time.as_secs_f32() * 1e6
}

/// How much of a figure is left after so many hundredths of a second.
fn keep(elapsed: i32) -> f32 {
    (-0.01 * elapsed as f32 / MEMORY.as_secs_f32()).exp()
}

/// What an answer is expected to take: a mean that forgets exponentially, but believes in a slower answer at once.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Latency {
    /// 0 when there was no answer yet.
    micros: f32,
    /// When that was so.
    at: u32,
}

impl Latency {
    const UNKNOWN: Self = Self { micros: 0.0, at: 0 };

    fn is_unknown(self) -> bool {
        self.micros == 0.0
    }

    fn observed(self, micros: f32, at: u32) -> Self {
        let micros = micros.max(FLOOR_MICROS);
        if self.is_unknown() || micros >= self.micros {
            return Self { micros, at };
        }
        match self.elapsed(at) {
            // Its weight would be none.
            0 => self,
            elapsed => {
                let keep = keep(elapsed);
                Self { micros: self.micros * keep + micros * (1.0 - keep), at }
            }
        }
    }

    /// It may be a client that was slow or left, so this counts no more than an error. One that never answered anybody is
    /// not given the benefit of the doubt.
    fn raised(self, micros: f32, at: u32) -> Self {
        let penalty = self::micros(PENALTY);
        let micros = if self.is_unknown() { penalty } else { micros.min(penalty) };
        if micros < self.micros { self } else { Self { micros, at } }
    }

    fn decayed(self, at: u32) -> f32 {
        (self.micros * keep(self.elapsed(at))).max(FLOOR_MICROS)
    }

    /// Another worker's clock may have been read a little later than ours.
    fn elapsed(self, at: u32) -> i32 {
        at.wrapping_sub(self.at).cast_signed().max(0)
    }

    fn bits(self) -> u64 {
        u64::from(self.micros.to_bits()) << 32 | u64::from(self.at)
    }

    fn from_bits(bits: u64) -> Self {
        Self { micros: f32::from_bits((bits >> 32) as u32), at: bits as u32 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Load {
        /// Finer than requests compare it.
        fn of_one(&self, now: Instant) -> f32 {
            let (expected, there) = self.expected(now);
            expected * (there as f32 + 1.0)
        }
    }

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_slower_answer_counts_at_once_and_quicker_ones_bit_by_bit() {
        let start = Instant::now();
        let load = Load::new(start);
        load.answered(5 * MS, start);
        let quick = load.of_one(start);
        load.answered(500 * MS, start);
        assert_eq!(load.of_one(start), 100.0 * quick);
        load.answered(5 * MS, start + MEMORY);
        let after = load.of_one(start + MEMORY) / quick;
        assert!((37.0..39.0).contains(&after), "{after}");
        // Another 5 s with an answer each 100 ms.
        (1..=50).for_each(|tenth| load.answered(5 * MS, start + MEMORY + tenth * 100 * MS));
        let later = load.of_one(start + 2 * MEMORY) / quick;
        assert!((14.0..16.0).contains(&later), "{later}");
    }

    #[test]
    fn a_quiet_endpoint_is_expected_to_be_quicker_until_somebody_waits_there() {
        let start = Instant::now();
        let load = Load::new(start);
        load.answered(1_000 * MS, start);
        let later = start + 4 * MEMORY;
        assert!(load.of_one(later) < 0.02 * load.of_one(start));
        let before = load.of_one(start);
        load.begins();
        assert_eq!(load.of_one(later), 2.0 * before, "one asks: the others rather not");
        load.has_waited();
        load.answered(5 * MS, later);
        load.ends();
        assert!(load.of_one(later) < 0.03 * before, "and was answered quickly");
        let in_a_year = start + Duration::from_secs(365 * 86_400);
        assert!(load.of_one(in_a_year) > 0.0);
    }

    #[test]
    fn an_answer_that_streams_for_ever_lets_it_be_forgotten_all_the_same() {
        let start = Instant::now();
        let load = Load::new(start);
        load.begins();
        load.has_waited();
        load.answered(2_000 * MS, start);
        assert!(load.of_one(start + 10 * MEMORY) < 0.001 * load.of_one(start));
    }

    #[test]
    fn errors_and_silence_are_slow_and_what_was_left_early_says_nothing() {
        let start = Instant::now();
        let [quick, failing, silent, left] = [(); 4].map(|()| Load::new(start));
        [&quick, &failing, &silent, &left].into_iter().for_each(|load| load.answered(5 * MS, start));
        failing.failed(MS, start);
        silent.silent(30_000 * MS, start);
        left.silent(MS, start);
        let expected = [1.0, 200.0, 200.0, 1.0].map(|times| times * quick.of_one(start));
        assert_eq!([&quick, &failing, &silent, &left].map(|load| load.of_one(start)), expected);
        let new = Load::new(start);
        assert_eq!(new.of_one(start), 0.0, "unknown, so it is asked");
        new.begins();
        assert!(new.of_one(start) > failing.of_one(start), "by one");
        new.has_waited();
        new.silent(MS, start);
        new.ends();
        assert_eq!(new.of_one(start), failing.of_one(start), "to whom it gave nothing");
    }

    #[test]
    fn users_do_not_see_copies_and_copies_see_everybody() {
        let start = Instant::now();
        let load = Load::new(start);
        load.answered(5 * MS, start);
        let before = load.of_one(start);
        load.copy_begins();
        assert_eq!((load.of_one(start), load.of_all()), (before, 1.0));
        load.begins();
        assert_eq!(load.of_all(), 2.0);
        load.copy_ends();
        load.has_waited();
        load.ends();
        assert_eq!((load.of_one(start), load.of_all()), (before, 0.0));
    }
}
