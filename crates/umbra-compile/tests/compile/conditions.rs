//! Conditions: what nodes test, and what is decided before, by client and port (spec/istio.md 1A, 4.1).

use serde_json::{Value, json};
use umbra_routing::{HeaderMatch, QueryMatch, RequestMatch, StringMatch};

use crate::world::{World, assert_has, to};

fn block(block: Value) -> RequestMatch {
    let world = World::with_rules(json!([{"match": [block], "route": [to("v1")]}]));
    world.rules()[0].matches[0].clone()
}

#[test]
fn nodes_test_scheme_authority_headers_query_and_path() {
    let exact = |text: &str| StringMatch::Exact(text.into());
    let matched = block(json!({
        "uri": {"prefix": "/A"}, "ignoreUriCase": true, "scheme": {"exact": "https"}, "authority": {"regex": ".*:8080"},
        "withoutHeaders": {"X-Old": {}, "x-b": {"exact": ""}},
        "headers": {"HOST": {"exact": "a"}, ":path": {"prefix": "/a?"}},
        "queryParams": {"Key": {"exact": "1"}, "there": {}, "star": {"regex": "*"}},
        "sourceLabels": {"app": "web"}, "statPrefix": "s",
    }));
    let header = |name: &str, value| HeaderMatch { name: name.into(), value };
    let query = |name: &str, value| QueryMatch { name: name.into(), value };
    let expected = RequestMatch {
        uri: Some(StringMatch::Prefix("/A".into())),
        ignore_uri_case: true,
        scheme: Some(exact("https")),
        authority: Some(StringMatch::Regex(".*:8080".into())),
        headers: vec![header(":path", StringMatch::Prefix("/a?".into())), header("host", exact("a"))],
        without_headers: vec![header("x-old", StringMatch::Present), header("x-b", exact(""))],
        query: vec![
            query("Key", exact("1")),
            query("star", StringMatch::Present),
            query("there", StringMatch::Present),
        ],
        source_labels: [("app".to_owned(), "web".to_owned())].into(),
        ..RequestMatch::default()
    };
    assert_eq!(matched, expected);
}

#[test]
fn what_every_request_has_is_no_condition() {
    for words in [
        json!({"scheme": {}}),
        json!({"authority": {}}),
        json!({"method": {}}),
        json!({"sourceNamespace": ""}),
    ] {
        assert!(block(words.clone()).takes_everything(), "{words}");
    }
}

#[test]
fn nonsense_is_invalid() {
    for (block, field) in [
        (json!({"scheme": {"prefix": ""}}), "scheme.prefix"),
        (json!({"authority": {"regex": "("}}), "authority.regex"),
        (json!({"queryParams": {"a": {"prefix": ""}}}), "queryParams[a].prefix"),
        (json!({"withoutHeaders": {"a": {"regex": "a("}}}), "withoutHeaders[a].regex"),
        (json!({"port": 70000}), "port"),
        (json!({"port": 0}), "port"),
        (json!({"uri": {"exact": "/a", "prefix": "/"}}), "uri"),
        (json!({"headers": {"a b": {}}}), "headers[a b]"),
        (json!({"headers": {"@request.auth.claims": {}}}), "headers[@request.auth.claims]"),
        (json!({"sourceNamespace": "Not.A.Label"}), "sourceNamespace"),
        (json!({"sourceLabels": {"a b": "c"}}), "sourceLabels[a b]"),
        (json!({"sourceLabels": {"a": "-"}}), "sourceLabels[a]"),
    ] {
        let world = World::with_rules(json!([{"match": [block], "route": [to("v1")]}]));
        assert!(world.is_held(), "{block}");
        assert_has(&world.findings(), &format!("Accepted=False Invalid spec.http[0].match[0].{field}: "));
    }
    for fine in [json!({"sourceLabels": {"example.com/a": ""}}), json!({"sourceNamespace": "other"})] {
        assert!(!World::with_rules(json!([{"match": [fine], "route": [to("v1")]}])).is_held(), "{fine}");
    }
}

/// Rules of `default/reviews`, which has ports 9080 and 9081, as the names that clients get.
fn on_port(rules: Value, port: u16) -> Vec<String> {
    let mut world = World::new();
    world.virtual_service("default/reviews", json!({"hosts": ["reviews"], "http": rules}));
    world.rules_on("default/reviews", port, "default").into_iter().map(|rule| rule.name).collect()
}

#[test]
fn a_port_drops_the_block_on_other_ports() {
    let route = json!([{"destination": {"host": "reviews"}}]);
    let rules = json!([
        {"name": "alone", "match": [{"port": 9081}], "route": route},
        {"name": "either", "match": [{"port": 9081}, {"uri": {"exact": "/x"}}], "route": route},
        {"name": "last", "route": route}]);
    assert_eq!(on_port(rules.clone(), 9080), ["either", "last"], "its catch-all hides nothing there");
    assert_eq!(on_port(rules, 9081), ["alone"]);
    let only = json!([{"name": "only", "match": [{"port": 9081}], "route": route}]);
    assert_eq!(on_port(only, 9080), ["default"], "every rule filtered out");
    let with_gateways =
        json!([{"name": "only", "match": [{"port": 9081, "gateways": ["mesh"]}], "route": route}]);
    assert_eq!(on_port(with_gateways, 9080), ["default"], "also beside gateways");
}

