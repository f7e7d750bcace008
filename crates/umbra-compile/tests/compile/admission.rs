//! What the admission policies refuse, where they are not installed: every case of theirs is `Accepted=False` at the field
//! that the policy names, and a VirtualService holds.

use serde::Deserialize;
use serde_json::Value;
use umbra_compile::{Condition, Finding, Outcome, Reason};
use umbra_index::Kind;

use crate::world::World;

#[derive(Deserialize)]
struct Case {
    told: String,
    object: Value,
}

fn cases(kind: &str) -> Vec<Case> {
    let text = include_str!("../../../umbra-api/tests/data/admission-cases.yaml");
    let mut cases: Vec<Case> = serde_saphyr::from_str(text).expect("the cases are YAML");
    cases.retain(|case| case.object["kind"] == kind);
    assert!(cases.len() > 30, "{} cases", cases.len());
    cases
}

/// `spec.http[0].match[1]` to `spec.http[].match[]`.
fn without_indexes(path: &str) -> String {
    let parts = path.split('[').map(|part| part.split_once(']').map_or(part, |(_, rest)| rest));
    parts.collect::<Vec<_>>().join("[]")
}

fn is_at(finding: &Finding, told: &str) -> bool {
    let (named, _) = told.split_once(": ").expect("a message begins with its field");
    let named = named.replace("trafficPolicy (of spec or a subset)", "spec");
    let path = without_indexes(&finding.path);
    let refused = (finding.condition, finding.reason) == (Some(Condition::Accepted), Reason::Invalid);
    refused && (path.starts_with(&named) || named.starts_with(&path))
}

#[test]
fn a_virtual_service_that_a_policy_would_refuse_holds_and_says_so_at_the_same_field() {
    for Case { told, object } in cases("VirtualService") {
        let mut world = World::new();
        let mut spec = object["spec"].clone();
        let hosts = spec["hosts"].as_array_mut();
        // Of the cases' own hosts none is a service here.
        if let Some(hosts) = hosts.filter(|hosts| !hosts.iter().any(|host| host == "*")) {
            hosts.push("sa-logic".into());
        }
        // Delegates, and rules for other protocols alone.
        let claims_nothing = spec["hosts"].is_null() || !spec["tls"].is_null() || !spec["tcp"].is_null();
        world.virtual_service("default/refused", spec);
        let name = umbra_index::ObjectName::new(Kind::VirtualService, crate::world::key("default/refused"));
        let findings = umbra_compile::object_findings(world.index.view(), &name);
        let compiled = world.compile("default/sa-logic");
        let all: Vec<_> = findings.iter().chain(&compiled.findings).collect();
        assert!(all.iter().any(|finding| is_at(finding, &told)), "{told}: {all:#?}");
        assert!(
            claims_nothing || matches!(compiled.outcome, Outcome::Hold(_)),
            "{told}: {:?}",
            compiled.outcome
        );
    }
}

#[test]
fn a_destination_rule_that_a_policy_would_refuse_says_so_at_the_same_field() {
    for Case { told, object } in cases("DestinationRule") {
        let mut world = World::new();
        world.destination_rule("default/refused", object["spec"].clone());
        let name = umbra_index::ObjectName::new(Kind::DestinationRule, crate::world::key("default/refused"));
        let findings = umbra_compile::object_findings(world.index.view(), &name);
        assert!(findings.iter().any(|finding| is_at(finding, &told)), "{told}: {findings:#?}");
    }
}
