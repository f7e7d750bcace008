//! Which fields of the CRDs' schemas no case writes.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::cases_table::Case;

/// What is taken as a whole: a DestinationRule's policies are one finding, and tcp and tls rules are not umbra's.
const AS_A_WHOLE: [&str; 4] = ["spec.tcp", "spec.tls", "spec.trafficPolicy", "spec.subsets[].trafficPolicy"];

/// Kind and path of each.
///
/// # Errors
/// When a CRD is not where it is generated.
pub(crate) fn unwritten(cases: &[Case]) -> Result<Vec<String>> {
    let mut unwritten = Vec::new();
    for (kind, file) in [("VirtualService", "virtualservices"), ("DestinationRule", "destinationrules")] {
        let path = format!("{}/../crds/{file}.yaml", env!("CARGO_MANIFEST_DIR"));
        let crd: Value =
            serde_saphyr::from_str(&std::fs::read_to_string(&path).with_context(|| path.clone())?)?;
        let version = crd["spec"]["versions"].get(0).context("a version")?;
        let mut fields = BTreeSet::new();
        in_schema(&version["schema"]["openAPIV3Schema"]["properties"]["spec"], "spec", &mut fields);
        let mut written = BTreeSet::new();
        for object in cases.iter().flat_map(|case| &case.objects).filter(|object| object["kind"] == kind) {
            in_object(&object["spec"], "spec", &mut written);
        }
        let missing = fields.into_iter().filter(|field| !written.contains(field));
        unwritten.extend(missing.map(|field| format!("{kind} {field}")));
    }
    Ok(unwritten)
}

/// The fields that hold no others.
fn in_schema(schema: &Value, path: &str, fields: &mut BTreeSet<String>) {
    let whole = AS_A_WHOLE.contains(&path);
    match schema["properties"].as_object() {
        _ if !whole && schema["type"] == "array" => in_schema(&schema["items"], &format!("{path}[]"), fields),
        Some(properties) if !whole => {
            properties.iter().for_each(|(name, of)| in_schema(of, &format!("{path}.{name}"), fields))
        }
        _ => drop(fields.insert(path.to_owned())),
    }
}

/// Every field that is written, whatever it holds.
fn in_object(value: &Value, path: &str, written: &mut BTreeSet<String>) {
    written.insert(path.to_owned());
    match value {
        Value::Object(fields) => {
            fields.iter().for_each(|(name, of)| in_object(of, &format!("{path}.{name}"), written))
        }
        Value::Array(items) => items.iter().for_each(|item| in_object(item, &format!("{path}[]"), written)),
        _ => {}
    }
}
