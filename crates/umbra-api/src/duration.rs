//! Times as Istio's fields have them: Go's text, of which whole milliseconds come out (spec/istio.md 1A).
//!
//! The one reader of such text: [`validate()`](crate::VirtualService::validate) says what does not read, and whoever
//! needs the time reads it here, so that nobody gets one that was refused.

use std::num::NonZeroU64;

const NANOS_PER_MILLI: u64 = 1_000_000;
const NANOS_PER_SECOND: u64 = 1_000_000_000;
const MILLIS_PER_SECOND: u64 = 1_000;
/// Go counts nanoseconds in 63 bits; what is longer is no duration there.
const MAX_NANOS: u128 = i64::MAX as u128;

/// A text that is no time for the field it stands in. The author's fault; says the way out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// Not Go's form, below zero, or beyond 292 years.
    #[error("{0:?} is not a duration; write 1.5s or 250ms")]
    NotADuration(String),
    /// As Istio's CRDs have it.
    #[error("{0:?} is too short; must be at least 1ms")]
    TooShort(String),
    /// Finer than Envoy takes.
    #[error("{0:?} is too fine; only durations to ms precision are supported")]
    FinerThanMillis(String),
    /// Finer than a header can say.
    #[error("{0:?} is too fine; max_age duration is accurate only to seconds precision")]
    FinerThanSeconds(String),
}

/// Milliseconds.
///
/// # Errors
/// No duration, below 1 ms, or not in whole milliseconds.
pub fn millis(text: &str) -> Result<NonZeroU64, DurationError> {
    let nanos = nanos(text)?;
    if nanos < NANOS_PER_MILLI {
        return Err(DurationError::TooShort(text.to_owned()));
    }
    let whole = NonZeroU64::new(nanos / NANOS_PER_MILLI).filter(|_| nanos.is_multiple_of(NANOS_PER_MILLI));
    whole.ok_or_else(|| DurationError::FinerThanMillis(text.to_owned()))
}

/// Seconds, for a time that goes into a header.
///
/// # Errors
/// No duration, below 1 ms, or not in whole seconds.
pub fn seconds(text: &str) -> Result<NonZeroU64, DurationError> {
    let finer = || DurationError::FinerThanSeconds(text.to_owned());
    let millis = match millis(text) {
        Err(DurationError::FinerThanMillis(_)) => return Err(finer()),
        other => other?.get(),
    };
    let whole =
        NonZeroU64::new(millis / MILLIS_PER_SECOND).filter(|_| millis.is_multiple_of(MILLIS_PER_SECOND));
    whole.ok_or_else(finer)
}

/// Milliseconds, where `0s` has a meaning of its own.
///
/// # Errors
/// As [`millis`], but for 0.
pub fn millis_or_zero(text: &str) -> Result<u64, DurationError> {
    if nanos(text)? == 0 { Ok(0) } else { millis(text).map(NonZeroU64::get) }
}

/// As Go and CEL read durations: numbers with units, one after the other.
fn nanos(text: &str) -> Result<u64, DurationError> {
    let nanos = sum(text).filter(|nanos| *nanos <= MAX_NANOS).and_then(|nanos| u64::try_from(nanos).ok());
    nanos.ok_or_else(|| DurationError::NotADuration(text.to_owned()))
}

fn sum(text: &str) -> Option<u128> {
    if text == "0" {
        return Some(0);
    }
    let (mut rest, mut total) = (text.strip_prefix('+').unwrap_or(text), 0_u128);
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(digits);
        let unit = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit);
        total = total.checked_add(scaled(number, unit_nanos(unit)?)?)?;
        rest = after;
    }
    Some(total)
}

fn unit_nanos(unit: &str) -> Option<u128> {
    let nanos = match unit {
        "ns" => 1,
        // Either of the two letters that look like mu.
        "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
        "ms" => NANOS_PER_MILLI,
        "s" => NANOS_PER_SECOND,
        "m" => 60 * NANOS_PER_SECOND,
        "h" => 3600 * NANOS_PER_SECOND,
        _ => return None,
    };
    Some(u128::from(nanos))
}

/// `number`, which may have a fraction, of a unit.
fn scaled(number: &str, unit: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
        return None;
    }
    let mut nanos = if whole.is_empty() { 0 } else { whole.parse::<u128>().ok()?.checked_mul(unit)? };
    let mut place = unit;
    for digit in fraction.bytes() {
        place /= 10;
        nanos = nanos.checked_add(u128::from(digit - b'0').checked_mul(place)?)?;
    }
    Some(nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_go_reads_them() {
        for (text, expected) in [
            ("1s", 1000),
            ("1.5s", 1500),
            ("0.3s", 300),
            (".5s", 500),
            ("1.s", 1000),
            ("250ms", 250),
            ("1ms", 1),
            ("1h30m", 5_400_000),
            ("1h2m3s4ms", 3_723_004),
            ("1m0.5s", 60_500),
            ("2000us", 2),
            ("2000\u{b5}s", 2),
            ("2000\u{3bc}s", 2),
            ("1000000ns", 1),
            ("+1s", 1000),
        ] {
            assert_eq!(millis(text).map(NonZeroU64::get), Ok(expected), "{text}");
        }
        assert_eq!(seconds("2m").map(NonZeroU64::get), Ok(120));
        assert_eq!(
            (millis_or_zero("0s"), millis_or_zero("0"), millis_or_zero("1s")),
            (Ok(0), Ok(0), Ok(1000))
        );
    }

    #[test]
    fn what_is_no_time_is_said() {
        let words =
            ["", "5", "s", ".", ".s", "soon", "1.2.3s", "-1s", "1 s", "1s ", " 1s", "1d", "1s2", "1sm"];
        for text in words.into_iter().chain(["99999999999999999999h", "2562048h"]) {
            assert_eq!(millis(text), Err(DurationError::NotADuration(text.into())), "{text}");
        }
        for text in ["0", "0s", "0.5ms", "1us", "1ns"] {
            assert_eq!(millis(text), Err(DurationError::TooShort(text.into())), "{text}");
        }
        assert_eq!(millis("1s500us"), Err(DurationError::FinerThanMillis("1s500us".into())));
        for text in ["500ms", "1s500us"] {
            assert_eq!(seconds(text), Err(DurationError::FinerThanSeconds(text.into())), "{text}");
        }
        assert_eq!(millis_or_zero("0.5ms"), Err(DurationError::TooShort("0.5ms".into())));
    }
}
