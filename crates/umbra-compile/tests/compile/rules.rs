//! One VirtualService's rules: matches, weights, mirrors, destinations.

use serde_json::{Value, json};
use umbra_compile::Outcome;
use umbra_routing::{HeaderMatch, RequestMatch, StringMatch};

use crate::world::{World, assert_has, backend, to};

#[test]
fn the_article() {
    let world =
        World::with_rules(json!([{"route": [to("v1")], "mirror": {"host": "sa-logic", "subset": "v2"}}]));
    let compiled = world.compile("default/sa-logic");
    let table = world.table();
    assert_eq!(table.addresses, ["10.96.0.1".parse::<std::net::IpAddr>().unwrap()]);
    let rules = world.rules();
    assert_eq!((rules.len(), table.ports.len(), table.ports[0].variants.len()), (1, 1, 1));
    assert_eq!((rules[0].name.as_str(), rules[0].matches.len()), ("http[0]", 0));
    assert_eq!(rules[0].destinations[0].backend, backend("default/sa-logic", 80, "v1"));
    assert_eq!(rules[0].mirrors[0].backend, backend("default/sa-logic", 80, "v2"));
    assert_eq!(rules[0].mirrors[0].per_million, 1_000_000);
    assert_eq!(compiled.findings, []);
    let governed: Vec<_> = compiled.governed_by.iter().map(|object| object.name().to_string()).collect();
    assert_eq!(governed, ["virtualservice default/sa-logic", "destinationrule default/sa-logic"]);
    assert!(table.unresolved_primary().is_none());
    assert_eq!(umbra_compile::backend_refs(&table).len(), 2);
}

#[test]
fn mirror_shares_are_istios() {
    let cases: &[(Value, &[u32])] = &[
        (json!({}), &[1_000_000]),
        (json!({"mirrorPercentage": {"value": 25.0}}), &[250_000]),
        (json!({"mirrorPercentage": {"value": 0.00019}}), &[1]),
        (json!({"mirrorPercentage": {"value": 0.00009}}), &[]),
        (json!({"mirrorPercentage": {}}), &[]),
        (json!({"mirrorPercentage": {}, "mirrorPercent": 50}), &[]),
        (json!({"mirrorPercentage": null, "mirrorPercent": 50}), &[500_000]),
        (json!({"mirrorPercent": 50, "mirror_percent": 20}), &[500_000]),
        (json!({"mirror_percent": 20}), &[200_000]),
        (json!({"mirrorPercent": 0}), &[]),
        (
            json!({"mirrors": [{"destination": {"host": "reviews"}, "percentage": {"value": 10.0}},
                            {"destination": {"host": "sa-logic"}},
                            {"destination": {"host": "sa-logic"}},
                            {"destination": {"host": "sa-logic"}, "percentage": {}}],
                "mirror": null, "mirrorPercentage": {"value": 5.0}}),
            &[100_000, 1_000_000, 1_000_000],
        ),
    ];
    for (extra, expected) in cases {
        let mut rule = json!({"route": [to("v1")], "mirror": {"host": "sa-logic", "subset": "v2"}});
        rule.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let world = World::with_rules(json!([rule]));
        let shares: Vec<_> = world.rules()[0].mirrors.iter().map(|mirror| mirror.per_million).collect();
        assert_eq!(shares, *expected, "{extra}");
    }
}

