//! Tables: an object or a part of one, and what its author is told. A case without words has no problem.

mod actions;
mod destination_rule;
mod http_rule;
mod matching;
mod policies;
mod reach;
mod virtual_service;

use serde_json::{Value, json};

use super::Problem;
use crate::{DestinationRule, VirtualService};

fn virtual_service(spec: Value) -> Vec<Problem> {
    let object = json!({"metadata": {"namespace": "default"}, "spec": spec});
    serde_json::from_value::<VirtualService>(object).unwrap().validate()
}

fn destination_rule(mut spec: Value) -> Vec<Problem> {
    if spec.get("host").is_none() {
        spec["host"] = json!("sa-logic");
    }
    let object = json!({"metadata": {"namespace": "default"}, "spec": spec});
    serde_json::from_value::<DestinationRule>(object).unwrap().validate()
}

/// The problems of one rule for `sa-logic` that goes to `sa-logic` unless it says otherwise.
fn rule(mut rule: Value) -> Vec<Problem> {
    let answers = ["route", "redirect", "directResponse", "delegate"];
    if answers.iter().all(|answer| rule.get(answer).is_none()) {
        rule["route"] = to("sa-logic");
    }
    virtual_service(json!({"hosts": ["sa-logic"], "http": [rule]}))
}

fn to(host: &str) -> Value {
    json!([{"destination": {"host": host}}])
}

/// `error spec.http[0].route: ..`, without `spec.` and `http[0].`.
fn words(problem: &Problem) -> String {
    let path = problem.path.strip_prefix("spec.").unwrap_or(&problem.path);
    let path = path.strip_prefix("http[0].").unwrap_or(path);
    format!("{} {} {path}: {}", problem.severity.as_str(), problem.code.as_str(), problem.message)
}

/// All of the problems are those, in that order, by the beginning of their words; `error IST0106` is left out.
#[track_caller]
fn told(problems: &[Problem], beginnings: &[&str]) {
    let words: Vec<_> = problems.iter().map(words).collect();
    let as_said = |(words, beginning): (&String, &&str)| {
        words.strip_prefix("error IST0106 ").unwrap_or(words).starts_with(beginning)
    };
    let fine = words.len() == beginnings.len() && words.iter().zip(beginnings).all(as_said);
    assert!(fine, "told {words:#?}, not {beginnings:#?}");
}

/// Each part has the one problem that begins so; none where nothing is written.
#[track_caller]
fn each(check: impl Fn(Value) -> Vec<Problem>, cases: &[(&str, &str)]) {
    for (part, beginning) in cases {
        let part: Value = serde_saphyr::from_str(part).unwrap_or_else(|error| panic!("{part}: {error}"));
        let problems = check(part.clone());
        let words: Vec<_> = problems.iter().map(words).collect();
        let fine = match &words[..] {
            [] => beginning.is_empty(),
            [one] if !beginning.is_empty() => {
                one.strip_prefix("error IST0106 ").unwrap_or(one).starts_with(beginning)
            }
            _ => false,
        };
        assert!(fine, "{part}: told {words:#?}, not {beginning:?}");
    }
}
