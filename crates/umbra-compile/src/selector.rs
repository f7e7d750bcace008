//! `workloadSelector`: for which clients of its own namespace a DestinationRule is (spec/istio.md 1B, 4.10).

use umbra_index::api::{DestinationRule, Labels};

/// The labels it asks for; none at all takes every client of its namespace. `None`: the rule has no selector.
pub(crate) fn selector(rule: &DestinationRule) -> Option<Labels> {
    rule.spec.workload_selector.as_ref().map(|selector| selector.match_labels.clone())
}
