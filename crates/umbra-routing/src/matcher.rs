//! Conditions on a request, as sent to a node.
//!
//! What the controller could not understand arrives as `Never`: nothing a node does not know can widen a match.

use std::collections::BTreeMap;

use http::HeaderMap;
use regex::Regex;
use serde::{Deserialize, Serialize};

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
    /// Lower case.
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

/// Istio's bound for a regex (spec/istio.md 1A).
const REGEX_MAX_BYTES: usize = 1024;
/// Memory bound of one compiled regex: ten times regex's need for Istio's longest allowed literal, so that a
/// pattern like `(a{1000}){1000}` is refused instead of eating the node.
const REGEX_SIZE_LIMIT: usize = 1 << 20;

pub(crate) struct Matcher {
    never: bool,
    uri: Option<Text>,
    method: Option<Text>,
    headers: Vec<(http::HeaderName, Text)>,
}

enum Text {
    Exact(String),
    Prefix(String),
    Regex(Regex),
    Present,
}

impl StringMatch {
    /// Says whether a node could use this condition.
    ///
    /// # Errors
    /// A regex that does not compile or is over Istio's 1024 bytes.
    pub fn check(&self) -> Result<(), MatchError> {
        Text::new(self).map(|_| ())
    }
}

impl Text {
    fn new(condition: &StringMatch) -> Result<Self, MatchError> {
        Ok(match condition {
            StringMatch::Exact(text) => Self::Exact(text.clone()),
            StringMatch::Prefix(text) => Self::Prefix(text.clone()),
            StringMatch::Present => Self::Present,
            StringMatch::Regex(pattern) => Self::Regex(full_match(pattern)?),
        })
    }

    fn holds(&self, text: &str) -> bool {
        match self {
            Self::Exact(exact) => text == exact,
            Self::Prefix(prefix) => text.starts_with(prefix.as_str()),
            Self::Regex(regex) => regex.is_match(text),
            Self::Present => true,
        }
    }
}

fn full_match(pattern: &str) -> Result<Regex, MatchError> {
    let error = |source| MatchError::Regex { pattern: pattern.to_owned(), source: Box::new(source) };
    if pattern.len() > REGEX_MAX_BYTES {
        return Err(error(regex::Error::CompiledTooBig(REGEX_MAX_BYTES)));
    }
    // Compiled alone first: `a)(b` must not become valid by being wrapped.
    regex::RegexBuilder::new(pattern).size_limit(REGEX_SIZE_LIMIT).build().map_err(error)?;
    let whole = format!(r"\A(?:{pattern})\z");
    regex::RegexBuilder::new(&whole).size_limit(REGEX_SIZE_LIMIT).build().map_err(error)
}

impl Matcher {
    pub(crate) fn new(block: &RequestMatch) -> Result<Self, MatchError> {
        let headers = block.headers.iter().map(|header| {
            let name = http::HeaderName::from_bytes(header.name.as_bytes())
                .map_err(|_| MatchError::HeaderName(header.name.clone()))?;
            Ok((name, Text::new(&header.value)?))
        });
        Ok(Self {
            never: block.never,
            uri: block.uri.as_ref().map(Text::new).transpose()?,
            method: block.method.as_ref().map(Text::new).transpose()?,
            headers: headers.collect::<Result<_, MatchError>>()?,
        })
    }

    pub(crate) fn holds(&self, method: &str, path: &str, headers: &HeaderMap) -> bool {
        !self.never
            && self.uri.as_ref().is_none_or(|uri| uri.holds(path))
            && self.method.as_ref().is_none_or(|condition| condition.holds(method))
            && self.headers.iter().all(|(name, condition)| any_copy_holds(headers, name, condition))
    }
}

/// Each copy of a repeated header is tried alone (spec/istio.md 4.1). A value that is not UTF-8 is only present.
fn any_copy_holds(headers: &HeaderMap, name: &http::HeaderName, condition: &Text) -> bool {
    headers.get_all(name).iter().any(|value| match std::str::from_utf8(value.as_bytes()) {
        Ok(text) => condition.holds(text),
        Err(_) => matches!(condition, Text::Present),
    })
}
