//! The request to explain.

use std::collections::BTreeMap;

use http::{HeaderMap, HeaderName, HeaderValue, Uri, Version};
use umbra_index::api::ObjectKey;
use umbra_routing::{BadPath, RequestHead, normalise};

use crate::args::ExplainArgs;

/// What makes no sense of a request.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// Not `http://service[:port]/path`.
    #[error("{url:?} is not http://SERVICE[:PORT]/PATH: {why}")]
    Url {
        /// As given.
        url: String,
        /// What is missing.
        why: String,
    },
    /// The path is one that a proxy answers 400.
    #[error("the proxy answers 400: {0}")]
    Path(#[from] BadPath),
    /// Not `name: value`.
    #[error("-H {0:?} is not NAME: VALUE")]
    Header(String),
    /// Not `namespace/pod`.
    #[error("--from {0:?} is not NAMESPACE/POD")]
    From(String),
}

/// One request and its client.
#[derive(Debug)]
pub struct Wanted {
    /// The method.
    pub method: String,
    /// As given.
    pub url: String,
    /// The host of the URL, which chooses the service.
    pub host: String,
    /// The Service's port.
    pub port: u16,
    /// Path and query, normalised.
    pub target: String,
    /// With Host.
    pub headers: HeaderMap,
    /// The client's pod.
    pub from: ObjectKey,
    authority: String,
}

impl Wanted {
    /// Reads the flags.
    ///
    /// # Errors
    /// One of them makes no sense.
    pub fn new(args: &ExplainArgs) -> Result<Self, RequestError> {
        Self::of(&args.method, args.url(), &args.header, &args.from)
    }

    /// A request by its parts, each as its flag has it.
    ///
    /// # Errors
    /// One of them makes no sense.
    pub fn of(method: &str, url: &str, header: &[String], from: &str) -> Result<Self, RequestError> {
        let wrong = |why: &str| RequestError::Url { url: url.to_owned(), why: why.to_owned() };
        let uri: Uri = url.parse().map_err(|error: http::uri::InvalidUri| wrong(&error.to_string()))?;
        if uri.scheme_str() != Some("http") {
            return Err(wrong("umbra takes over plain HTTP only"));
        }
        let authority = uri.authority().ok_or_else(|| wrong("no service is named"))?;
        let target = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        let headers = headers(header)?;
        // A Host of its own is for the rules to see; what was connected to is the URL's.
        let host = headers.get(http::header::HOST).and_then(|host| host.to_str().ok()).map(str::to_owned);
        Ok(Self {
            method: method.to_owned(),
            url: url.to_owned(),
            host: authority.host().to_owned(),
            port: authority.port_u16().unwrap_or(80),
            target: normalise(target)?.into_owned(),
            authority: host.unwrap_or_else(|| authority.to_string()),
            headers,
            from: pod(from)?,
        })
    }

    /// As rules see it.
    pub(super) fn head<'a>(&'a self, labels: &'a BTreeMap<String, String>) -> RequestHead<'a> {
        RequestHead {
            method: &self.method,
            scheme: umbra_routing::scheme(Version::HTTP_11, None, &self.headers),
            authority: &self.authority,
            target: &self.target,
            headers: &self.headers,
            labels: Some(labels),
        }
    }
}

fn headers(given: &[String]) -> Result<HeaderMap, RequestError> {
    let mut headers = HeaderMap::new();
    for text in given {
        let wrong = || RequestError::Header(text.clone());
        let (name, value) = text.split_once(':').ok_or_else(wrong)?;
        let name = HeaderName::from_bytes(name.trim().as_bytes()).map_err(|_| wrong())?;
        headers.append(name, HeaderValue::from_str(value.trim()).map_err(|_| wrong())?);
    }
    Ok(headers)
}

fn pod(from: &str) -> Result<ObjectKey, RequestError> {
    match from.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.contains('/') => {
            Ok(ObjectKey::new(namespace, name))
        }
        _ => Err(RequestError::From(from.to_owned())),
    }
}
