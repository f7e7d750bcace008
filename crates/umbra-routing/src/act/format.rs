//! Header values with Envoy's operators, parsed once (spec/istio.md 4.2).
//!
//! Takes: the text of a value. Gives: the value for one request or answer. An operator that umbra does not know is an
//! error, so that it is found before a request meets it.

use std::net::{IpAddr, SocketAddr};
use std::time::SystemTime;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version};

use super::instant;

/// What values may tell of a request and its answer, besides their headers.
#[derive(Clone, Copy, Debug)]
pub struct Exchange<'a> {
    /// `%REQ(:method)%`.
    pub method: &'a str,
    /// `%REQ(:scheme)%`.
    pub scheme: &'a str,
    /// `%REQ(:authority)%`, `%REQ(host)%`. For request headers as the client sent it, for response headers as the
    /// backend got it.
    pub authority: &'a str,
    /// `%REQ(:path)%`: path and query. For request headers before any rewrite, for response headers after it.
    pub target: &'a str,
    /// `%PROTOCOL%`: what the client speaks.
    pub version: Version,
    /// `%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%`.
    pub client: IpAddr,
    /// `%START_TIME%`: when the request came.
    pub started: SystemTime,
    /// `%UPSTREAM_HOST%`: the endpoint that was asked, if one was.
    pub upstream: Option<SocketAddr>,
    /// `%RESPONSE_CODE%`: `None` before there is an answer, which Envoy writes as 0.
    pub status: Option<StatusCode>,
}

/// A value that cannot be used. The author's fault; the controller finds it with [`check_format`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// Envoy may know it; umbra does not.
    #[error(
        "umbra does not know the operator %{0}%; it knows REQ(name), REQ(name?other), RESP(name), \
         DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT, START_TIME, PROTOCOL, UPSTREAM_HOST and RESPONSE_CODE"
    )]
    Unknown(String),
    /// A `%` that begins or ends nothing.
    #[error("{0:?} has a % that belongs to no operator; write %% for a percent sign")]
    Unclosed(String),
    /// Control characters.
    #[error("{0:?} cannot be a header's value: it contains control characters")]
    Value(String),
}

/// Says whether a node could use this text as the value of a header operation.
///
/// # Errors
/// An unknown operator, a lone `%`, or characters that no header may have.
pub fn check_format(value: &str) -> Result<(), FormatError> {
    Format::new(value).map(|_| ())
}

/// A value, ready to use.
pub(crate) struct Format(Vec<Piece>);

enum Piece {
    Text(String),
    Request { first: Source, other: Option<Source>, limit: usize },
    Response { name: HeaderName, limit: usize },
    ClientAddress,
    StartTime,
    Protocol,
    UpstreamHost,
    ResponseCode,
}

/// What `REQ` asks for.
enum Source {
    Header(HeaderName),
    Method,
    Scheme,
    Authority,
    Target,
}

/// Everything that a value is made from.
pub(crate) struct Seen<'a> {
    pub(crate) request: &'a HeaderMap,
    pub(crate) response: Option<&'a HeaderMap>,
    pub(crate) exchange: &'a Exchange<'a>,
}

impl Format {
    pub(crate) fn new(value: &str) -> Result<Self, FormatError> {
        if HeaderValue::from_bytes(value.as_bytes()).is_err() {
            return Err(FormatError::Value(value.to_owned()));
        }
        let mut pieces = Vec::new();
        let mut rest = value;
        while let Some((text, after)) = rest.split_once('%') {
            pieces.push(Piece::Text(text.to_owned()));
            let (piece, after) = match after.strip_prefix('%') {
                Some(after) => (Piece::Text("%".into()), after),
                None => operator(after).ok_or_else(|| FormatError::Unclosed(value.to_owned()))??,
            };
            pieces.push(piece);
            rest = after;
        }
        pieces.push(Piece::Text(rest.to_owned()));
        Ok(Self(pieces))
    }

    /// The value; `None` when it is empty as a whole: then the operation is skipped.
    pub(crate) fn value(&self, seen: &Seen<'_>) -> Option<HeaderValue> {
        let mut value = Vec::new();
        self.0.iter().for_each(|piece| piece.write(&mut value, seen));
        if value.is_empty() { None } else { HeaderValue::from_bytes(&value).ok() }
    }
}

