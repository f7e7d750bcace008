//! Lag: whether a worker is so late that its users wait, and copies are given up for their sake.
//!
//! Takes: how late each tick came. What is ready waits for its turn as long as a tick that is due, and a request takes
//! several turns; a worker that is busy all the time but comes round in time keeps no user waiting, and goes on copying.
//! Gives: whether copies are made. A burst, or a moment in which the machine does something else, is no reason to stop.

use std::time::Duration;

/// Ticks in a row that are late before copies are given up: with a tick each 100 ms, users wait for less than half a second
/// at the default bound before it helps them.
const LATE: u32 = 3;
/// Ticks in a row that are less than half as late as the bound before copies are made again: a second or more. If it is
/// copies that make the worker late by the default bound, it is so for a third of the time at most.
const IN_TIME: u32 = 10;

/// What one worker's ticks have said.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Lag {
    sheds: bool,
    /// Ticks in a row that speak for the other state.
    against: u32,
}

impl Lag {
    /// A tick was late by `lag`. Tells whether that changed anything.
    pub(crate) fn ticked(&mut self, lag: Duration, bound: Duration) -> bool {
        let (speaks_against, enough) = match self.sheds {
            false => (lag >= bound, LATE),
            true => (lag < bound / 2, IN_TIME),
        };
        self.against = if speaks_against { self.against + 1 } else { 0 };
        let changes = self.against >= enough;
        if changes {
            *self = Self { sheds: !self.sheds, against: 0 };
        }
        changes
    }

    /// No copies are made.
    pub(crate) fn sheds(self) -> bool {
        self.sheds
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUND: Duration = Duration::from_millis(50);

    /// Whether copies are given up after each of these ticks, late by so many milliseconds.
    fn sheds_after(ticks: impl IntoIterator<Item = u64>) -> Vec<bool> {
        let mut lag = Lag::default();
        let ticked = |late| {
            lag.ticked(Duration::from_millis(late), BOUND);
            lag.sheds()
        };
        ticks.into_iter().map(ticked).collect()
    }

    #[test]
    fn late_ticks_in_a_row_stop_copies_and_no_others_do() {
        assert_eq!(sheds_after([50, 70, 50]), [false, false, true]);
        assert!(!sheds_after([5, 900, 900, 49].repeat(20)).contains(&true), "never three in a row");
    }

    #[test]
    fn copies_come_back_after_a_second_in_time_and_not_in_between() {
        let late = [60; 3];
        let calm = sheds_after(late.into_iter().chain([24; 10]));
        assert_eq!(calm[2..], [[true; 10].as_slice(), &[false]].concat());
        let restless = sheds_after(late.into_iter().chain([24, 24, 24, 25].repeat(10)));
        assert!(restless[2..].iter().all(|sheds| *sheds), "neither late nor in time");
    }
}
