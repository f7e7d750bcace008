//! What numbers and words of a spec stand for.
//!
//! Each has one reader: [`validate()`](crate::VirtualService::validate) says what it does not read, and whoever needs
//! the value reads it here, so that nobody gets one that was refused.

use std::ops::RangeInclusive;

use crate::base64;
use crate::words::{GRPC_STATUSES, RETRY_ON};
use crate::{HttpBody, Percent};

/// Every request, in [`per_million`].
pub const ALL: u32 = 1_000_000;
/// Istio's resolution of a share in percent (spec/istio.md 1A, `mirrorPercentage`): a smaller one would be none.
pub const SMALLEST_PERCENT: f64 = 0.0001;
/// What that is in [`per_million`].
const PER_MILLION_OF_PERCENT: f64 = 10_000.0;
/// Istio's bounds of an answer's status, both included.
pub const ANSWER_STATUSES: RangeInclusive<i64> = 200..=600;
/// A share's bounds, both included.
pub const PERCENT: RangeInclusive<f64> = 0.0..=100.0;
/// Those that Envoy answers with. Istio's own check takes other 3xx, for which it then has no action.
pub const REDIRECT_CODES: [u16; 5] = [301, 302, 303, 307, 308];
impl Percent {
    /// See [`per_million`].
    pub fn per_million(&self) -> u32 {
        per_million(self.value)
    }
}

/// A percentage in millionths, cut off as Istio does it; above 100 is all, negative is none (spec/istio.md 4.8).
pub fn per_million(percent: f64) -> u32 {
    (percent.clamp(*PERCENT.start(), *PERCENT.end()) * PER_MILLION_OF_PERCENT) as u32
}

impl HttpBody {
    /// The bytes; `None` when they are written in two ways, or are no base64.
    pub fn decoded(&self) -> Option<Vec<u8>> {
        match (&self.string, &self.bytes) {
            (Some(_), Some(_)) => None,
            (Some(text), None) => Some(text.clone().into_bytes()),
            (None, Some(encoded)) => base64::decode(encoded),
            (None, None) => Some(Vec::new()),
        }
    }
}

/// The number of a port, if it is one.
pub fn port(number: u32) -> Option<u16> {
    u16::try_from(number).ok().filter(|number| *number > 0)
}

/// A weight, absent is 0; Istio's are 32 bits with a sign. `None`: no weight.
pub fn weight(weight: Option<i64>) -> Option<u32> {
    let weight = i32::try_from(weight.unwrap_or(0)).ok()?;
    u32::try_from(weight).ok()
}

/// The status that an answer or an abort is to have, if it can.
pub fn answer_status(status: i64) -> Option<u16> {
    u16::try_from(status).ok().filter(|_| ANSWER_STATUSES.contains(&status))
}

/// A redirect's code; absent and 0 are 301. `None`: it redirects nowhere.
pub fn redirect_code(code: Option<u32>) -> Option<u16> {
    let code = code.filter(|code| *code != 0).map_or(Ok(REDIRECT_CODES[0]), u16::try_from).ok()?;
    REDIRECT_CODES.contains(&code).then_some(code)
}

/// The number of a gRPC status, if there is one of this name.
pub fn grpc_status(name: &str) -> Option<u8> {
    GRPC_STATUSES.iter().position(|known| *known == name).and_then(|number| u8::try_from(number).ok())
}

/// One part of `retryOn`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryOn<'t> {
    /// One of [`RETRY_ON`](crate::words::RETRY_ON).
    Word(&'t str),
    /// A status of the answer, 100 to 599.
    Status(u16),
}

/// The parts of `retryOn`, with blanks around them or not (spec/istio.md 4.5); an error is a part that is neither a
/// word nor a status.
pub fn retry_on(text: &str) -> impl Iterator<Item = Result<RetryOn<'_>, &str>> {
    text.split(',').map(str::trim).filter(|word| !word.is_empty()).map(|word| {
        let status = || word.parse().ok().filter(|status| (100..=599).contains(status));
        match RETRY_ON.contains(&word) {
            true => Ok(RetryOn::Word(word)),
            false => status().map(RetryOn::Status).ok_or(word),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_cut_off_and_bounded() {
        for (percent, expected) in [
            (0.0, 0),
            (SMALLEST_PERCENT, 1),
            (0.00009, 0),
            (33.333_39, 333_333),
            (50.0, 500_000),
            (100.0, ALL),
            (150.0, ALL),
            (-1.0, 0),
        ] {
            assert_eq!(per_million(percent), expected, "{percent}");
        }
    }

    #[test]
    fn numbers_at_their_bounds() {
        assert_eq!([0, 1, 65535, 65536].map(port), [None, Some(1), Some(65535), None]);
        let weights = [None, Some(0), Some(-1), Some(i64::from(i32::MAX)), Some(i64::from(i32::MAX) + 1)];
        assert_eq!(weights.map(weight), [Some(0), Some(0), None, Some(2_147_483_647), None]);
        assert_eq!([199, 200, 600, 601, -1].map(answer_status), [None, Some(200), Some(600), None, None]);
        let codes = [None, Some(0), Some(308), Some(304), Some(200), Some(70_000)];
        assert_eq!(codes.map(redirect_code), [Some(301), Some(301), Some(308), None, None, None]);
        assert_eq!(["OK", "UNAUTHENTICATED", "ok", "14"].map(grpc_status), [Some(0), Some(16), None, None]);
    }

    #[test]
    fn parts_of_retry_on() {
        let parts: Vec<_> = retry_on(" 5xx, 503,,often , 99").collect();
        assert_eq!(parts, [Ok(RetryOn::Word("5xx")), Ok(RetryOn::Status(503)), Err("often"), Err("99")]);
    }
}
