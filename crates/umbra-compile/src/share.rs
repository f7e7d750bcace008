//! Percentages as shares in millionths.

use umbra_routing::MIRROR_DENOMINATOR;

/// Istio's resolution of a share: 0.0001 % (spec/istio.md 1A, `mirrorPercentage`).
const PER_MILLION_OF_PERCENT: f64 = 10_000.0;

/// Truncates as Istio does; above 100 means all, negative (or no number) none.
pub(crate) fn per_million(percent: f64) -> u32 {
    if percent >= 100.0 {
        MIRROR_DENOMINATOR
    } else if percent > 0.0 {
        (percent * PER_MILLION_OF_PERCENT) as u32
    } else {
        0
    }
}
