//! One thing to say about one object.

use std::fmt;
use std::path::PathBuf;

use serde_json::{Value, json};
use umbra_api::Severity;

use crate::files::ObjectId;

/// One thing to say about one object. Sorts by object, then field.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// Whose.
    pub object: ObjectId,
    /// Where, as `spec.http[0].mirror`.
    pub field: String,
    /// What kind of thing.
    pub code: &'static str,
    /// How grave it is.
    pub level: Severity,
    /// What is wrong and the way out.
    pub text: String,
    /// In which file the object is.
    pub file: PathBuf,
}

impl Finding {
    /// For programs.
    pub fn to_json(&self) -> Value {
        json!({
            "code": self.code,
            "level": self.level.as_str(),
            "kind": self.object.kind.to_string(),
            "namespace": self.object.key.namespace,
            "name": self.object.key.name,
            "field": self.field,
            "message": self.text,
            "file": self.file,
        })
    }

    /// Whether it is about this field, or one inside it, of the same object.
    pub(super) fn is_within(&self, object: &ObjectId, field: &str) -> bool {
        self.object == *object && is_within(&self.field, field)
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (code, level) = (self.code, self.level.as_str());
        write!(f, "{code} {level} {} {}: {}", self.object, self.field, self.text)
    }
}

/// Whether `field` is `outer` or lies in it.
pub(super) fn is_within(field: &str, outer: &str) -> bool {
    field.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}
