//! `status` of a VirtualService or DestinationRule, in Istio's shape.
//!
//! Istio's list of conditions has no key (it is atomic): whoever writes it reads it first and leaves conditions and
//! fields of others as they were, which `rest` makes possible.

use serde::{Deserialize, Serialize};

use crate::meta::{Rest, null_is_default};

/// What is known about the object: conditions, and messages of analyzers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct Status {
    /// Accepted, ResolvedRefs, Programmed, and those that others write. Each type appears once.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub conditions: Vec<Condition>,
    /// The metadata.generation that this status was made for, as a number or, from Istio, as text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<Generation>,
    /// Messages of Istio's analyzers. umbra neither writes nor reads them.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub validation_messages: Vec<Rest>,
    /// Fields of others.
    #[serde(flatten)]
    pub rest: Rest,
}

/// One aspect of the object's state.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct Condition {
    /// Which aspect: Accepted, ResolvedRefs or Programmed.
    #[serde(rename = "type")]
    pub kind: String,
    /// True, False or Unknown.
    pub status: String,
    /// Why, in one CamelCase word that programs can rely on.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_is_default")]
    pub reason: String,
    /// Why, for people: the field at fault and the way out.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_is_default")]
    pub message: String,
    /// When the condition was last looked at. Not written by umbra.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_probe_time: Option<String>,
    /// When `status` last changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<String>,
    /// The metadata.generation that this condition speaks of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<Generation>,
    /// Fields of others.
    #[serde(flatten)]
    pub rest: Rest,
}

/// A generation: umbra writes a number, Istio writes text. Each is kept as it was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Generation {
    /// As umbra writes it.
    Number(i64),
    /// As Istio writes it.
    Text(String),
}

impl Generation {
    /// The number, if it is one.
    pub fn number(&self) -> Option<i64> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Text(text) => text.parse().ok(),
        }
    }
}

impl From<i64> for Generation {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

#[cfg(feature = "kubernetes")]
impl schemars::JsonSchema for Generation {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Generation".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"x-kubernetes-int-or-string": true})
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_others_wrote_survives_a_round_trip() {
        let written = json!({
            "conditions": [{"type": "Reconciled", "status": "True", "observedGeneration": "3", "extra": 1,
                "lastTransitionTime": "2026-11-22T10:00:00Z"}],
            "observedGeneration": 3,
            "validationMessages": [{"type": {"code": "IST0101", "name": "ReferencedResourceNotFound"}}],
            "unknown": {"a": [1]},
        });
        let status: Status = serde_json::from_value(written.clone()).unwrap();
        assert_eq!(status.conditions[0].observed_generation.as_ref().and_then(Generation::number), Some(3));
        assert_eq!(serde_json::to_value(status).unwrap(), written);
    }
}
