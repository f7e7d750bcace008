//! What a header condition is about: a header, or what of a request has a header's name in Envoy.

use http::{HeaderMap, HeaderName};

use super::text::Text;
use super::{HeaderMatch, MatchError};
use crate::head::Split;

/// Stands for the id that Envoy gives to requests without one before it matches (spec/istio.md 4.1). umbra adds none, so
/// only its form can be asked for.
const SOME_REQUEST_ID: &str = "00000000-0000-4000-8000-000000000000";

/// One condition under `headers` or `withoutHeaders`.
pub(crate) struct HeaderCondition {
    subject: Subject,
    text: Text,
}

enum Subject {
    Header(HeaderName),
    /// Without one, the scheme stands in, as Envoy adds it before it matches.
    ForwardedProto(HeaderName),
    /// Without one, [`SOME_REQUEST_ID`] stands in.
    RequestId(HeaderName),
    Method,
    Scheme,
    Authority,
    /// With the query (spec/istio.md 4.1).
    Target,
    /// No request has a status.
    Status,
}

impl HeaderCondition {
    pub(crate) fn new(condition: &HeaderMatch) -> Result<Self, MatchError> {
        Ok(Self { subject: Subject::new(&condition.name)?, text: Text::new(&condition.value)? })
    }

    /// One of its copies fits.
    pub(crate) fn holds(&self, request: &Split<'_>) -> bool {
        self.subject.any_copy(request, |copy| match copy {
            Some(text) => self.text.holds(text),
            // Bytes that are no text are only present.
            None => matches!(self.text, Text::Present),
        })
    }

    /// None of its copies fits; a missing one counts as empty text.
    pub(crate) fn holds_not(&self, request: &Split<'_>) -> bool {
        let is_there = self.subject.any_copy(request, |_| true);
        !self.holds(request) && (is_there || !self.text.holds_without_header())
    }

    /// A header that must have exactly this value: rules can be found by it.
    pub(crate) fn exact_header(&self) -> Option<(&HeaderName, &str)> {
        match (&self.subject, &self.text) {
            (Subject::Header(name), Text::Exact(value)) => Some((name, value)),
            _ => None,
        }
    }
}

impl Subject {
    /// `host` is the authority; `method`, `uri` and the like without a colon are plain headers (spec/istio.md 4.1).
    fn new(name: &str) -> Result<Self, MatchError> {
        Ok(match name.to_ascii_lowercase().as_str() {
            ":method" => Self::Method,
            ":scheme" => Self::Scheme,
            ":authority" | "host" => Self::Authority,
            ":path" => Self::Target,
            ":status" => Self::Status,
            lower => {
                let name = HeaderName::from_bytes(lower.as_bytes())
                    .map_err(|_| MatchError::HeaderName(name.to_owned()))?;
                match lower {
                    "x-forwarded-proto" => Self::ForwardedProto(name),
                    "x-request-id" => Self::RequestId(name),
                    _ => Self::Header(name),
                }
            }
        })
    }

    /// Each copy of a repeated header is tried alone (spec/istio.md 4.1); `None` is a copy that is no text.
    fn any_copy(&self, request: &Split<'_>, fits: impl Fn(Option<&str>) -> bool) -> bool {
        let head = request.head;
        let header = |name, stands_in: &str| match head.headers.contains_key(name) {
            true => any_copy_of(head.headers, name, &fits),
            false => fits(Some(stands_in)),
        };
        match self {
            Self::Header(name) => any_copy_of(head.headers, name, &fits),
            Self::ForwardedProto(name) => header(name, head.scheme),
            Self::RequestId(name) => header(name, SOME_REQUEST_ID),
            Self::Method => fits(Some(head.method)),
            Self::Scheme => fits(Some(head.scheme)),
            Self::Authority => fits(Some(head.authority)),
            Self::Target => fits(Some(head.target)),
            Self::Status => false,
        }
    }
}

fn any_copy_of(headers: &HeaderMap, name: &HeaderName, fits: &impl Fn(Option<&str>) -> bool) -> bool {
    headers.get_all(name).iter().any(|value| fits(std::str::from_utf8(value.as_bytes()).ok()))
}
