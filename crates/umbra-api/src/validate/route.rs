//! Where requests go, and in which shares.

use super::problem::Field;
use super::{headers, names, numbers};
use crate::{Destination, HttpRouteDestination};

pub(super) fn check(route: &[HttpRouteDestination], field: &mut Field<'_>) {
    for (index, entry) in route.iter().enumerate() {
        let mut field = field.item("route", index);
        destination(&entry.destination, &mut field.at("destination"));
        if let Some(operations) = &entry.headers {
            headers::check(operations, &mut field.at("headers"));
        }
    }
    weights(route.iter().map(|entry| entry.weight), field);
}

/// A service, not a wildcard; a subset; a port.
pub(super) fn destination(destination: &Destination, field: &mut Field<'_>) {
    names::destination_host(&destination.host, &mut field.at("host"));
    names::subset_if_any(destination.subset.as_ref(), field);
    numbers::port_selector(destination.port.as_ref(), field);
}

/// One destination gets all, whatever its weight; of several at least one needs a weight.
pub(super) fn weights(weights: impl ExactSizeIterator<Item = Option<i64>> + Clone, field: &mut Field<'_>) {
    let before = field.errors();
    for (index, weight) in weights.clone().enumerate() {
        numbers::weight(weight, &mut field.item("route", index).at("weight"));
    }
    let none = weights.clone().all(|weight| weight.unwrap_or(0) <= 0);
    if weights.len() > 1 && none && field.errors() == before {
        field.at("route").error(
            "total destination weight = 0: with several destinations at least one needs a weight above 0 (an absent \
             weight is 0)",
        );
    }
}
