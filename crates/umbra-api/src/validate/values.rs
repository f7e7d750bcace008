//! Numbers, shares, ports, durations.

use super::problem::Field;
use crate::{Percent, PortSelector};

const NANOS_PER_MILLI: u128 = 1_000_000;
const NANOS_PER_SECOND: u128 = 1_000_000_000;

pub(super) fn port(number: u32, field: &mut Field<'_>) {
    if !(1..=u32::from(u16::MAX)).contains(&number) {
        field.error(format!("{number} is no port; use 1 to 65535"));
    }
}

pub(super) fn port_selector(port: Option<&PortSelector>, field: &mut Field<'_>) {
    if let Some(selector) = port {
        self::port(selector.number, &mut field.at("port").at("number"));
    }
}

pub(super) fn not_negative(number: Option<i64>, name: &str, field: &mut Field<'_>) {
    if let Some(number) = number.filter(|number| *number < 0) {
        field.at(name).error(format!("{number} is negative; use 0 or more"));
    }
}

pub(super) fn percent(value: f64, field: &mut Field<'_>) {
    if !(0.0..=100.0).contains(&value) {
        field.error(format!("{value} is not a percentage; use 0 to 100"));
    }
}

pub(super) fn whole_percent(value: Option<i64>, name: &str, field: &mut Field<'_>) {
    if let Some(value) = value.filter(|value| !(0..=100).contains(value)) {
        field.at(name).error(format!("{value} is not a percentage; use 0 to 100"));
    }
}

pub(super) fn percentage(share: Option<&Percent>, name: &str, field: &mut Field<'_>) {
    if let Some(share) = share {
        percent(share.value, &mut field.at(name).at("value"));
    }
}

/// How exact a duration may be.
#[derive(Clone, Copy)]
pub(super) enum Grain {
    Millis,
    Seconds,
}

/// At least 1 ms, as Istio's CRDs have it, and no finer than Envoy takes.
pub(super) fn duration(text: Option<&String>, grain: Grain, name: &str, field: &mut Field<'_>) {
    let Some(text) = text else { return };
    let mut field = field.at(name);
    match nanos(text) {
        None => field.error(format!("{text:?} is not a duration; write 1.5s or 250ms")),
        Some(nanos) if nanos < NANOS_PER_MILLI => {
            field.error(format!("{text:?} is too short; must be at least 1ms"))
        }
        Some(nanos) => match grain {
            Grain::Millis if nanos % NANOS_PER_MILLI > 0 => {
                field.error(format!("{text:?} is too fine; only durations to ms precision are supported"));
            }
            Grain::Seconds if nanos % NANOS_PER_SECOND > 0 => {
                field.error(format!(
                    "{text:?} is too fine; max_age duration is accurate only to seconds precision"
                ));
            }
            Grain::Millis | Grain::Seconds => {}
        },
    }
}

/// Where `0s` has a meaning of its own.
pub(super) fn duration_or_zero(text: Option<&String>, name: &str, field: &mut Field<'_>) {
    if text.is_some_and(|text| nanos(text) != Some(0)) {
        duration(text, Grain::Millis, name, field);
    }
}

/// As Go and CEL read durations: numbers with units, one after the other. `None`: not one, or a negative one.
fn nanos(text: &str) -> Option<u128> {
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
    match unit {
        "ns" => Some(1),
        "us" | "µs" => Some(1_000),
        "ms" => Some(NANOS_PER_MILLI),
        "s" => Some(NANOS_PER_SECOND),
        "m" => Some(60 * NANOS_PER_SECOND),
        "h" => Some(3600 * NANOS_PER_SECOND),
        _ => None,
    }
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
    use super::nanos;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        for (text, millis) in [
            ("1s", 1000),
            ("1.5s", 1500),
            ("250ms", 250),
            ("1h30m", 5_400_000),
            (".5s", 500),
            ("1m0.5s", 60_500),
        ] {
            assert_eq!(nanos(text), Some(millis * 1_000_000), "{text}");
        }
        assert_eq!(
            (nanos("0s"), nanos("0"), nanos("1us"), nanos("1s500us")),
            (Some(0), Some(0), Some(1000), Some(1_000_500_000))
        );
        for text in ["", "5", "s", ".s", "1.2.3s", "-1s", "1 s", "1d", "1s2", "abc"] {
            assert_eq!(nanos(text), None, "{text}");
        }
    }
}
