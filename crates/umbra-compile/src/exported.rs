//! `exportTo`: for clients of which namespaces an object is (spec/istio.md 1A, 2.4, 4.7).

use umbra_index::api::DestinationRule;

/// Everybody, its own namespace, nobody.
const ALL: &str = "*";
const OWN: &str = ".";
const NOBODY: &str = "~";

/// How near an object is to clients of a namespace; the nearer one is asked first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Nearness {
    /// For their namespace, which is its own.
    Private,
    /// For their namespace by name.
    Named,
    /// For all.
    Public,
}

/// What `exportTo` of an object in the namespace `own` makes it to clients of a namespace (`None`: one that nothing
/// names); `None`: they do not see it.
pub(crate) fn nearness(list: &[String], own: &str, client: Option<&str>) -> Option<Nearness> {
    let names = |name: &str| list.iter().any(|entry| entry == name);
    if list.is_empty() || names(ALL) {
        return Some(Nearness::Public);
    }
    let client = client?;
    if client == own {
        return (names(OWN) || names(own)).then_some(Nearness::Private);
    }
    names(client).then_some(Nearness::Named)
}

/// The namespaces that `list` names beside its own.
pub(crate) fn named(list: &[String]) -> impl Iterator<Item = &String> {
    list.iter().filter(|name| ![ALL, OWN, NOBODY].contains(&name.as_str()))
}

/// `exportTo` of a DestinationRule as written; `None`: not at all.
pub(crate) fn of_rule(rule: &DestinationRule) -> Vec<String> {
    rule.spec.export_to.clone().unwrap_or_default()
}
