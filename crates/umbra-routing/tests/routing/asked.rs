//! Requests, as cases say them.

use std::collections::BTreeMap;

use http::{HeaderMap, HeaderName, HeaderValue};
use umbra_routing::RequestHead;

#[derive(Clone, Debug)]
pub(crate) struct Asked {
    method: String,
    pub(crate) scheme: &'static str,
    pub(crate) authority: String,
    target: String,
    pub(crate) headers: HeaderMap,
    labels: Option<BTreeMap<String, String>>,
}

impl Asked {
    /// For `http://a/`, from a client that nobody knows.
    pub(crate) fn new(method: &str, target: &str) -> Self {
        Self {
            method: method.into(),
            scheme: "http",
            authority: "a".into(),
            target: target.into(),
            headers: HeaderMap::new(),
            labels: None,
        }
    }

    pub(crate) fn get(target: &str) -> Self {
        Self::new("GET", target)
    }

    pub(crate) fn header(self, name: &str, value: &str) -> Self {
        self.bytes(name, value.as_bytes())
    }

    pub(crate) fn bytes(mut self, name: &str, value: &[u8]) -> Self {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a header's name");
        self.headers.append(name, HeaderValue::from_bytes(value).expect("a header's value"));
        self
    }

    pub(crate) fn host(self, authority: &str) -> Self {
        Self { authority: authority.into(), ..self }
    }

    pub(crate) fn scheme(self, scheme: &'static str) -> Self {
        Self { scheme, ..self }
    }

    pub(crate) fn labelled(self, labels: &[(&str, &str)]) -> Self {
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        Self { labels: Some(labels.collect()), ..self }
    }

    pub(crate) fn head(&self) -> RequestHead<'_> {
        RequestHead {
            method: &self.method,
            scheme: self.scheme,
            authority: &self.authority,
            target: &self.target,
            headers: &self.headers,
            labels: self.labels.as_ref(),
        }
    }
}
