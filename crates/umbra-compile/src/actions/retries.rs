//! `retries` (spec/istio.md 1A, 4.5).

use umbra_index::api::{HttpRetry, values};
use umbra_routing::{Retries, RetryOn};

use super::millis;
use crate::finding::Reason;
use crate::report::Report;

/// So often without a policy.
const DEFAULT_ATTEMPTS: u32 = 2;
/// Without words: what never reached a destination.
const DEFAULT_ON: [RetryOn; 4] =
    [RetryOn::ConnectFailure, RetryOn::RefusedStream, RetryOn::Unavailable, RetryOn::Cancelled];

/// What every request gets whose rule says nothing.
pub(crate) fn default_retries() -> Retries {
    Retries { attempts: DEFAULT_ATTEMPTS, on: DEFAULT_ON.to_vec(), ..Retries::default() }
}

/// Reads the policy at `path`; without attempts (0 attempts) nothing is sent again.
pub(crate) fn retries(report: &mut Report, path: &str, policy: &HttpRetry) -> Option<Retries> {
    report.unsupported(path, &policy.rest);
    let attempts = policy.attempts.and_then(|attempts| u32::try_from(attempts).ok()).unwrap_or(0);
    let (on, codes) = policy.retry_on.as_deref().map_or_else(Default::default, |on| words(report, path, on));
    if policy.retry_remote_localities == Some(true) {
        let message = "endpoints of all zones are tried alike, so it changes nothing; remove it";
        report.note(Reason::PartiallyInvalid, format!("{path}.retryRemoteLocalities"), message);
    }
    let retries = Retries {
        attempts,
        on: if on.is_empty() { DEFAULT_ON.to_vec() } else { on },
        codes,
        per_try_timeout_ms: millis(policy.per_try_timeout.as_ref()),
        backoff_ms: millis(policy.backoff.as_ref()),
        previous_hosts: policy.retry_ignore_previous_hosts == Some(false),
    };
    (attempts > 0).then_some(retries)
}

fn words(report: &mut Report, path: &str, text: &str) -> (Vec<RetryOn>, Vec<u16>) {
    let (mut on, mut codes) = (Vec::new(), Vec::new());
    for part in values::retry_on(text).flatten() {
        match part {
            values::RetryOn::Status(code) => codes.push(code),
            values::RetryOn::Word(word) => match on_the_wire(word) {
                Some(known) => on.push(known),
                None => {
                    let message = format!("{word} is left out: umbra has nothing that it could be about");
                    report.note(Reason::PartiallyInvalid, format!("{path}.retryOn"), message);
                }
            },
        }
    }
    if !codes.is_empty() {
        on.push(RetryOn::RetriableStatusCodes);
    }
    on.sort_unstable();
    on.dedup();
    (on, codes)
}

/// The wire has Istio's words, without those that umbra has nothing for: HTTP/3, and rate limits of Envoy.
fn on_the_wire(word: &str) -> Option<RetryOn> {
    serde_json::from_value(word.into()).ok()
}

#[cfg(test)]
mod tests {
    use umbra_index::api::words;

    use super::*;

    #[test]
    fn all_words_but_two_mean_something_to_a_node() {
        let without = words::RETRY_ON.into_iter().filter(|word| on_the_wire(word).is_none());
        assert_eq!(without.collect::<Vec<_>>(), ["envoy-ratelimited", "http3-post-connect-failure"]);
    }
}
