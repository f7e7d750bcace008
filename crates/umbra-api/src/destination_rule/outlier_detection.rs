//! When an endpoint that fails is left out for a while.

use serde::{Deserialize, Serialize};

use crate::meta::{Rest, null_is_default};

/// When an endpoint that fails is left out for a while. `{}` is all the defaults.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct OutlierDetection {
    /// Deprecated and without effect: `consecutive5xxErrors`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consecutive_errors: Option<i64>,
    /// Failures to connect are counted apart from answers; absent is false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub split_external_local_origin_errors: Option<bool>,
    /// So many failures to connect in a row; absent is 5. Needs `splitExternalLocalOriginErrors`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consecutive_local_origin_failures: Option<u32>,
    /// So many answers 502, 503 or 504 in a row; absent or 0: not looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consecutive_gateway_errors: Option<u32>,
    /// So many answers 5xx in a row; absent is 5, 0: not looked at.
    #[serde(rename = "consecutive5xxErrors", skip_serializing_if = "Option::is_none")]
    pub consecutive_5xx_errors: Option<u32>,
    /// How often endpoints are looked at; absent is 10s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<String>,
    /// How long one is left out, times how often it has been; absent is 30s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base_ejection_time: Option<String>,
    /// No more of the endpoints are left out at once; absent is 10.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_ejection_percent: Option<i64>,
    /// With fewer endpoints left than this percentage all are used again; absent is 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_health_percent: Option<i64>,
    /// Which statuses are errors, in place of 5xx.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub outlier_detection_http_error_codes: Vec<u32>,
    /// Fields umbra does not know.
    #[serde(flatten)]
    pub rest: Rest,
}
