//! Cases that a real istiod and Envoy answered, answered by our tables: which pods get the request and its copies.
//!
//! Compiling and selecting only; what a proxy does to a request on its way (header operations, retries, timeouts) is
//! tested with the proxy. Cases of foreign VirtualServices are meant with Istio's way of applying
//! them to all clients.

mod cases;
mod skipped;
mod world;

use std::collections::BTreeMap;

use crate::cases::{Case, Drawn, read};
use crate::world::World;

#[allow(clippy::print_stdout, reason = "what is not compared is said with its reason")]
fn check(file: &str) {
    let mut wrong = Vec::new();
    for case in read(file) {
        let differences = differences(&case);
        match skipped::reason(&case.name) {
            Some(reason) if !differences.is_empty() => println!("differs: {file}: {}: {reason}", case.name),
            Some(_) => wrong.push(format!("{}: answers as Istio does, so compare it", case.name)),
            None => wrong.extend(differences.into_iter().map(|what| format!("{}: {what}", case.name))),
        }
    }
    assert!(wrong.is_empty(), "{file}: {} differences\n{}", wrong.len(), wrong.join("\n"));
}

fn differences(case: &Case) -> Vec<String> {
    let world = World::of(case);
    let requests = case.requests.iter().zip(&case.expected).enumerate();
    let compared = requests.filter_map(|(number, (request, expected))| {
        let total: u32 = expected.values().sum();
        let mut drawn: BTreeMap<Drawn, u32> = BTreeMap::new();
        let prepared = world.prepare(request);
        let mut draw = world::Seeded(number as u64 + 1);
        let draws = if total < FEW { MANY } else { total };
        for _ in 0..draws {
            *drawn.entry(prepared.send(request, &mut draw)).or_default() += 1;
        }
        (!is_alike(&drawn, expected, total))
            .then(|| format!("request {number}: {drawn:?}, Istio: {expected:?}"))
    });
    compared.collect()
}

/// So few recorded draws say what may happen, not how often.
const FEW: u32 = 30;
/// Draws enough to see everything that may happen.
const MANY: u32 = 200;

/// Shares within four standard deviations of their difference, as both sides were drawn.
fn is_alike(ours: &BTreeMap<Drawn, u32>, theirs: &BTreeMap<Drawn, u32>, total: u32) -> bool {
    if total < FEW {
        return theirs.keys().all(|key| ours.contains_key(key));
    }
    let share = |counts: &BTreeMap<Drawn, u32>, key: &Drawn| {
        f64::from(counts.get(key).copied().unwrap_or(0)) / f64::from(total)
    };
    ours.keys().chain(theirs.keys()).all(|key| {
        let (a, b) = (share(ours, key), share(theirs, key));
        let mean = f64::midpoint(a, b);
        (a - b).abs() <= 4.0 * (2.0 * mean * (1.0 - mean) / f64::from(total)).sqrt()
    })
}

macro_rules! files {
    ($($test:ident: $file:literal),* $(,)?) => { $(
        #[test]
        fn $test() {
            check($file);
        }
    )* };
}

files! {
    dr_lookup: "dr-lookup",
    dr_merge: "dr-merge",
    dr_subsets: "dr-subsets",
    match_headers: "match-headers",
    match_order: "match-order",
    match_query: "match-query",
    match_uri: "match-uri",
    match_request: "match-request",
    match_source: "match-source",
    mirror_basic: "mirror-basic",
    mirror_percent: "mirror-percent",
    select_delegate: "select-delegate",
    select_gateways: "select-gateways",
    select_several: "select-several",
    smoke: "smoke",
    weight_dest: "weight-dest",
    weight_route: "weight-route",
}
