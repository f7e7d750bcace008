//! What the schemas ask for beyond the fields' types: required fields, ranges, words, and rules across fields.
//!
//! Fields are required and forms exclude each other as in Istio's CRDs (spec/istio.md 3, 4.6). Ranges and rules are
//! what Istio's webhook checks (3.1) and a schema can say.

mod destination_rule;
mod virtual_service;

use serde_json::{Value, json};

use super::schema::rule;

pub(super) use destination_rule::destination_rule;
pub(super) use virtual_service::virtual_service;

/// Keywords for the schema at a path ([`schema::constrain`](super::schema::constrain)).
pub(super) type Bounds = Vec<(String, Value)>;

/// For `status` of both.
pub(super) fn status() -> Bounds {
    let time = || json!({"format": "date-time"});
    vec![
        ("conditions[].lastProbeTime".to_owned(), time()),
        ("conditions[].lastTransitionTime".to_owned(), time()),
    ]
}

/// At most one of these fields, by schema and not by CEL: a rule inside three nested lists would cost more than an
/// API server allows.
fn at_most_one(fields: &[&str]) -> Value {
    let forms: Vec<_> = fields.iter().map(|name| json!({"required": [name]})).collect();
    let none = json!({"not": {"anyOf": forms}});
    let one_or_none: Vec<_> = std::iter::once(none).chain(forms).collect();
    json!({"oneOf": one_or_none})
}

/// Istio's rule for durations; text that is no duration fails it too.
fn duration() -> Value {
    rule("duration(self) >= duration('1ms')", "must be a duration of at least 1ms, as 1.5s or 250ms", None)
}

fn required(fields: &[&str]) -> Value {
    json!({"required": fields})
}

fn words(words: &[&str]) -> Value {
    json!({"enum": words})
}

fn percent() -> Value {
    json!({"minimum": 0, "maximum": 100})
}

fn not_negative() -> Value {
    json!({"minimum": 0})
}
