//! The codes of findings: Istio's where it has one (spec/istio.md 3), else umbra's own.

use umbra_api::Severity;
use umbra_compile::{Condition, Finding, Reason};

pub(super) const NOT_FOUND: &str = "IST0101";
pub(super) const INVALID: &str = "IST0106";
pub(super) const CONFLICT: &str = "IST0109";
const UNREACHABLE_RULE: &str = "IST0130";
const PORT_NAME: &str = "IST0118";
pub(super) const SUBSET_WITHOUT_PODS: &str = "IST0173";
const UNKNOWN_RULE_HOST: &str = "IST0174";

/// A mirror whose subset selects no pod.
pub(super) const MIRROR_TO_NOTHING: &str = "UMB0001";
/// A mirror that is where users' answers come from.
pub(super) const MIRROR_IS_PRIMARY: &str = "UMB0002";
/// A mirror that gets no copy.
pub(super) const SHARE_OF_NOTHING: &str = "UMB0003";
/// Requests that change things are copied.
pub(super) const UNSAFE_METHOD: &str = "UMB0004";
/// One object in two manifests.
pub(super) const TWICE: &str = "UMB0005";
/// umbra holds the object until the field is gone.
const UNSUPPORTED: &str = "UMB0101";
/// umbra leaves a part out.
const LEFT_OUT: &str = "UMB0102";
/// Only some clients or connections are covered.
const NOT_COVERED: &str = "UMB0103";
/// umbra does not act on the object.
const NOT_USED: &str = "UMB0104";

/// The code and the level of a finding of the compiler. What no cluster would be worse for is no error: a
/// VirtualService for gateways is good, and not umbra's.
pub(super) fn of(finding: &Finding) -> (&'static str, Severity) {
    let of_rule = finding.object.kind == umbra_index::Kind::DestinationRule;
    match finding.reason {
        Reason::Invalid => (INVALID, Severity::Error),
        Reason::Conflicted => (CONFLICT, Severity::Error),
        Reason::HostNotFound if of_rule => (UNKNOWN_RULE_HOST, Severity::Warning),
        Reason::HostNotFound | Reason::SubsetNotFound | Reason::PortNotFound => (NOT_FOUND, Severity::Error),
        Reason::UnreachableRule => (UNREACHABLE_RULE, Severity::Warning),
        Reason::NoHttpPort => (PORT_NAME, Severity::Warning),
        Reason::UnsupportedField => (UNSUPPORTED, Severity::Error),
        Reason::PartiallyInvalid => (LEFT_OUT, Severity::Warning),
        Reason::NotForMesh => (NOT_USED, Severity::Info),
        Reason::NoHttpRule | Reason::UnsupportedHost | Reason::UnsupportedService => {
            (NOT_USED, Severity::Warning)
        }
        Reason::NetworkPolicy => (NOT_COVERED, Severity::Warning),
        _ => match finding.condition {
            Some(Condition::Accepted) => (NOT_USED, Severity::Warning),
            Some(Condition::ResolvedRefs) => (NOT_FOUND, Severity::Error),
            None => (NOT_COVERED, Severity::Info),
        },
    }
}
