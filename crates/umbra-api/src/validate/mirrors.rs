//! Where copies go, and how many. Whether subsets and hosts exist is no question of one object.

use super::problem::Field;
use super::{route, values};
use crate::HttpRoute;

pub(super) fn check(rule: &HttpRoute, field: &mut Field<'_>) {
    if let Some(mirror) = &rule.mirror {
        route::destination(mirror, &mut field.at("mirror"));
        if !rule.mirrors.is_empty() {
            field.at("mirrors").error(
                "a rule has either mirror or mirrors; move mirror and its percentage into an entry of mirrors",
            );
        }
    }
    for (index, mirror) in rule.mirrors.iter().enumerate() {
        let mut field = field.item("mirrors", index);
        route::destination(&mirror.destination, &mut field.at("destination"));
        values::percentage(mirror.percentage.as_ref(), "percentage", &mut field);
    }
    values::percentage(rule.mirror_percentage.as_ref(), "mirrorPercentage", field);
    let older = [("mirrorPercent", rule.mirror_percent), ("mirror_percent", rule.mirror_percent_snake)];
    for (name, percent) in older.into_iter().filter(|(_, percent)| percent.is_some()) {
        values::whole_percent(percent, name, field);
        field
            .at(name)
            .deprecated(format!("using deprecated setting {name:?}, use \"mirrorPercentage\" instead"));
    }
    shares_of_no_mirror(rule, field);
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
