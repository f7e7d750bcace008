//! The cases that an API server is asked (`data/crd-cases.yaml`), asked of the types alone: a file that never meets
//! an API server is judged the same way.

use serde::Deserialize;
use serde_json::Value;
use umbra_api::{DestinationRule, Problem, VirtualService};

#[derive(Deserialize)]
struct Case {
    name: String,
    refused: Option<Vec<String>>,
    object: Value,
}

fn cases() -> Vec<Case> {
    let cases: Vec<Case> =
        serde_saphyr::from_str(include_str!("data/crd-cases.yaml")).expect("the cases are YAML");
    assert!(cases.len() > 20, "{} cases", cases.len());
    cases
}

/// The spec as it would be written again, and its problems.
fn read(object: &Value) -> Result<(Value, Vec<Problem>), serde_json::Error> {
    if object["kind"] == "VirtualService" {
        let object = VirtualService::deserialize(object)?;
        Ok((serde_json::to_value(&object.spec)?, object.validate()))
    } else {
        let object = DestinationRule::deserialize(object)?;
        Ok((serde_json::to_value(&object.spec)?, object.validate()))
    }
}

#[test]
fn what_an_api_server_refuses_is_refused_from_a_file_too() {
    for case in cases().iter().filter(|case| case.refused.is_some()) {
        if let Ok((_, problems)) = read(&case.object) {
            assert!(problems.iter().any(Problem::is_error), "{}: no error found", case.name);
        }
    }
}

#[test]
fn what_an_api_server_takes_has_no_problem_and_loses_nothing() {
    for case in cases().iter().filter(|case| case.refused.is_none()) {
        let (spec, problems) = read(&case.object).unwrap_or_else(|error| panic!("{}: {error}", case.name));
        let errors: Vec<_> = problems.iter().filter(|problem| problem.is_error()).collect();
        assert!(errors.is_empty(), "{}: {errors:?}", case.name);
        assert!(equal(&spec, &case.object["spec"]), "{}: {spec} is not {}", case.name, case.object["spec"]);
    }
}

/// Equal, where 0 and 0.0 are one number.
fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| equal(a, b)))
        }
        (a, b) => a == b,
    }
}
