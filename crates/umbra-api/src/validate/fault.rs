//! Failures on purpose.

use super::problem::Field;
use super::{actions, numbers};
use crate::values::{SMALLEST_PERCENT, grpc_status};
use crate::words::GRPC_STATUSES;
use crate::{FaultAbort, FaultDelay, HttpFaultInjection, Percent};

pub(super) fn check(fault: &HttpFaultInjection, field: &mut Field<'_>) {
    if fault.delay.is_none() && fault.abort.is_none() {
        field.error("HTTP fault injection must have an abort and/or a delay; add one");
    }
    if let Some(delay) = &fault.delay {
        self::delay(delay, &mut field.at("delay"));
    }
    if let Some(abort) = &fault.abort {
        self::abort(abort, &mut field.at("abort"));
    }
}

fn delay(delay: &FaultDelay, field: &mut Field<'_>) {
    if delay.exponential_delay.is_some() {
        field.at("exponentialDelay").error("exponentialDelay not supported yet; use fixedDelay");
    } else if delay.fixed_delay.is_none() {
        field.at("fixedDelay").error("is missing; say how long requests wait");
    }
    numbers::duration(delay.fixed_delay.as_ref(), "fixedDelay", field);
    share(delay.percentage.as_ref(), field);
    if delay.percent.is_some() {
        numbers::whole_percent(delay.percent, "percent", field);
        field.at("percent").deprecated("using deprecated setting \"percent\", use \"percentage\" instead");
    }
}

fn abort(abort: &FaultAbort, field: &mut Field<'_>) {
    let given = [abort.http_status.is_some(), abort.grpc_status.is_some(), abort.http2_error.is_some()];
    if abort.http2_error.is_some() {
        field
            .at("http2Error")
            .error("HTTP/2 abort fault injection not supported yet; use httpStatus or grpcStatus");
    }
    match given.into_iter().filter(|given| *given).count() {
        0 => field.error("has no status; give httpStatus or grpcStatus"),
        1 => {}
        _ => field.error("has more than one of httpStatus, grpcStatus and http2Error; keep one"),
    }
    if let Some(status) = abort.http_status {
        actions::http_status(status, "httpStatus", field);
    }
    if let Some(status) = abort.grpc_status.as_ref().filter(|status| grpc_status(status).is_none()) {
        field.at("grpcStatus").error(format!(
            "gRPC status {status:?} is not supported; use one of {}",
            GRPC_STATUSES.join(", ")
        ));
    }
    share(abort.percentage.as_ref(), field);
}

fn share(share: Option<&Percent>, field: &mut Field<'_>) {
    numbers::percentage(share, "percentage", field);
    if let Some(Percent { value, .. }) =
        share.filter(|share| share.value > 0.0 && share.value < SMALLEST_PERCENT)
    {
        field
            .at("percentage")
            .at("value")
            .error(format!("percentage {value} is too small; use 0, or {SMALLEST_PERCENT} and more"));
    }
}
