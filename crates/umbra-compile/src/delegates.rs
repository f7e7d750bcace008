//! Delegates: rules of a VirtualService without hosts that stand in for a rule of another (spec/istio.md 1A, 4.7).

use std::collections::BTreeSet;

use umbra_index::api::{Labels, ObjectKey, VirtualService};
use umbra_index::{Kind, View};
use umbra_routing::{RequestMatch, StringMatch};

use crate::exported;
use crate::finding::{Finding, ObjectRef, Reason};
use crate::matches::BlockSpec;
use crate::report::Report;
use crate::rule_spec::{MirrorShare, RuleSpec};
use crate::spec;

/// A root's rules with those of its delegates in their places.
pub(crate) struct Expanded {
    pub(crate) rules: Vec<RuleSpec>,
    /// Every delegate that it needs is understood; else the root's previous rules stay.
    pub(crate) valid: bool,
    pub(crate) findings: BTreeSet<Finding>,
    /// The delegates that were read.
    pub(crate) used: BTreeSet<ObjectRef>,
}

/// Puts the rules of delegates in the places of the rules that name them.
pub(crate) fn expand(view: View<'_>, root: &VirtualService, rules: Vec<RuleSpec>) -> Expanded {
    let report = Report::new(ObjectRef::new(Kind::VirtualService, &root.metadata));
    let mut work = Work { view, root, report, valid: true, used: BTreeSet::new(), rules: Vec::new() };
    for rule in rules {
        match rule.delegate.clone() {
            Some(delegate) => work.stand_in(&rule, &delegate),
            None => work.rules.push(rule),
        }
    }
    let Work { report, valid, used, rules, .. } = work;
    Expanded { rules, valid, findings: report.into_findings(), used }
}

struct Work<'a> {
    view: View<'a>,
    root: &'a VirtualService,
    report: Report,
    valid: bool,
    used: BTreeSet<ObjectRef>,
    rules: Vec<RuleSpec>,
}

impl<'a> Work<'a> {
    fn stand_in(&mut self, rule: &RuleSpec, key: &ObjectKey) {
        let path = format!("spec.{}.delegate", rule.place);
        let delegate = match self.find(key) {
            Ok(delegate) => delegate,
            Err(why) => {
                let message = format!("{why}, so this rule is left out");
                self.report.unresolved(Reason::DelegateNotFound, path, message);
                return;
            }
        };
        self.used.insert(ObjectRef::new(Kind::VirtualService, &delegate.metadata));
        let understood = spec::understand(self.view, delegate);
        if !understood.valid {
            self.valid = false;
            let message = format!(
                "virtualservice {key} is invalid: its rules here stay as they were, if there were any"
            );
            self.report.unresolved(Reason::DelegateNotFound, &path, message);
        }
        for own in understood.rules {
            let place = own.place.clone();
            match under(rule, own) {
                Some(merged) => self.rules.push(merged),
                None => {
                    let message = format!(
                        "spec.{place} of virtualservice {key} asks for requests that no match here lets through, and is left out"
                    );
                    self.report.note(Reason::PartiallyInvalid, &path, message);
                }
            }
        }
    }

    fn find(&self, key: &ObjectKey) -> Result<&'a VirtualService, String> {
        let Some(delegate) = self.view.virtual_service(key) else {
            return Err(format!("virtualservice {key} does not exist"));
        };
        if !spec::is_delegate(delegate) {
            return Err(format!("virtualservice {key} has hosts of its own and is no delegate"));
        }
        if delegate.spec.http.iter().any(|rule| rule.delegate.is_some()) {
            return Err(format!("virtualservice {key} delegates itself and is no delegate"));
        }
        let list = delegate.spec.export_to.as_deref().unwrap_or_default();
        let own = &delegate.metadata.namespace;
        if exported::nearness(list, own, Some(&self.root.metadata.namespace)).is_none() {
            return Err(format!("virtualservice {key} is not exported to this namespace"));
        }
        Ok(delegate)
    }
}

/// A delegate's rule in the place of its root's; `None`: one of its blocks is outside all of the root's.
fn under(root: &RuleSpec, own: RuleSpec) -> Option<RuleSpec> {
    Some(RuleSpec {
        name: joined(root.name.as_ref(), own.name.as_ref()),
        place: format!("{}-{}", root.place, own.place),
        origin: own.origin,
        blocks: blocks_under(&root.blocks, own.blocks)?,
        destinations: own.destinations,
        mirror: own.mirror.or_else(|| root.mirror.clone()),
        mirror_share: MirrorShare {
            percentage: own.mirror_share.percentage.or(root.mirror_share.percentage),
            percent: own.mirror_share.percent.or(root.mirror_share.percent),
        },
        mirrors: if own.mirrors.is_empty() { root.mirrors.clone() } else { own.mirrors },
        actions: own.actions.or_of_root(&root.actions),
        delegate: None,
    })
}

