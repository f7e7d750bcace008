//! Conditions on a request, as sent to a node.
//!
//! What the controller could not understand arrives as `Never`: nothing a node does not know can widen a match.

mod block;
mod subject;
mod text;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub(crate) use block::{Block, Taken};
pub(crate) use text::{Text, bounded};

/// One block of conditions; all must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RequestMatch {
    /// A condition that umbra does not know stands here: the block never matches.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub never: bool,
    /// The path without its query.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uri: Option<StringMatch>,
    /// The method.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<StringMatch>,
    /// Exact and prefix conditions on the path ignore case.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub ignore_uri_case: bool,
    /// `http` or `https`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheme: Option<StringMatch>,
    /// Host as sent, with its port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authority: Option<StringMatch>,
    /// Headers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<HeaderMatch>,
    /// Headers of which no copy may be so; a missing one is taken as empty text (spec/istio.md 1A).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub without_headers: Vec<HeaderMatch>,
    /// Query parameters: raw name, and what its raw first value must be.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub query: Vec<QueryMatch>,
    /// Labels that the client's pod has; a client that is not known has none.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub source_labels: BTreeMap<String, String>,
}

/// A condition on a query parameter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueryMatch {
    /// Raw, not decoded.
    pub name: String,
    /// What its first value must be, raw.
    pub value: StringMatch,
}

/// A condition on the header of that name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeaderMatch {
    /// Lower case. `host`, `:authority`, `:path` (with the query), `:method`, `:scheme` and `:status` are those of the
    /// request.
    pub name: String,
    /// What one of its copies must be.
    pub value: StringMatch,
}

/// A condition on text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum StringMatch {
    /// Equal.
    Exact(String),
    /// Begins with.
    Prefix(String),
    /// The whole text, RE2 syntax.
    Regex(String),
    /// Is there at all.
    Present,
}

/// A condition that cannot be used. The author's fault; the controller finds it before a node does.
#[derive(Debug, thiserror::Error)]
pub enum MatchError {
    /// Not a regular expression.
    #[error("regex {pattern:?} does not compile: {source}")]
    Regex {
        /// As written.
        pattern: String,
        /// Why.
        source: Box<regex::Error>,
    },
    /// Not a header's name.
    #[error("{0:?} is not a header name")]
    HeaderName(String),
}
