//! `headers`: one block or two, and the authority (spec/istio.md 4.2).

use serde_json::{Value, json};
use umbra_routing::{HeaderChanges, HeaderEdits, Rule};

use crate::world::{World, assert_has};

fn entry(weight: Option<i64>, headers: Value) -> Value {
    json!({"destination": {"host": "sa-logic"}, "weight": weight, "headers": headers})
}

fn rule(headers: Value, route: Value) -> Rule {
    World::with_rules(json!([{"headers": headers, "route": route}])).rules().remove(0)
}

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn edits(remove: &[&str], set: &[(&str, &str)], add: &[(&str, &str)]) -> HeaderEdits {
    let remove = remove.iter().map(|name| (*name).to_owned()).collect();
    HeaderEdits { remove, set: pairs(set), add: pairs(add) }
}

fn request(edits: HeaderEdits) -> Option<HeaderChanges> {
    Some(HeaderChanges { request: edits, response: HeaderEdits::default() })
}

#[test]
fn with_one_destination_all_removes_then_sets_then_adds_the_rules_first() {
    let of_rule = json!({"request": {"set": {"X-A": "rule"}, "add": {"x-b": "rule"}, "remove": ["X-C"]},
                         "response": {"set": {"x-r": "rule"}}});
    let of_destination = json!({"request": {"set": {"x-a": "to"}, "add": {"x-b": "to"}, "remove": ["x-d"]},
                                "response": {"remove": ["x-s"]}});
    let rule = rule(of_rule, json!([entry(None, of_destination)]));
    let merged = HeaderChanges {
        request: edits(&["x-c", "x-d"], &[("x-a", "rule"), ("x-a", "to")], &[("x-b", "rule"), ("x-b", "to")]),
        response: edits(&["x-s"], &[("x-r", "rule")], &[]),
    };
    assert_eq!((rule.headers, &rule.destinations[0].headers), (Some(merged), &None));
}

#[test]
fn with_several_listed_each_keeps_its_own() {
    for second in [1, 0] {
        let of = |who: &str| json!({"request": {"set": {"x-a": who}}});
        let rule = rule(of("rule"), json!([entry(Some(1), of("to")), entry(Some(second), json!({}))]));
        assert_eq!(rule.headers, request(edits(&[], &[("x-a", "rule")], &[])), "weight {second}");
        assert_eq!(
            rule.destinations[0].headers,
            request(edits(&[], &[("x-a", "to")], &[])),
            "weight {second}"
        );
    }
}

#[test]
fn the_authority_is_the_rules_before_the_destinations_and_set_before_added() {
    let host = |how: &str, name: &str, value: &str| json!({"request": {how: {name: value}}});
    let both = json!({"request": {"set": {"Host": "set"}, "add": {"host": "add"}}});
    let one = |value: &str| request(edits(&[], &[("host", value)], &[]));
    let authority =
        |headers: Value, of_destination: Value| rule(headers, json!([entry(None, of_destination)])).headers;
    assert_eq!(authority(json!({}), host("set", "HOST", "to")), one("to"));
    assert_eq!(authority(json!({}), host("add", ":authority", "to")), one("to"));
    assert_eq!(authority(host("add", "host", "rule"), host("set", "host", "to")), one("rule"));
    assert_eq!(authority(both, json!({})), one("set"));
    assert_eq!(authority(json!({}), json!({})), None);
    let route = json!([entry(Some(1), host("set", "host", "to")), entry(Some(1), host("set", "x-a", "1"))]);
    let several = rule(host("set", "host", "rule"), route.clone());
    assert_eq!(several.headers, one("rule"));
    assert_eq!(several.destinations[0].headers, None, "beaten");
    assert_eq!(several.destinations[1].headers, request(edits(&[], &[("x-a", "1")], &[])));
    assert_eq!(rule(json!({}), route).destinations[0].headers, one("to"));
}

