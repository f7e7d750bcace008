//! The part of an object's metadata that umbra uses.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Labels of an object, or the labels a selector asks for.
pub type Labels = BTreeMap<String, String>;

/// Fields that umbra does not know yet: kept as written, so that a finding can name them.
pub type Rest = BTreeMap<String, serde_json::Value>;

/// Namespace and name: what `kubectl` calls an object within its kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ObjectKey {
    /// Empty for objects without a namespace (Node).
    pub namespace: String,
    /// The object's name.
    pub name: String,
}

impl ObjectKey {
    /// The key of `namespace/name`.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// `metadata`, reduced to what umbra uses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Meta {
    /// Empty for objects without a namespace.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// The object's name.
    pub name: String,
    /// Tells an object from an older one of the same name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// Grows with each change of the spec; conditions refer to it.
    pub generation: i64,
    /// RFC 3339 in UTC, so that older sorts first as text. Empty when not known.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_is_default")]
    pub creation_timestamp: String,
    /// The object's labels.
    #[serde(skip_serializing_if = "Labels::is_empty", deserialize_with = "null_is_default")]
    pub labels: Labels,
    /// Only the controlling owner matters (a pod's ReplicaSet).
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub owner_references: Vec<crate::OwnerReference>,
    /// Set while the object is being deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deletion_timestamp: Option<String>,
}

impl Meta {
    /// Namespace and name.
    pub fn key(&self) -> ObjectKey {
        ObjectKey::new(self.namespace.clone(), self.name.clone())
    }
}

/// Go marshals an empty slice or map as `null`; read it as empty.
pub(crate) fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}
