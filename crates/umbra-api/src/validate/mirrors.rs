//! Where copies go, and how many. Whether subsets and hosts exist is no question of one object.

use super::problem::Field;
use super::{numbers, route};
use crate::HttpRoute;

pub(super) fn check(rule: &HttpRoute, field: &mut Field<'_>) {
    if let Some(mirror) = &rule.mirror {
        route::destination(mirror, &mut field.at("mirror"));
        if !rule.mirrors.is_empty() {
            field.at("mirrors").error(
                "HTTP route cannot contain both mirror and mirrors; move mirror and its percentage into an entry of mirrors",
            );
        }
    }
    for (index, mirror) in rule.mirrors.iter().enumerate() {
        let mut field = field.item("mirrors", index);
        route::destination(&mirror.destination, &mut field.at("destination"));
        numbers::percentage(mirror.percentage.as_ref(), "percentage", &mut field);
    }
    numbers::percentage(rule.mirror_percentage.as_ref(), "mirrorPercentage", field);
    let older = [("mirrorPercent", rule.mirror_percent), ("mirror_percent", rule.mirror_percent_snake)];
    for (name, percent) in older.into_iter().filter(|(_, percent)| percent.is_some()) {
        numbers::whole_percent(percent, name, field);
        field
            .at(name)
            .deprecated(format!("using deprecated setting {name:?}, use \"mirrorPercentage\" instead"));
    }
    shares_of_no_mirror(rule, field);
    no_destination_no_copy(rule, field);
}

/// Of what a rule answers itself nothing is copied (spec/istio.md 1A).
fn no_destination_no_copy(rule: &HttpRoute, field: &mut Field<'_>) {
    let answers = [("redirect", rule.redirect.is_some()), ("directResponse", rule.direct_response.is_some())];
    let mirrors = [("mirror", rule.mirror.is_some()), ("mirrors", !rule.mirrors.is_empty())];
    let Some((answer, _)) = answers.into_iter().find(|(_, given)| *given && rule.delegate.is_none()) else {
        return;
    };
    for (name, _) in mirrors.into_iter().filter(|(_, given)| *given) {
        field.at(name).warn(format!("nothing is copied of requests that {answer} answers; remove it"));
    }
}

/// The share of `mirror` says nothing about `mirrors` (spec/istio.md 4.8).
fn shares_of_no_mirror(rule: &HttpRoute, field: &mut Field<'_>) {
    let shares = [
        ("mirrorPercentage", rule.mirror_percentage.is_some()),
        ("mirrorPercent", rule.mirror_percent.is_some()),
        ("mirror_percent", rule.mirror_percent_snake.is_some()),
    ];
    for (name, _) in shares.into_iter().filter(|(_, given)| *given && rule.mirror.is_none()) {
        field.at(name).warn(
            "is the share of mirror, which the rule does not have; an entry of mirrors has a percentage of its own",
        );
    }
}
