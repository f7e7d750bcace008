//! `fault`: delays and aborts on purpose (spec/istio.md 1A, 4.5).

use umbra_index::api::values::{self, answer_status, grpc_status};
use umbra_index::api::{FaultAbort, FaultDelay, HttpFaultInjection, Percent};
use umbra_routing::{Abort, AbortWith, Delay, Fault};

use super::millis;
use crate::report::Report;

/// Reads the faults at `path`.
pub(crate) fn fault(report: &mut Report, path: &str, fault: &HttpFaultInjection) -> Fault {
    report.unsupported(path, &fault.rest);
    let wait = fault.delay.as_ref().and_then(|it| delay(report, &format!("{path}.delay"), it));
    let end = fault.abort.as_ref().and_then(|it| abort(report, &format!("{path}.abort"), it));
    Fault {
        delay: wait.filter(|delay| delay.per_million > 0),
        abort: end.filter(|abort| abort.per_million > 0),
    }
}

fn delay(report: &mut Report, path: &str, delay: &FaultDelay) -> Option<Delay> {
    report.unsupported(path, &delay.rest);
    let per_million = match (&delay.percentage, delay.percent) {
        (Some(percentage), _) => share(report, path, percentage),
        (None, percent) => percent.map_or(0, |percent| values::per_million(percent as f64)),
    };
    Some(Delay { ms: millis(delay.fixed_delay.as_ref())?, per_million })
}

fn abort(report: &mut Report, path: &str, abort: &FaultAbort) -> Option<Abort> {
    report.unsupported(path, &abort.rest);
    let per_million = abort.percentage.as_ref().map_or(0, |percent| share(report, path, percent));
    let with = match (abort.http_status, abort.grpc_status.as_deref()) {
        (Some(status), _) => AbortWith::Http(answer_status(status)?),
        (None, name) => AbortWith::Grpc(grpc_status(name?)?),
    };
    Some(Abort { with, per_million })
}

fn share(report: &mut Report, path: &str, percent: &Percent) -> u32 {
    report.unsupported(&format!("{path}.percentage"), &percent.rest);
    percent.per_million()
}
