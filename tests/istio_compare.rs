//! Whether umbra did what Istio did.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::istio_backends::Seen;
use crate::istio_cases::{Case, Drawn, Expected};
use crate::istio_client::Outcome;

/// Not compared, on neither side: what belongs to one connection, to the recording, or to Envoy.
const IGNORED: [&str; 17] = [
    "accept",
    "accept-encoding",
    "connection",
    "content-length",
    "content-type",
    "date",
    "host",
    "server",
    "te",
    "transfer-encoding",
    "user-agent",
    "x-case",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-pod",
    "x-request-id",
];
/// Few draws say what may happen, not how often.
pub(crate) const FEW: u64 = 30;

/// Objects that one API server refused and the other did not. umbra's CRDs may refuse more, where Istio would only
/// find out later that the object makes no sense.
pub(crate) fn refused(case: &Case, ours: &[String]) -> Vec<String> {
    let missing = case.refused.iter().filter(|name| !ours.contains(name));
    missing.map(|name| format!("{name} was accepted")).collect()
}

/// One request: everything.
pub(crate) fn one(expected: &Expected, outcome: &Outcome) -> Vec<String> {
    let (theirs, ours) = (expected.first(), described(outcome));
    let fields = ["status", "slow", "response", "backends"].into_iter();
    let differing = fields.filter(|field| normal(field, &theirs[field]) != normal(field, &ours[field]));
    differing.map(|field| format!("{field}: {}, Istio: {}", ours[field], theirs[field])).collect()
}

/// Several requests: how often what happened.
pub(crate) fn many(expected: &Expected, outcomes: &[Outcome]) -> Vec<String> {
    let mut ours: BTreeMap<Drawn, u64> = BTreeMap::new();
    for outcome in outcomes {
        *ours.entry(drawn(outcome)).or_default() += 1;
    }
    let theirs = expected.tally();
    let alike = if expected.draws() < FEW {
        ours.keys().all(|key| theirs.contains_key(key)) || theirs.len() > 1
    } else {
        is_alike(&ours, &theirs)
    };
    if alike { Vec::new() } else { vec![format!("{ours:?}, Istio: {theirs:?}")] }
}

/// Shares within four standard deviations of their difference, as both sides were drawn.
fn is_alike(ours: &BTreeMap<Drawn, u64>, theirs: &BTreeMap<Drawn, u64>) -> bool {
    let total = |counts: &BTreeMap<Drawn, u64>| counts.values().sum::<u64>() as f64;
    let (our_total, their_total) = (total(ours), total(theirs));
    ours.keys().chain(theirs.keys()).all(|key| {
        let share =
            |counts: &BTreeMap<Drawn, u64>, total: f64| counts.get(key).copied().unwrap_or(0) as f64 / total;
        let (a, b) = (share(ours, our_total), share(theirs, their_total));
        let mean = f64::midpoint(a, b);
        let deviation = (mean * (1.0 - mean) * (1.0 / our_total + 1.0 / their_total)).sqrt();
        (a - b).abs() <= 4.0 * deviation
    })
}

/// The pod that answered; everybody else who saw the request, and the same pod's other attempts.
fn drawn(outcome: &Outcome) -> Drawn {
    let group = outcome.headers.get("x-pod").map(|pod| group_of(&pod[0]));
    let mut others: Vec<String> = outcome.seen.iter().map(|seen| seen.group.clone()).collect();
    if let Some(at) = group.as_ref().and_then(|group| others.iter().position(|other| other == group)) {
        others.remove(at);
    }
    others.sort();
    (outcome.status.unwrap_or(0), group, others)
}

/// `sa-logic-v1-a` is of `logic-v1`.
pub(crate) fn group_of(pod: &str) -> String {
    pod.trim_start_matches("sa-").trim_end_matches("-a").trim_end_matches("-b").to_owned()
}

fn described(outcome: &Outcome) -> Value {
    let backends: Vec<Value> = outcome.seen.iter().map(backend).collect();
    json!({
        "status": outcome.status.map_or(json!("curl 28"), |status| json!(status)),
        "slow": outcome.is_slow(),
        "response": outcome.headers,
        "backends": backends,
    })
}

fn backend(seen: &Seen) -> Value {
    let Seen { group, method, path, host, headers, len } = seen;
    json!({"group": group, "method": method, "path": path, "host": host, "headers": headers, "len": len})
}

/// Without what is not compared, and in one order.
fn normal(field: &str, value: &Value) -> Value {
    match field {
        "response" => compared_headers(value),
        "backends" => {
            let mut all: Vec<Value> = value.as_array().cloned().unwrap_or_default();
            for one in &mut all {
                one["headers"] = compared_headers(&one["headers"]);
            }
            all.sort_by_key(ToString::to_string);
            all.into()
        }
        _ => value.clone(),
    }
}

fn compared_headers(headers: &Value) -> Value {
    let all = headers.as_object().into_iter().flatten();
    let kept = all.filter(|(name, _)| !IGNORED.contains(&name.as_str()) && !name.starts_with("x-envoy-"));
    let list = |value: &Value| if value.is_array() { value.clone() } else { json!([value]) };
    kept.map(|(name, value)| (name.clone(), list(value))).collect::<serde_json::Map<_, _>>().into()
}
