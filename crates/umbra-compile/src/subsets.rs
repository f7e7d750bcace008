//! Which DestinationRules say what the subsets of a service are (spec/istio.md 2.5 and 4.10).

use std::collections::BTreeSet;

use umbra_index::View;
use umbra_index::api::{DestinationRule, ObjectKey, Subset, WorkloadSelector};

/// Istio's root namespace: its DestinationRules are for services that have none of their own.
const ROOT_NAMESPACE: &str = "istio-system";

/// The DestinationRules that apply to a service for some clients, oldest first.
pub(crate) struct Subsets<'a> {
    pub(crate) rules: Vec<&'a DestinationRule>,
}

impl<'a> Subsets<'a> {
    /// For clients of the namespace `client`, or (with `None`) of one without DestinationRules.
    ///
    /// The client's namespace, the service's, the root: the first that has a rule for the host decides alone, there
    /// the most specific host. Several rules for one host are merged, unless they are exported differently: then the
    /// youngest stands alone.
    pub(crate) fn of(view: View<'a>, service: &ObjectKey, client: Option<&str>) -> Self {
        let all = view.destination_rules_for(service);
        let usable: Vec<_> = all.into_iter().filter(|rule| !is_for_some_clients(rule)).collect();
        let client = client.filter(|client| *client != ROOT_NAMESPACE);
        let namespaces = client.into_iter().chain([service.namespace.as_str(), ROOT_NAMESPACE]);
        let mut lists = namespaces.map(|namespace| in_namespace(&usable, namespace));
        let mut rules = lists.find(|list| !list.is_empty()).unwrap_or_default();
        if rules.windows(2).any(|pair| exported_to(pair[0]) != exported_to(pair[1])) {
            rules.drain(..rules.len() - 1);
        }
        Self { rules }
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

/// A rule with a `workloadSelector` is for some clients of its namespace only, which umbra does not know to tell:
/// it is left out (and its author told), because the other clients must not see it.
pub(crate) fn is_for_some_clients(rule: &DestinationRule) -> bool {
    rule.spec.workload_selector.as_ref().is_some_and(|selector| *selector != WorkloadSelector::default())
}

fn in_namespace<'a>(rules: &[&'a DestinationRule], namespace: &str) -> Vec<&'a DestinationRule> {
    let here = || rules.iter().copied().filter(|rule| rule.metadata.namespace == namespace);
    let Some(best) = here().map(specificity).max() else { return Vec::new() };
    here().filter(|rule| specificity(rule) == best).collect()
}

/// An exact host beats a wildcard, a longer wildcard a shorter one.
fn specificity(rule: &DestinationRule) -> (bool, usize) {
    let host = &rule.spec.host;
    let is_wildcard = host.starts_with('*');
    (!is_wildcard, if is_wildcard { host.len() } else { 0 })
}

/// As written, as a set; absent is not the same as `["*"]`.
fn exported_to(rule: &DestinationRule) -> Option<BTreeSet<&str>> {
    Some(rule.spec.export_to.as_ref()?.iter().map(String::as_str).collect())
}
