//! Bounds of a VirtualService's fields.

use serde_json::{Value, json};

use super::{Bounds, at_most_one, duration, not_negative, percent, required, words};
use crate::crd::schema::rule;
use crate::words::{DERIVE_PORT, UNMATCHED_PREFLIGHTS};

/// Not Istio's: API servers refuse a rule over lists whose length they do not know. An object of this many rules
/// is beyond what etcd stores (1.5 MiB) unless its rules are nearly empty.
const MAX_RULES: u64 = 4096;
/// As above; each destination of a rule is a version of a service.
const MAX_ROUTE: u64 = 256;

/// For `spec` of a VirtualService.
pub(in crate::crd) fn virtual_service() -> Bounds {
    let bounds = [lists(), required_fields(), ranges(), forms(), rules()].concat();
    bounds.into_iter().map(|(path, keywords)| (path.to_owned(), keywords)).collect()
}

type Paths = Vec<(&'static str, Value)>;

fn lists() -> Paths {
    let mut lists: Paths = ["http", "tls", "tcp"].map(|list| (list, json!({"maxItems": MAX_RULES}))).to_vec();
    lists.extend(
        ["http[].route", "tls[].route", "tcp[].route"].map(|list| (list, json!({"maxItems": MAX_ROUTE}))),
    );
    lists
}

fn required_fields() -> Paths {
    let hosts = [
        "http[].route[].destination",
        "http[].mirror",
        "http[].mirrors[].destination",
        "tls[].route[].destination",
        "tcp[].route[].destination",
    ];
    let destinations = ["http[].route[]", "http[].mirrors[]", "tls[].route[]", "tcp[].route[]"];
    let mut fields: Paths = hosts.map(|destination| (destination, required(&["host"]))).to_vec();
    fields.extend(destinations.map(|entry| (entry, required(&["destination"]))));
    fields.extend([
        ("http[].directResponse", required(&["status"])),
        ("tls[]", required(&["match"])),
        ("tls[].match[]", required(&["sniHosts"])),
    ]);
    fields
}

fn ranges() -> Paths {
    let mut ranges: Paths = [
        "http[].mirrors[].percentage.value",
        "http[].mirrorPercentage.value",
        "http[].mirrorPercent",
        "http[].mirror_percent",
        "http[].fault.delay.percentage.value",
        "http[].fault.delay.percent",
        "http[].fault.abort.percentage.value",
    ]
    .map(|share| (share, percent()))
    .to_vec();
    let counts =
        ["http[].route[].weight", "tls[].route[].weight", "tcp[].route[].weight", "http[].retries.attempts"];
    ranges.extend(counts.map(|count| (count, not_negative())));
    ranges.extend([
        ("http[].redirect.derivePort", words(&DERIVE_PORT)),
        ("http[].corsPolicy.unmatchedPreflights", words(&UNMATCHED_PREFLIGHTS)),
    ]);
    ranges
}

fn forms() -> Paths {
    let mut forms: Paths = [
        "http[].match[].uri",
        "http[].match[].scheme",
        "http[].match[].method",
        "http[].match[].authority",
        "http[].match[].headers{}",
        "http[].match[].withoutHeaders{}",
        "http[].match[].queryParams{}",
        "http[].corsPolicy.allowOrigins[]",
    ]
    .map(|condition| (condition, at_most_one(&["exact", "prefix", "regex"])))
    .to_vec();
    forms.extend([
        ("http[].redirect", at_most_one(&["port", "derivePort"])),
        ("http[].directResponse.body", at_most_one(&["string", "bytes"])),
        ("http[].directResponse.body.bytes", json!({"format": "byte"})),
        ("http[].fault.delay", at_most_one(&["fixedDelay", "exponentialDelay"])),
        ("http[].fault.abort", at_most_one(&["httpStatus", "grpcStatus", "http2Error"])),
    ]);
    forms
}

fn rules() -> Paths {
    let mut rules: Paths = [
        "http[].timeout",
        "http[].retries.perTryTimeout",
        "http[].retries.backoff",
        "http[].fault.delay.fixedDelay",
        "http[].fault.delay.exponentialDelay",
        "http[].corsPolicy.maxAge",
    ]
    .map(|time| (time, duration()))
    .to_vec();
    rules.extend([
        ("http[]", mirror_or_mirrors()),
        ("http[].route", weights()),
        ("tls[].route", weights()),
        ("tcp[].route", weights()),
    ]);
    rules
}

fn mirror_or_mirrors() -> Value {
    rule(
        "!has(self.mirror) || !has(self.mirrors) || self.mirrors.size() == 0",
        "HTTP route cannot contain both mirror and mirrors; move mirror and its percentage into an entry of mirrors",
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
