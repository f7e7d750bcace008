//! From a Rust type to the OpenAPI schema that an API server takes ("structural").

use kube::core::schema::{OptionalEnum, OptionalIntOrString, StructuralSchemaRewriter};
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

/// The schema of `T`: everything in one piece, described by the doc comments, without defaults.
pub(super) fn of<T: JsonSchema>() -> Value {
    let mut schema = SchemaSettings::openapi3()
        .with(|settings| {
            settings.inline_subschemas = true;
            settings.meta_schema = None;
        })
        .with_transform(StructuralSchemaRewriter)
        .with_transform(OptionalEnum)
        .with_transform(OptionalIntOrString)
        .into_generator()
        .into_root_schema_for::<T>()
        .to_value();
    tidy(&mut schema);
    schema
}

fn tidy(schema: &mut Value) {
    let Some(object) = schema.as_object_mut() else { return };
    // A default would be written into users' objects; `nullable` would let a null through that Istio's schema
    // refuses; a title repeats the type's Rust name.
    for key in ["default", "nullable", "title"] {
        object.remove(key);
    }
    let format = object.get("format").and_then(Value::as_str).unwrap_or_default().to_owned();
    if !["", "int64", "double", "date-time"].contains(&format.as_str()) {
        // Istio's bound: what passes can be decoded; that 70000 is no port is said in the status.
        if format == "uint32" && !object.contains_key("maximum") {
            object.insert("maximum".into(), u32::MAX.into());
        }
        // The API server warns each user about formats it does not know (`uint32`).
        object.remove("format");
    }
    if object.get("additionalProperties") == Some(&Value::Bool(true)) {
        object.remove("additionalProperties");
        object.insert("x-kubernetes-preserve-unknown-fields".into(), true.into());
    }
    if let Some(Value::String(text)) = object.get_mut("description") {
        *text = text.replace('\n', " ");
    }
    for child in children(object) {
        tidy(child);
    }
}

fn children(object: &mut Map<String, Value>) -> Vec<&mut Value> {
    let mut found = Vec::new();
    for (key, value) in object {
        match (key.as_str(), value) {
            ("properties", Value::Object(properties)) => found.extend(properties.values_mut()),
            ("items" | "additionalProperties", value) => found.push(value),
            _ => {}
        }
    }
    found
}

/// Adds `keywords` to the schema at `path`, where `a[]` are the items of the list `a` and `a{}` the values of the map.
///
/// # Panics
/// When the types have no such path: the generator's own tables are wrong.
pub(super) fn constrain(schema: &mut Value, path: &str, keywords: Value) {
    let mut at = schema;
    for step in path.split('.').filter(|step| !step.is_empty()) {
        let name = step.trim_end_matches(['[', ']', '{', '}']);
        at = &mut at["properties"][name];
        if step.ends_with("[]") {
            at = &mut at["items"];
        } else if step.ends_with("{}") {
            at = &mut at["additionalProperties"];
        }
    }
    let object = at.as_object_mut().unwrap_or_else(|| panic!("{path}: no such path in the types"));
    let Value::Object(keywords) = keywords else { panic!("{path}: keywords are an object") };
    object.extend(keywords);
}

/// A CEL rule, and what its author reads when it does not hold. `at` is a field of the object, `.like.this`.
pub(super) fn rule(rule: &str, message: &str, at: Option<&str>) -> Value {
    let mut validation = json!({"rule": rule, "message": message});
    if let Some(at) = at {
        validation["fieldPath"] = at.into();
    }
    json!({"x-kubernetes-validations": [validation]})
}
