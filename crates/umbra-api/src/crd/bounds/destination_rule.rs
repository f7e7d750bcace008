//! Bounds of a DestinationRule's fields. A policy stands in four places, each with the same bounds.

use serde_json::{Value, json};

use super::{Bounds, at_most_one, duration, not_negative, percent, required, words};
use crate::words::{H2_UPGRADE_POLICIES, LOAD_BALANCERS, PROXY_PROTOCOL_VERSIONS, TLS_MODES};

/// As Istio's.
const MAX_PORTS: u64 = 4096;
/// As Istio's: more labels than a selector can have, few enough for rules over them.
const MAX_LABELS: u64 = 4096;
/// Kubernetes' bound of a label's value.
const MAX_LABEL_VALUE: u64 = 63;

/// For `spec` of a DestinationRule.
pub(in crate::crd) fn destination_rule() -> Bounds {
    let mut bounds: Bounds = vec![
        (String::new(), required(&["host"])),
        ("subsets[]".to_owned(), required(&["name"])),
        ("workloadSelector.matchLabels".to_owned(), selector_labels()),
        ("workloadSelector.matchLabels{}".to_owned(), selector_value()),
    ];
    for policy in ["trafficPolicy", "subsets[].trafficPolicy"] {
        let ports = format!("{policy}.portLevelSettings");
        bounds.extend(under(policy, of_a_whole_policy()));
        bounds.push((ports.clone(), json!({"maxItems": MAX_PORTS})));
        for part in [policy.to_owned(), format!("{ports}[]")] {
            let parts = [load_balancer(), consistent_hash(), connection_pool(), outlier_detection()].concat();
            bounds.extend(under(&part, parts));
        }
    }
    bounds
}

type Paths = Vec<(&'static str, Value)>;

fn under(path: &str, bounds: Paths) -> impl Iterator<Item = (String, Value)> {
    bounds.into_iter().map(move |(field, keywords)| (format!("{path}.{field}"), keywords))
}

/// What a policy for one port does not have.
fn of_a_whole_policy() -> Paths {
    vec![
        ("tunnel", required(&["targetHost", "targetPort"])),
        ("proxyProtocol.version", words(&PROXY_PROTOCOL_VERSIONS)),
        ("retryBudget.percent", percent()),
    ]
}

fn load_balancer() -> Paths {
    vec![
        ("loadBalancer", at_most_one(&["simple", "consistentHash"])),
        ("loadBalancer.simple", words(&LOAD_BALANCERS)),
        ("loadBalancer.warmupDurationSecs", duration()),
        ("loadBalancer.warmup", required(&["duration"])),
        ("loadBalancer.warmup.duration", duration()),
        ("loadBalancer.warmup.minimumPercent", percent()),
        ("loadBalancer.warmup.aggression", not_negative()),
    ]
}

fn consistent_hash() -> Paths {
    let keys = at_most_one(&["httpHeaderName", "httpCookie", "useSourceIp", "httpQueryParameterName"]);
    let algorithms = at_most_one(&["ringHash", "maglev"]);
    vec![
        ("loadBalancer.consistentHash", json!({"allOf": [keys, algorithms]})),
        ("loadBalancer.consistentHash.httpCookie", required(&["name"])),
        ("loadBalancer.consistentHash.httpCookie.attributes[]", required(&["name"])),
    ]
}

/// `tcp.idleTimeout` may be `0s`, which turns it off.
fn connection_pool() -> Paths {
    let mut bounds: Paths = [
        "connectionPool.tcp.connectTimeout",
        "connectionPool.tcp.maxConnectionDuration",
        "connectionPool.tcp.tcpKeepalive.time",
        "connectionPool.tcp.tcpKeepalive.interval",
        "connectionPool.http.idleTimeout",
        "connectionPool.http.http2KeepAlive.interval",
        "connectionPool.http.http2KeepAlive.timeout",
    ]
    .map(|time| (time, duration()))
    .to_vec();
    let counts = [
        "connectionPool.tcp.maxConnections",
        "connectionPool.http.http1MaxPendingRequests",
        "connectionPool.http.http2MaxRequests",
        "connectionPool.http.maxRequestsPerConnection",
        "connectionPool.http.maxRetries",
        "connectionPool.http.maxConcurrentStreams",
    ];
    bounds.extend(counts.map(|count| (count, not_negative())));
    bounds.push(("connectionPool.http.h2UpgradePolicy", words(&H2_UPGRADE_POLICIES)));
    bounds.push(("tls.mode", words(&TLS_MODES)));
    bounds
}

fn outlier_detection() -> Paths {
    vec![
        ("outlierDetection.interval", duration()),
        ("outlierDetection.baseEjectionTime", duration()),
        ("outlierDetection.maxEjectionPercent", percent()),
        ("outlierDetection.minHealthPercent", percent()),
        ("outlierDetection.consecutiveErrors", not_negative()),
        ("outlierDetection.outlierDetectionHttpErrorCodes[]", json!({"minimum": 100, "maximum": 599})),
    ]
}

fn selector_labels() -> Value {
    json!({"maxProperties": MAX_LABELS, "x-kubernetes-validations": [
        {"rule": "self.all(key, !key.contains('*'))", "message": "a label's name has no *; write it in full"},
        {"rule": "self.all(key, key.size() != 0)", "message": "a label's name is not empty"},
    ]})
}

fn selector_value() -> Value {
    json!({"maxLength": MAX_LABEL_VALUE, "x-kubernetes-validations": [
        {"rule": "!self.contains('*')", "message": "a label's value has no *; write it in full"},
    ]})
}
