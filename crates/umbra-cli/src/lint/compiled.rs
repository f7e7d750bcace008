//! What a cluster's authors would read in their objects' status: the compiler's findings.

use std::collections::BTreeSet;

use umbra_api::Severity;
use umbra_compile::Options;
use umbra_index::Kind;

use super::codes;
use super::finding::{Finding, is_within};
use super::manifests::Manifests;
use crate::files::{ObjectId, ObjectKind};

/// The compiler's findings, without those of validation, which it takes over, and those about what is in a field that is
/// wrong as a whole.
pub(super) fn findings(manifests: &Manifests, options: &Options, said: &BTreeSet<Finding>) -> Vec<Finding> {
    let index = manifests.index();
    let compiled = umbra_compile::findings(index.view(), options).into_iter().map(|finding| {
        let (code, level) = codes::of(&finding);
        let kind = match finding.object.kind {
            Kind::VirtualService => ObjectKind::VirtualService,
            Kind::DestinationRule => ObjectKind::DestinationRule,
        };
        let object = ObjectId { kind, key: finding.object.key };
        manifests.finding(object, finding.path, code, level, finding.message)
    });
    compiled.filter(|finding| !said.iter().any(|said| says_the_same(said, finding))).collect()
}

fn says_the_same(said: &Finding, finding: &Finding) -> bool {
    said.object == finding.object
        && match said.level {
            Severity::Error => is_within(&finding.field, &said.field),
            Severity::Warning | Severity::Info => finding.field == said.field && finding.text == said.text,
        }
}
