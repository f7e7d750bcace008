//! One rule: its answer, destinations, weights, mirrors.

use super::*;

#[test]
fn a_rule_has_exactly_one_answer() {
    told(
        &virtual_service(json!({"hosts": ["a"], "http": [{}]})),
        &["route: is empty; HTTP route, redirect or direct_response is required"],
    );
    each(
        rule,
        &[
            ("{redirect: {uri: /}}", ""),
            ("{directResponse: {status: 200}}", ""),
            ("{delegate: {name: x}}", ""),
            ("{delegate: {name: x}, directResponse: {status: 503}}", ""),
            ("{delegate: {name: x}, directResponse: {status: 503}, rewrite: {uri: /}}", ""),
            (
                "{redirect: {uri: /}, directResponse: {status: 200}}",
                "directResponse: HTTP route cannot contain both redirect and",
            ),
            (
                "{route: [{destination: {host: a}}], redirect: {uri: /}}",
                "redirect: HTTP route cannot contain both route and",
            ),
            (
                "{route: [{destination: {host: a}}], delegate: {name: x}}",
                "route: root HTTP route must not specify route; remove it",
            ),
            (
                "{redirect: {uri: /}, delegate: {name: x}}",
                "redirect: root HTTP route must not specify redirect",
            ),
            (
                "{redirect: {uri: /}, rewrite: {uri: /}}",
                "rewrite: HTTP route cannot contain both rewrite and redirect",
            ),
            (
                "{directResponse: {status: 200}, fault: {abort: {httpStatus: 500}}}",
                "fault: HTTP route cannot contain both fault and",
            ),
        ],
    );
}

#[test]
fn destinations_are_services_with_subsets_and_ports() {
    each(
        rule,
        &[
            ("{route: [{destination: {host: '*'}}]}", "route[0].destination.host: \"*\" is no destination"),
            (
                "{route: [{destination: {host: ''}}]}",
                "route[0].destination.host: \"\" is not the name of a service",
            ),
            ("{route: [{destination: {host: a, subset: ''}}]}", ""),
            (
                "{route: [{destination: {host: a, subset: v_2}}]}",
                "route[0].destination.subset: \"v_2\" is not a DNS label",
            ),
            (
                "{route: [{destination: {host: a, port: {number: 70000}}}]}",
                "route[0].destination.port.number: 70000 is no port",
            ),
            (
                "{route: [{destination: {host: a, port: {}}}]}",
                "route[0].destination.port.number: 0 is no port",
            ),
            ("{mirror: {host: ''}}", "mirror.host: \"\" is not the name of a service"),
            ("{mirrors: [{destination: {host: b, subset: a.b}}]}", "mirrors[0].destination.subset: "),
        ],
    );
}

#[test]
fn weights_are_told_once() {
    let two = |a: Value, b: Value| {
        rule(
            json!({"route": [{"destination": {"host": "a"}, "weight": a}, {"destination": {"host": "b"}, "weight": b}]}),
        )
    };
    let none = ["route: total destination weight = 0"];
    told(&two(json!(0), json!(0)), &none);
    told(&two(Value::Null, Value::Null), &none);
    told(&two(json!(0), json!(-1)), &["route[1].weight: -1 is negative; use 0 or more"]);
    told(&two(json!(0), json!(1)), &[]);
    told(&rule(json!({"route": [{"destination": {"host": "a"}, "weight": 0}]})), &[]);
}

#[test]
fn mirrors_and_percentages() {
    let mirrors = json!([{"destination": {"host": "b"}, "percentage": {"value": -0.5}}]);
    told(
        &rule(json!({"mirror": {"host": "b"}, "mirrors": mirrors})),
        &[
            "mirrors: HTTP route cannot contain both mirror and mirrors",
            "mirrors[0].percentage.value: -0.5 is not a percentage; use 0 to 100",
        ],
    );
    told(
        &rule(json!({"mirror": {"host": "b"}, "mirrorPercentage": {"value": 150}, "mirrorPercent": 101,
            "mirror_percent": -1})),
        &[
            "mirrorPercentage.value: 150 is not a percentage; use 0 to 100",
            "mirrorPercent: 101 is not a percentage; use 0 to 100",
            "warning IST0002 mirrorPercent: using deprecated setting",
            "mirror_percent: -1 is not a percentage; use 0 to 100",
            "warning IST0002 mirror_percent: using deprecated setting",
        ],
    );
    each(
        rule,
        &[
            ("{mirror: {host: b}, mirrorPercentage: {value: 0.0001}}", ""),
            ("{mirror: {host: b}, mirrorPercent: 5}", "warning IST0002 mirrorPercent: "),
            (
                "{redirect: {uri: /}, mirror: {host: b}}",
                "warning IST0133 mirror: nothing is copied of requests that redirect answers",
            ),
            (
                "{directResponse: {status: 200}, mirrors: [{destination: {host: b}}]}",
                "warning IST0133 mirrors: nothing is copied of requests that directResponse answers",
            ),
            ("{delegate: {name: x}, directResponse: {status: 200}, mirror: {host: b}}", ""),
            (
                "{mirrorPercentage: {value: 5}}",
                "warning IST0133 mirrorPercentage: is the share of mirror, which the rule does not have",
            ),
        ],
    );
}
