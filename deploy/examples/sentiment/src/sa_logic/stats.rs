//! What `sa-logic` saw and answered, for tests to compare copies with originals.

use std::collections::{BTreeMap, VecDeque};

use hyper::StatusCode;
use hyper::http::request::Parts;
use serde::Serialize;

/// Bytes kept of one body: a sentence fits; the ring of 2,000 stays under 10 MiB.
const KEPT_OF_A_BODY: usize = 4096;

/// Counters since the start (or since `DELETE /stats`), and the last requests in full.
#[derive(Debug, Serialize)]
pub struct Stats {
    version: &'static str,
    /// Requests by path.
    requests: BTreeMap<String, u64>,
    /// Answers by status.
    answers: BTreeMap<u16, u64>,
    /// Requests that fell off the ring.
    forgotten: u64,
    recorded: VecDeque<Seen>,
    #[serde(skip)]
    keep: usize,
}

/// One request as it arrived.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Seen {
    /// The method.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// Headers in order, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body's beginning, at most 4 KiB.
    pub body: String,
    /// The whole body's length.
    pub body_bytes: usize,
}

impl Stats {
    /// Nothing seen; the ring keeps `keep` requests.
    pub fn new(version: &'static str, keep: usize) -> Self {
        let recorded = VecDeque::new();
        Self { version, requests: BTreeMap::new(), answers: BTreeMap::new(), forgotten: 0, recorded, keep }
    }

    /// Counts and keeps a request.
    pub fn saw(&mut self, head: &Parts, body: &[u8]) {
        *self.requests.entry(head.uri.path().to_owned()).or_default() += 1;
        let kept = &body[..body.len().min(KEPT_OF_A_BODY)];
        let header = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
            (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        self.recorded.push_back(Seen {
            method: head.method.to_string(),
            path: head.uri.path_and_query().map_or_else(String::new, ToString::to_string),
            headers: head.headers.iter().map(header).collect(),
            body: String::from_utf8_lossy(kept).into_owned(),
            body_bytes: body.len(),
        });
        while self.recorded.len() > self.keep {
            self.recorded.pop_front();
            self.forgotten += 1;
        }
    }

    /// Counts an answer.
    pub fn answered(&mut self, status: StatusCode) {
        *self.answers.entry(status.as_u16()).or_default() += 1;
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Self::new(self.version, self.keep);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(path: &str) -> Parts {
        http::Request::post(path).header("x-request-id", "7").body(()).unwrap().into_parts().0
    }

    #[test]
    fn the_ring_forgets_the_oldest_and_says_so() {
        let mut stats = Stats::new("v1", 2);
        for path in ["/a", "/b", "/b?q=1"] {
            stats.saw(&head(path), b"{}");
        }
        stats.answered(StatusCode::OK);
        let shown = serde_json::to_value(&stats).unwrap();
        assert_eq!(shown["requests"], serde_json::json!({"/a": 1, "/b": 2}));
        assert_eq!(shown["answers"], serde_json::json!({"200": 1}));
        assert_eq!(shown["forgotten"], 1);
        assert_eq!(shown["recorded"][1]["path"], "/b?q=1");
        assert_eq!(shown["recorded"][1]["headers"][0], serde_json::json!(["x-request-id", "7"]));
        stats.clear();
        assert_eq!(serde_json::to_value(&stats).unwrap()["requests"], serde_json::json!({}));
    }

    #[test]
    fn a_long_body_is_kept_in_part() {
        let mut stats = Stats::new("v1", 1);
        stats.saw(&head("/"), &vec![b'x'; 10_000]);
        assert_eq!((stats.recorded[0].body.len(), stats.recorded[0].body_bytes), (4096, 10_000));
    }
}
