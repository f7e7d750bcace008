//! Delegates (spec/istio.md 1A, 4.7).

use serde_json::{Value, json};
use umbra_index::Kind;
use umbra_routing::{RequestMatch, Rule, StringMatch};

use crate::world::{World, assert_has, to};

/// `root` of sa-logic with these rules, and its delegate `default/api`.
fn world(root: Value, delegate: Value) -> World {
    let mut world = World::new();
    world.versions();
    world.virtual_service("default/root", json!({"hosts": ["sa-logic"], "http": root}));
    world.virtual_service("default/api", json!({"http": delegate}));
    world
}

fn names(rules: &[Rule]) -> Vec<&str> {
    rules.iter().map(|rule| rule.name.as_str()).collect()
}

fn api(fields: Value) -> Value {
    let mut rule =
        json!({"name": "root", "match": [{"uri": {"prefix": "/api"}}], "delegate": {"name": "api"}});
    rule.as_object_mut().expect("a rule").extend(fields.as_object().expect("fields").clone());
    rule
}

fn last() -> Value {
    json!({"name": "last", "route": [to("v1")]})
}

#[test]
fn its_rules_stand_in_for_the_rule_that_names_it() {
    let world = world(
        json!([api(json!({})), last()]),
        json!([
            {"name": "one", "match": [{"uri": {"exact": "/api/1"}, "method": {"exact": "GET"}}], "route": [to("v2")]},
            {"route": [to("v1")]}]),
    );
    let rules = world.rules();
    assert_eq!(names(&rules), ["root-one", "root", "last"]);
    let block = RequestMatch {
        uri: Some(StringMatch::Exact("/api/1".into())),
        method: Some(StringMatch::Exact("GET".into())),
        ..RequestMatch::default()
    };
    assert_eq!(rules[0].matches, [block]);
    let outer = RequestMatch { uri: Some(StringMatch::Prefix("/api".into())), ..RequestMatch::default() };
    assert_eq!(rules[1].matches, [outer], "a rule without a match has the root's");
    assert_eq!(world.findings(), Vec::<String>::new());
    let governed: Vec<_> = world
        .compile("default/sa-logic")
        .governed_by
        .iter()
        .map(|object| object.name().to_string())
        .collect();
    assert!(governed.contains(&"virtualservice default/api".to_owned()), "{governed:?}");
}

#[test]
fn a_block_outside_the_roots_drops_its_rule() {
    let kept = |root: Value, own: Value| {
        let root = json!([{"match": [root], "delegate": {"name": "api"}}, last()]);
        let world = world(root, json!([{"name": "own", "match": [own], "route": [to("v2")]}]));
        let is_kept = world.rules().iter().any(|rule| rule.name == "own");
        let is_said =
            world.findings().iter().any(|f| f.starts_with("PartiallyInvalid spec.http[0].delegate: "));
        assert_eq!(is_kept, !is_said);
        is_kept
    };
    let uri = |how: &str, path: &str| json!({"uri": {how: path}});
    for (root, own, is_inside) in [
        (uri("prefix", "/api"), uri("prefix", "/api/x"), true),
        (uri("prefix", "/api"), uri("prefix", "/apix"), true),
        (uri("prefix", "/api"), uri("exact", "/api"), true),
        (uri("prefix", "/api"), uri("prefix", "/ap"), false),
        (uri("prefix", "/api"), uri("regex", "/api/.*"), false),
        (uri("regex", "/api/.*"), uri("regex", "/api/.*"), false),
        (uri("exact", "/a"), uri("exact", "/a"), true),
        (uri("exact", "/a"), uri("prefix", "/a"), false),
        (json!({"method": {"exact": "GET"}}), json!({"method": {"exact": "PUT"}}), false),
        (json!({"method": {"exact": "GET"}}), uri("exact", "/a"), true),
        (json!({"headers": {"x-a": {"exact": "1"}}}), json!({"headers": {"x-a": {"exact": "2"}}}), false),
        (json!({"headers": {"x-a": {"exact": "1"}}}), json!({"headers": {"x-b": {"exact": "2"}}}), true),
        (json!({"queryParams": {"k": {"exact": "1"}}}), json!({"queryParams": {"k": {"exact": "2"}}}), false),
        (
            json!({"withoutHeaders": {"k": {"exact": "1"}}}),
            json!({"withoutHeaders": {"k": {"exact": "2"}}}),
            false,
        ),
        (json!({"port": 80}), json!({"port": 81}), false),
        (json!({"port": 80}), json!({"sourceLabels": {"a": "b"}}), true),
        (json!({"sourceLabels": {"a": "b"}}), json!({"sourceLabels": {"a": "c"}}), false),
        (json!({"sourceNamespace": "default"}), json!({"sourceNamespace": "other"}), false),
        (json!({"ignoreUriCase": true}), uri("exact", "/a"), false),
        (json!({"gateways": ["mesh"]}), json!({"gateways": ["mesh", "public"]}), false),
    ] {
        let (a, b) = (root.to_string(), own.to_string());
        if own["sourceLabels"].is_null() && own["sourceNamespace"].is_null() {
            assert_eq!(kept(root, own), is_inside, "{b} in {a}");
        } else {
            let world = world(
                json!([{"match": [root], "delegate": {"name": "api"}}]),
                json!([{"match": [own], "route": [to("v2")]}]),
            );
            let dropped =
                world.findings().iter().any(|f| f.starts_with("PartiallyInvalid spec.http[0].delegate: "));
            assert_eq!(!dropped, is_inside, "{b} in {a}");
        }
    }
}

