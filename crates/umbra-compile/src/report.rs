//! Collecting what an object's author should know.

use std::collections::BTreeSet;

use umbra_index::api::{Code, Problem, Rest, Severity};

use crate::finding::{Condition, Finding, ObjectRef, Reason};

/// Findings about one object.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    object: ObjectRef,
    findings: BTreeSet<Finding>,
}

impl Report {
    pub(crate) fn new(object: ObjectRef) -> Self {
        Self { object, findings: BTreeSet::new() }
    }

    /// What the object's own checks say of it.
    pub(crate) fn validated(&mut self, problems: &[Problem]) {
        for Problem { severity, code, path, message } in problems {
            match (severity, code) {
                (Severity::Error, _) => self.reject(Reason::Invalid, path, message),
                (_, Code::UnreachableRule) => self.note(Reason::UnreachableRule, path, message),
                (_, Code::SchemaWarning) => self.note(Reason::PartiallyInvalid, path, message),
                // What is on its way out still works, and what makes no difference harms nobody: `umbra lint` tells.
                _ => {}
            }
        }
    }

    /// For information.
    pub(crate) fn note(&mut self, reason: Reason, path: impl Into<String>, message: impl Into<String>) {
        self.add(None, reason, path.into(), message.into());
    }

    /// Something was said of this field.
    pub(crate) fn is_about(&self, path: &str) -> bool {
        self.findings.iter().any(|finding| finding.path == path)
    }

    /// The object, or a part of it, is not used.
    pub(crate) fn reject(&mut self, reason: Reason, path: impl Into<String>, message: impl Into<String>) {
        self.add(Some(Condition::Accepted), reason, path.into(), message.into());
    }

    /// Fields that umbra does not know, which could change what the object means: it is not used.
    pub(crate) fn unsupported(&mut self, path: &str, rest: &Rest) {
        for field in meaningful(rest) {
            let message = format!(
                "umbra does not support {field}; the VirtualService keeps the rules it had, if any, until {field} is removed"
            );
            self.reject(Reason::UnsupportedField, format!("{path}.{field}"), message);
        }
    }

    /// Something it names does not exist.
    pub(crate) fn unresolved(&mut self, reason: Reason, path: impl Into<String>, message: impl Into<String>) {
        self.add(Some(Condition::ResolvedRefs), reason, path.into(), message.into());
    }

    pub(crate) fn is_accepted(&self) -> bool {
        self.findings.iter().all(|finding| finding.condition != Some(Condition::Accepted))
    }

    pub(crate) fn into_findings(self) -> BTreeSet<Finding> {
        self.findings
    }

    fn add(&mut self, condition: Option<Condition>, reason: Reason, path: String, message: String) {
        self.findings.insert(Finding { object: self.object.clone(), condition, reason, path, message });
    }
}

/// The fields of `rest` that say something: `null`, `{}` and `[]` do not, nor does exporting to everybody, which is
/// what an absent `exportTo` means.
pub(crate) fn meaningful(rest: &Rest) -> impl Iterator<Item = &str> {
    let says_nothing =
        |name: &str, value: &_| *value == serde_json::json!(["*"]) && name == "exportTo" || is_empty(value);
    rest.iter().filter(move |(name, value)| !says_nothing(name, value)).map(|(name, _)| name.as_str())
}

fn is_empty(value: &serde_json::Value) -> bool {
    match value {
        serde_json::Value::Null => true,
        serde_json::Value::Array(items) => items.is_empty(),
        serde_json::Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}