#[test]
fn mirrors_that_make_no_sense_hold() {
    let several = |policy: Value| json!({"mirrors": [policy]});
    for (mirror, field) in [
        (
            json!({"mirror": {"host": "a"}, "mirrors": [{"destination": {"host": "b"}}]}),
            "mirrors: HTTP route cannot",
        ),
        (
            json!({"mirror": {"host": "a"}, "mirrorPercentage": {"value": 150.0}}),
            "mirrorPercentage.value: 150 is",
        ),
        (json!({"mirror": {"host": "a"}, "mirrorPercent": -1}), "mirrorPercent: -1 is"),
        (
            several(json!({"destination": {"host": "a"}, "percentage": {"value": -1}})),
            "mirrors[0].percentage.value: -1",
        ),
        (json!({"mirror": {"host": ""}}), "mirror.host: \"\" is not the name of a service"),
        (several(json!({})), "mirrors[0].destination.host: \"\" is"),
        (json!({"mirror": {"host": "a", "subset": "v_2"}}), "mirror.subset: \"v_2\" is not a DNS label"),
        (json!({"mirror": {"host": "a", "port": {}}}), "mirror.port.number: 0 is no port"),
    ] {
        let mut rule = json!({"route": [to("v1")]});
        rule.as_object_mut().unwrap().extend(mirror.as_object().unwrap().clone());
        let world = World::with_rules(json!([rule]));
        assert!(world.is_held(), "{mirror}");
        assert_has(&world.findings(), &format!("Accepted=False Invalid spec.http[0].{field}"));
    }
}

#[test]
fn weights_share_and_a_single_destination_gets_all() {
    let weighted = |weights: &[Value]| {
        let route = weights.iter().enumerate().map(|(index, weight)| {
            let mut to = to(if index == 0 { "v1" } else { "v2" });
            to["weight"] = weight.clone();
            to
        });
        World::with_rules(json!([{"route": route.collect::<Vec<_>>()}]))
    };
    let shares = |weights: &[Value]| {
        let rules = weighted(weights).rules();
        let share = |to: &umbra_routing::WeightedBackend| (to.backend.subset.clone().unwrap(), to.weight);
        rules[0].destinations.iter().map(share).collect::<Vec<_>>()
    };
    let (v1, v2) = ("v1".to_owned(), "v2".to_owned());
    assert_eq!(shares(&[json!(80), json!(20)]), [(v1.clone(), 80), (v2.clone(), 20)]);
    assert_eq!(shares(&[json!(0), json!(20)]), [(v2.clone(), 20)]);
    assert_eq!(shares(&[json!(7), Value::Null]), [(v1.clone(), 7)]);
    for single in [json!(0), json!(30), Value::Null] {
        assert_eq!(shares(&[single]), [(v1.clone(), 1)]);
    }
    for (nonsense, path) in [
        ([json!(0), json!(0)], "spec.http[0].route: total destination weight = 0"),
        ([Value::Null, Value::Null], "spec.http[0].route: total destination weight = 0"),
        ([json!(50), json!(-1)], "spec.http[0].route[1].weight: -1 is negative"),
        ([json!(50), json!(1_u64 << 31)], "spec.http[0].route[1].weight: 2147483648 is too much"),
    ] {
        let world = weighted(&nonsense);
        assert!(matches!(world.compile("default/sa-logic").outcome, Outcome::Hold(_)), "{nonsense:?}");
        assert_has(&world.findings(), &format!("Accepted=False Invalid {path}"));
    }
}

fn matches_of(block: Value) -> (Vec<RequestMatch>, Vec<String>) {
    let world = World::with_rules(json!([{"match": [block], "route": [to("v1")]}]));
    // A single rule with a condition leaves requests over, which is said and not the matter here.
    let of_blocks = |finding: &String| !finding.starts_with("NoFallback");
    (world.rules()[0].matches.clone(), world.findings().into_iter().filter(of_blocks).collect())
}

#[test]
fn conditions_are_translated() {
    let (blocks, findings) = matches_of(json!({
        "name": "n", "uri": {"prefix": "/a"}, "method": {"exact": "GET"}, "queryParams": {}, "gateways": null,
        "headers": {"X-A": {"regex": "a+"}, "x-b": {}, "x-c": {"regex": "*"}, "x-d": {"exact": ""}},
    }));
    let header = |name: &str, value| HeaderMatch { name: name.into(), value };
    assert_eq!(blocks[0].uri, Some(StringMatch::Prefix("/a".into())));
    assert_eq!(blocks[0].method, Some(StringMatch::Exact("GET".into())));
    assert_eq!(
        blocks[0].headers,
        [
            header("x-a", StringMatch::Regex("a+".into())),
            header("x-b", StringMatch::Present),
            header("x-c", StringMatch::Present),
            header("x-d", StringMatch::Exact(String::new())),
        ]
    );
    assert!(!blocks[0].never);
    assert_eq!(findings, Vec::<String>::new());
}