#[test]
fn one_block_outside_drops_the_whole_rule() {
    let own = json!([{"name": "own", "match": [{"uri": {"exact": "/api/1"}}, {"uri": {"exact": "/no"}}], "route": [to("v2")]}]);
    assert_eq!(names(&world(json!([api(json!({})), last()]), own).rules()), ["last"]);
}

#[test]
fn what_it_does_not_say_it_takes_from_the_root_field_by_field() {
    let root = json!({"timeout": "1s", "rewrite": {"uri": "/r"}, "retries": {"attempts": 5}, "corsPolicy": {"allowMethods": ["GET"]},
        "headers": {"request": {"set": {"x-root": "1"}}}, "fault": {"abort": {"httpStatus": 500, "percentage": {"value": 1.0}}},
        "mirror": {"host": "sa-logic", "subset": "v1"}, "mirrorPercentage": {"value": 10.0}});
    let plain = world(json!([api(root.clone())]), json!([{"route": [to("v2")]}])).rules().remove(0);
    assert_eq!((plain.timeout_ms, plain.retries.map(|retries| retries.attempts)), (Some(1000), Some(5)));
    assert!(plain.rewrite.is_some() && plain.fault.is_some() && plain.cors.is_some());
    assert_eq!(plain.headers.expect("headers").request.set, [("x-root".to_owned(), "1".to_owned())]);
    assert_eq!(plain.mirrors[0].per_million, 100_000);
    let own = json!([{"route": [to("v2")], "timeout": "2s", "retries": {"attempts": 0}, "corsPolicy": {},
        "headers": {"response": {"remove": ["x-a"]}}, "mirror": {"host": "sa-logic", "subset": "v2"}}]);
    let own = world(json!([api(root.clone())]), own).rules().remove(0);
    assert_eq!((own.timeout_ms, &own.retries, &own.cors), (Some(2000), &None, &None));
    assert!(own.headers.as_ref().expect("headers").request.set.is_empty(), "headers only as a whole");
    let mirrors = |rule: &umbra_routing::Rule| {
        let mirrors = rule.mirrors.iter();
        mirrors.map(|mirror| (mirror.backend.subset.clone(), mirror.per_million)).collect::<Vec<_>>()
    };
    let (v1, v2) = (Some("v1".to_owned()), Some("v2".to_owned()));
    assert_eq!(mirrors(&own), [(v2, 100_000)], "the root's share is that of its own mirror");
    let several = json!([{"route": [to("v2")], "mirrors": [{"destination": {"host": "sa-logic"}}]}]);
    let several = world(json!([api(root)]), several).rules().remove(0);
    assert_eq!(mirrors(&several), [(v1, 100_000), (None, 1_000_000)], "both copy");
}

#[test]
fn a_direct_response_of_the_root_is_taken() {
    let world =
        world(json!([api(json!({"directResponse": {"status": 299}}))]), json!([{"route": [to("v2")]}]));
    assert!(
        matches!(&world.rules()[0].answer, Some(umbra_routing::Answer::Direct(direct)) if direct.status == 299)
    );
}

