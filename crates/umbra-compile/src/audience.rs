//! Clients told apart: by namespace, and by labels where a DestinationRule is for some clients only.

use std::collections::BTreeSet;

use umbra_index::api::{DestinationRule, Labels, ObjectKey};
use umbra_index::{Kind, View};
use umbra_routing::{Answer, RequestMatch, Rule};

use crate::finding::{Condition, Finding, ObjectRef, Reason};
use crate::selector::selector;

/// Different `workloadSelector`s that can be told apart for one service and namespace; each doubles the rules.
const MAX_SELECTORS: usize = 4;

/// Clients that see the same.
#[derive(Clone, Debug)]
pub(crate) struct Audience<'a> {
    /// `None`: any that nothing names.
    pub(crate) namespace: Option<&'a str>,
    /// Labels that they have, all that decide between DestinationRules.
    pub(crate) labels: Labels,
    /// Where DestinationRules for everybody are.
    pub(crate) root_namespace: &'a str,
}

/// The DestinationRules in the clients' namespace that are for some of them, about any of these services.
pub(crate) fn selecting<'v>(
    view: View<'v>,
    namespace: &str,
    services: &BTreeSet<ObjectKey>,
) -> Vec<&'v DestinationRule> {
    let rules = services.iter().flat_map(|service| view.destination_rules_for(service));
    rules.filter(|rule| rule.metadata.namespace == namespace && selector(rule).is_some()).collect()
}

/// The label sets that tell these rules' clients apart: for each set of selectors that one client can fit, all their
/// labels. Those with most labels come first, so that the first set a client has is the one that says all about it; the
/// last is empty. Selectors beyond the bound are not told apart.
pub(crate) fn label_sets(rules: &[&DestinationRule]) -> Vec<Labels> {
    let mut sets = BTreeSet::from([Labels::new()]);
    for selector in told_apart(rules) {
        let joined: Vec<_> = sets.iter().filter_map(|set| union(set, &selector)).collect();
        sets.extend(joined);
    }
    let mut sets: Vec<_> = sets.into_iter().collect();
    sets.sort_by_key(|set| std::cmp::Reverse(set.len()));
    sets
}

/// The selectors that decide; one without labels takes every client, and decides nothing.
fn told_apart(rules: &[&DestinationRule]) -> BTreeSet<Labels> {
    let selectors: BTreeSet<Labels> = rules.iter().filter_map(|rule| selector(rule)).collect();
    selectors.into_iter().filter(|labels| !labels.is_empty()).take(MAX_SELECTORS).collect()
}

/// What the authors are told whose rules are beyond the bound.
pub(crate) fn beyond_the_bound(rules: &[&DestinationRule]) -> BTreeSet<Finding> {
    let told_apart = told_apart(rules);
    let is_beyond = |rule: &&&DestinationRule| {
        selector(rule).is_some_and(|labels| !labels.is_empty() && !told_apart.contains(&labels))
    };
    let finding = |rule: &&DestinationRule| Finding {
        object: ObjectRef::new(Kind::DestinationRule, &rule.metadata),
        condition: Some(Condition::Accepted),
        reason: Reason::UnsupportedField,
        path: "spec.workloadSelector".to_owned(),
        message: format!(
            "umbra tells clients apart by {MAX_SELECTORS} different workloadSelectors for one service and namespace, and \
             this is one more: its clients are served as if it did not select them"
        ),
    };
    rules.iter().filter(is_beyond).map(finding).collect()
}

/// `None`: no client has both.
fn union(a: &Labels, b: &Labels) -> Option<Labels> {
    let mut all = a.clone();
    for (name, value) in b {
        if all.insert(name.clone(), value.clone()).is_some_and(|before| before != *value) {
            return None;
        }
    }
    Some(all)
}

/// The same rules for clients with these labels alone; what they leave over is closed.
pub(crate) fn only_for(rules: Vec<Rule>, labels: &Labels) -> Vec<Rule> {
    if labels.is_empty() {
        return rules;
    }
    let is_open = !rules.iter().any(Rule::takes_everything);
    let mut narrowed: Vec<Rule> = rules.into_iter().filter_map(|rule| narrow(rule, labels)).collect();
    if is_open {
        narrowed.push(nothing_for(vec![labels.clone()]));
    }
    narrowed
}

fn narrow(mut rule: Rule, labels: &Labels) -> Option<Rule> {
    if rule.matches.is_empty() {
        rule.matches.push(RequestMatch::default());
    }
    let matches = rule.matches.into_iter().filter_map(|block| {
        let source_labels = union(&block.source_labels, labels)?;
        Some(RequestMatch { source_labels, ..block })
    });
    rule.matches = matches.collect();
    (!rule.matches.is_empty()).then_some(rule)
}

/// What clients with any of these label sets get whose request fits no rule before it: what they would get at the end
/// of the list, while rules for other clients follow.
pub(crate) fn nothing_for(label_sets: Vec<Labels>) -> Rule {
    let matches =
        label_sets.into_iter().map(|source_labels| RequestMatch { source_labels, ..RequestMatch::default() });
    Rule {
        name: "unmatched".to_owned(),
        matches: matches.collect(),
        answer: Some(Answer::NoRoute),
        ..Rule::default()
    }
}