#[test]
fn what_umbra_does_not_know_never_matches() {
    for (block, path) in [
        (json!({"uri": {"exact": "/"}, "cookies": {"a": "b"}}), "spec.http[0].match[0].cookies"),
        (json!({"authority": {"suffix": "x"}}), "spec.http[0].match[0].authority.suffix"),
        (json!({"queryParams": {"a": {"suffix": "x"}}}), "spec.http[0].match[0].queryParams[a].suffix"),
        (json!({"uri": {"suffix": "x"}}), "spec.http[0].match[0].uri.suffix"),
        (json!({"headers": {":other": {"exact": "/"}}}), "spec.http[0].match[0].headers[:other]"),
    ] {
        let (blocks, findings) = matches_of(block.clone());
        assert_eq!(
            blocks.len(),
            1,
            "a rule whose only block is unknown must not become a catch-all: {block}"
        );
        assert!(blocks[0].never, "{block}");
        assert_has(&findings, &format!("PartiallyInvalid {path}"));
        assert!(findings.iter().all(|finding| !finding.contains("=False")), "{findings:?}");
    }
}

#[test]
fn what_no_proxy_could_match_holds() {
    for (block, says) in [
        (
            json!({"uri": {"regex": "a("}}),
            "match[0].uri.regex: regex \"a(\" does not compile: unclosed group",
        ),
        (json!({"uri": {"regex": "a)(b"}}), "does not compile"),
        (json!({"uri": {"regex": "a".repeat(1025)}}), "match[0].uri.regex: invalid regex: 1025 bytes"),
        (json!({"uri": {"regex": ""}}), "match[0].uri.regex: is empty"),
        (json!({"method": {"regex": "*"}}), "match[0].method.regex"),
        (json!({"headers": {"x": {"prefix": ""}}}), "match[0].headers[x].prefix: is empty"),
    ] {
        let world = World::with_rules(json!([{"match": [block], "route": [to("v1")]}]));
        assert!(matches!(world.compile("default/sa-logic").outcome, Outcome::Hold(_)), "{block}");
        let found = world.findings();
        assert_eq!(found.len(), 1, "one fault is said once: {found:?}");
        assert_has(&found, "Accepted=False Invalid spec.http[0].");
        assert_has(&found, says);
    }
}

#[test]
fn a_rule_that_takes_everything_ends_the_list() {
    let names = |first: Value| {
        let world = World::with_rules(json!([
            {"name": "first", "match": first, "route": [to("v1")]}, {"name": "second", "route": [to("v2")]}]));
        world.rules().iter().map(|rule| rule.name.clone()).collect::<Vec<_>>()
    };
    for all in [
        json!([]),
        json!(null),
        json!([{}]),
        json!([{"name": "n"}]),
        json!([{"uri": {"prefix": ""}}]),
        json!([{"uri": {"exact": "/x"}}, {"uri": {"prefix": "/"}}]),
        json!([{"uri": {"regex": ".*"}}]),
        json!([{"uri": {}}]),
    ] {
        assert_eq!(names(all.clone()), ["first"], "{all}");
    }
    for some in [
        json!([{"uri": {"prefix": "/a"}}]),
        json!([{"uri": {"prefix": "/"}, "headers": {"x": {}}}]),
        json!([{"uri": {"prefix": "/"}, "method": {"exact": "GET"}}]),
        json!([{"sourceLabels": {"app": "web"}}]),
    ] {
        assert_eq!(names(some.clone()), ["first", "second"], "{some}");
    }
    let world = World::with_rules(json!([{"route": [to("v1")]}, {"route": [to("v2")]}]));
    assert_has(
        &world.findings(),
        "UnreachableRule spec.http[1]: virtualService rule #1 not used (only the last rule can have no matches): spec.http[0]",
    );
}

