//! Sending again what failed.

use super::numbers;
use super::problem::Field;
use crate::HttpRetry;
use crate::values::retry_on;
use crate::words::RETRY_ON;

pub(super) fn check(retry: &HttpRetry, field: &mut Field<'_>) {
    match retry.attempts.unwrap_or(0) {
        attempts @ ..=-1 => field
            .at("attempts")
            .error(format!("attempts cannot be negative, this is {attempts}; use 0 or more")),
        0 => nothing_beside_zero(retry, field),
        _ => {}
    }
    numbers::duration(retry.per_try_timeout.as_ref(), "perTryTimeout", field);
    numbers::duration(retry.backoff.as_ref(), "backoff", field);
    for word in retry.retry_on.iter().flat_map(|words| retry_on(words)).filter_map(Result::err) {
        field.at("retryOn").error(format!(
            "{word:?} is not a valid retryOn policy; use a status or one of {}",
            RETRY_ON.join(", ")
        ));
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
