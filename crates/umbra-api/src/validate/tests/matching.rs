//! Conditions.

use super::*;

fn block(block: Value) -> Vec<Problem> {
    rule(json!({"match": [block]}))
}

#[test]
fn conditions_have_one_form_and_something_to_compare() {
    let long = format!("{{uri: {{regex: {}}}}}", "a".repeat(1025));
    each(
        block,
        &[
            ("{uri: {prefix: ''}, headers: {x-a: {}, ':method': {exact: GET}}}", ""),
            ("{uri: {exact: /, prefix: /}}", "match[0].uri: has more than one of exact, prefix and regex"),
            ("{method: {prefix: ''}}", "match[0].method.prefix: is empty; leave method out"),
            ("{scheme: {prefix: ''}}", "match[0].scheme.prefix: is empty"),
            ("{authority: {regex: ''}}", "match[0].authority.regex: is empty; use \".*\""),
            (
                "{headers: {x a: {exact: b}}}",
                "match[0].headers[x a]: is not the name of a header (RFC 9110 5.6.2)",
            ),
            ("{headers: {x-a: {regex: ''}}}", "match[0].headers[x-a].regex: is empty"),
            (
                "{headers: {x-b: {prefix: ''}}}",
                "match[0].headers[x-b].prefix: is empty; use {} to ask for the header's presence",
            ),
            (
                "{withoutHeaders: {x-b: {exact: a, regex: b}}}",
                "match[0].withoutHeaders[x-b]: has more than one",
            ),
            ("{withoutHeaders: {'': {}}}", "match[0].withoutHeaders[]: is not the name of a header"),
            ("{queryParams: {q: {exact: ''}, r: {}}}", ""),
            (
                "{queryParams: {q: {prefix: ''}}}",
                "match[0].queryParams[q].prefix: is empty; use {} to ask for the parameter's presence",
            ),
            (&long, "match[0].uri.regex: invalid regex: 1025 bytes"),
        ],
    );
}

#[test]
fn the_client_is_named_as_kubernetes_names_things() {
    each(
        block,
        &[
            (
                "{port: 65535, sourceLabels: {app: a, example.org/b: ''}, sourceNamespace: default, gateways: [mesh]}",
                "",
            ),
            ("{port: 0}", "match[0].port: 0 is no port"),
            ("{port: 70000}", "match[0].port: 70000 is no port"),
            ("{sourceNamespace: ''}", ""),
            ("{sourceNamespace: a.b}", "match[0].sourceNamespace: \"a.b\" is not the name of a namespace"),
            ("{sourceLabels: {a/b/c: d}}", "match[0].sourceLabels[a/b/c]: invalid label key"),
            ("{sourceLabels: {a: -b}}", "match[0].sourceLabels[a]: invalid label value"),
            ("{gateways: [a/b/c]}", "match[0].gateways[0]: "),
        ],
    );
}

#[test]
fn claims_are_for_gateways() {
    let claims = json!([{"headers": {"@request.auth.claims.group": {"exact": "a"}}}]);
    let with = |gateways: Value| {
        virtual_service(
            json!({"hosts": ["a"], "gateways": gateways, "http": [{"match": claims, "route": to("a")}]}),
        )
    };
    told(
        &with(json!([])),
        &["match[0].headers[@request.auth.claims.group]: claims are known to gateways only"],
    );
    told(&with(json!(["public"])), &[]);
}
