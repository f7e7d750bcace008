//! Whether what happened is what was explained, and how often each kind of outcome was met.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use umbra_cli::explain::{Answer, Copies, Place};

use crate::node::Happened;

/// How often each kind of outcome was met.
#[derive(Debug, Default)]
pub(crate) struct Outcomes(BTreeMap<&'static str, u64>);

/// What a run of any length has to meet.
const EACH: [&str; 12] = [
    "routed",
    "routed to one of several",
    "mirrored",
    "mirrored to several",
    "sampled",
    "redirected",
    "direct response",
    "no rule",
    "nobody to ask",
    "aborted",
    "preflight",
    "bad path",
];

impl Outcomes {
    pub(crate) fn count(&mut self, outcome: &'static str) {
        *self.0.entry(outcome).or_default() += 1;
    }

    /// Those that have not been met.
    pub(crate) fn missing(&self) -> Vec<&'static str> {
        EACH.into_iter().filter(|outcome| !self.0.contains_key(outcome)).collect()
    }
}

/// An error says what differs.
pub(crate) fn check(told: &Answer, happened: &Happened, outcomes: &mut Outcomes) -> Result<(), String> {
    let wrong = |what: &str| Err(what.to_owned());
    if happened.backend.is_none() && !happened.copies.is_empty() {
        return wrong("nobody answered, and somebody got a copy");
    }
    if may_abort(told, happened) {
        outcomes.count("aborted");
        return Ok(());
    }
    match told.status {
        Some(status) => {
            let answered = (happened.status, happened.grpc_status, &happened.location, happened.backend);
            if answered != (status, told.grpc_status, &told.location, None) {
                return wrong("the proxy does not answer so itself");
            }
            outcomes.count(own(told, status));
            Ok(())
        }
        None => asked_somebody(told, happened, outcomes),
    }
}

/// What kind of answer of its own a proxy was to give.
fn own(told: &Answer, status: u16) -> &'static str {
    match (&told.name, told.policies["answer"].as_object()) {
        (None, _) => "no rule",
        (_, Some(answer)) if answer.contains_key("redirect") => "redirected",
        (_, Some(_)) => "direct response",
        (_, None) if is_always(&told.policies["fault"]["abort"]) => "aborted",
        (_, None) if is_unavailable(status, told.grpc_status) => "nobody to ask",
        (_, None) => "preflight",
    }
}

/// 503, or what gRPC has for it.
fn is_unavailable(status: u16, grpc_status: Option<u8>) -> bool {
    matches!((status, grpc_status), (503, None) | (200, Some(14)))
}

fn is_always(abort: &serde_json::Value) -> bool {
    abort["perMillion"].as_u64() == Some(1_000_000)
}

/// Some requests of the rule are aborted, not all, and this may be one of them.
fn may_abort(told: &Answer, happened: &Happened) -> bool {
    let abort = &told.policies["fault"]["abort"];
    let sometimes = abort["perMillion"].as_u64().is_some_and(|share| share > 0) && !is_always(abort);
    // A preflight is answered 200 too; it would have no gRPC status to differ by.
    sometimes && happened.backend.is_none() && matches!(happened.status, 418 | 200)
}

fn asked_somebody(told: &Answer, happened: &Happened, outcomes: &mut Outcomes) -> Result<(), String> {
    let single = told.destinations.len() == 1;
    let mut shares = told.destinations.iter().filter(|to| single || to.weight > 0);
    let Some(backend) = happened.backend else {
        let may_be = is_unavailable(happened.status, happened.grpc_status)
            && shares.any(|to| ready(&to.place).is_empty());
        outcomes.count("nobody to ask");
        return may_be.then_some(()).ok_or_else(|| "no destination was asked".to_owned());
    };
    if happened.status != 200 || !shares.any(|to| ready(&to.place).contains(&backend)) {
        return Err(format!("{backend} is no endpoint of a destination with a share"));
    }
    outcomes.count(if single { "routed" } else { "routed to one of several" });
    if !assigned(&happened.copies, &told.mirrors) {
        return Err("the copies are not those of the mirrors".to_owned());
    }
    match happened.copies.len() {
        0 => {}
        1 => outcomes.count("mirrored"),
        _ => outcomes.count("mirrored to several"),
    }
    if told.mirrors.iter().any(|mirror| mirror.percent < 100.0 && !ready(&mirror.place).is_empty()) {
        outcomes.count("sampled");
    }
    Ok(())
}

fn ready(place: &Place) -> &[SocketAddr] {
    place.endpoints.as_deref().unwrap_or_default()
}

/// Each copy is one mirror's, no mirror has two, and one with a share of 100 and somebody to take it has one.
fn assigned(copies: &[SocketAddr], mirrors: &[Copies]) -> bool {
    let Some((mirror, others)) = mirrors.split_first() else { return copies.is_empty() };
    let must = mirror.percent >= 100.0 && !ready(&mirror.place).is_empty();
    let takes = |at: usize| {
        let mut left = copies.to_vec();
        mirror.percent > 0.0 && ready(&mirror.place).contains(&left.remove(at)) && assigned(&left, others)
    };
    (!must && assigned(copies, others)) || (0..copies.len()).any(takes)
}
