//! Regions and zones.

use std::collections::BTreeSet;

use super::problem::Field;
use crate::{LoadBalancerSettings, LocalityDistribute, LocalityFailover};

/// `outliers`: the policy around it has outlierDetection, without which nobody learns that a region fails.
pub(super) fn check(balancer: &LoadBalancerSettings, outliers: bool, field: &mut Field<'_>) {
    if let Some(locality) = &balancer.locality_lb_setting {
        let mut field = field.at("localityLbSetting");
        distribute(&locality.distribute, &mut field);
        failover(&locality.failover, outliers, &mut field);
        if !locality.distribute.is_empty() && !locality.failover.is_empty() {
            field
                .at("failover")
                .error("can not simultaneously specify 'distribute' and 'failover'; keep one");
        }
    }
    if let Some(zones) = &balancer.zone_aware_lb_setting {
        let mut field = field.at("zoneAwareLbSetting");
        if balancer.locality_lb_setting.is_some() {
            field.error("localityLbSetting and zoneAwareLbSetting exclude each other; keep one");
        }
        failover(&zones.failover, outliers, &mut field);
    }
}

fn distribute(shares: &[LocalityDistribute], field: &mut Field<'_>) {
    let mut seen = BTreeSet::new();
    for (index, share) in shares.iter().enumerate() {
        let mut field = field.item("distribute", index);
        let from = share.from.as_deref().unwrap_or_default();
        locality(from, &mut field.at("from"));
        if !seen.insert(from) {
            field.at("from").error(format!("locality {from:?} appears twice; keep one"));
        }
        for (to, weight) in &share.to {
            locality(to, &mut field.entry("to", to));
            if !(1..=100).contains(weight) {
                field
                    .entry("to", to)
                    .error(format!("locality weight must be in range [1, 100], this is {weight}"));
            }
        }
        let total: u64 = share.to.values().copied().map(u64::from).sum();
        if total != 100 {
            field.at("to").error(format!("total locality weight {total} != 100; correct the shares"));
        }
    }
}

/// `region/zone/sub-zone`, where `*` may only stand at the end.
fn locality(name: &str, field: &mut Field<'_>) {
    let parts: Vec<_> = name.split('/').collect();
    if name.is_empty() || parts.len() > 3 || parts.iter().any(|part| part.is_empty()) {
        field.error(format!("{name:?} is not a locality; write region, region/zone or region/zone/sub-zone"));
    } else if name.trim_end_matches('*').contains('*') {
        field.error(format!("locality {name:?} wildcard '*' number can not exceed 1 and must be in the end"));
    }
}

fn failover(regions: &[LocalityFailover], outliers: bool, field: &mut Field<'_>) {
    for (index, failover) in regions.iter().enumerate() {
        let mut entry = field.item("failover", index);
        let text = |region: &Option<String>| region.clone().unwrap_or_default();
        let (from, to) = (text(&failover.from), text(&failover.to));
        if from == to {
            entry.error(format!(
                "locality lb failover settings must specify different regions, both are {from:?}"
            ));
        }
        for (name, region) in [("from", from), ("to", to)] {
            if region.contains(['/', '*']) {
                entry.at(name).error(format!("locality lb failover only specify region, this is {region:?}"));
            }
        }
    }
    if !regions.is_empty() && !outliers {
        field
            .at("failover")
            .warn("outlier detection policy must be provided for failover; without it no region ever fails");
    }
}
