//! What a rule does beside choosing a destination, as sent to a node. Pure data.

use serde::{Deserialize, Serialize};

use crate::matcher::StringMatch;

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Instead of a destination.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Answer {
    /// Another address to go to.
    Redirect(Redirect),
    /// This.
    Direct(DirectResponse),
    /// That of no rule: for these requests the list ends here, while rules for other clients follow.
    NoRoute,
}

/// spec/istio.md 1A and 4.3.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    pub code: u16,
    /// What becomes of the path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<RedirectPath>,
    /// In place of the request's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authority: Option<String>,
    /// `http` or `https`, in place of the request's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheme: Option<String>,
    /// Which port the address names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<RedirectPort>,
}

/// What becomes of a redirect's path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RedirectPath {
    /// All of it is replaced, by a text that may bring its own query.
    Whole(String),
    /// What the rule's uri prefix matched is replaced.
    Prefix(String),
}

/// Which port a redirect's address names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RedirectPort {
    /// This one, unless it is the scheme's own.
    Number(u16),
    /// That of the Service, unless it is the scheme's own.
    OfService,
    /// None.
    OfScheme,
}

/// A whole answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DirectResponse {
    /// 200 to 600.
    pub status: u16,
    /// What it says.
    #[serde(skip_serializing_if = "Vec::is_empty", with = "bytes_as_text")]
    pub body: Vec<u8>,
}

/// Bytes travel as a JSON text when they are UTF-8, else as an array of numbers.
mod bytes_as_text {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Text(String),
        Bytes(Vec<u8>),
    }

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(bytes) {
            Ok(text) => text.serialize(to),
            Err(_) => bytes.serialize(to),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        Ok(match Either::deserialize(from)? {
            Either::Text(text) => text.into_bytes(),
            Either::Bytes(bytes) => bytes,
        })
    }
}

/// Changes the request's target before it is sent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Rewrite {
    /// What becomes of the path; the query stays.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathRewrite>,
    /// In place of Host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authority: Option<String>,
}

/// What becomes of a path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PathRewrite {
    /// In place of what the uri condition of the block that matched took: the prefix, or all of an exact or regex
    /// match; without such a condition the prefix is `/`.
    Matched(String),
    /// In place of each match of a regex; `\1` are its groups.
    Regex {
        /// RE2 syntax.
        pattern: String,
        /// What stands in.
        substitution: String,
    },
}

/// Header changes of a request and its answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HeaderChanges {
    /// Of the request.
    #[serde(skip_serializing_if = "is_default")]
    pub request: HeaderEdits,
    /// Of the answer.
    #[serde(skip_serializing_if = "is_default")]
    pub response: HeaderEdits,
}

/// All removes, then all sets, then all adds, each in this order. The controller merges a rule's changes and those of a
/// single destination into one (spec/istio.md 4.2). `host` or `:authority` among the request's names is no header but the
/// authority, its text literal: of several the first that is set counts, else the first that is added.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HeaderEdits {
    /// Names, lower case.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<String>,
    /// Name, lower case, and value with Envoy's operators.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub set: Vec<(String, String)>,
    /// The same.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub add: Vec<(String, String)>,
}

/// When a request is sent again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Retries {
    /// At most so often.
    pub attempts: u32,
    /// Istio's words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub on: Vec<RetryOn>,
    /// With [`RetryOn::RetriableStatusCodes`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub codes: Vec<u16>,
    /// Of each attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_try_timeout_ms: Option<u64>,
    /// The first pause at most; 25 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backoff_ms: Option<u64>,
    /// Endpoints that were tried are not avoided.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub previous_hosts: bool,
}

/// spec/istio.md 1A, `retryOn`. Words that need what umbra has not (HTTP/3, rate limits of Envoy) are left out by the
/// controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "Istio's words")]
pub enum RetryOn {
    #[serde(rename = "5xx")]
    FiveXx,
    GatewayError,
    Reset,
    ResetBeforeRequest,
    ConnectFailure,
    #[serde(rename = "retriable-4xx")]
    Retriable4xx,
    RefusedStream,
    RetriableStatusCodes,
    RetriableHeaders,
    Cancelled,
    DeadlineExceeded,
    Internal,
    ResourceExhausted,
    Unavailable,
}

/// Failures on purpose; the delay comes first, and each is drawn on its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Fault {
    /// Some requests wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay: Option<Delay>,
    /// Some are answered with an error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub abort: Option<Abort>,
}

/// A wait for some requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Delay {
    /// How long.
    pub ms: u64,
    /// How many.
    pub per_million: u32,
}

/// An error for some requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Abort {
    /// Which.
    pub with: AbortWith,
    /// How many.
    pub per_million: u32,
}

/// How a request is aborted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum AbortWith {
    /// With this status, 200 to 600.
    Http(u16),
    /// With status 200 and this `grpc-status`.
    Grpc(u8),
}

/// spec/istio.md 4.4.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Cors {
    /// Which origins may; [`StringMatch::Present`] is any.
    pub origins: Vec<StringMatch>,
    /// Empty: the header is not sent; `*` answers with the method asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    /// The same for request headers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<String>,
    /// Answer headers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub expose: Vec<String>,
    /// Seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_age: Option<u64>,
    /// Credentials may be sent.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub credentials: bool,
    /// Preflights of other origins are answered here, without allow-origin; else they are forwarded.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub ignore_unmatched: bool,
}
