//! The rules of one port for clients of one namespace: those of the VirtualServices that claim it, put in one list.

use std::collections::BTreeSet;

use umbra_index::View;
use umbra_index::api::{Labels, ObjectKey};
use umbra_index::host;
use umbra_routing::{BackendRef, Port, Rule, ServiceName, Variant, WeightedBackend};

use crate::actions::default_retries;
use crate::audience::{self, Audience};
use crate::claims::Part;
use crate::destination::Resolver;
use crate::finding::{Finding, ObjectRef};

/// Puts rules together for one service.
pub(crate) struct Lists<'a> {
    pub(crate) view: View<'a>,
    pub(crate) service: &'a ServiceName,
    pub(crate) root_namespace: &'a str,
}

/// Rules, and what was met on the way.
#[derive(Default)]
pub(crate) struct List {
    pub(crate) rules: Vec<Rule>,
    pub(crate) findings: BTreeSet<Finding>,
    /// DestinationRules that they rest on.
    pub(crate) used: BTreeSet<ObjectRef>,
}

impl Lists<'_> {
    /// What clients of a namespace get on a port, of the VirtualServices that claim it, in their order.
    ///
    /// Where DestinationRules are for some clients only, the rules come once for each kind of client, with conditions
    /// on its labels.
    pub(crate) fn of(&self, client: Option<&str>, port: u16, parts: &[Part<'_, '_>]) -> List {
        let selecting = client.map(|client| audience::selecting(self.view, client, &services(parts)));
        let selecting = selecting.unwrap_or_default();
        let sets = audience::label_sets(&selecting);
        let mut all = List { findings: audience::beyond_the_bound(&selecting), ..List::default() };
        let mut lists = Vec::new();
        for labels in sets {
            let audience = Audience { namespace: client, labels, root_namespace: self.root_namespace };
            let list = self.for_audience(&audience, port, parts);
            all.findings.extend(list.findings);
            all.used.extend(list.used);
            lists.push((audience.labels, list.rules));
        }
        if lists.windows(2).all(|pair| pair[0].1 == pair[1].1) {
            lists.drain(..lists.len() - 1);
        }
        all.rules =
            lists.into_iter().flat_map(|(labels, rules)| audience::only_for(rules, &labels)).collect();
        all
    }

    fn for_audience(&self, audience: &Audience<'_>, port: u16, parts: &[Part<'_, '_>]) -> List {
        let mut resolver = Resolver::new(self.view, audience, port);
        let mut rules = Vec::new();
        for part in parts {
            rules.extend(part.rules.iter().map(|rule| resolver.rule(rule)));
            if part.is_for_some {
                rules.extend(end_of(part));
            }
        }
        if parts.iter().all(|part| part.is_for_some) {
            rules.push(to_all_endpoints(self.service, port));
        }
        let (findings, used) = resolver.finish();
        List { rules, findings, used }
    }
}

/// Clients that a VirtualService is for are not left to the next one by a request that fits no rule; `None`: none of
/// them could be.
fn end_of(part: &Part<'_, '_>) -> Option<Rule> {
    let blocks = || part.rules.iter().flat_map(|rule| &rule.matches);
    let takes_all = |labels: &Labels| {
        let mut own = blocks().filter(|block| block.source_labels == *labels);
        own.any(|block| {
            let mut block = block.clone();
            block.source_labels.clear();
            block.takes_everything()
        })
    };
    let label_sets: BTreeSet<Labels> = blocks().map(|block| block.source_labels.clone()).collect();
    let open: Vec<_> = label_sets.into_iter().filter(|labels| !takes_all(labels)).collect();
    (!open.is_empty()).then(|| audience::nothing_for(open))
}

/// The services that rules send to.
fn services(parts: &[Part<'_, '_>]) -> BTreeSet<ObjectKey> {
    let targets = parts.iter().flat_map(|part| &part.rules).flat_map(|rule| rule.spec.targets());
    targets.filter_map(|to| host::service_of(&to.destination.host, &to.object.key.namespace)).collect()
}

/// What a service does without a VirtualService.
fn to_all_endpoints(service: &ServiceName, port: u16) -> Rule {
    let backend = BackendRef::all(service.clone(), port);
    Rule {
        name: "default".to_owned(),
        destinations: vec![WeightedBackend::new(1, backend)],
        retries: Some(default_retries()),
        ..Rule::default()
    }
}

/// Variants that say the same as the default are left out.
pub(crate) fn push_variant(port: &mut Port, client: Option<&str>, rules: Vec<Rule>) {
    let is_default = |variant: &&Variant| variant.client_namespace.is_none();
    if port.variants.iter().find(is_default).is_none_or(|default| default.rules != rules) {
        port.variants.push(Variant { client_namespace: client.map(str::to_owned), rules });
    }
}
