//! Objects with every field survive decoding and encoding: nothing added, nothing lost, nothing left untyped.

#![cfg(feature = "kubernetes")]

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::{Value, json};
use umbra_api::{DestinationRule, VirtualService};

/// Those that no valid object has, Istio's neither; [`what_istio_does_not_do_is_kept_too`] asks for them.
const NOT_IN_VALID_OBJECTS: [&str; 2] =
    ["VirtualService.http[].fault.delay.exponentialDelay", "VirtualService.http[].fault.abort.http2Error"];

#[derive(Deserialize)]
struct Case {
    refused: Option<Vec<String>>,
    object: Value,
}

/// The specs that an API server takes, by kind. That they lose nothing is asked in `crd_cases.rs`.
fn specs() -> Vec<(String, Value)> {
    let cases: Vec<Case> = serde_saphyr::from_str(include_str!("data/crd-cases.yaml")).expect("YAML");
    let taken = cases.into_iter().filter(|case| case.refused.is_none());
    taken
        .map(|case| (case.object["kind"].as_str().expect("a kind").to_owned(), case.object["spec"].clone()))
        .collect()
}

/// The schema of each kind's spec, as the CRDs have it.
fn schemas() -> Vec<(String, Value)> {
    let files = umbra_api::crd::files();
    let definitions = files.iter().filter(|file| file.name != "kustomization.yaml").map(|file| {
        let definition: Value = serde_saphyr::from_str(&file.text).expect("YAML");
        let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
        (definition["spec"]["names"]["kind"].as_str().expect("a kind").to_owned(), schema.clone())
    });
    definitions.collect()
}

#[test]
fn the_cases_have_every_field_of_the_schema() {
    let specs = specs();
    for (kind, schema) in schemas() {
        let mut fields = BTreeSet::new();
        fields_of(&schema, &kind, &mut fields);
        assert!(fields.len() > 100, "{kind}: only {} fields", fields.len());
        let mut seen = BTreeSet::new();
        for (_, spec) in specs.iter().filter(|(other, _)| *other == kind) {
            seen_in(spec, &schema, &kind, &mut seen);
        }
        let missing: Vec<_> = fields
            .difference(&seen)
            .filter(|field| !NOT_IN_VALID_OBJECTS.contains(&field.as_str()))
            .collect();
        assert!(missing.is_empty(), "no case has {missing:#?}");
    }
}

fn fields_of(schema: &Value, path: &str, fields: &mut BTreeSet<String>) {
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        fields_of(property, &path, fields);
        fields_of(&property["items"], &format!("{path}[]"), fields);
        fields_of(&property["additionalProperties"], &format!("{path}{{}}"), fields);
        fields.insert(path);
    }
}

fn seen_in(value: &Value, schema: &Value, path: &str, seen: &mut BTreeSet<String>) {
    match value {
        Value::Object(entries) if schema.get("properties").is_some() => {
            for (name, value) in entries {
                let path = format!("{path}.{name}");
                seen_in(value, &schema["properties"][name], &path, seen);
                seen.insert(path);
            }
        }
        Value::Object(entries) => {
            for value in entries.values() {
                seen_in(value, &schema["additionalProperties"], &format!("{path}{{}}"), seen);
            }
        }
        Value::Array(items) => {
            for item in items {
                seen_in(item, &schema["items"], &format!("{path}[]"), seen);
            }
        }
        _ => {}
    }
}

#[test]
fn what_istio_does_not_do_is_kept_too() {
    let spec =
        json!({"http": [{"fault": {"delay": {"exponentialDelay": "1s"}, "abort": {"http2Error": "a"}}}]});
    let object: VirtualService = serde_json::from_value(json!({"spec": spec})).expect("decodes");
    let fault = object.spec.http[0].fault.as_ref().expect("typed");
    assert!(fault.delay.as_ref().is_some_and(|delay| delay.exponential_delay.is_some()));
    assert!(fault.abort.as_ref().is_some_and(|abort| abort.http2_error.is_some()));
    assert_eq!(serde_json::to_value(&object.spec).expect("encodes"), spec);
}

#[test]
fn an_absent_field_stays_absent_and_an_empty_object_stays_there() {
    for spec in [json!({}), json!({"http": [{"delegate": {}, "rewrite": {}, "retries": {}, "fault": {}}]})] {
        let object: VirtualService = serde_json::from_value(json!({"spec": spec})).expect("decodes");
        assert_eq!(serde_json::to_value(&object.spec).expect("encodes"), spec);
    }
    let empty = json!({"loadBalancer": {"consistentHash": {}}, "outlierDetection": {}, "connectionPool": {}});
    for spec in [json!({"host": "a"}), json!({"host": "a", "workloadSelector": {}, "trafficPolicy": empty})] {
        let object: DestinationRule = serde_json::from_value(json!({"spec": spec})).expect("decodes");
        assert_eq!(serde_json::to_value(&object.spec).expect("encodes"), spec);
    }
}
