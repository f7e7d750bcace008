//! `fault`: delays and aborts on purpose (spec/istio.md 1A, 4.5).

use umbra_index::api::{
    FaultAbort, FaultDelay, GRPC_STATUSES, HttpFaultInjection, Percent, SMALLEST_PERCENT,
};
use umbra_routing::{Abort, AbortWith, Delay, Fault};

use super::retries::millis;
use crate::finding::Reason;
use crate::report::Report;
use crate::share;

/// Reads the faults at `path`.
pub(crate) fn fault(report: &mut Report, path: &str, fault: &HttpFaultInjection) -> Fault {
    report.unsupported(path, &fault.rest);
    if fault.delay.is_none() && fault.abort.is_none() {
        report.reject(Reason::Invalid, path, "has neither delay nor abort; add one");
    }
    let wait = fault.delay.as_ref().and_then(|it| delay(report, &format!("{path}.delay"), it));
    let end = fault.abort.as_ref().and_then(|it| abort(report, &format!("{path}.abort"), it));
    Fault {
        delay: wait.filter(|delay| delay.per_million > 0),
        abort: end.filter(|abort| abort.per_million > 0),
    }
}

fn delay(report: &mut Report, path: &str, delay: &FaultDelay) -> Option<Delay> {
    report.unsupported(path, &delay.rest);
    if delay.exponential_delay.is_some() {
        let message = "is not supported, by Istio neither; use fixedDelay";
        report.reject(Reason::Invalid, format!("{path}.exponentialDelay"), message);
    } else if delay.fixed_delay.is_none() {
        report.reject(Reason::Invalid, format!("{path}.fixedDelay"), "is missing; say how long");
    }
    let per_million = match (&delay.percentage, delay.percent) {
        (Some(percentage), _) => per_million(report, path, percentage),
        (None, Some(percent)) => whole_percent(report, path, percent),
        (None, None) => 0,
    };
    let ms = millis(report, format!("{path}.fixedDelay"), delay.fixed_delay.as_ref())?;
    Some(Delay { ms, per_million })
}

fn abort(report: &mut Report, path: &str, abort: &FaultAbort) -> Option<Abort> {
    report.unsupported(path, &abort.rest);
    let share = abort.percentage.as_ref().map_or(0, |percent| per_million(report, path, percent));
    if abort.http2_error.is_some() {
        let message = "is not supported, by Istio neither; use httpStatus or grpcStatus";
        report.reject(Reason::Invalid, format!("{path}.http2Error"), message);
        return None;
    }
    let with = match (abort.http_status, abort.grpc_status.as_deref()) {
        (Some(status), None) => http_status(report, path, status),
        (None, Some(name)) => grpc_status(report, path, name),
        (Some(_), Some(_)) => {
            report.reject(Reason::Invalid, path, "has both httpStatus and grpcStatus; keep one");
            None
        }
        (None, None) => {
            report.reject(Reason::Invalid, path, "says no status; set httpStatus or grpcStatus");
            None
        }
    };
    Some(Abort { with: with?, per_million: share })
}

fn http_status(report: &mut Report, path: &str, status: i64) -> Option<AbortWith> {
    let usable = u16::try_from(status).ok().filter(|status| (200..=599).contains(status));
    if usable.is_none() {
        let message = format!("{status} is not the status of an answer; use 200 to 599");
        report.reject(Reason::Invalid, format!("{path}.httpStatus"), message);
    }
    usable.map(AbortWith::Http)
}

fn grpc_status(report: &mut Report, path: &str, name: &str) -> Option<AbortWith> {
    let number = GRPC_STATUSES.iter().position(|known| *known == name);
    if number.is_none() {
        let message = format!("{name:?} is not a gRPC status; write its name, as UNAVAILABLE");
        report.reject(Reason::Invalid, format!("{path}.grpcStatus"), message);
    }
    number.and_then(|number| u8::try_from(number).ok()).map(AbortWith::Grpc)
}

fn per_million(report: &mut Report, path: &str, percent: &Percent) -> u32 {
    let path = format!("{path}.percentage");
    report.unsupported(&path, &percent.rest);
    let value = percent.value;
    if value != 0.0 && !(SMALLEST_PERCENT..=100.0).contains(&value) {
        let message = format!("{value} is not a percentage; use 0, or 0.0001 to 100");
        report.reject(Reason::Invalid, format!("{path}.value"), message);
    }
    share::per_million(value)
}

fn whole_percent(report: &mut Report, path: &str, percent: i64) -> u32 {
    if !(0..=100).contains(&percent) {
        let message = format!("{percent} is not a percentage; use 0 to 100");
        report.reject(Reason::Invalid, format!("{path}.percent"), message);
    }
    share::per_million(percent as f64)
}