#[test]
fn an_answer_has_the_rules_changes() {
    let world = World::with_rules(json!([
        {"directResponse": {"status": 302}, "headers": {"response": {"set": {"location": "/x"}}}}]));
    let response = edits(&[], &[("location", "/x")], &[]);
    assert_eq!(world.rules()[0].headers.as_ref().map(|headers| &headers.response), Some(&response));
}

#[test]
fn an_empty_value_does_nothing_and_an_unknown_operator_is_said() {
    let world = |value: &str| {
        let headers = json!({"request": {"set": {"x-a": value}}});
        World::with_rules(json!([{"headers": headers, "route": [{"destination": {"host": "sa-logic"}}]}]))
    };
    assert_eq!((world("").rules()[0].headers.clone(), world("").findings()), (None, vec![]));
    assert_eq!(world("%HOSTNAME%").rules()[0].headers, None);
    assert_has(&world("%HOSTNAME%").findings(), "PartiallyInvalid spec.http[0].headers.request.set[x-a]: ");
    for known in ["%REQ(x-user)%-a", "%%", "%PROTOCOL%", "%UPSTREAM_HOST%", "%START_TIME%"] {
        assert_eq!(world(known).rules()[0].headers, request(edits(&[], &[("x-a", known)], &[])), "{known}");
    }
}

#[test]
fn what_no_header_can_be_is_invalid() {
    for (headers, field) in [
        (json!({"request": {"set": {"a b": "1"}}}), "headers.request.set[a b]"),
        (json!({"request": {"add": {":path": "1"}}}), "headers.request.add[:path]"),
        (json!({"request": {"set": {"": "1"}}}), "headers.request.set[]"),
        (json!({"request": {"remove": ["Host"]}}), "headers.request.remove[0]"),
        (json!({"request": {"remove": [":method"]}}), "headers.request.remove[0]"),
        (json!({"response": {"set": {"host": "1"}}}), "headers.response.set[host]"),
        (json!({"request": {"set": {"x": "100%"}}}), "headers.request.set[x]"),
        (json!({"request": {"set": {"x": "a\nb"}}}), "headers.request.set[x]"),
    ] {
        let route = json!([{"destination": {"host": "sa-logic"}}]);
        let of_rule = World::with_rules(json!([{"headers": headers, "route": route}]));
        assert!(of_rule.is_held(), "{headers}");
        assert_has(&of_rule.findings(), &format!("Accepted=False Invalid spec.http[0].{field}: "));
        let of_destination = World::with_rules(json!([{"route": [entry(None, headers.clone())]}]));
        assert_has(
            &of_destination.findings(),
            &format!("Accepted=False Invalid spec.http[0].route[0].{field}: "),
        );
    }
}

#[test]
fn what_a_node_would_refuse_is_invalid() {
    for headers in [
        json!({"request": {"set": {"transfer-encoding": "chunked"}}}),
        json!({"request": {"set": {"Host": "not a host"}}}),
    ] {
        let route = json!([{"destination": {"host": "sa-logic"}}]);
        let world = World::with_rules(json!([{"headers": headers, "route": route}]));
        assert!(world.is_held(), "{headers}");
        assert_has(&world.findings(), "Accepted=False Invalid spec.http[0]: ");
    }
}

#[test]
fn rewrite_and_headers_cannot_both_set_the_authority() {
    let host = json!({"request": {"set": {"Host": "b"}}});
    let route = json!([{"destination": {"host": "sa-logic"}}]);
    for rule in [
        json!({"rewrite": {"authority": "a"}, "headers": host, "route": route}),
        json!({"rewrite": {"authority": "a"}, "route": [entry(None, host.clone())]}),
    ] {
        let world = World::with_rules(json!([rule]));
        assert!(world.is_held(), "{rule}");
        assert_has(&world.findings(), "Accepted=False Invalid spec.http[0].rewrite.authority: ");
    }
    let world = World::with_rules(json!([{"rewrite": {"uri": "/a"}, "headers": host, "route": route}]));
    assert!(!world.is_held());
}
