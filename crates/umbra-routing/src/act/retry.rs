//! When a request is sent again, and after which pause (spec/istio.md 1A, HTTPRetry, and 4.5).
//!
//! Takes: how an attempt ended, and draws. Gives: yes or no, and a pause. Whether the body can be sent again is the
//! proxy's to know.

use std::time::Duration;

use http::StatusCode;

use crate::action::{self, RetryOn};
use crate::select::Draw;

/// Envoy's first pause, in milliseconds.
const BASE_MS: u64 = 25;
/// No pause is longer than so many times the first.
const CAP: u64 = 10;

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// With the head of an answer.
    Answered {
        /// Its status.
        status: StatusCode,
        /// Its `grpc-status`, when the head carries one ([`grpc_status`](crate::grpc_status)).
        grpc_status: Option<u8>,
    },
    /// Without one.
    Failed(Failure),
}

/// How an attempt ended without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No connection.
    Connect,
    /// The backend refused the HTTP/2 stream: it did nothing.
    RefusedStream,
    /// The connection ended.
    Reset {
        /// After some of the request had been sent.
        after_request: bool,
    },
    /// The attempt's own time was up.
    PerTryTimeout,
}

/// A rule's retries, ready to use.
#[derive(Clone, Debug)]
pub struct RetryPolicy {
    /// How often a request may be sent again.
    pub attempts: u32,
    /// How long each attempt may take.
    pub per_try_timeout: Option<Duration>,
    /// Endpoints that were tried are avoided, as long as there are others.
    pub avoids_tried: bool,
    on: Vec<RetryOn>,
    codes: Vec<u16>,
    base: Duration,
}

impl RetryPolicy {
    pub(crate) fn new(retries: &action::Retries) -> Self {
        Self {
            attempts: retries.attempts,
            per_try_timeout: retries.per_try_timeout_ms.map(Duration::from_millis),
            avoids_tried: !retries.previous_hosts,
            on: retries.on.clone(),
            codes: retries.codes.clone(),
            base: Duration::from_millis(retries.backoff_ms.unwrap_or(BASE_MS)),
        }
    }

    /// Whether a request whose attempt ended so is to be sent again, if attempts are left.
    pub fn retries(&self, attempt: Attempt) -> bool {
        match attempt {
            Attempt::Failed(failure) => self.on.iter().any(|word| retries_failure(*word, failure)),
            Attempt::Answered { status, grpc_status } => {
                let status = status.as_u16();
                let by_status = |word: &RetryOn| match word {
                    RetryOn::RetriableStatusCodes => self.codes.contains(&status),
                    word => retries_status(*word, status),
                };
                let by_grpc = |word: &RetryOn| grpc_status.is_some() && grpc_code(*word) == grpc_status;
                self.on.iter().any(|word| by_status(word) || by_grpc(word))
            }
        }
    }

    /// The pause before a request is sent again for the `nth` time, counted from 1: anything below a bound that doubles
    /// each time.
    pub fn backoff(&self, nth: u32, draw: &mut impl Draw) -> Duration {
        let doubled = 1_u64.checked_shl(nth.saturating_sub(1)).unwrap_or(CAP);
        let base = u64::try_from(self.base.as_micros()).unwrap_or(u64::MAX);
        let bound = base.saturating_mul(doubled.min(CAP));
        Duration::from_micros(draw.below(bound.max(1)))
    }
}

/// A missing answer counts for `gateway-error` as it does for `5xx`.
fn retries_failure(word: RetryOn, failure: Failure) -> bool {
    match word {
        RetryOn::FiveXx | RetryOn::GatewayError | RetryOn::Reset => true,
        RetryOn::ConnectFailure => failure == Failure::Connect,
        RetryOn::RefusedStream => failure == Failure::RefusedStream,
        RetryOn::ResetBeforeRequest => {
            matches!(failure, Failure::Connect | Failure::Reset { after_request: false })
        }
        _ => false,
    }
}

fn retries_status(word: RetryOn, status: u16) -> bool {
    match word {
        RetryOn::FiveXx => (500..600).contains(&status),
        RetryOn::GatewayError => matches!(status, 502..=504),
        RetryOn::Retriable4xx => status == 409,
        _ => false,
    }
}

