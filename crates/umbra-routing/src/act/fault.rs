//! Failures on purpose (spec/istio.md 1A and 4.5).
//!
//! Takes: draws. Gives: how long a request waits and whether it is answered with an error. The delay comes first, and
//! each is drawn on its own.

use std::time::Duration;

use http::StatusCode;

use super::RuleError;
use super::grpc::grpc_status_of;
use crate::action::{self, AbortWith};
use crate::route::happens;
use crate::select::Draw;

/// What the answer to an aborted request says.
pub const ABORT_MESSAGE: &str = "fault filter abort";

/// How a request is aborted: it reaches no backend, is not copied and not retried, and gets no CORS headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aborted {
    /// The answer's status.
    pub status: StatusCode,
    /// Its `grpc-status`, with [`ABORT_MESSAGE`] as `grpc-message`; only for gRPC requests.
    pub grpc_status: Option<u8>,
}

/// Faults, ready to use.
pub(crate) struct Fault {
    delay: Option<action::Delay>,
    abort: Option<(AbortWith, StatusCode, u32)>,
}

impl Fault {
    pub(crate) fn new(fault: &action::Fault) -> Result<Self, RuleError> {
        let abort = |abort: &action::Abort| {
            let status = match abort.with {
                AbortWith::Http(status) => answer_status(status)?,
                AbortWith::Grpc(_) => StatusCode::OK,
            };
            Ok::<_, RuleError>((abort.with, status, abort.per_million))
        };
        Ok(Self { delay: fault.delay, abort: fault.abort.as_ref().map(abort).transpose()? })
    }

    pub(crate) fn delay(&self, draw: &mut impl Draw) -> Option<Duration> {
        let delay = self.delay.filter(|delay| happens(delay.per_million, draw))?;
        Some(Duration::from_millis(delay.ms))
    }

    pub(crate) fn abort(&self, is_grpc: bool, draw: &mut impl Draw) -> Option<Aborted> {
        let (with, status, _) = self.abort.filter(|(_, _, per_million)| happens(*per_million, draw))?;
        let code = match with {
            AbortWith::Http(_) => grpc_status_of(status),
            AbortWith::Grpc(code) => code,
        };
        Some(if is_grpc {
            Aborted { status: StatusCode::OK, grpc_status: Some(code) }
        } else {
            Aborted { status, grpc_status: None }
        })
    }
}

/// 200 to 600, as Istio has it.
pub(crate) fn answer_status(status: u16) -> Result<StatusCode, RuleError> {
    match StatusCode::from_u16(status) {
        Ok(code) if (200..=600).contains(&status) => Ok(code),
        _ => Err(RuleError::Status(status)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::action::{Abort, Delay};

    fn fault(delay: Option<u32>, abort: Option<(AbortWith, u32)>) -> Fault {
        let delay = delay.map(|per_million| Delay { ms: 1600, per_million });
        let abort = abort.map(|(with, per_million)| Abort { with, per_million });
        Fault::new(&action::Fault { delay, abort }).expect("a fault")
    }

    #[test]
    fn a_share_of_requests_waits_and_a_share_is_aborted() {
        for (per_million, drawn, happens) in [
            (0, 0, false),
            (1, 0, true),
            (1, 1, false),
            (500_000, 499_999, true),
            (500_000, 500_000, false),
            (1_000_000, 999_999, true),
        ] {
            let fault = fault(Some(per_million), Some((AbortWith::Http(418), per_million)));
            let wait = fault.delay(&mut |_| drawn);
            assert_eq!(wait, happens.then_some(Duration::from_millis(1600)), "{per_million} {drawn}");
            assert_eq!(fault.abort(false, &mut |_| drawn).is_some(), happens, "{per_million} {drawn}");
        }
        let none = fault(None, None);
        assert_eq!((none.delay(&mut |_| 0), none.abort(false, &mut |_| 0)), (None, None));
    }

    #[test]
    fn delay_and_abort_draw_each_for_itself() {
        let fault = fault(Some(500_000), Some((AbortWith::Http(418), 500_000)));
        let mut draws = [999_999, 0].into_iter();
        let mut draw = |_| draws.next().expect("two draws");
        assert_eq!(fault.delay(&mut draw), None);
        assert!(fault.abort(false, &mut draw).is_some());
    }

    #[test]
    fn an_abort_speaks_the_clients_language() {
        for (with, is_grpc, status, grpc_status) in [
            (AbortWith::Http(418), false, 418, None),
            (AbortWith::Http(503), true, 200, Some(14)),
            (AbortWith::Http(404), true, 200, Some(12)),
            (AbortWith::Grpc(8), true, 200, Some(8)),
            (AbortWith::Grpc(8), false, 200, None),
        ] {
            let aborted = fault(None, Some((with, 1_000_000))).abort(is_grpc, &mut |_| 0).expect("all");
            assert_eq!(
                (aborted.status.as_u16(), aborted.grpc_status),
                (status, grpc_status),
                "{with:?} {is_grpc}"
            );
        }
    }

    #[test]
    fn only_statuses_of_answers_abort() {
        for (status, fits) in
            [(199, false), (200, true), (599, true), (600, true), (601, false), (0, false), (9999, false)]
        {
            assert_eq!(answer_status(status).is_ok(), fits, "{status}");
        }
    }
}
