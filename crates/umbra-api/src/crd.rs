//! The CustomResourceDefinitions, made from the types so that the two cannot drift apart.
//!
//! Takes: the types and their doc comments. Gives: the files of `crds/`. Group, versions, names and columns are
//! Istio's, so that Istio's manifests and tools work unchanged; unknown fields are kept, never pruned.

mod bounds;
mod schema;

use serde_json::{Value, json};

use crate::{DestinationRuleSpec, Status, VirtualServiceSpec};

/// A file of `crds/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Its name in that folder.
    pub name: &'static str,
    /// What is in it.
    pub text: String,
}

const HEADER: &str = "# Generated from the types of umbra-api by `make crds`; do not edit.\n";

/// All files of `crds/`.
///
/// # Panics
/// Only when the tables in `bounds` name fields that the types do not have.
pub fn files() -> Vec<File> {
    let file = |name, value: &Value| File { name, text: format!("{HEADER}{}", yaml(value)) };
    let kustomization = json!({
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": ["virtualservices.yaml", "destinationrules.yaml"],
    });
    vec![
        file("virtualservices.yaml", &virtual_service()),
        file("destinationrules.yaml", &destination_rule()),
        file("kustomization.yaml", &kustomization),
    ]
}

fn yaml(value: &Value) -> String {
    serde_saphyr::to_string(value).expect("JSON values are YAML")
}

fn virtual_service() -> Value {
    let mut spec = schema::of::<VirtualServiceSpec>();
    for (path, keywords) in bounds::virtual_service() {
        schema::constrain(&mut spec, &path, keywords);
    }
    let mut columns = vec![
        column("Gateways", ".spec.gateways", "Where the rules apply; empty is between pods."),
        column("Hosts", ".spec.hosts", "The services whose requests the rules govern."),
        condition("Programmed", "status", 0, "Whether every live node serves the newest spec."),
        age(),
    ];
    columns.extend(wide());
    let description = "Routes requests for hosts to destinations, and copies of them to mirrors.";
    let names = names("VirtualService", "virtualservice", "vs");
    definition("virtualservices", names, &versions(&root(description, spec), &columns))
}

fn destination_rule() -> Value {
    let mut spec = schema::of::<DestinationRuleSpec>();
    for (path, keywords) in bounds::destination_rule() {
        schema::constrain(&mut spec, &path, keywords);
    }
    let mut columns = vec![
        column("Host", ".spec.host", "The service whose subsets these are."),
        age(),
        condition("Programmed", "status", 1, "Whether every live node serves the newest spec."),
    ];
    columns.extend(wide());
    let names = names("DestinationRule", "destinationrule", "dr");
    definition(
        "destinationrules",
        names,
        &versions(&root("Names subsets of a service's pods by their labels.", spec), &columns),
    )
}

fn definition(plural: &str, mut names: Value, versions: &[Value]) -> Value {
    names["plural"] = plural.into();
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": format!("{plural}.networking.istio.io"),
            "labels": {"app.kubernetes.io/name": "umbra", "app.kubernetes.io/component": "crds"},
        },
        "spec": {"group": "networking.istio.io", "names": names, "scope": "Namespaced", "versions": versions},
    })
}

fn names(kind: &str, singular: &str, short: &str) -> Value {
    json!({
        "kind": kind,
        "listKind": format!("{kind}List"),
        "singular": singular,
        "shortNames": [short],
        "categories": ["istio-io", "networking-istio-io"],
    })
}

/// Istio serves three versions of one schema, so that nothing has to be converted.
fn versions(schema: &Value, columns: &[Value]) -> Vec<Value> {
    ["v1", "v1beta1", "v1alpha3"]
        .map(|version| {
            json!({
                "name": version,
                "served": true,
                "storage": version == "v1",
                "schema": {"openAPIV3Schema": schema},
                "subresources": {"status": {}},
                "additionalPrinterColumns": columns,
            })
        })
        .to_vec()
}

fn root(description: &str, spec: Value) -> Value {
    let mut status = schema::of::<Status>();
    for (path, keywords) in bounds::status() {
        schema::constrain(&mut status, &path, keywords);
    }
    json!({
        "type": "object",
        "description": description,
        "properties": {"spec": spec, "status": status},
    })
}

fn column(name: &str, path: &str, description: &str) -> Value {
    json!({"name": name, "type": "string", "jsonPath": path, "description": description})
}

/// A column of one condition. Priority 1 is shown by `-o wide` only.
fn condition(kind: &str, field: &str, priority: u8, description: &str) -> Value {
    let name = if field == "status" { kind.to_owned() } else { "Reason".to_owned() };
    let path = format!(".status.conditions[?(@.type==\"{kind}\")].{field}");
    let mut column = column(&name, &path, description);
    if priority > 0 {
        column["priority"] = priority.into();
    }
    column
}

fn wide() -> [Value; 3] {
    [
        condition("Accepted", "status", 1, "Whether umbra understands the object."),
        condition("ResolvedRefs", "status", 1, "Whether everything it refers to exists."),
        condition("Programmed", "reason", 1, "Why it is programmed, or not yet."),
    ]
}

fn age() -> Value {
    let mut age = column("Age", ".metadata.creationTimestamp", "Time since the object was made.");
    age["type"] = "date".into();
    age
}

#[cfg(test)]
mod tests;