fn grpc_code(word: RetryOn) -> Option<u8> {
    match word {
        RetryOn::Cancelled => Some(1),
        RetryOn::DeadlineExceeded => Some(4),
        RetryOn::ResourceExhausted => Some(8),
        RetryOn::Internal => Some(13),
        RetryOn::Unavailable => Some(14),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(on: &[RetryOn], codes: &[u16]) -> RetryPolicy {
        let (on, codes) = (on.to_vec(), codes.to_vec());
        RetryPolicy::new(&action::Retries { attempts: 2, on, codes, ..Default::default() })
    }

    fn status(status: u16) -> Attempt {
        Attempt::Answered { status: StatusCode::from_u16(status).expect("a status"), grpc_status: None }
    }

    fn grpc(code: u8) -> Attempt {
        Attempt::Answered { status: StatusCode::OK, grpc_status: Some(code) }
    }

    #[test]
    fn each_word_means_its_statuses() {
        for (word, retried, not) in [
            (RetryOn::FiveXx, &[500, 501, 503, 504, 599][..], &[200, 409, 429][..]),
            (RetryOn::GatewayError, &[502, 503, 504], &[500, 501, 505]),
            (RetryOn::Retriable4xx, &[409], &[404, 429, 503]),
            (RetryOn::RetriableStatusCodes, &[418, 429], &[503]),
            (RetryOn::Reset, &[], &[500, 503, 504]),
            (RetryOn::ResetBeforeRequest, &[], &[503]),
            (RetryOn::ConnectFailure, &[], &[503]),
            (RetryOn::RefusedStream, &[], &[503]),
            (RetryOn::RetriableHeaders, &[], &[503]),
            (RetryOn::Unavailable, &[], &[503]),
        ] {
            let policy = policy(&[word], &[418, 429]);
            retried.iter().for_each(|code| assert!(policy.retries(status(*code)), "{word:?} {code}"));
            not.iter().for_each(|code| assert!(!policy.retries(status(*code)), "{word:?} {code}"));
        }
    }

    #[test]
    fn each_word_means_its_failures() {
        let (sent, unsent) =
            (Failure::Reset { after_request: true }, Failure::Reset { after_request: false });
        let all = [Failure::Connect, Failure::RefusedStream, sent, unsent, Failure::PerTryTimeout];
        for (word, retried) in [
            (RetryOn::FiveXx, &all[..]),
            (RetryOn::GatewayError, &all),
            (RetryOn::Reset, &all),
            (RetryOn::ResetBeforeRequest, &[Failure::Connect, unsent]),
            (RetryOn::ConnectFailure, &[Failure::Connect]),
            (RetryOn::RefusedStream, &[Failure::RefusedStream]),
            (RetryOn::RetriableStatusCodes, &[]),
            (RetryOn::Retriable4xx, &[]),
            (RetryOn::Unavailable, &[]),
            (RetryOn::Cancelled, &[]),
        ] {
            let policy = policy(&[word], &[504]);
            for failure in all {
                let expected = retried.contains(&failure);
                assert_eq!(policy.retries(Attempt::Failed(failure)), expected, "{word:?} {failure:?}");
            }
        }
    }

    #[test]
    fn each_grpc_word_means_its_status() {
        let words = [
            (RetryOn::Cancelled, 1),
            (RetryOn::DeadlineExceeded, 4),
            (RetryOn::ResourceExhausted, 8),
            (RetryOn::Internal, 13),
            (RetryOn::Unavailable, 14),
        ];
        for (word, own) in words {
            for code in 0..=16 {
                assert_eq!(policy(&[word], &[]).retries(grpc(code)), code == own, "{word:?} {code}");
            }
        }
        assert!(!policy(&[RetryOn::FiveXx], &[]).retries(grpc(14)));
        assert!(!policy(&[RetryOn::ConnectFailure], &[]).retries(grpc(14)));
    }

    #[test]
    fn any_word_is_enough_and_none_retries_nothing() {
        let default = [
            RetryOn::ConnectFailure,
            RetryOn::RefusedStream,
            RetryOn::Unavailable,
            RetryOn::Cancelled,
            RetryOn::RetriableStatusCodes,
        ];
        let policy_of = |on| policy(on, &[]);
        assert!(policy_of(&default).retries(Attempt::Failed(Failure::Connect)));
        assert!(policy_of(&default).retries(grpc(14)));
        for not in [status(500), status(503), Attempt::Failed(Failure::PerTryTimeout)] {
            assert!(!policy_of(&default).retries(not), "{not:?}");
        }
        assert!(!policy_of(&[]).retries(status(503)));
    }

    #[test]
    fn pauses_are_drawn_below_a_bound_that_doubles_up_to_ten_times_the_first() {
        let bound = |policy: &RetryPolicy, nth| {
            let mut bound = 0;
            let pause = policy.backoff(nth, &mut |below| {
                bound = below;
                below - 1
            });
            assert_eq!(pause, Duration::from_micros(bound - 1));
            Duration::from_micros(bound)
        };
        let retries = |backoff_ms| RetryPolicy::new(&action::Retries { backoff_ms, ..Default::default() });
        for (nth, expected) in [(1, 25), (2, 50), (3, 100), (4, 200), (5, 250), (40, 250), (u32::MAX, 250)] {
            assert_eq!(bound(&retries(None), nth), Duration::from_millis(expected), "{nth}");
        }
        assert_eq!(bound(&retries(Some(10)), 3), Duration::from_millis(40));
        assert_eq!(retries(Some(0)).backoff(1, &mut |_| 0), Duration::ZERO);
        assert_eq!(retries(Some(u64::MAX)).backoff(9, &mut |_| 0), Duration::ZERO);
    }
}
