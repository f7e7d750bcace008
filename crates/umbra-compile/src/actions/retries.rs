//! `retries` and `timeout` (spec/istio.md 1A, 4.5).

use umbra_index::api::HttpRetry;
use umbra_routing::{Retries, RetryOn};

use super::duration;
use crate::finding::Reason;
use crate::report::Report;

/// So often without a policy.
const DEFAULT_ATTEMPTS: u32 = 2;
/// Without words: what never reached a destination.
const DEFAULT_ON: [RetryOn; 4] =
    [RetryOn::ConnectFailure, RetryOn::RefusedStream, RetryOn::Unavailable, RetryOn::Cancelled];
const WORDS: [(&str, RetryOn); 14] = [
    ("5xx", RetryOn::FiveXx),
    ("gateway-error", RetryOn::GatewayError),
    ("reset", RetryOn::Reset),
    ("reset-before-request", RetryOn::ResetBeforeRequest),
    ("connect-failure", RetryOn::ConnectFailure),
    ("retriable-4xx", RetryOn::Retriable4xx),
    ("refused-stream", RetryOn::RefusedStream),
    ("retriable-status-codes", RetryOn::RetriableStatusCodes),
    ("retriable-headers", RetryOn::RetriableHeaders),
    ("cancelled", RetryOn::Cancelled),
    ("deadline-exceeded", RetryOn::DeadlineExceeded),
    ("internal", RetryOn::Internal),
    ("resource-exhausted", RetryOn::ResourceExhausted),
    ("unavailable", RetryOn::Unavailable),
];
/// Istio's words for what umbra has not: HTTP/3, and rate limits of Envoy.
const WORDS_WITHOUT_MEANING: [&str; 2] = ["envoy-ratelimited", "http3-post-connect-failure"];

/// What every request gets whose rule says nothing.
pub(crate) fn default_retries() -> Retries {
    Retries { attempts: DEFAULT_ATTEMPTS, on: DEFAULT_ON.to_vec(), ..Retries::default() }
}

/// Reads a duration; a bad one is said.
pub(crate) fn millis(report: &mut Report, path: String, text: Option<&String>) -> Option<u64> {
    match duration::millis(text?) {
        Ok(millis) => Some(millis.get()),
        Err(problem) => {
            report.reject(Reason::Invalid, path, problem);
            None
        }
    }
}

/// Reads the policy at `path`; without attempts (0 attempts) nothing is sent again.
pub(crate) fn retries(report: &mut Report, path: &str, policy: &HttpRetry) -> Option<Retries> {
    report.unsupported(path, &policy.rest);
    let attempts = attempts(report, path, policy);
    let (on, codes) = policy.retry_on.as_deref().map_or_else(Default::default, |on| words(report, path, on));
    if policy.retry_remote_localities == Some(true) {
        let message = "endpoints of all zones are tried alike, so it changes nothing; remove it";
        report.note(Reason::PartiallyInvalid, format!("{path}.retryRemoteLocalities"), message);
    }
    let retries = Retries {
        attempts,
        on: if on.is_empty() { DEFAULT_ON.to_vec() } else { on },
        codes,
        per_try_timeout_ms: millis(report, format!("{path}.perTryTimeout"), policy.per_try_timeout.as_ref()),
        backoff_ms: millis(report, format!("{path}.backoff"), policy.backoff.as_ref()),
        previous_hosts: policy.retry_ignore_previous_hosts == Some(false),
    };
    (attempts > 0).then_some(retries)
}

fn attempts(report: &mut Report, path: &str, policy: &HttpRetry) -> u32 {
    let attempts = policy.attempts.unwrap_or(0);
    let Ok(attempts) = u32::try_from(attempts) else {
        let message = format!("{attempts} is not a number of attempts; give 0 or more");
        report.reject(Reason::Invalid, format!("{path}.attempts"), message);
        return 0;
    };
    let beside = [
        ("perTryTimeout", policy.per_try_timeout.is_some()),
        ("retryOn", policy.retry_on.as_ref().is_some_and(|on| !on.is_empty())),
        ("retryRemoteLocalities", policy.retry_remote_localities.is_some()),
    ];
    for (field, _) in beside.into_iter().filter(|(_, given)| *given && attempts == 0) {
        let message =
            "says how to retry, but attempts is 0 and nothing is retried; set attempts, or remove it";
        report.reject(Reason::Invalid, format!("{path}.{field}"), message);
    }
    attempts
}

/// Words and status codes, with blanks around them or not (spec/istio.md 4.5).
fn words(report: &mut Report, path: &str, text: &str) -> (Vec<RetryOn>, Vec<u16>) {
    let (mut on, mut codes) = (Vec::new(), Vec::new());
    for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
        if let Some((_, known)) = WORDS.iter().find(|(name, _)| *name == word) {
            on.push(*known);
        } else if let Some(code) = word.parse().ok().filter(|code| (100..=599).contains(code)) {
            codes.push(code);
        } else if WORDS_WITHOUT_MEANING.contains(&word) {
            let message = format!("{word} is left out: umbra has nothing that it could be about");
            report.note(Reason::PartiallyInvalid, format!("{path}.retryOn"), message);
        } else {
            let message = format!("{word:?} is neither a word of Istio's nor a status code");
            report.reject(Reason::Invalid, format!("{path}.retryOn"), message);
        }
    }
    if !codes.is_empty() {
        on.push(RetryOn::RetriableStatusCodes);
    }
    on.sort_unstable();
    on.dedup();
    (on, codes)
}
