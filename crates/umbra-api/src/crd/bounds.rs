//! What the schemas ask for beyond the fields' types: required fields, ranges, and rules across fields.
//!
//! Fields are required and forms exclude each other as in Istio's CRDs (spec/istio.md 4.6). Ranges and rules are what
//! Istio's webhook checks (3.1) and a schema can say.

use serde_json::{Value, json};

use super::schema::rule;

/// Not Istio's: API servers refuse a rule over lists whose length they do not know. An object of this many rules
/// is beyond what etcd stores (1.5 MiB) unless its rules are nearly empty.
const MAX_HTTP: u64 = 4096;
/// As above; each destination of a rule is a version of a service.
const MAX_ROUTE: u64 = 256;

/// For `spec` of a VirtualService.
pub(super) fn virtual_service() -> Vec<(&'static str, Value)> {
    let percent = || json!({"minimum": 0, "maximum": 100});
    let mut bounds = vec![
        ("http", json!({"maxItems": MAX_HTTP})),
        ("http[]", mirror_or_mirrors()),
        ("http[].route", json!({"maxItems": MAX_ROUTE})),
        ("http[].route", weights()),
        ("http[].route[]", json!({"required": ["destination"]})),
        ("http[].route[].weight", json!({"minimum": 0})),
        ("http[].mirrors[]", json!({"required": ["destination"]})),
        ("http[].mirrors[].percentage.value", percent()),
        ("http[].mirrorPercentage.value", percent()),
        ("http[].mirrorPercent", percent()),
        ("http[].mirror_percent", percent()),
    ];
    for destination in ["http[].route[].destination", "http[].mirror", "http[].mirrors[].destination"] {
        bounds.push((destination, json!({"required": ["host"]})));
    }
    for number in [
        "http[].route[].destination.port.number",
        "http[].mirror.port.number",
        "http[].mirrors[].destination.port.number",
    ] {
        // As Istio's: what passes can be decoded; that 70000 is no port is said in the status.
        bounds.push((number, json!({"maximum": u32::MAX})));
    }
    for condition in ["http[].match[].uri", "http[].match[].method", "http[].match[].headers{}"] {
        bounds.push((condition, one_form()));
    }
    bounds
}

/// For `spec` of a DestinationRule.
pub(super) fn destination_rule() -> Vec<(&'static str, Value)> {
    vec![("", json!({"required": ["host"]})), ("subsets[]", json!({"required": ["name"]}))]
}

/// For `status` of both.
pub(super) fn status() -> Vec<(&'static str, Value)> {
    vec![
        ("conditions[].lastProbeTime", json!({"format": "date-time"})),
        ("conditions[].lastTransitionTime", json!({"format": "date-time"})),
    ]
}

fn mirror_or_mirrors() -> Value {
    rule(
        "!has(self.mirror) || !has(self.mirrors) || self.mirrors.size() == 0",
        "a rule has either mirror or mirrors; move mirror and its percentage into an entry of mirrors",
        Some(".mirrors"),
    )
}

fn weights() -> Value {
    rule(
        "self.size() < 2 || self.exists(d, has(d.weight) && d.weight > 0)",
        "with several destinations at least one needs a weight above 0 (an absent weight is 0)",
        None,
    )
}

/// By schema, not by CEL: a rule inside three nested lists would cost more than an API server allows.
fn one_form() -> Value {
    let form = |name: &str| json!({"required": [name]});
    let forms = [form("exact"), form("prefix"), form("regex")];
    json!({"oneOf": [{"not": {"anyOf": forms}}, forms[0], forms[1], forms[2]]})
}
