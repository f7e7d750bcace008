//! The admission policies and `validate()` agree: what a policy refuses (`data/admission-cases.yaml`) is an error here,
//! at the field that the policy's message names; and each message has its case.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::Value;
use umbra_api::{DestinationRule, Problem, VirtualService, words};

#[derive(Deserialize)]
struct Case {
    told: String,
    object: Value,
}

fn cases() -> Vec<Case> {
    serde_saphyr::from_str(include_str!("data/admission-cases.yaml")).expect("the cases are YAML")
}

/// The messages of the policies that are shipped.
fn messages() -> BTreeSet<String> {
    let files = [
        include_str!("../../../deploy/components/admission/virtualservices.yaml"),
        include_str!("../../../deploy/components/admission/destinationrules.yaml"),
        include_str!("../../../deploy/components/admission/regexes.yaml"),
    ];
    let policies = files.iter().map(|text| text.split("\n---\n").next().expect("a policy"));
    let policies = policies.map(|text| serde_saphyr::from_str::<Value>(text).expect("YAML"));
    let messages = policies.flat_map(|policy| {
        let validations = policy["spec"]["validations"].as_array().expect("validations").clone();
        validations.into_iter().map(|validation| validation["message"].as_str().expect("text").to_owned())
    });
    messages.collect()
}

#[test]
fn each_message_of_the_policies_has_a_case() {
    let told: BTreeSet<_> = cases().into_iter().map(|case| case.told).collect();
    assert!(told.len() > 90, "only {} messages", told.len());
    assert_eq!(told, messages());
}

/// CEL cannot take them from elsewhere.
#[test]
fn the_policies_have_all_words_of_the_lists() {
    let policy = include_str!("../../../deploy/components/admission/virtualservices.yaml");
    for word in words::RETRY_ON.iter().chain(&words::GRPC_STATUSES).chain(&words::CORS_METHODS) {
        assert!(policy.contains(&format!("'{word}'")), "{word}");
    }
}

/// Whether a regex compiles, the compiler says; its tests ask these cases, too.
#[test]
fn what_a_policy_refuses_is_an_error_at_the_same_field() {
    let mut disagreed = Vec::new();
    for case in cases().into_iter().filter(|case| !case.told.contains("does not compile")) {
        let errors: Vec<_> = problems(&case.object).into_iter().filter(Problem::is_error).collect();
        let (named, _) = case.told.split_once(": ").expect("a message begins with its field");
        let named = named.replace("trafficPolicy (of spec or a subset)", "spec");
        let at_field = |problem: &Problem| {
            let path = without_indexes(&problem.path);
            path.starts_with(&named) || named.starts_with(&path)
        };
        if !errors.iter().any(at_field) {
            disagreed.push((case.told, errors));
        }
    }
    assert!(disagreed.is_empty(), "{disagreed:#?}");
}

fn problems(object: &Value) -> Vec<Problem> {
    if object["kind"] == "VirtualService" {
        VirtualService::deserialize(object).expect("decodes").validate()
    } else {
        DestinationRule::deserialize(object).expect("decodes").validate()
    }
}

/// `spec.http[0].match[1]` to `spec.http[].match[]`.
fn without_indexes(path: &str) -> String {
    let parts = path.split('[').map(|part| part.split_once(']').map_or(part, |(_, rest)| rest));
    parts.collect::<Vec<_>>().join("[]")
}
