//! When an endpoint that fails is left out.

use super::numbers;
use super::problem::Field;
use crate::OutlierDetection;

pub(super) fn check(outliers: &OutlierDetection, field: &mut Field<'_>) {
    if outliers.consecutive_errors.is_some() {
        numbers::not_negative(outliers.consecutive_errors, "consecutiveErrors", field);
        field.at("consecutiveErrors").deprecated(
            "using deprecated setting \"consecutiveErrors\", which has no effect; use \"consecutive5xxErrors\" instead",
        );
    }
    let split = outliers.split_external_local_origin_errors == Some(true);
    if outliers.consecutive_local_origin_failures.is_some_and(|failures| failures > 0) && !split {
        field.at("consecutiveLocalOriginFailures").error(
            "outlier detection consecutive local origin failures is specified, but \
             splitExternalLocalOriginErrors is set to false; set it to true",
        );
    }
    numbers::duration(outliers.interval.as_ref(), "interval", field);
    numbers::duration(outliers.base_ejection_time.as_ref(), "baseEjectionTime", field);
    numbers::whole_percent(outliers.max_ejection_percent, "maxEjectionPercent", field);
    numbers::whole_percent(outliers.min_health_percent, "minHealthPercent", field);
    for (index, status) in outliers.outlier_detection_http_error_codes.iter().enumerate() {
        if !(100..=599).contains(status) {
            let message = format!("{status} is no HTTP status; use 100 to 599");
            field.item("outlierDetectionHttpErrorCodes", index).error(message);
        }
    }
}
