//! Numbers, shares, ports, durations.

use super::problem::Field;
use crate::duration::{self, DurationError};
use crate::values::{self, PERCENT};
use crate::{Percent, PortSelector};

pub(super) fn port(number: u32, field: &mut Field<'_>) {
    if values::port(number).is_none() {
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

pub(super) fn weight(weight: Option<i64>, field: &mut Field<'_>) {
    if values::weight(weight).is_none() {
        let weight = weight.unwrap_or(0);
        field.error(match weight {
            ..0 => format!("{weight} is negative; use 0 or more"),
            _ => format!("{weight} is too much; use at most {}", i32::MAX),
        });
    }
}

pub(super) fn percent(value: f64, field: &mut Field<'_>) {
    if !PERCENT.contains(&value) {
        field.error(format!("{value} is not a percentage; use 0 to 100"));
    }
}

pub(super) fn whole_percent(value: Option<i64>, name: &str, field: &mut Field<'_>) {
    if let Some(value) = value {
        percent(value as f64, &mut field.at(name));
    }
}

pub(super) fn percentage(share: Option<&Percent>, name: &str, field: &mut Field<'_>) {
    if let Some(share) = share {
        percent(share.value, &mut field.at(name).at("value"));
    }
}

/// At least 1 ms, as Istio's CRDs have it, and no finer than Envoy takes.
pub(super) fn duration(text: Option<&String>, name: &str, field: &mut Field<'_>) {
    read(text, duration::millis, &mut field.at(name));
}

/// In whole seconds.
pub(super) fn duration_in_seconds(text: Option<&String>, name: &str, field: &mut Field<'_>) {
    read(text, duration::seconds, &mut field.at(name));
}

/// Where `0s` has a meaning of its own.
pub(super) fn duration_or_zero(text: Option<&String>, name: &str, field: &mut Field<'_>) {
    read(text, duration::millis_or_zero, &mut field.at(name));
}

fn read<T>(text: Option<&String>, read: impl Fn(&str) -> Result<T, DurationError>, field: &mut Field<'_>) {
    if let Some(Err(problem)) = text.map(|text| read(text)) {
        field.error(problem.to_string());
    }
}
