//! Durations as Go writes them: `1.5s`, `1h2m`, `100ms`. Whole milliseconds come out, at least one (spec/istio.md 1A).

use std::num::NonZeroU64;

/// Nanoseconds of each unit; `ms` is looked for before `m` and `s`.
const UNITS: [(&str, u128); 8] = [
    ("ns", 1),
    ("us", 1_000),
    // Either of the two letters that look like mu.
    ("\u{b5}s", 1_000),
    ("\u{3bc}s", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];
const NANOS_OF_MS: u128 = 1_000_000;
/// Nine digits say nanoseconds; more say nothing that is left when milliseconds come out.
const FRACTION_DIGITS: usize = 9;

/// Milliseconds, or what is wrong with the text.
pub(crate) fn millis(text: &str) -> Result<NonZeroU64, String> {
    let nanos = nanos(text)
        .ok_or_else(|| format!("{text:?} is not a duration; write a number and a unit, as 1.5s or 100ms"))?;
    if !nanos.is_multiple_of(NANOS_OF_MS) {
        return Err(format!("{text:?} is not in whole milliseconds; round it"));
    }
    u64::try_from(nanos / NANOS_OF_MS)
        .ok()
        .and_then(NonZeroU64::new)
        .ok_or_else(|| format!("{text:?} is not a time that umbra can keep; give at least 1ms"))
}

fn nanos(text: &str) -> Option<u128> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    let mut sum: u128 = 0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let (number, after) = split_number(rest)?;
        let (unit, after) = split_unit(after)?;
        sum = sum.checked_add(times(number, unit)?)?;
        rest = after;
    }
    Some(sum)
}

fn split_number(text: &str) -> Option<(&str, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, rest) = text.split_at(end);
    number.contains(|c: char| c.is_ascii_digit()).then_some((number, rest))
}

fn split_unit(text: &str) -> Option<(u128, &str)> {
    UNITS.iter().find_map(|(name, nanos)| {
        let rest = text.strip_prefix(name)?;
        let is_whole = rest.is_empty() || rest.starts_with(|c: char| c.is_ascii_digit() || c == '.');
        is_whole.then_some((*nanos, rest))
    })
}

fn times(number: &str, unit: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.contains('.') {
        return None;
    }
    let digits = |text: &str| if text.is_empty() { Some(0) } else { text.parse::<u128>().ok() };
    let fraction = &fraction[..fraction.len().min(FRACTION_DIGITS)];
    let scale = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    let part = digits(fraction)?.checked_mul(unit)? / scale;
    digits(whole)?.checked_mul(unit)?.checked_add(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_durations_of_whole_milliseconds() {
        for (text, expected) in [
            ("1s", 1000),
            ("1.5s", 1500),
            ("0.3s", 300),
            (".5s", 500),
            ("1.s", 1000),
            ("100ms", 100),
            ("1ms", 1),
            ("1h2m", 3_720_000),
            ("1h2m3s4ms", 3_723_004),
            ("2000us", 2),
            ("2000\u{b5}s", 2),
            ("2000\u{3bc}s", 2),
            ("1000000ns", 1),
            ("+1s", 1000),
        ] {
            assert_eq!(millis(text).map(NonZeroU64::get), Ok(expected), "{text}");
        }
    }

    #[test]
    fn anything_else_is_said() {
        for text in ["", "5", "s", "1", "0", "soon", "1d", "1s ", " 1s", "1.2.3s", "-1s", "1sm", "."] {
            assert!(millis(text).unwrap_err().contains("is not a duration"), "{text}");
        }
        for text in ["0s", "0ms", "99999999999999999999h"] {
            assert!(millis(text).is_err(), "{text}");
        }
        for text in ["0.5ms", "1s500us", "1ns"] {
            assert!(millis(text).unwrap_err().contains("whole milliseconds"), "{text}");
        }
    }
}
