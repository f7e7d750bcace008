//! Heads: what the parsers let pass and rules cannot be asked about.
//!
//! Takes: a request's head as it came. Gives: the same with its path normalised and its cookies in one header, or what to
//! tell its client.

use std::borrow::Cow;
use std::fmt::Display;

use http::uri::InvalidUri;
use http::{Method, Request, StatusCode, Uri, Version};
use umbra_routing::normalise;

use crate::headers::{self, Noticed};
use crate::http1::MAX_HEADERS;
use crate::serve::ClientBody;

/// A head that cannot be acted on.
pub(super) struct NotUnderstood {
    /// For the counter.
    pub(super) reason: &'static str,
    pub(super) status: StatusCode,
    /// For the client.
    pub(super) text: String,
}

impl NotUnderstood {
    fn bad(reason: &'static str, text: impl Display) -> Self {
        Self { reason, status: StatusCode::BAD_REQUEST, text: text.to_string() }
    }
}

/// Makes a head one that rules can look at: its path normalised, its cookies one header.
pub(super) fn understand(request: &mut Request<ClientBody>, noticed: Noticed) -> Result<(), NotUnderstood> {
    headers::check_host(request.version(), request.uri(), (request.headers(), noticed))
        .map_err(|wrong| NotUnderstood::bad("host", wrong))?;
    if request.version() == Version::HTTP_2 {
        understand_http2(request)?;
    }
    let Some(target) = request.uri().path_and_query() else { return Ok(()) };
    let normal =
        normalise(target.as_str()).map_err(|wrong| NotUnderstood::bad("path", format!("{wrong}\n")))?;
    if let Cow::Owned(normal) = normal {
        let wrong = |error: InvalidUri| NotUnderstood::bad("path", format!("{error}\n"));
        let mut parts = std::mem::take(request.uri_mut()).into_parts();
        parts.path_and_query = Some(normal.parse().map_err(wrong)?);
        *request.uri_mut() = Uri::from_parts(parts).expect("only its path is another");
    }
    Ok(())
}

/// What the parser of HTTP/1 has seen to, and that of HTTP/2 has not.
fn understand_http2(request: &mut Request<ClientBody>) -> Result<(), NotUnderstood> {
    headers::join_cookies(request.headers_mut());
    if request.headers().len() > MAX_HEADERS {
        let (reason, status) = ("too_large", StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
        return Err(NotUnderstood {
            reason,
            status,
            text: format!("more than {MAX_HEADERS} header fields\n"),
        });
    }
    let is_path = |path: &str| path.starts_with('/') || path == "*" && request.method() == Method::OPTIONS;
    if !request.uri().path_and_query().is_none_or(|target| is_path(target.path())) {
        return Err(NotUnderstood::bad("path", "a :path begins with a slash\n"));
    }
    Ok(())
}
