//! Envoy's default buckets (spec/shadowing.md 3.3), for milliseconds and for bytes alike.
//!
//! Takes: a number in thousandths of a bound's unit, so that 0.5 is whole: of milliseconds these are microseconds.
//! Gives: the bucket it belongs to. No two bounds have the same number of binary digits, so a table by digits leaves one
//! comparison.

/// Bounds of the buckets, the last of which takes everything.
pub(super) const BOUNDS: [f64; BUCKETS] = [
    0.5,
    1.0,
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1_000.0,
    2_500.0,
    5_000.0,
    10_000.0,
    30_000.0,
    60_000.0,
    300_000.0,
    600_000.0,
    1_800_000.0,
    3_600_000.0,
    f64::INFINITY,
];

pub(super) const BUCKETS: usize = 20;

const THOUSANDTHS: [u64; BUCKETS] = thousandths();

/// How many bounds have fewer binary digits than a number of so many.
const BELOW: [usize; 65] = below();

/// The first bucket whose bound is not below.
pub(super) fn bucket(thousandths: u64) -> usize {
    let below = BELOW[digits(thousandths)];
    below + usize::from(thousandths > THOUSANDTHS[below])
}

const fn digits(number: u64) -> usize {
    (u64::BITS - number.leading_zeros()) as usize
}

const fn thousandths() -> [u64; BUCKETS] {
    let mut bounds = [0; BUCKETS];
    let mut at = 0;
    while at < BUCKETS {
        // Infinity becomes the largest number.
        bounds[at] = (BOUNDS[at] * 1_000.0) as u64;
        at += 1;
    }
    bounds
}

const fn below() -> [usize; 65] {
    let mut below = [0; 65];
    let mut number = 0;
    while number < below.len() {
        let mut at = 0;
        while at < BUCKETS && digits(THOUSANDTHS[at]) < number {
            at += 1;
        }
        below[number] = at;
        number += 1;
    }
    let mut at = 1;
    while at < BUCKETS {
        assert!(digits(THOUSANDTHS[at - 1]) < digits(THOUSANDTHS[at]), "one comparison must do");
        at += 1;
    }
    below
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_in_the_first_bucket_whose_bound_it_does_not_exceed() {
        let linear = |number: u64| THOUSANDTHS.iter().position(|bound| number <= *bound);
        let around = |number: u64| [number.saturating_sub(1), number, number.saturating_add(1)];
        let powers = (0..64).flat_map(|power| around(1 << power));
        for number in THOUSANDTHS.into_iter().flat_map(around).chain(powers).chain([0, u64::MAX]) {
            assert_eq!(Some(bucket(number)), linear(number), "{number}");
        }
    }
}