fn joined(root: Option<&String>, own: Option<&String>) -> Option<String> {
    match (root, own) {
        (Some(root), Some(own)) => Some(format!("{root}-{own}")),
        (one, other) => one.or(other).cloned(),
    }
}

/// Each of the delegate's blocks under each of the root's that it is inside of.
fn blocks_under(root: &[BlockSpec], own: Vec<BlockSpec>) -> Option<Vec<BlockSpec>> {
    if root.is_empty() {
        return Some(own);
    }
    if own.is_empty() {
        return Some(root.to_vec());
    }
    let mut all = Vec::new();
    for block in &own {
        let before = all.len();
        all.extend(root.iter().filter(|outer| is_inside(outer, block)).map(|outer| both(outer, block)));
        if all.len() == before {
            return None;
        }
    }
    Some(all)
}

fn is_inside(outer: &BlockSpec, inner: &BlockSpec) -> bool {
    let (a, b) = (&outer.request, &inner.request);
    let words =
        [(&a.uri, &b.uri), (&a.scheme, &b.scheme), (&a.method, &b.method), (&a.authority, &b.authority)];
    let agree = |a: &Option<String>, b: &Option<String>| a.is_none() || b.is_none() || a == b;
    words.iter().all(|(outer, inner)| narrows(outer.as_ref(), inner.as_ref()))
        && a.ignore_uri_case == b.ignore_uri_case
        && entries_narrow(&headers(&a.headers), &headers(&b.headers))
        && entries_narrow(&headers(&a.without_headers), &headers(&b.without_headers))
        && entries_narrow(&query(a), &query(b))
        && (outer.port.is_none() || inner.port.is_none() || outer.port == inner.port)
        && agree(&outer.source_namespace, &inner.source_namespace)
        && agree_on_labels(&outer.source_labels, &inner.source_labels)
        && (outer.gateways.is_empty()
            || inner.gateways.iter().all(|gateway| outer.gateways.contains(gateway)))
}

/// What the inner condition lets through, the outer one does as well. A regex is never found to be inside
/// (spec/istio.md 4.7).
fn narrows(outer: Option<&StringMatch>, inner: Option<&StringMatch>) -> bool {
    match (outer, inner) {
        (None, _) | (_, None) | (Some(StringMatch::Present), _) => true,
        (Some(StringMatch::Exact(outer)), Some(StringMatch::Exact(inner))) => outer == inner,
        (Some(StringMatch::Prefix(outer)), Some(StringMatch::Exact(inner) | StringMatch::Prefix(inner))) => {
            inner.starts_with(outer)
        }
        _ => false,
    }
}

type Entries<'a> = Vec<(&'a str, &'a StringMatch)>;

fn headers(list: &[umbra_routing::HeaderMatch]) -> Entries<'_> {
    list.iter().map(|header| (header.name.as_str(), &header.value)).collect()
}

fn query(block: &RequestMatch) -> Entries<'_> {
    block.query.iter().map(|parameter| (parameter.name.as_str(), &parameter.value)).collect()
}

fn entries_narrow(outer: &Entries<'_>, inner: &Entries<'_>) -> bool {
    let of_outer = |name: &str| outer.iter().find(|(other, _)| *other == name).map(|(_, value)| *value);
    inner.iter().all(|(name, value)| narrows(of_outer(name), Some(value)))
}

fn agree_on_labels(outer: &Labels, inner: &Labels) -> bool {
    inner.iter().all(|(name, value)| outer.get(name).is_none_or(|other| other == value))
}

/// All conditions of both; on the same thing the inner one, which is the narrower.
fn both(outer: &BlockSpec, inner: &BlockSpec) -> BlockSpec {
    let (a, b) = (outer.request.clone(), inner.request.clone());
    let mut labels = outer.source_labels.clone();
    labels.extend(inner.source_labels.clone());
    let request = RequestMatch {
        never: a.never || b.never,
        uri: b.uri.or(a.uri),
        method: b.method.or(a.method),
        ignore_uri_case: b.ignore_uri_case,
        scheme: b.scheme.or(a.scheme),
        authority: b.authority.or(a.authority),
        headers: merged(a.headers, b.headers, |header| header.name.clone()),
        without_headers: merged(a.without_headers, b.without_headers, |header| header.name.clone()),
        query: merged(a.query, b.query, |parameter| parameter.name.clone()),
        source_labels: Labels::new(),
    };
    BlockSpec {
        request,
        port: inner.port.or(outer.port),
        source_namespace: inner.source_namespace.clone().or_else(|| outer.source_namespace.clone()),
        source_labels: labels,
        gateways: if inner.gateways.is_empty() { outer.gateways.clone() } else { inner.gateways.clone() },
    }
}

fn merged<T>(outer: Vec<T>, inner: Vec<T>, name: impl Fn(&T) -> String) -> Vec<T> {
    let is_beaten = |entry: &T| inner.iter().any(|own| name(own) == name(entry));
    let mut all: Vec<T> = outer.into_iter().filter(|entry| !is_beaten(entry)).collect();
    all.extend(inner);
    all
}
