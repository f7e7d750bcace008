//! `workloadSelector`: for which clients of its own namespace a DestinationRule is (spec/istio.md 1B, 4.10).

use umbra_index::api::{DestinationRule, Labels};

/// The labels it asks for; none at all takes every client of its namespace. `None`: the rule has no selector.
pub(crate) fn selector(rule: &DestinationRule) -> Option<Labels> {
    let selector = rule.spec.rest.get("workloadSelector").filter(|selector| !selector.is_null())?;
    let labels = selector.get("matchLabels").and_then(|labels| labels.as_object());
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    Some(labels.into_iter().flatten().map(|(name, value)| (name.clone(), text(value))).collect())
}