#[test]
fn only_conditional_rules_leave_the_rest_without_a_rule() {
    let world =
        World::with_rules(json!([{"name": "r", "match": [{"uri": {"exact": "/a"}}], "route": [to("v1")]}]));
    assert_eq!(world.names_for("default"), ["r"]);
    assert_has(&world.findings(), "NoFallback spec.http: ");
}

#[test]
fn a_source_namespace_makes_a_variant() {
    let world = World::with_rules(json!([
        {"name": "theirs", "match": [{"sourceNamespace": "other"}], "route": [to("v2")]},
        {"name": "all", "route": [to("v1")]}]));
    assert_eq!(world.names_for("other"), ["theirs"]);
    for namespace in ["default", "third"] {
        assert_eq!(world.names_for(namespace), ["all"], "{namespace}");
    }
    let namespaces: Vec<_> =
        world.table().ports[0].variants.iter().map(|variant| variant.client_namespace.clone()).collect();
    assert_eq!(namespaces, [None, Some("other".to_owned())]);
    assert!(world.rules_for("other")[0].matches[0].takes_everything(), "nothing is left to test");
}

#[test]
fn clients_of_other_namespaces_get_the_services_default() {
    let world = World::with_rules(
        json!([{"name": "theirs", "match": [{"sourceNamespace": "other"}], "route": [to("v2")]}]),
    );
    assert_eq!(
        (world.names_for("other"), world.names_for("default")),
        (vec!["theirs".into()], vec!["default".into()])
    );
    let default = &world.rules_for("default")[0];
    assert_eq!(default.destinations[0].backend.subset, None);
    assert!(default.retries.is_some(), "a service retries without any VirtualService, too");
}

#[test]
fn gateways_in_a_match() {
    let names = |block: Value| {
        let rules = json!([{"name": "r", "match": [block], "route": [to("v2")]}, {"name": "last", "route": [to("v1")]}]);
        World::with_rules(rules).names_for("default")
    };
    assert_eq!(names(json!({"gateways": ["public"]})), ["last"]);
    assert_eq!(names(json!({"gateways": ["public", "mesh"]})), ["r"]);
    assert_eq!(names(json!({"gateways": ["mesh"], "sourceNamespace": "nowhere"})), ["r"]);
    assert_eq!(names(json!({"gateways": ["mesh"], "sourceLabels": {"app": "nobody"}})), ["r"]);
    assert_eq!(names(json!({"sourceNamespace": "nowhere"})), ["last"]);
}

#[test]
fn nothing_for_the_mesh_is_not_governed_and_said() {
    let world = World::with_rules(json!([{"match": [{"gateways": ["public"]}], "route": [to("v1")]}]));
    assert_eq!(world.compile("default/sa-logic").outcome, umbra_compile::Outcome::NotGoverned);
    assert_has(&world.findings(), "Accepted=False NoHttpRule spec.hosts[0]: ");
}

#[test]
fn clients_without_the_labels_are_left_to_the_next_virtual_service() {
    let labels = |app: &str| json!([{"sourceLabels": {"app": app}, "uri": {"prefix": "/a"}}]);
    let mut world = World::new();
    world.versions();
    world.virtual_service(
        "default/old",
        json!({"hosts": ["sa-logic"], "http": [{"name": "old", "match": labels("web"), "route": [to("v1")]}]}),
    );
    assert_eq!(world.names_for("default"), ["old", "unmatched", "default"]);
    world.virtual_service(
        "default/new",
        json!({"hosts": ["sa-logic"], "http": [{"name": "new", "route": [to("v2")]}]}),
    );
    let rules = world.rules_for("default");
    assert_eq!(rules.iter().map(|rule| rule.name.as_str()).collect::<Vec<_>>(), ["old", "unmatched", "new"]);
    let web = [("app".to_owned(), "web".to_owned())].into();
    assert_eq!(rules[1].matches, [RequestMatch { source_labels: web, ..RequestMatch::default() }]);
    assert_eq!(rules[1].answer, Some(umbra_routing::Answer::NoRoute), "as if the list ended there");
    assert!(world.findings().iter().all(|finding| !finding.contains("Conflicted")), "{:?}", world.findings());
    assert_eq!(world.table().rules_of.len(), 2);
}

#[test]
fn clients_with_the_labels_keep_their_catch_all() {
    let world = World::with_rules(json!([
        {"name": "web", "match": [{"sourceLabels": {"app": "web"}}], "route": [to("v2")]},
        {"name": "path", "match": [{"uri": {"prefix": "/a"}}], "route": [to("v1")]}]));
    assert_eq!(world.names_for("default"), ["web", "path"]);
    let only = World::with_rules(
        json!([{"name": "web", "match": [{"sourceLabels": {"app": "web"}}], "route": [to("v2")]}]),
    );
    assert_eq!(only.names_for("default"), ["web", "default"], "nothing is left over of them");
}
