//! Conditions on text, ready to use: regexes are compiled once, and bounded.

use regex::Regex;

use super::{MatchError, StringMatch};

/// Istio's bound for a regex (spec/istio.md 1A).
const REGEX_MAX_BYTES: usize = 1024;
/// Memory bound of one compiled regex: ten times regex's need for Istio's longest allowed literal, so that a
/// pattern like `(a{1000}){1000}` is refused instead of eating the node.
const REGEX_SIZE_LIMIT: usize = 1 << 20;

pub(crate) enum Text {
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
    pub(crate) fn new(condition: &StringMatch) -> Result<Self, MatchError> {
        Ok(match condition {
            StringMatch::Exact(text) => Self::Exact(text.clone()),
            StringMatch::Prefix(text) => Self::Prefix(text.clone()),
            StringMatch::Present => Self::Present,
            StringMatch::Regex(pattern) => Self::Regex(full_match(pattern)?),
        })
    }

    pub(crate) fn holds(&self, text: &str) -> bool {
        match self {
            Self::Exact(exact) => text == exact,
            Self::Prefix(prefix) => text.starts_with(prefix.as_str()),
            Self::Regex(regex) => regex.is_match(text),
            Self::Present => true,
        }
    }

    /// The same with exact and prefix blind to the case of ASCII letters; a regex says itself what it wants.
    pub(crate) fn holds_in_any_case(&self, text: &str) -> bool {
        match self {
            Self::Exact(exact) => text.eq_ignore_ascii_case(exact),
            Self::Prefix(prefix) => text
                .as_bytes()
                .get(..prefix.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes())),
            Self::Regex(_) | Self::Present => self.holds(text),
        }
    }

    /// What a missing header is to `withoutHeaders`: empty text, except that presence asks for the header itself
    /// (spec/istio.md 1A).
    pub(crate) fn holds_without_header(&self) -> bool {
        !matches!(self, Self::Present) && self.holds("")
    }
}

/// A regex that may match anywhere.
pub(crate) fn bounded(pattern: &str) -> Result<Regex, MatchError> {
    let error = |source| MatchError::Regex { pattern: pattern.to_owned(), source: Box::new(source) };
    if pattern.len() > REGEX_MAX_BYTES {
        return Err(error(regex::Error::CompiledTooBig(REGEX_MAX_BYTES)));
    }
    compile(pattern).map_err(error)
}

fn full_match(pattern: &str) -> Result<Regex, MatchError> {
    // Compiled alone first: `a)(b` must not become valid by being wrapped.
    bounded(pattern)?;
    compile(&format!(r"\A(?:{pattern})\z"))
        .map_err(|source| MatchError::Regex { pattern: pattern.to_owned(), source: Box::new(source) })
}

fn compile(pattern: &str) -> Result<Regex, regex::Error> {
    regex::RegexBuilder::new(pattern).size_limit(REGEX_SIZE_LIMIT).build()
}
