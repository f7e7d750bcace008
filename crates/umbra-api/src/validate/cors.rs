//! Calls from pages of other origins.

use super::problem::Field;
use super::{actions, matching, numbers};
use crate::CorsPolicy;
use crate::header_name::is_token;
use crate::words::{CORS_METHODS, UNMATCHED_PREFLIGHTS};

pub(super) fn check(policy: &CorsPolicy, field: &mut Field<'_>) {
    if !policy.allow_origin.is_empty() {
        field
            .at("allowOrigin")
            .deprecated("using deprecated setting \"allowOrigin\", use \"allowOrigins\" instead");
    }
    for (index, origin) in policy.allow_origins.iter().enumerate() {
        let mut field = field.item("allowOrigins", index);
        matching::text(origin, &mut field);
        let empty = |form: &Option<String>| form.as_deref().unwrap_or_default().is_empty();
        let known = origin.rest.is_empty();
        if known && empty(&origin.exact) && empty(&origin.prefix) && origin.regex.is_none() {
            field.error("names no origin; give exact, prefix or regex");
        }
    }
    for (index, method) in policy.allow_methods.iter().enumerate() {
        if !CORS_METHODS.contains(&method.as_str()) {
            let message =
                format!("{method:?} is not a supported HTTP method; use one of {}", CORS_METHODS.join(", "));
            field.item("allowMethods", index).error(message);
        }
    }
    for (name, headers) in
        [("allowHeaders", &policy.allow_headers), ("exposeHeaders", &policy.expose_headers)]
    {
        for (index, header) in headers.iter().enumerate().filter(|(_, header)| !is_token(header)) {
            let message = format!("{header:?} is not the name of a header (RFC 9110 5.6.2); correct it");
            field.item(name, index).error(message);
        }
    }
    numbers::duration_in_seconds(policy.max_age.as_ref(), "maxAge", field);
    actions::one_of(
        policy.unmatched_preflights.as_deref(),
        &UNMATCHED_PREFLIGHTS,
        "unmatchedPreflights",
        field,
    );
}