#[test]
fn short_names_are_of_the_object_that_writes_them() {
    let mut world = World::new();
    let root = json!({"delegate": {"name": "api", "namespace": "other"}, "mirror": {"host": "sa-logic"}});
    world.virtual_service("default/root", json!({"hosts": ["sa-logic"], "http": [root]}));
    let route = json!([{"destination": {"host": "ratings", "port": {"number": 9080}}}]);
    world.virtual_service("other/api", json!({"http": [{"route": route}]}));
    let rule = &world.rules()[0];
    let name = |backend: &umbra_routing::BackendRef| backend.service.fqdn();
    assert_eq!(name(&rule.destinations[0].backend), "ratings.other.svc.cluster.local");
    assert_eq!(name(&rule.mirrors[0].backend), "sa-logic.default.svc.cluster.local");
    let nowhere = json!([{"destination": {"host": "nowhere"}}]);
    world.virtual_service("other/api", json!({"http": [{"route": nowhere}]}));
    let compiled = world.compile("default/sa-logic");
    let finding =
        compiled.findings.iter().find(|finding| finding.path == "spec.http[0].route[0].destination");
    assert_eq!(finding.expect("a finding").object.key.to_string(), "other/api", "whose mistake it is");
}

#[test]
fn a_delegate_that_is_none_leaves_its_rule_out() {
    let rules = json!([{"name": "own", "route": [to("v2")]}]);
    for (spec, why) in [
        (json!({"hosts": ["api.example.com"], "http": rules}), "has hosts of its own"),
        (json!({"http": [{"delegate": {"name": "more"}}]}), "delegates itself"),
        (json!({"exportTo": ["other"], "http": rules}), "is not exported"),
    ] {
        let mut world = World::new();
        world.versions();
        world.virtual_service(
            "default/root",
            json!({"hosts": ["sa-logic"], "http": [api(json!({})), last()]}),
        );
        world.virtual_service("default/api", spec.clone());
        assert_eq!(names(&world.rules()), ["last"], "{spec}");
        assert_has(&world.findings(), "ResolvedRefs=False DelegateNotFound spec.http[0].delegate: ");
        assert_has(&world.findings(), why);
    }
    for delegate in [json!({"name": "absent"}), json!({"name": "api", "namespace": "other"})] {
        let world = world(json!([api(json!({"delegate": delegate})), last()]), rules.clone());
        assert_eq!(names(&world.rules()), ["last"], "{delegate}");
        assert_has(&world.findings(), "does not exist");
    }
    let exported = json!({"exportTo": ["."], "http": rules});
    let mut fine = world(json!([api(json!({})), last()]), json!([]));
    fine.virtual_service("default/api", exported);
    assert_eq!(names(&fine.rules()), ["root-own", "last"]);
}

#[test]
fn only_a_missing_delegate_claims_nothing() {
    let mut world = World::new();
    world.virtual_service(
        "default/old",
        json!({"hosts": ["sa-logic"], "http": [{"delegate": {"name": "absent"}}]}),
    );
    world.virtual_service("default/new", json!({"hosts": ["sa-logic"], "http": [last()]}));
    world.versions();
    assert_eq!(names(&world.rules()), ["last"]);
}

#[test]
fn an_invalid_delegate_holds_its_root() {
    let world = world(json!([api(json!({})), last()]), json!([{"route": [to("v2")], "timeout": "soon"}]));
    assert!(world.is_held());
    assert_has(
        &world.findings(),
        "ResolvedRefs=False DelegateNotFound spec.http[0].delegate: virtualservice default/api is invalid",
    );
    let own = world.object_findings(Kind::VirtualService, "default/api");
    assert_has(&own, "Accepted=False Invalid spec.http[0].timeout: ");
}

#[test]
fn what_a_delegate_cannot_have() {
    for (spec, field) in [
        (json!({"gateways": ["mesh"], "http": [last()]}), "spec.gateways"),
        (json!({"tcp": [{}], "http": [last()]}), "spec.tcp"),
        (json!({"http": [{"delegate": {"name": "b"}}]}), "spec.http[0].delegate"),
    ] {
        let mut world = World::new();
        world.virtual_service("default/a", spec);
        let found = world.object_findings(Kind::VirtualService, "default/a");
        assert_has(&found, &format!("Accepted=False Invalid {field}: "));
    }
    for (beside, field) in
        [(json!({"route": [to("v1")]}), "route"), (json!({"redirect": {"uri": "/"}}), "redirect")]
    {
        let world = world(json!([api(beside), last()]), json!([{"route": [to("v2")]}]));
        assert!(world.is_held(), "{field}");
        assert_has(
            &world.findings(),
            &format!("Accepted=False Invalid spec.http[0].{field}: root HTTP route must not specify {field}"),
        );
    }
}

#[test]
fn a_delegate_is_told_whether_anybody_uses_it() {
    let found = |world: &World| world.object_findings(Kind::VirtualService, "default/api");
    let used = world(json!([api(json!({}))]), json!([last()]));
    assert_eq!(found(&used), Vec::<String>::new());
    let unused = world(json!([last()]), json!([last()]));
    assert_has(&found(&unused), "NotDelegatedTo spec.hosts: ");
}