#[test]
fn fields_that_umbra_does_not_know_hold() {
    for (extra, path) in [
        (json!({"later": {"a": 1}}), "spec.http[0].later"),
        (
            json!({"route": [{"destination": {"host": "sa-logic", "zone": "a"}}]}),
            "spec.http[0].route[0].destination.zone",
        ),
        (json!({"timeout": "1s", "retries": {"attempts": 1, "later": 1}}), "spec.http[0].retries.later"),
        (
            json!({"mirrors": [{"destination": {"host": "sa-logic"}, "later": 1}]}),
            "spec.http[0].mirrors[0].later",
        ),
        (json!({"mirror": {"host": "sa-logic", "later": 1}}), "spec.http[0].mirror.later"),
        (
            json!({"mirror": {"host": "sa-logic"}, "mirrorPercentage": {"value": 5, "later": 1}}),
            "spec.http[0].mirrorPercentage.later",
        ),
        (
            json!({"mirrors": [{"destination": {"host": "sa-logic"}, "percentage": {"later": 1}}]}),
            "spec.http[0].mirrors[0].percentage.later",
        ),
        (
            json!({"mirror": {"host": "sa-logic", "port": {"number": 80, "name": "x"}}}),
            "spec.http[0].mirror.port.name",
        ),
    ] {
        let mut rule = json!({"route": [to("v1")]});
        rule.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let world = World::with_rules(json!([rule]));
        assert!(matches!(world.compile("default/sa-logic").outcome, Outcome::Hold(_)), "{extra}");
        assert_has(
            &world.findings(),
            &format!("Accepted=False UnsupportedField {path}: umbra does not support"),
        );
    }
}

#[test]
fn rules_for_other_protocols_are_left_out_and_unknown_fields_hold() {
    let http = json!([{"route": [{"destination": {"host": "sa-logic"}}]}]);
    let world = |field: &str, value: Value| {
        let mut world = World::new();
        world.virtual_service("default/a", json!({"hosts": ["sa-logic"], "http": http, field: value}));
        world
    };
    let route = json!([{"destination": {"host": "sa-logic"}}]);
    for (field, rule) in [
        ("tcp", json!({"route": route})),
        ("tls", json!({"match": [{"sniHosts": ["sa-logic"]}], "route": route})),
    ] {
        let world = world(field, json!([rule]));
        assert_eq!(world.rules().len(), 1, "{field}");
        assert_has(&world.findings(), &format!("PartiallyInvalid spec.{field}"));
    }
    let later = world("later", json!([{}]));
    assert!(matches!(later.compile("default/sa-logic").outcome, Outcome::Hold(_)));
    assert_has(&later.findings(), "Accepted=False UnsupportedField spec.later");
}

/// A destination, the reason, and part of the message.
fn unresolved() -> Vec<(Value, &'static str, &'static str)> {
    vec![
        (
            json!({"host": "sa-logic", "subset": "v9"}),
            "SubsetNotFound",
            "subset \"v9\" is not defined by any DestinationRule for sa-logic.default.svc.cluster.local \
          (destinationrule default/sa-logic defines: v1, v2)",
        ),
        (
            json!({"host": "reviews", "subset": "v1", "port": {"number": 9080}}),
            "SubsetNotFound",
            "for reviews.default",
        ),
        (
            json!({"host": "absent"}),
            "HostNotFound",
            "Service absent.default.svc.cluster.local does not exist",
        ),
        (json!({"host": "ratings.other"}), "HostNotFound", "write \"ratings.other.svc.cluster.local\""),
        (json!({"host": "ratings.other.svc"}), "HostNotFound", "write \"ratings.other.svc.cluster.local\""),
        (json!({"host": "10.0.0.1"}), "HostNotFound", "is not the name of a Service"),
        (json!({"host": "SA-LOGIC"}), "HostNotFound", "Service SA-LOGIC.default"),
        (
            json!({"host": "sa-logic.default.svc.cluster.local."}),
            "HostNotFound",
            "is not the name of a Service",
        ),
        (
            json!({"host": "reviews"}),
            "PortNotFound",
            "has no TCP port 80, which is the one clients use here; it has 9080, 9081",
        ),
        (
            json!({"host": "sa-logic", "port": {"number": 81}}),
            "PortNotFound",
            "has no TCP port 81; it has 80",
        ),
    ]
}

