//! The arithmetic of paired measurements: a median of per-round values, and how far it may be off. Pure.

/// Samples that the interval is drawn from; its ends then move by less than the table shows.
const DRAWS: usize = 2_000;
/// Of the draws, left out at each end: what remains is 95 %.
const TAIL: f64 = 0.025;

/// A figure with its uncertainty.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Figure {
    /// The median.
    pub(crate) value: f64,
    /// The lower end of the 95 % interval of the median (bootstrap).
    pub(crate) low: f64,
    /// Its upper end.
    pub(crate) high: f64,
    /// How many rounds it stands on.
    pub(crate) rounds: usize,
}

impl Figure {
    /// Of values of one round each. `None` when there is none, or one is no number. The same values in the same order
    /// give the same figure.
    pub(crate) fn of(values: &[f64]) -> Option<Self> {
        if values.is_empty() || values.iter().any(|value| !value.is_finite()) {
            return None;
        }
        Some(Self::drawn(values, |values| median(values.into_iter().copied().collect())))
    }

    /// Of rounds that have each been these and those, in turn: the median of all of these over that of all of those. Where
    /// most of the scatter is a few visits that something held up, which way it goes hardly depends on those, whereas few
    /// quotients within a round are free of them. `None` as in [`Figure::of`].
    pub(crate) fn of_medians(rounds: &[([f64; 2], [f64; 2])]) -> Option<Self> {
        let is_finite =
            |(these, those): &([f64; 2], [f64; 2])| these.iter().chain(those).all(|it| it.is_finite());
        if rounds.is_empty() || !rounds.iter().all(is_finite) {
            return None;
        }
        Some(Self::drawn(rounds, |rounds| {
            let (these, those): (Vec<_>, Vec<_>) = rounds.into_iter().copied().unzip();
            median(these.concat()) / median(those.concat())
        }))
    }

    /// What `of` makes of the rounds, and of as many drawn from them again and again.
    fn drawn<T>(rounds: &[T], of: impl Fn(Vec<&T>) -> f64) -> Self {
        let mut random = fastrand::Rng::with_seed(1);
        let draw = |_| of((0..rounds.len()).map(|_| &rounds[random.usize(0..rounds.len())]).collect());
        let mut drawn: Vec<f64> = (0..DRAWS).map(draw).collect();
        drawn.sort_by(f64::total_cmp);
        let skip = (DRAWS as f64 * TAIL) as usize;
        let (low, high) = (drawn[skip], drawn[DRAWS - 1 - skip]);
        Self { value: of(rounds.iter().collect()), low, high, rounds: rounds.len() }
    }
}

/// The middle one, or the mean of the two in the middle. Of something.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) }
}

/// What one more unit of work costs, from two runs of different length: what both have in common, the start and the end
/// of the program, falls out. `None` when the longer one is not longer.
pub(crate) fn marginal(short: (u64, u64), long: (u64, u64)) -> Option<f64> {
    let more = long.0.checked_sub(short.0).filter(|more| *more > 0)?;
    Some((long.1 as f64 - short.1 as f64) / more as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_of_the_rounds() {
        assert_eq!(Figure::of(&[3.0, 1.0, 2.0]).map(|it| (it.value, it.rounds)), Some((2.0, 3)));
        assert_eq!(Figure::of(&[4.0, 1.0, 2.0, 3.0]).map(|it| it.value), Some(2.5));
    }

    #[test]
    fn the_interval_holds_the_median_and_one_bad_round_does_not_move_it_far() {
        let steady = Figure::of(&[1.0, 1.01, 0.99, 1.0, 1.02, 0.98, 1.0]).unwrap();
        assert!(steady.low <= steady.value && steady.value <= steady.high);
        assert!(steady.low >= 0.98 && steady.high <= 1.02, "{steady:?}");
        let spoilt = Figure::of(&[1.0, 1.01, 0.99, 1.0, 1.02, 0.98, 7.0]).unwrap();
        assert!((spoilt.value - steady.value).abs() < f64::EPSILON);
        assert!(spoilt.high < 7.0, "{spoilt:?}");
        assert_eq!(Figure::of(&[2.0]).map(|it| (it.low, it.high)), Some((2.0, 2.0)));
    }

    #[test]
    fn medians_of_all_visits_are_compared_whichever_rounds_were_held_up() {
        let rounds =
            [([9.0, 11.0], [10.0, 50.0]), ([99.0, 11.0], [10.0, 10.0]), ([11.0, 11.0], [70.0, 10.0])];
        let figure = Figure::of_medians(&rounds).unwrap();
        assert_eq!((figure.value, figure.rounds), (1.1, 3));
        assert!(figure.low <= 1.1 && figure.high >= 1.1, "{figure:?}");
        assert_eq!(Figure::of_medians(&[]), None);
        assert_eq!(Figure::of_medians(&[([1.0, f64::NAN], [1.0, 1.0])]), None);
    }

    #[test]
    fn a_wider_scatter_has_a_wider_interval() {
        let width = |scatter: f64| {
            let values: Vec<f64> = (-4..=4).map(|step| 1.0 + scatter * f64::from(step)).collect();
            Figure::of(&values).map(|it| it.high - it.low).unwrap()
        };
        assert!(width(0.1) > 5.0 * width(0.01));
    }

    #[test]
    fn what_is_no_number_is_no_figure() {
        assert_eq!(Figure::of(&[]), None);
        assert_eq!(Figure::of(&[1.0, f64::NAN]), None);
        assert_eq!(Figure::of(&[f64::INFINITY]), None);
    }

    #[test]
    fn what_two_runs_share_falls_out() {
        assert_eq!(marginal((500, 1_000_000 + 500 * 20), (2500, 1_000_000 + 2500 * 20)), Some(20.0));
        assert_eq!(marginal((500, 1), (500, 2)), None);
        assert_eq!(marginal((500, 1), (400, 2)), None);
    }
}
