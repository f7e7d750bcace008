//! A DestinationRule as a whole: host, subsets, and for whom it is.

use std::collections::BTreeSet;

use super::problem::{Field, Problem};
use super::{names, traffic_policy};
use crate::{DestinationRule, DestinationRuleSpec, WorkloadSelector};

impl DestinationRule {
    /// All problems, in the order of the fields. None of them is about another object.
    pub fn validate(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut field = Field::spec(&mut problems);
        let (spec, own) = (&self.spec, self.metadata.namespace.as_str());
        let selected = spec.workload_selector.is_some();
        names::host(&spec.host, &mut field.at("host"));
        if let Some(policy) = &spec.traffic_policy {
            traffic_policy::check(policy, selected, &mut field.at("trafficPolicy"));
        }
        subsets(spec, selected, &mut field);
        names::export_to(spec.export_to.as_deref().unwrap_or_default(), own, &mut field);
        if let Some(selector) = &spec.workload_selector {
            self::selector(selector, &mut field.at("workloadSelector"));
            own_namespace_only(spec, own, &mut field);
        }
        problems
    }
}

fn subsets(spec: &DestinationRuleSpec, selected: bool, field: &mut Field<'_>) {
    let mut seen = BTreeSet::new();
    for (index, subset) in spec.subsets.iter().enumerate() {
        let mut field = field.item("subsets", index);
        names::subset(&subset.name, &mut field.at("name"));
        if !seen.insert(&subset.name) {
            field.at("name").error(format!("{:?} appears twice; only the first is used", subset.name));
        }
        names::labels(&subset.labels, "labels", &mut field);
        if let Some(policy) = &subset.traffic_policy {
            traffic_policy::check(policy, selected, &mut field.at("trafficPolicy"));
        }
    }
}

/// Istio refuses wildcards in a selector, which would look like one and select nothing.
fn selector(selector: &WorkloadSelector, field: &mut Field<'_>) {
    for (name, value) in &selector.match_labels {
        if name.contains('*') || value.contains('*') {
            let message = format!("wildcard not allowed in label {name:?}: {value:?}; write it in full");
            field.entry("matchLabels", name).error(message);
        }
    }
    let plain =
        selector.match_labels.iter().filter(|(name, value)| !name.contains('*') && !value.contains('*'));
    let plain = plain.map(|(name, value)| (name.clone(), value.clone())).collect();
    names::labels(&plain, "matchLabels", field);
}

/// With a selector it is for clients of its own namespace, whatever it says.
fn own_namespace_only(spec: &DestinationRuleSpec, own: &str, field: &mut Field<'_>) {
    for (index, to) in spec.export_to.iter().flatten().enumerate() {
        if to != "." && to != own {
            field.item("exportTo", index).error(format!(
                "{to:?}: a destination rule with a workload selector is for its own namespace; use \".\", or remove exportTo"
            ));
        }
    }
}
