use serde_json::{Value, json};

use super::*;

fn virtual_service(spec: Value) -> Vec<String> {
    let object: VirtualService = serde_json::from_value(json!({"spec": spec})).unwrap();
    object.validate().into_iter().map(|problem| problem.to_string()).collect()
}

/// The problems of one rule for `sa-logic`, without `spec.http[0].`.
fn rule(rule: Value) -> Vec<String> {
    let strip = |problem: String| problem.strip_prefix("spec.http[0].").unwrap_or(&problem).to_owned();
    virtual_service(json!({"hosts": ["sa-logic"], "http": [rule]})).into_iter().map(strip).collect()
}

fn to(host: &str) -> Value {
    json!([{"destination": {"host": host}}])
}

#[test]
fn the_article_has_no_problem() {
    let article = json!({"hosts": ["sa-logic"], "http": [{
        "route": [{"destination": {"host": "sa-logic", "subset": "v1"}}],
        "mirror": {"host": "sa-logic", "subset": "v2"},
    }]});
    assert_eq!(virtual_service(article), [""; 0]);
}

#[test]
fn hosts() {
    assert_eq!(
        virtual_service(json!({"hosts": []})),
        ["spec.hosts: is empty; name the services whose requests the rules govern"]
    );
    assert_eq!(
        virtual_service(json!({"hosts": ["*"], "gateways": ["public", "mesh"]})),
        ["spec.hosts[0]: \"*\" is for gateways only; name the services, or set gateways"]
    );
    for host in ["", "a_b", "-a", "a..b", "a/b", "*a", "a.*.b", &"a".repeat(64)] {
        let problems = virtual_service(json!({"hosts": ["ok", host]}));
        assert!(problems.len() == 1 && problems[0].starts_with("spec.hosts[1]: "), "{host}: {problems:?}");
    }
    let fine = json!({"hosts": ["SA-Logic", "a.b.svc.cluster.local", "a.b.", "*.example.org", "10.0.0.1", "fd00::1"]});
    assert_eq!(virtual_service(fine), [""; 0]);
    assert_eq!(virtual_service(json!({"hosts": ["*"], "gateways": ["public"]})), [""; 0]);
}

#[test]
fn destinations() {
    assert_eq!(
        rule(json!({"route": to("*")})),
        ["route[0].destination.host: \"*\" is no destination; name a service"]
    );
    assert_eq!(rule(json!({})), ["route: is empty; name the destination that users' answers come from"]);
    assert_eq!(rule(json!({"redirect": {"uri": "/"}})), [""; 0]);
    assert_eq!(
        rule(json!({"route": [{"destination": {"host": "a", "subset": "v_2", "port": {"number": 70000}}}]})),
        [
            "route[0].destination.subset: \"v_2\" is not a DNS label; use letters, digits and \"-\", at most 63",
            "route[0].destination.port.number: 70000 is no port; use 1 to 65535",
        ]
    );
    assert_eq!(
        rule(json!({"route": [{"destination": {"host": "a", "port": {}}}]})),
        ["route[0].destination.port.number: 0 is no port; use 1 to 65535"]
    );
}

#[test]
fn weights_are_told_once() {
    let two = |a: Value, b: Value| {
        rule(
            json!({"route": [{"destination": {"host": "a"}, "weight": a}, {"destination": {"host": "b"}, "weight": b}]}),
        )
    };
    let none =
        ["route: with several destinations at least one needs a weight above 0 (an absent weight is 0)"];
    assert_eq!(two(json!(0), json!(0)), none);
    assert_eq!(two(Value::Null, Value::Null), none);
    assert_eq!(two(json!(0), json!(-1)), ["route[1].weight: -1 is negative; use 0 or more"]);
    assert_eq!(two(json!(0), json!(1)), [""; 0]);
    assert_eq!(rule(json!({"route": [{"destination": {"host": "a"}, "weight": 0}]})), [""; 0]);
}

#[test]
fn mirrors_and_percentages() {
    let mirrors = json!([{"destination": {"host": "b"}, "percentage": {"value": -0.5}}]);
    assert_eq!(
        rule(json!({"route": to("a"), "mirror": {"host": "b"}, "mirrors": mirrors})),
        [
            "mirrors: a rule has either mirror or mirrors; move mirror and its percentage into an entry of mirrors",
            "mirrors[0].percentage.value: -0.5 is not a percentage; use 0 to 100",
        ]
    );
    assert_eq!(
        rule(json!({"route": to("a"), "mirror": {"host": ""}, "mirrorPercentage": {"value": 150},
            "mirrorPercent": 101, "mirror_percent": -1})),
        [
            "mirror.host: \"\" is not the name of a service; use the form sa-logic or sa-logic.default.svc.cluster.local",
            "mirrorPercentage.value: 150 is not a percentage; use 0 to 100",
            "mirrorPercent: 101 is not a percentage; use 0 to 100",
            "mirror_percent: -1 is not a percentage; use 0 to 100",
        ]
    );
    let fine = json!({"route": to("a"), "mirror": {"host": "b"}, "mirrorPercentage": {"value": 0.0001}});
    assert_eq!(rule(fine), [""; 0]);
}

#[test]
fn matches() {
    let block = |block: Value| rule(json!({"route": to("a"), "match": [block]}));
    assert_eq!(
        block(json!({"uri": {"prefix": ""}, "headers": {"x-a": {}, ":method": {"exact": "GET"}}})),
        [""; 0]
    );
    assert_eq!(
        block(json!({"uri": {"exact": "/", "prefix": "/"}, "method": {"prefix": ""}})),
        [
            "match[0].uri: has more than one of exact, prefix and regex; keep one",
            "match[0].method.prefix: is empty; leave method out to match every one",
        ]
    );
    assert_eq!(
        block(json!({"headers": {"x a": {"regex": ""}, "x-b": {"prefix": ""}}})),
        [
            "match[0].headers[x a]: is not the name of a header (RFC 9110 5.6.2)",
            "match[0].headers[x a].regex: is empty; use \".*\" to match everything",
            "match[0].headers[x-b].prefix: is empty; use {} to ask for the header's presence",
        ]
    );
}

#[test]
fn destination_rules() {
    let validate = |spec: Value| {
        let object: DestinationRule = serde_json::from_value(json!({"spec": spec})).unwrap();
        object.validate().into_iter().map(|problem| problem.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(validate(json!({"host": "*.local", "subsets": [{"name": "v1"}, {"name": "v2"}]})), [""; 0]);
    assert_eq!(
        validate(json!({"host": "a b", "subsets": [{"name": "v1"}, {"name": "v.1"}, {"name": "v1"}]})),
        [
            "spec.host: \"a b\" is not the name of a service; use the form sa-logic or sa-logic.default.svc.cluster.local",
            "spec.subsets[1].name: \"v.1\" is not a DNS label; use letters, digits and \"-\", at most 63",
            "spec.subsets[2].name: \"v1\" appears twice; only the first is used",
        ]
    );
}