/// Reads an operator up to its closing `%`, and what follows; `None` when it has none.
fn operator(text: &str) -> Option<Result<(Piece, &str), FormatError>> {
    let name_end = text.find(['(', ':', '%'])?;
    let (name, mut rest) = text.split_at(name_end);
    let mut argument = None;
    if let Some(inside) = rest.strip_prefix('(') {
        let (inner, after) = inside.split_once(')')?;
        (argument, rest) = (Some(inner), after);
    }
    let (limit, after) = rest.split_once('%')?;
    let whole = &text[..text.len() - after.len() - 1];
    let limit = match limit.strip_prefix(':') {
        None if limit.is_empty() => Some(None),
        None => None,
        Some(digits) => digits.parse().ok().map(Some),
    };
    let piece = limit.and_then(|limit| Piece::new(name, argument, limit));
    Some(piece.map(|piece| (piece, after)).ok_or_else(|| FormatError::Unknown(whole.to_owned())))
}

impl Piece {
    fn new(name: &str, argument: Option<&str>, limit: Option<usize>) -> Option<Self> {
        let at_most = limit.unwrap_or(usize::MAX);
        match (name, argument) {
            ("REQ", Some(names)) => {
                let (first, other) = match names.split_once('?') {
                    Some((first, other)) => (first, Some(Source::new(other)?)),
                    None => (names, None),
                };
                return Some(Self::Request { first: Source::new(first)?, other, limit: at_most });
            }
            ("RESP", Some(name)) => {
                let name = name.to_ascii_lowercase().parse().ok()?;
                return Some(Self::Response { name, limit: at_most });
            }
            _ if argument.is_some() || limit.is_some() => return None,
            _ => {}
        }
        Some(match name {
            "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT" => Self::ClientAddress,
            "START_TIME" => Self::StartTime,
            "PROTOCOL" => Self::Protocol,
            "UPSTREAM_HOST" => Self::UpstreamHost,
            "RESPONSE_CODE" => Self::ResponseCode,
            _ => return None,
        })
    }

    fn write(&self, value: &mut Vec<u8>, seen: &Seen<'_>) {
        let mut text = |text: &str| value.extend_from_slice(text.as_bytes());
        let exchange = seen.exchange;
        match self {
            Self::Text(fixed) => text(fixed),
            Self::Request { first, other, limit } => {
                let other = || other.as_ref().and_then(|other| other.of(seen));
                let found = first.of(seen).or_else(other).unwrap_or_default();
                value.extend_from_slice(&found[..found.len().min(*limit)]);
            }
            Self::Response { name, limit } => {
                let found = seen.response.and_then(|headers| headers.get(name));
                let found = found.map(HeaderValue::as_bytes).unwrap_or_default();
                value.extend_from_slice(&found[..found.len().min(*limit)]);
            }
            Self::ClientAddress => text(&exchange.client.to_canonical().to_string()),
            Self::StartTime => text(&instant::text(exchange.started)),
            Self::Protocol => text(protocol(exchange.version)),
            Self::UpstreamHost => text(&exchange.upstream.map(|host| host.to_string()).unwrap_or_default()),
            Self::ResponseCode => text(exchange.status.as_ref().map_or("0", StatusCode::as_str)),
        }
    }
}

impl Source {
    fn new(name: &str) -> Option<Self> {
        Some(match name.to_ascii_lowercase().as_str() {
            ":method" => Self::Method,
            ":scheme" => Self::Scheme,
            ":authority" | "host" => Self::Authority,
            ":path" => Self::Target,
            name => Self::Header(name.parse().ok()?),
        })
    }

    /// Of a repeated header the first copy.
    fn of<'a>(&self, seen: &Seen<'a>) -> Option<&'a [u8]> {
        let exchange = seen.exchange;
        match self {
            Self::Header(name) => seen.request.get(name).map(HeaderValue::as_bytes),
            Self::Method => Some(exchange.method.as_bytes()),
            Self::Scheme => Some(exchange.scheme.as_bytes()),
            Self::Authority => Some(exchange.authority.as_bytes()),
            Self::Target => Some(exchange.target.as_bytes()),
        }
    }
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        _ => "HTTP/1.1",
    }
}

#[cfg(test)]
mod tests;
