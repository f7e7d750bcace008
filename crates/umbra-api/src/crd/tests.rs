use std::path::Path;

use super::*;

#[test]
fn the_files_in_the_repository_are_those_of_the_types() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../crds");
    for file in files() {
        let found = std::fs::read_to_string(folder.join(file.name)).unwrap_or_default();
        assert!(found == file.text, "crds/{} is not what the types say: run `make crds`", file.name);
    }
    let mut names: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["destinationrules.yaml", "kustomization.yaml", "virtualservices.yaml"]);
}

#[test]
fn the_files_read_back_as_what_was_generated() {
    for (file, value) in files().iter().zip([virtual_service(), destination_rule()]) {
        let read: Value = serde_saphyr::from_str(&file.text).unwrap();
        assert_eq!(read, value, "{}", file.name);
        serde_json::from_value::<
            k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
        >(read)
        .unwrap();
    }
}

#[test]
fn nothing_is_defaulted_or_pruned_and_everything_is_described() {
    for definition in [virtual_service(), destination_rule()] {
        let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        for part in ["spec", "status"] {
            let mut seen = 0;
            visit(&schema["properties"][part], part, &mut seen);
            assert!(seen > 5, "{part}: only {seen} fields");
        }
    }
}

/// Closed, as their types are.
const CLOSED: [&str; 3] = ["port", "mirrorPercentage", "percentage"];

fn visit(schema: &Value, path: &str, seen: &mut usize) {
    *seen += 1;
    let object = schema.as_object().unwrap_or_else(|| panic!("{path} is {schema}"));
    for key in ["default", "nullable", "$ref", "title"] {
        assert!(!object.contains_key(key), "{path} has {key}");
    }
    let name = path.rsplit('.').next().unwrap();
    let described = name.ends_with("[]") || name.ends_with("{}") || object.contains_key("description");
    assert!(described, "{path} has no description");
    if schema["type"] == "object" && !CLOSED.contains(&name) && !object.contains_key("additionalProperties") {
        assert_eq!(schema["x-kubernetes-preserve-unknown-fields"], true, "{path} would be pruned");
    }
    for (name, property) in object.get("properties").and_then(Value::as_object).into_iter().flatten() {
        visit(property, &format!("{path}.{name}"), seen);
    }
    for (key, mark) in [("items", "[]"), ("additionalProperties", "{}")] {
        if let Some(inner) = object.get(key).filter(|inner| inner["type"] == "object") {
            visit(inner, &format!("{path}{mark}"), seen);
        }
    }
}

#[test]
fn all_versions_have_one_schema_and_v1_is_stored() {
    for definition in [virtual_service(), destination_rule()] {
        let versions = definition["spec"]["versions"].as_array().unwrap();
        assert_eq!(versions.len(), 3);
        for version in versions {
            assert_eq!(version["schema"], versions[0]["schema"]);
            assert_eq!(version["storage"], version["name"] == "v1");
        }
    }
}