#[test]
fn destinations_that_do_not_resolve_keep_their_place() {
    for (to, reason, says) in unresolved() {
        let world = World::with_rules(json!([{"route": [
            {"destination": {"host": "sa-logic", "subset": "v1"}, "weight": 80}, {"destination": to, "weight": 20}]}]));
        let rule = &world.rules()[0];
        assert_eq!(rule.destinations.iter().map(|to| to.weight).collect::<Vec<_>>(), [80, 20], "{to}");
        assert!(
            rule.destinations[1].backend.is_unresolved() && world.table().unresolved_primary().is_some(),
            "{to}"
        );
        assert_eq!(umbra_compile::backend_refs(&world.table()).len(), 1);
        assert_has(
            &world.findings(),
            &format!("ResolvedRefs=False {reason} spec.http[0].route[1].destination: "),
        );
        assert_has(&world.findings(), says);
    }
}

#[test]
fn a_mirror_that_does_not_resolve_is_only_a_finding() {
    let world = World::with_rules(json!([{"route": [to("v1")], "mirror": {"host": "absent"}}]));
    assert!(world.rules()[0].mirrors[0].backend.is_unresolved());
    assert!(world.table().unresolved_primary().is_none());
    assert_has(&world.findings(), "ResolvedRefs=False HostNotFound spec.http[0].mirror: Service absent");
}

#[test]
fn an_absent_port_is_the_clients() {
    let mut world = World::new();
    let route = json!([{"destination": {"host": "reviews"}}]);
    world.virtual_service("default/reviews", json!({"hosts": ["reviews"], "http": [{"route": route}]}));
    let Outcome::Table(table) = world.compile("default/reviews").outcome else { panic!("no table") };
    let ports =
        |port: &umbra_routing::Port| (port.number, port.variants[0].rules[0].destinations[0].backend.port);
    assert_eq!(table.ports.iter().map(ports).collect::<Vec<_>>(), [(9080, 9080), (9081, 9081)]);
}

#[test]
fn what_one_namespace_writes_leaves_no_other_unresolved() {
    let mut world = World::with_rules(json!([{"route": [to("v1")]}]));
    world.destination_rule("other/all", json!({"host": "*.local"}));
    let table = world.table();
    assert!(
        table.ports[0].unresolved_primary(Some("other")).is_some(),
        "their own clients meet it: {table:?}"
    );
    assert_eq!(table.ports[0].unresolved_primary(None), None);
    assert_eq!(table.unresolved_primary(), None);
}

#[test]
fn one_port_that_resolves_is_enough() {
    let mut world = World::new();
    let route = json!([{"destination": {"host": "ratings.other.svc.cluster.local"}}]);
    world.virtual_service("default/reviews", json!({"hosts": ["reviews"], "http": [{"route": route}]}));
    let Outcome::Table(mut table) = world.compile("default/reviews").outcome else { panic!("no table") };
    let unresolved =
        |number| table.ports.iter().find(|port| port.number == number).unwrap().unresolved_primary(None);
    assert!(unresolved(9080).is_none() && unresolved(9081).is_some());
    assert_eq!(table.unresolved_primary(), None);
    table.ports.retain(|port| port.number == 9081);
    assert!(table.unresolved_primary().is_some());
}
