//! Which DestinationRules say what the subsets of a service are, for whom (spec/istio.md 2.5 and 4.10).

use std::collections::BTreeSet;

use umbra_index::View;
use umbra_index::api::{DestinationRule, Labels, ObjectKey, Subset};

use crate::audience::Audience;
use crate::exported::{nearness, of_rule};
use crate::selector::selector;

/// The DestinationRules that apply to a service for some clients, in the order in which they are asked.
pub(crate) struct Subsets<'a> {
    pub(crate) rules: Vec<&'a DestinationRule>,
}

/// A DestinationRule and what decides about it.
#[derive(Clone)]
struct Candidate<'a> {
    rule: &'a DestinationRule,
    /// As written, as a set; a selector is for its own namespace, whatever is written.
    exported: BTreeSet<String>,
    selector: Option<Labels>,
}

/// Rules that are put together; the first one decides for whom they are.
struct Merged<'a> {
    rules: Vec<Candidate<'a>>,
}

impl<'a> Subsets<'a> {
    /// The client's namespace, the service's, the root: the first that has a rule for the host decides alone, there
    /// the most specific host.
    pub(crate) fn of(view: View<'a>, service: &ObjectKey, audience: &Audience<'_>) -> Self {
        let all: Vec<_> = view.destination_rules_for(service).into_iter().map(Candidate::new).collect();
        let root = audience.root_namespace;
        let own = match audience.namespace {
            Some(client) if client == root => of_root(&all, root),
            Some(client) => most_specific(&all, |it| it.is_in(client) && it.is_seen_at_home()),
            None => Vec::new(),
        };
        if !own.is_empty() {
            return Self { rules: serving(put_together(own, true), &audience.labels) };
        }
        for namespace in [service.namespace.as_str(), root] {
            let exported = most_specific(&all, |it| it.is_in(namespace) && !it.is_private());
            let mut lists = put_together(exported, false);
            lists.retain(|list| list.rules[0].is_exported_to(audience.namespace));
            if !lists.is_empty() {
                return Self { rules: serving(lists, &audience.labels) };
            }
        }
        Self { rules: Vec::new() }
    }

    /// The subset of that name; of two, the older one.
    pub(crate) fn get(&self, name: &str) -> Option<&'a Subset> {
        self.rules.iter().flat_map(|rule| &rule.spec.subsets).find(|subset| subset.name == name)
    }

    /// The names that are defined.
    pub(crate) fn names(&self) -> BTreeSet<&'a str> {
        self.rules.iter().flat_map(|rule| &rule.spec.subsets).map(|subset| subset.name.as_str()).collect()
    }
}

impl<'a> Candidate<'a> {
    fn new(rule: &'a DestinationRule) -> Self {
        let selector = selector(rule);
        let written = of_rule(rule);
        let exported = if selector.is_some() { vec![".".to_owned()] } else { written };
        Self { rule, exported: exported.into_iter().collect(), selector }
    }

    fn namespace(&self) -> &'a str {
        &self.rule.metadata.namespace
    }

    fn is_in(&self, namespace: &str) -> bool {
        self.namespace() == namespace
    }

    fn is_seen_at_home(&self) -> bool {
        self.is_exported_to(Some(self.namespace()))
    }

    fn is_exported_to(&self, client: Option<&str>) -> bool {
        let list: Vec<_> = self.exported.iter().cloned().collect();
        nearness(&list, self.namespace(), client).is_some()
    }

    /// For its own namespace alone.
    fn is_private(&self) -> bool {
        let only = self.exported.first().filter(|_| self.exported.len() == 1);
        only.is_some_and(|name| name == "." || name == self.namespace())
    }
}

/// For clients of the root namespace only what is private there comes first.
fn of_root<'a>(all: &[Candidate<'a>], root: &str) -> Vec<Candidate<'a>> {
    most_specific(all, |it| it.is_in(root) && it.is_private())
}

/// Of these rules those with the most specific host: an exact one beats a wildcard, a longer wildcard a shorter one.
/// Selectors come first.
fn most_specific<'a>(all: &[Candidate<'a>], is_meant: impl Fn(&Candidate<'a>) -> bool) -> Vec<Candidate<'a>> {
    let meant = || all.iter().filter(|candidate| is_meant(candidate));
    let Some(best) = meant().map(|candidate| specificity(candidate.rule)).max() else { return Vec::new() };
    let mut found: Vec<_> =
        meant().filter(|candidate| specificity(candidate.rule) == best).cloned().collect();
    found.sort_by_key(|candidate| candidate.selector.is_none());
    found
}

fn specificity(rule: &DestinationRule) -> (bool, usize) {
    let host = &rule.spec.host;
    let is_wildcard = host.starts_with('*');
    (!is_wildcard, if is_wildcard { host.len() } else { 0 })
}

/// Rules that are exported to the same are put together, unless they select different clients. At home, one that is
/// exported to all that an older one is, and to more, joins that one; elsewhere it stands alone (spec/istio.md 4.10).
fn put_together(candidates: Vec<Candidate<'_>>, at_home: bool) -> Vec<Merged<'_>> {
    let mut lists: Vec<Merged<'_>> = Vec::new();
    for candidate in candidates {
        let joined = lists.iter_mut().filter(|list| list.takes(&candidate, at_home));
        let mut is_alone = true;
        for list in joined {
            list.rules.push(candidate.clone());
            is_alone = false;
        }
        if is_alone {
            lists.push(Merged { rules: vec![candidate] });
        }
    }
    lists
}

impl Merged<'_> {
    fn takes(&self, next: &Candidate<'_>, at_home: bool) -> bool {
        let first = &self.rules[0];
        let wider = !first.exported.is_empty() && next.exported.is_superset(&first.exported);
        let fits = next.exported == first.exported || at_home && wider;
        fits && (next.selector.is_none() || next.selector == first.selector)
    }
}

/// The first that selects these clients, else the last of those without a selector.
fn serving<'a>(lists: Vec<Merged<'a>>, labels: &Labels) -> Vec<&'a DestinationRule> {
    let selects = |list: &&Merged<'a>| list.rules[0].selector.as_ref().is_some_and(|it| is_part(it, labels));
    let plain = |list: &&Merged<'a>| list.rules[0].selector.is_none();
    let list = lists.iter().find(selects).or_else(|| lists.iter().rfind(plain));
    list.map(|list| list.rules.iter().map(|it| it.rule).collect()).unwrap_or_default()
}

fn is_part(selector: &Labels, labels: &Labels) -> bool {
    selector.iter().all(|(name, value)| labels.get(name) == Some(value))
}
