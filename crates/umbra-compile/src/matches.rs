//! `match` blocks: what a node will test.
//!
//! What umbra does not know never matches, so that it can only narrow; what no proxy could use makes the
//! VirtualService invalid.

use umbra_index::api::{self, HttpMatchRequest};
use umbra_routing::{HeaderMatch, MatchError, RequestMatch, StringMatch};

use crate::finding::Reason;
use crate::report::{Report, meaningful};

/// Characters of a header's name beside letters and digits (RFC 9110, 5.6.2).
const TOKEN_MARKS: &str = "!#$%&'*+-.^_`|~";

/// What a condition is about; Istio reads the same words differently.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Subject {
    Uri,
    Method,
    Header,
}

/// Reads the block at `path`.
pub(crate) fn block(report: &mut Report, path: &str, block: &HttpMatchRequest) -> RequestMatch {
    let mut reader = Reader { report, never: false };
    for field in meaningful(&block.rest).chain(not_yet(block)) {
        reader.never(&format!("{path}.{field}"), &format!("umbra does not know the condition {field}"));
    }
    let always_there = |condition: &StringMatch| *condition != StringMatch::Present;
    let uri = block.uri.as_ref().and_then(|uri| reader.text(&format!("{path}.uri"), uri, Subject::Uri));
    let method =
        block.method.as_ref().and_then(|text| reader.text(&format!("{path}.method"), text, Subject::Method));
    let headers = block.headers.iter().filter_map(|(name, text)| reader.header(path, name, text)).collect();
    RequestMatch {
        never: reader.never,
        uri: uri.filter(always_there),
        method: method.filter(always_there),
        headers,
        ..RequestMatch::default()
    }
}

/// Conditions that are typed and not compiled yet.
fn not_yet(block: &HttpMatchRequest) -> impl Iterator<Item = &str> {
    let given = [
        ("scheme", block.scheme.is_some()),
        ("authority", block.authority.is_some()),
        ("withoutHeaders", !block.without_headers.is_empty()),
        ("queryParams", !block.query_params.is_empty()),
        ("ignoreUriCase", block.ignore_uri_case == Some(true)),
        ("port", block.port.is_some()),
        ("sourceLabels", !block.source_labels.is_empty()),
        ("sourceNamespace", block.source_namespace.is_some()),
        ("gateways", !block.gateways.is_empty()),
    ];
    given.into_iter().filter_map(|(field, given): (&str, bool)| given.then_some(field))
}

struct Reader<'r> {
    report: &'r mut Report,
    never: bool,
}

impl Reader<'_> {
    fn never(&mut self, path: &str, why: &str) {
        self.never = true;
        self.report.note(Reason::PartiallyInvalid, path, format!("{why}, so this match block never matches"));
    }

    fn header(&mut self, path: &str, name: &str, text: &api::StringMatch) -> Option<HeaderMatch> {
        let path = format!("{path}.headers[{name:?}]");
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || TOKEN_MARKS.contains(c)) {
            self.never(&path, &format!("umbra cannot test {name:?}, which is not a header's name"));
            return None;
        }
        let value = self.text(&path, text, Subject::Header)?;
        Some(HeaderMatch { name: name.to_ascii_lowercase(), value })
    }

    /// `None`: the block never matches, or the object is invalid; either is said.
    fn text(&mut self, path: &str, text: &api::StringMatch, subject: Subject) -> Option<StringMatch> {
        if let Some(form) = meaningful(&text.rest).next() {
            self.never(&format!("{path}.{form}"), &format!("umbra does not know the form {form}"));
            return None;
        }
        match (&text.exact, &text.prefix, &text.regex) {
            (None, None, None) => Some(StringMatch::Present),
            (Some(exact), None, None) => Some(StringMatch::Exact(exact.clone())),
            (None, Some(prefix), None) => self.prefix(path, prefix, subject),
            (None, None, Some(regex)) => self.regex(path, regex, subject),
            _ => {
                self.never(path, "only one of exact, prefix and regex may be given");
                None
            }
        }
    }

    fn prefix(&mut self, path: &str, prefix: &str, subject: Subject) -> Option<StringMatch> {
        if prefix.is_empty() && subject != Subject::Uri {
            self.report.reject(
                Reason::Invalid,
                format!("{path}.prefix"),
                "the prefix is empty; ask for presence with {}",
            );
            return None;
        }
        Some(StringMatch::Prefix(prefix.to_owned()))
    }

    fn regex(&mut self, path: &str, regex: &str, subject: Subject) -> Option<StringMatch> {
        // Istio's old spelling of presence.
        if regex == "*" && subject == Subject::Header {
            return Some(StringMatch::Present);
        }
        let condition = StringMatch::Regex(regex.to_owned());
        let problem = match condition.check() {
            Ok(()) if regex.is_empty() => "the regex is empty; ask for presence with {}".to_owned(),
            Ok(()) => return Some(condition),
            Err(error) => one_line(&error),
        };
        self.report.reject(Reason::Invalid, format!("{path}.regex"), problem);
        None
    }
}

/// Regex errors draw a picture over several lines; the last one says it.
fn one_line(error: &MatchError) -> String {
    match error {
        MatchError::Regex { pattern, source } => {
            let source = source.to_string();
            let last = source.lines().last().unwrap_or_default();
            format!("regex {pattern:?} does not compile: {}", last.trim_start_matches("error: "))
        }
        MatchError::HeaderName(_) => error.to_string(),
    }
}
