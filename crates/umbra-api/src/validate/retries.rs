//! Sending again what failed.

use super::problem::Field;
use super::values;
use super::values::Grain;
use crate::HttpRetry;

/// Istio's words (spec/istio.md 1A); a number is a status.
const RETRY_ON: [&str; 16] = [
    "5xx",
    "gateway-error",
    "reset",
    "reset-before-request",
    "connect-failure",
    "retriable-4xx",
    "refused-stream",
    "retriable-status-codes",
    "retriable-headers",
    "envoy-ratelimited",
    "http3-post-connect-failure",
    "cancelled",
    "deadline-exceeded",
    "internal",
    "resource-exhausted",
    "unavailable",
];

pub(super) fn check(retry: &HttpRetry, field: &mut Field<'_>) {
    match retry.attempts.unwrap_or(0) {
        attempts @ ..=-1 => field
            .at("attempts")
            .error(format!("attempts cannot be negative, this is {attempts}; use 0 or more")),
        0 => nothing_beside_zero(retry, field),
        _ => {}
    }
    values::duration(retry.per_try_timeout.as_ref(), Grain::Millis, "perTryTimeout", field);
    values::duration(retry.backoff.as_ref(), Grain::Millis, "backoff", field);
    for word in retry.retry_on.iter().flat_map(|words| words.split(',')).map(str::trim) {
        if !word.is_empty() && !RETRY_ON.contains(&word) && !is_status(word) {
            field.at("retryOn").error(format!(
                "{word:?} is not a valid retryOn policy; use a status or one of {}",
                RETRY_ON.join(", ")
            ));
        }
    }
}

/// An absent number of attempts is 0, too.
fn nothing_beside_zero(retry: &HttpRetry, field: &mut Field<'_>) {
    let given = [
        ("perTryTimeout", retry.per_try_timeout.is_some()),
        ("retryOn", retry.retry_on.as_ref().is_some_and(|words| !words.is_empty())),
        ("retryRemoteLocalities", retry.retry_remote_localities.is_some()),
    ];
    for (name, _) in given.into_iter().filter(|(_, given)| *given) {
        field.at(name).error(
            "http retry policy configured when attempts are set to 0 (disabled); set attempts, or remove it",
        );
    }
}

fn is_status(word: &str) -> bool {
    word.parse::<u16>().is_ok_and(|status| (100..=599).contains(&status))
}
