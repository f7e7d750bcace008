//! What authors of objects that govern nothing are told.

use serde_json::{Value, json};
use umbra_index::Kind;

use crate::world::{World, to, versions};

fn of_vs(spec: Value) -> Vec<String> {
    let mut world = World::new();
    world.virtual_service("default/a", spec);
    world.object_findings(Kind::VirtualService, "default/a")
}

fn of_dr(spec: Value) -> Vec<String> {
    let mut world = World::new();
    world.destination_rule("default/a", spec);
    world.object_findings(Kind::DestinationRule, "default/a")
}

#[track_caller]
fn assert_starts(findings: &[String], starts: &[&str]) {
    let is_so =
        findings.len() == starts.len() && findings.iter().zip(starts).all(|(f, start)| f.starts_with(start));
    assert!(is_so, "{findings:#?} should start {starts:#?}");
}

#[test]
fn virtual_services_that_govern_nothing() {
    let http = json!([{"route": [to("v1")]}]);
    let cases: Vec<(Value, &[&str])> = vec![
        (json!({"hosts": ["sa-logic"], "http": http}), &[]),
        (
            json!({"hosts": ["*"], "gateways": ["g"], "http": http}),
            &["Accepted=False NotForMesh spec.gateways: "],
        ),
        (
            json!({"hosts": ["absent"], "http": http}),
            &["ResolvedRefs=False HostNotFound spec.hosts[0]: Service absent.default"],
        ),
        (
            json!({"hosts": ["sa-logic.default"], "http": http}),
            &["Accepted=False UnsupportedHost spec.hosts[0]: "],
        ),
        (
            json!({"hosts": ["*.example.com"], "http": http}),
            &["Accepted=False UnsupportedHost spec.hosts[0]: "],
        ),
        (
            json!({"hosts": ["a.example.com", "sa-logic"], "http": http}),
            &["PartiallyInvalid spec.hosts[0]: "],
        ),
        (json!({"hosts": [], "http": http}), &["NotDelegatedTo spec.hosts: "]),
        (json!({"hosts": ["*.default.svc.cluster.local"], "http": http}), &[]),
        (
            json!({"hosts": ["sa-logic"], "tcp": http}),
            &["UnsupportedField spec.tcp: ", "Accepted=False NoHttpRule spec.http: "],
        ),
        (json!({"hosts": ["sa-logic"]}), &["Accepted=False Invalid spec.http: http, tcp or tls must be"]),
        // Also where no service asks for it.
        (
            json!({"hosts": ["absent"], "http": [{"timeout": "0s", "route": [to("v1")]}]}),
            &[
                "Accepted=False Invalid spec.http[0].timeout: \"0s\" is too short; must be at least 1ms",
                "ResolvedRefs=False HostNotFound spec.hosts[0]: ",
            ],
        ),
    ];
    for (spec, starts) in cases {
        assert_starts(&of_vs(spec), starts);
    }
}

#[test]
fn destination_rules() {
    let with = |extra: Value| {
        let mut spec = versions("sa-logic");
        spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        spec
    };
    let cases: Vec<(Value, &[&str])> = vec![
        (with(json!({})), &[]),
        (with(json!({"exportTo": ["*"]})), &[]),
        (with(json!({"host": "*.local"})), &[]),
        (
            with(json!({"host": "absent"})),
            &["ResolvedRefs=False HostNotFound spec.host: Service absent.default"],
        ),
        (with(json!({"host": "sa-logic.default"})), &["ResolvedRefs=False UnsupportedHost spec.host: "]),
        (with(json!({"trafficPolicy": {"tls": {}}})), &["PartiallyInvalid spec.trafficPolicy: "]),
        (with(json!({"workloadSelector": {"matchLabels": {"a": "b"}}, "exportTo": ["."]})), &[]),
        (
            with(json!({"workloadSelector": {"matchLabels": {"a": "b"}}, "exportTo": ["other"]})),
            &[
                "Accepted=False Invalid spec.exportTo[0]: \"other\": a destination rule with a workload selector",
            ],
        ),
        (
            with(json!({"exportTo": ["other", "*"]})),
            &["Accepted=False Invalid spec.exportTo[1]: \"*\" stands alone"],
        ),
        (
            with(json!({"subsets": [{"name": "a", "trafficPolicy": {"x": 1}}, {"name": "a"}]})),
            &[
                "PartiallyInvalid spec.subsets[0].trafficPolicy: ",
                "Accepted=False Invalid spec.subsets[1].name: \"a\" appears twice",
            ],
        ),
    ];
    for (spec, starts) in cases {
        assert_starts(&of_dr(spec), starts);
    }
    assert_eq!(World::new().object_findings(Kind::DestinationRule, "default/absent"), [""; 0]);
}
