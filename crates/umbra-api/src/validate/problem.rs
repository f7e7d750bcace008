//! What is said about an object, and where checks stand while they say it.

use std::fmt;

/// Something in an object's spec that makes no sense, or less than its author thinks. The author's to correct.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Whether the object can be used all the same.
    pub severity: Severity,
    /// Istio's name for this kind of problem.
    pub code: Code,
    /// The field, as `spec.http[0].mirror.host`.
    pub path: String,
    /// What is wrong and the way out.
    pub message: String,
}

/// How grave a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Severity {
    /// The object makes no sense: Istio's webhook refuses it, umbra keeps the rules it had.
    Error,
    /// It does not do what it looks like, or will not for ever.
    Warning,
    /// Worth knowing.
    Info,
}

/// Istio's message codes (spec/istio.md 3) that one object alone can earn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Code {
    /// A field that is on its way out.
    Deprecated,
    /// A value that makes no sense.
    SchemaValidationError,
    /// A rule that no request reaches.
    UnreachableRule,
    /// A match block that makes no difference.
    IneffectiveMatch,
    /// A value that does less than it looks.
    SchemaWarning,
}

impl Code {
    /// As Istio prints it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deprecated => "IST0002",
            Self::SchemaValidationError => "IST0106",
            Self::UnreachableRule => "IST0130",
            Self::IneffectiveMatch => "IST0131",
            Self::SchemaWarning => "IST0133",
        }
    }
}

impl Severity {
    /// In lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Info => "info",
        }
    }
}

impl Problem {
    /// The object cannot be used because of it.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

/// A field being looked at: what is said there goes to the object's problems.
pub(super) struct Field<'p> {
    problems: &'p mut Vec<Problem>,
    path: String,
}

impl<'p> Field<'p> {
    pub(super) fn spec(problems: &'p mut Vec<Problem>) -> Self {
        Self { problems, path: "spec".to_owned() }
    }

    /// A field of this one.
    pub(super) fn at(&mut self, name: &str) -> Field<'_> {
        Field { path: format!("{}.{name}", self.path), problems: self.problems }
    }

    /// An entry of the list `name`.
    pub(super) fn item(&mut self, name: &str, index: usize) -> Field<'_> {
        Field { path: format!("{}.{name}[{index}]", self.path), problems: self.problems }
    }

    /// An entry of the map `name`.
    pub(super) fn entry(&mut self, name: &str, key: &str) -> Field<'_> {
        Field { path: format!("{}.{name}[{key}]", self.path), problems: self.problems }
    }

    pub(super) fn error(&mut self, message: impl Into<String>) {
        self.say(Severity::Error, Code::SchemaValidationError, message.into());
    }

    pub(super) fn warn(&mut self, message: impl Into<String>) {
        self.say(Severity::Warning, Code::SchemaWarning, message.into());
    }

    pub(super) fn deprecated(&mut self, message: impl Into<String>) {
        self.say(Severity::Warning, Code::Deprecated, message.into());
    }

    pub(super) fn unreachable(&mut self, message: impl Into<String>) {
        self.say(Severity::Warning, Code::UnreachableRule, message.into());
    }

    pub(super) fn ineffective(&mut self, message: impl Into<String>) {
        self.say(Severity::Info, Code::IneffectiveMatch, message.into());
    }

    /// How many errors there are so far.
    pub(super) fn errors(&self) -> usize {
        self.problems.iter().filter(|problem| problem.is_error()).count()
    }

    fn say(&mut self, severity: Severity, code: Code, message: String) {
        self.problems.push(Problem { severity, code, path: self.path.clone(), message });
    }
}
