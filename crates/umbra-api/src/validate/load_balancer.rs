//! How an endpoint is chosen.

use std::collections::BTreeSet;

use super::problem::Field;
use super::{actions, numbers};
use crate::header_name::is_token;
use crate::words::LOAD_BALANCERS;
use crate::{ConsistentHash, HttpCookie, LoadBalancerSettings, Warmup};

/// Envoy's bound of a Maglev table.
const MAX_TABLE: u64 = 5_000_011;

pub(super) fn check(balancer: &LoadBalancerSettings, field: &mut Field<'_>) {
    actions::one_of(balancer.simple.as_deref(), &LOAD_BALANCERS, "simple", field);
    if balancer.simple.as_deref() == Some("LEAST_CONN") {
        field.at("simple").deprecated("using deprecated value \"LEAST_CONN\", use \"LEAST_REQUEST\" instead");
    }
    if let Some(hash) = &balancer.consistent_hash {
        if balancer.simple.is_some() {
            field.at("consistentHash").error("simple and consistentHash exclude each other; keep one");
        }
        consistent_hash(hash, &mut field.at("consistentHash"));
    }
    if balancer.warmup_duration_secs.is_some() {
        field
            .at("warmupDurationSecs")
            .deprecated("using deprecated setting \"warmupDurationSecs\", use \"warmup.duration\" instead");
        numbers::duration(balancer.warmup_duration_secs.as_ref(), "warmupDurationSecs", field);
    }
    if let Some(warmup) = &balancer.warmup {
        if balancer.warmup_duration_secs.is_some() {
            field.at("warmup").error("only one of warmup or warmupDurationSecs can be set; keep warmup");
        }
        self::warmup(warmup, &mut field.at("warmup"));
    }
}

fn warmup(warmup: &Warmup, field: &mut Field<'_>) {
    if warmup.duration.is_none() {
        field.at("duration").error("is missing; say how long a new endpoint warms up");
    }
    numbers::duration(warmup.duration.as_ref(), "duration", field);
    if let Some(percent) = warmup.minimum_percent {
        numbers::percent(percent, &mut field.at("minimumPercent"));
    }
    if let Some(aggression) = warmup.aggression.filter(|aggression| *aggression <= 0.0) {
        field
            .at("aggression")
            .error(format!("aggression must be above 0, this is {aggression}; 1 grows evenly"));
    }
}

fn consistent_hash(hash: &ConsistentHash, field: &mut Field<'_>) {
    let keys = [
        ("httpHeaderName", hash.http_header_name.is_some()),
        ("httpCookie", hash.http_cookie.is_some()),
        ("useSourceIp", hash.use_source_ip.is_some()),
        ("httpQueryParameterName", hash.http_query_parameter_name.is_some()),
    ];
    let given: Vec<_> = keys.iter().filter_map(|(name, given)| given.then_some(*name)).collect();
    match given[..] {
        [] => field.warn("names nothing that requests are alike in; give httpHeaderName, httpCookie, useSourceIp or httpQueryParameterName"),
        [first, ref others @ ..] => {
            for other in others {
                field.at(other).error(format!("{first} and {other} exclude each other; keep one"));
            }
        }
    }
    let named = [
        ("httpHeaderName", &hash.http_header_name),
        ("httpQueryParameterName", &hash.http_query_parameter_name),
    ];
    for (name, _) in named.into_iter().filter(|(_, text)| text.as_deref() == Some("")) {
        field.at(name).error("is empty; name what requests are alike in");
    }
    if let Some(cookie) = &hash.http_cookie {
        self::cookie(cookie, &mut field.at("httpCookie"));
    }
    algorithm(hash, field);
}

fn algorithm(hash: &ConsistentHash, field: &mut Field<'_>) {
    if hash.ring_hash.is_some() && hash.maglev.is_some() {
        field.at("maglev").error("ringHash and maglev exclude each other; keep one");
    }
    if hash.minimum_ring_size.is_some() {
        field.at("minimumRingSize").deprecated(
            "using deprecated setting \"minimumRingSize\", use \"ringHash.minimumRingSize\" instead",
        );
        if hash.ring_hash.is_some() || hash.maglev.is_some() {
            field
                .at("minimumRingSize")
                .error("only one of minimumRingSize, ringHash and maglev can be set; remove this one");
        }
    }
    let Some(maglev) = &hash.maglev else { return };
    let mut field = field.at("maglev");
    let mut field = field.at("tableSize");
    match maglev.table_size.unwrap_or(0) {
        0 => field.error("tableSize must be set for maglev; 65537 is Envoy's own"),
        size if size >= MAX_TABLE => {
            field.error(format!("tableSize must be less than {MAX_TABLE}, this is {size}"))
        }
        size if !is_prime(size) => field.error(format!("tableSize must be a prime number, {size} is none")),
        _ => {}
    }
}

fn is_prime(number: u64) -> bool {
    let divides = |divisor: u64| number.is_multiple_of(divisor);
    number >= 2 && !(2..).take_while(|divisor| divisor * divisor <= number).any(divides)
}

fn cookie(cookie: &HttpCookie, field: &mut Field<'_>) {
    if cookie.name.is_empty() {
        field.at("name").error("name required for HttpCookie; give one");
    }
    numbers::duration_or_zero(cookie.ttl.as_ref(), "ttl", field);
    let mut seen = BTreeSet::new();
    for (index, attribute) in cookie.attributes.iter().enumerate() {
        let mut field = field.item("attributes", index);
        if !is_token(&attribute.name) {
            field
                .at("name")
                .error(format!("{:?} is not the name of a cookie's attribute; correct it", attribute.name));
        } else if !seen.insert(attribute.name.to_ascii_lowercase()) {
            field.at("name").error(format!("duplicate cookie attribute {:?}; keep one", attribute.name));
        }
    }
}
