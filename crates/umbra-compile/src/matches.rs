//! `match` blocks: what a node will test, and which blocks are for whom.
//!
//! What umbra does not know never matches, so that it can only narrow. A regex that does not compile makes the
//! VirtualService invalid; every other value `validate()` has judged.

use umbra_index::api::header_name::is_token;
use umbra_index::api::{self, HttpMatchRequest, Labels, values};
use umbra_routing::{HeaderMatch, MatchError, QueryMatch, RequestMatch, StringMatch};

use crate::finding::Reason;
use crate::report::{Report, meaningful};

/// What a condition is about; Istio reads the same words differently.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Subject {
    Uri,
    /// Scheme, method, authority.
    Word,
    /// Headers and query parameters, which may be absent.
    Entry,
    /// Of CORS; a form that is not known is left out instead of never matching.
    Origin,
}

/// A block as written, with what is decided before a node sees it (spec/istio.md 4.1).
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct BlockSpec {
    /// What a node tests; the client's labels are not in it yet.
    pub(crate) request: RequestMatch,
    pub(crate) port: Option<u16>,
    pub(crate) source_namespace: Option<String>,
    pub(crate) source_labels: Labels,
    pub(crate) gateways: Vec<String>,
}

impl BlockSpec {
    /// What clients of a namespace are to be tested for on a port; `None`: the block is not for them.
    pub(crate) fn for_clients(&self, client: Option<&str>, port: u16) -> Option<RequestMatch> {
        let mut request = self.request.clone();
        if self.gateways.is_empty() {
            if self.source_namespace.as_deref().is_some_and(|wanted| client != Some(wanted)) {
                return None;
            }
            request.source_labels = self.source_labels.clone();
        } else if !self.gateways.iter().any(|gateway| gateway == "mesh") {
            return None;
        }
        self.port.is_none_or(|wanted| wanted == port).then_some(request)
    }

    /// Every request of every client fits.
    pub(crate) fn takes_everything(&self) -> bool {
        let for_all = self.port.is_none() && self.source_namespace.is_none() && self.source_labels.is_empty();
        for_all && self.gateways.is_empty() && self.request.takes_everything()
    }
}

/// Reads the block at `path`.
pub(crate) fn block(report: &mut Report, path: &str, block: &HttpMatchRequest) -> BlockSpec {
    let mut reader = Reader { report, never: false };
    for field in meaningful(&block.rest) {
        reader.never(&format!("{path}.{field}"), &format!("umbra does not know the condition {field}"));
    }
    let mut word = |name: &str, text: &Option<api::StringMatch>, subject| {
        let condition = text.as_ref().and_then(|text| reader.text(&format!("{path}.{name}"), text, subject));
        // Every request has one.
        condition.filter(|condition| *condition != StringMatch::Present)
    };
    let uri = word("uri", &block.uri, Subject::Uri);
    let method = word("method", &block.method, Subject::Word);
    let scheme = word("scheme", &block.scheme, Subject::Word);
    let authority = word("authority", &block.authority, Subject::Word);
    let headers = reader.headers(&format!("{path}.headers"), &block.headers);
    let without_headers = reader.headers(&format!("{path}.withoutHeaders"), &block.without_headers);
    let query = reader.query(&format!("{path}.queryParams"), block);
    let never = reader.never;
    BlockSpec {
        request: RequestMatch {
            never,
            uri,
            method,
            ignore_uri_case: block.ignore_uri_case == Some(true),
            scheme,
            authority,
            headers,
            without_headers,
            query,
            ..RequestMatch::default()
        },
        port: block.port.and_then(values::port),
        source_namespace: block.source_namespace.clone().filter(|namespace| !namespace.is_empty()),
        source_labels: block.source_labels.clone(),
        gateways: block.gateways.clone(),
    }
}

/// Reads one of the origins of a CORS policy. `None`: it is left out, which is said.
pub(crate) fn origin(report: &mut Report, path: &str, text: &api::StringMatch) -> Option<StringMatch> {
    let mut reader = Reader { report, never: false };
    reader.text(path, text, Subject::Origin).filter(|origin| *origin != StringMatch::Present)
}

/// A header's name, or one of those that stand for another part of a request.
fn can_be_matched(name: &str) -> bool {
    const PSEUDO: [&str; 5] = [":method", ":scheme", ":authority", ":path", ":status"];
    is_token(name) || PSEUDO.contains(&name.to_ascii_lowercase().as_str())
}

struct Reader<'r> {
    report: &'r mut Report,
    never: bool,
}

type Entries = std::collections::BTreeMap<String, api::StringMatch>;

impl Reader<'_> {
    fn never(&mut self, path: &str, why: &str) {
        self.never = true;
        self.report.note(Reason::PartiallyInvalid, path, format!("{why}, so this match block never matches"));
    }

    fn headers(&mut self, path: &str, entries: &Entries) -> Vec<HeaderMatch> {
        entries.iter().filter_map(|(name, text)| self.header(path, name, text)).collect()
    }

    fn header(&mut self, path: &str, name: &str, text: &api::StringMatch) -> Option<HeaderMatch> {
        let path = format!("{path}[{name}]");
        if !can_be_matched(name) {
            self.never(&path, &format!("umbra cannot test {name:?}, which is not a header's name"));
            return None;
        }
        let value = self.text(&path, text, Subject::Entry)?;
        Some(HeaderMatch { name: name.to_ascii_lowercase(), value })
    }

    /// Names are raw and keep their case.
    fn query(&mut self, path: &str, block: &HttpMatchRequest) -> Vec<QueryMatch> {
        let all = block.query_params.iter().filter_map(|(name, text)| {
            let value = self.text(&format!("{path}[{name}]"), text, Subject::Entry)?;
            Some(QueryMatch { name: name.clone(), value })
        });
        all.collect()
    }

    /// `None`: the block never matches, or the object is invalid; either is said.
    fn text(&mut self, path: &str, text: &api::StringMatch, subject: Subject) -> Option<StringMatch> {
        if let Some(form) = meaningful(&text.rest).next() {
            self.unknown(&format!("{path}.{form}"), &format!("umbra does not know the form {form}"), subject);
            return None;
        }
        if let Some(regex) = &text.regex {
            return self.regex(path, regex, subject);
        }
        let prefix = text.prefix.clone().map(StringMatch::Prefix);
        Some(text.exact.clone().map(StringMatch::Exact).or(prefix).unwrap_or(StringMatch::Present))
    }

    fn unknown(&mut self, path: &str, why: &str, subject: Subject) {
        if subject == Subject::Origin {
            self.report.note(Reason::PartiallyInvalid, path, format!("{why}, so this origin is left out"));
        } else {
            self.never(path, why);
        }
    }

    fn regex(&mut self, path: &str, regex: &str, subject: Subject) -> Option<StringMatch> {
        // Istio's old spelling of presence.
        if regex == "*" && subject == Subject::Entry {
            return Some(StringMatch::Present);
        }
        let condition = StringMatch::Regex(regex.to_owned());
        match condition.check() {
            Ok(()) => Some(condition),
            Err(error) => {
                bad_regex(self.report, format!("{path}.regex"), &error);
                None
            }
        }
    }
}

/// A regex that no node can use; of one that is too long `validate()` has told.
pub(crate) fn bad_regex(report: &mut Report, path: String, error: &MatchError) {
    if !report.is_about(&path) {
        report.reject(Reason::Invalid, path, one_line(error));
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
