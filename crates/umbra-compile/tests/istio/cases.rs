//! Reading the recorded cases.

use std::collections::BTreeMap;

use serde_json::Value;

/// The client's status, the group of pods that answered, the groups that got copies.
pub(crate) type Drawn = (u64, Option<String>, Vec<String>);

pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) objects: Vec<Value>,
    /// The objects were made more than a second apart.
    pub(crate) spread: bool,
    pub(crate) requests: Vec<Value>,
    pub(crate) expected: Vec<BTreeMap<Drawn, u32>>,
    /// Objects that the API server's schema refused, as `Kind/name`.
    refused: Vec<String>,
}

impl Case {
    pub(crate) fn refuses(&self, object: &Value) -> bool {
        let (kind, name) = (object["kind"].as_str(), object["metadata"]["name"].as_str());
        let name = format!("{}/{}: ", kind.unwrap_or_default(), name.unwrap_or_default());
        self.refused.iter().any(|refused| refused.starts_with(&name))
    }
}

fn text(file: &str) -> String {
    let path = format!("{}/../../tests/istio-cases/{file}.yaml", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(path).expect("a recorded file")
}

pub(crate) fn documents(text: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(text).expect("recorded YAML")
}

/// The objects under every case.
pub(crate) fn base() -> Vec<Value> {
    documents(&text("base"))
}

pub(crate) fn read(file: &str) -> Vec<Case> {
    let cases: Vec<Value> = serde_saphyr::from_str(&text(file)).expect("recorded YAML");
    cases.iter().map(case).collect()
}

fn case(value: &Value) -> Case {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let expected = list(&value["expect"]["requests"]);
    Case {
        name: value["name"].as_str().expect("a name").to_owned(),
        objects: documents(value["objects"].as_str().expect("objects")),
        spread: value["spread"].as_bool().unwrap_or(false),
        requests: list(&value["requests"]),
        refused: list(&value["expect"]["refused"])
            .iter()
            .filter_map(|r| r.as_str().map(str::to_owned))
            .collect(),
        expected: expected.iter().map(|request| tally(&request["tally"])).collect(),
    }
}

fn tally(value: &Value) -> BTreeMap<Drawn, u32> {
    let counts = value.as_object().expect("a tally").iter().map(|(drawn, count)| {
        let drawn = serde_json::from_str(drawn).expect("[status, group, copies]");
        (drawn, u32::try_from(count.as_u64().expect("a count")).expect("a small count"))
    });
    counts.collect()
}
