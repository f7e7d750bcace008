//! Which VirtualService governs a service, for clients of which namespace on which port (spec/istio.md 2.4 and 4.7).

use std::collections::BTreeSet;

use umbra_index::api::{ObjectKey, VirtualService};
use umbra_index::{Kind, View, host};
use umbra_routing::RequestMatch;

use crate::delegates;
use crate::exported::{self, Nearness};
use crate::finding::{Finding, ObjectRef};
use crate::hold::HeldScope;
use crate::options::Options;
use crate::rule_spec::RuleSpec;
use crate::spec;

/// The claims on one service.
pub(crate) struct Claims<'a> {
    pub(crate) service: &'a ObjectKey,
    /// Oldest first.
    pub(crate) candidates: Vec<Candidate<'a>>,
    pub(crate) foreign: bool,
}

/// A VirtualService that names the service.
pub(crate) struct Candidate<'a> {
    pub(crate) vs: &'a VirtualService,
    /// With those of its delegates.
    pub(crate) rules: Vec<RuleSpec>,
    pub(crate) valid: bool,
    pub(crate) findings: BTreeSet<Finding>,
    pub(crate) delegates: BTreeSet<ObjectRef>,
    /// The longest of its hosts that covers the service is a wildcard so long.
    wildcard: Option<usize>,
}

/// What clients of one namespace get on one port.
pub(crate) enum Claim<'c, 'a> {
    /// Rules; the service's default for clients that these leave over.
    Rules(Vec<Part<'c, 'a>>),
    /// What they had, because a VirtualService is invalid.
    Held {
        by: &'c Candidate<'a>,
        /// Those before it that are for some of these clients: nobody can tell their rules from its own any more.
        before: Vec<&'c Candidate<'a>>,
    },
}

/// What one VirtualService has for these clients.
pub(crate) struct Part<'c, 'a> {
    pub(crate) candidate: &'c Candidate<'a>,
    pub(crate) rules: Vec<Applying<'c>>,
    /// Every block asks for labels: clients with none of these are left to the next VirtualService.
    pub(crate) is_for_some: bool,
}

/// A rule that is for these clients on this port.
pub(crate) struct Applying<'c> {
    pub(crate) spec: &'c RuleSpec,
    /// None: every request.
    pub(crate) matches: Vec<RequestMatch>,
}

impl<'a> Claims<'a> {
    /// Reads what names the service, `candidates` oldest first.
    pub(crate) fn new(
        view: View<'_>,
        service: &'a ObjectKey,
        candidates: Vec<&'a VirtualService>,
        options: &Options,
    ) -> Self {
        let candidates = candidates.into_iter().map(|vs| Candidate::new(view, service, vs)).collect();
        Self { service, candidates, foreign: options.foreign_virtual_services }
    }

    /// The namespaces whose clients may get something of their own; `None` stands for all others.
    pub(crate) fn namespaces(&self) -> BTreeSet<Option<String>> {
        let mut namespaces = BTreeSet::from([None]);
        for candidate in &self.candidates {
            let exported = exported::named(candidate.export_to()).cloned();
            let blocks = candidate.rules.iter().flat_map(|rule| &rule.blocks);
            let sources = blocks.filter_map(|block| block.source_namespace.clone());
            let own = candidate.vs.metadata.namespace.clone();
            namespaces.extend(exported.chain(sources).chain([own]).map(Some));
        }
        namespaces
    }

    /// Walks the VirtualServices in their order for these clients, until one leaves no client over. One that has no
    /// rule for them here does not count.
    pub(crate) fn claim(&self, client: Option<&str>, port: u16) -> Claim<'_, 'a> {
        let mut parts: Vec<Part<'_, 'a>> = Vec::new();
        for candidate in self.in_order(client) {
            if !candidate.valid {
                let before = parts.iter().map(|part| part.candidate).collect();
                return Claim::Held { by: candidate, before };
            }
            let rules = applying(&candidate.rules, client, port);
            if rules.is_empty() {
                continue;
            }
            let is_for_some = rules.iter().all(Applying::is_for_some);
            parts.push(Part { candidate, rules, is_for_some });
            if !is_for_some {
                break;
            }
        }
        Claim::Rules(parts)
    }

    /// Those that these clients see: private ones first, then those exported to them by name, then public ones. A
    /// wildcard counts only when no exact host does, the longest alone (spec/istio.md 2.3, 4.7).
    pub(crate) fn in_order(&self, client: Option<&str>) -> Vec<&Candidate<'a>> {
        let seen = self.candidates.iter().filter_map(|it| Some((self.nearness(it, client)?, it)));
        let mut seen: Vec<_> = seen.collect();
        seen.sort_by_key(|(nearness, _)| *nearness);
        let seen = || seen.iter().map(|(_, candidate)| *candidate);
        if seen().any(|candidate| candidate.wildcard.is_none()) {
            return seen().filter(|candidate| candidate.wildcard.is_none()).collect();
        }
        let longest = seen().filter_map(|candidate| candidate.wildcard).max();
        seen().find(|candidate| candidate.wildcard == longest).into_iter().collect()
    }

    /// `None`: not for these clients. One of a foreign namespace is for clients of that namespace only, unless the
    /// cluster has it Istio's way.
    pub(crate) fn nearness(&self, candidate: &Candidate<'_>, client: Option<&str>) -> Option<Nearness> {
        let namespace = &candidate.vs.metadata.namespace;
        let may = self.foreign || *namespace == self.service.namespace || client == Some(namespace);
        exported::nearness(candidate.export_to(), namespace, client).filter(|_| may)
    }
}

impl<'a> Candidate<'a> {
    fn new(view: View<'_>, service: &ObjectKey, vs: &'a VirtualService) -> Self {
        let understood = spec::understand(view, vs);
        let expanded = delegates::expand(view, vs, understood.rules);
        let mut findings = understood.findings;
        findings.extend(expanded.findings);
        Self {
            vs,
            rules: expanded.rules,
            valid: understood.valid && expanded.valid,
            findings,
            delegates: expanded.used,
            wildcard: wildcard(vs, service),
        }
    }

    pub(crate) fn export_to(&self) -> &[String] {
        self.vs.spec.export_to.as_deref().unwrap_or_default()
    }

    pub(crate) fn object(&self) -> ObjectRef {
        ObjectRef::new(Kind::VirtualService, &self.vs.metadata)
    }

    /// Its host for the service beats the other's, whatever their age (spec/istio.md 2.3).
    pub(crate) fn is_more_exact_than(&self, other: &Self) -> bool {
        match (self.wildcard, other.wildcard) {
            (None, Some(_)) => true,
            (Some(own), Some(other)) => own > other,
            (_, None) => false,
        }
    }

    /// What stays while it is invalid, of it and of those `before` it.
    pub(crate) fn held(&self, before: &[&Self]) -> HeldScope {
        let all = before.iter().copied().chain([self]);
        let mirrors_still_named = all.flat_map(|candidate| spec::named_mirrors(&candidate.rules)).collect();
        HeldScope { uid: self.vs.metadata.uid.clone(), mirrors_still_named }
    }
}

impl Applying<'_> {
    fn is_for_some(&self) -> bool {
        !self.matches.is_empty() && self.matches.iter().all(|block| !block.source_labels.is_empty())
    }
}

/// The rules that are for these clients, up to the first that takes everything of them; a rule whose blocks are all
/// for others is none (spec/istio.md 4.1).
fn applying<'c>(rules: &'c [RuleSpec], client: Option<&str>, port: u16) -> Vec<Applying<'c>> {
    let mut all = Vec::new();
    for spec in rules {
        let matches: Vec<_> =
            spec.blocks.iter().filter_map(|block| block.for_clients(client, port)).collect();
        if matches.is_empty() && !spec.blocks.is_empty() {
            continue;
        }
        let is_last = matches.is_empty() || matches.iter().any(RequestMatch::takes_everything);
        all.push(Applying { spec, matches });
        if is_last {
            break;
        }
    }
    all
}

fn wildcard(vs: &VirtualService, service: &ObjectKey) -> Option<usize> {
    let name = host::name_of(service);
    let full = |host: &String| host::claimed_name(host, &vs.metadata.namespace);
    let covering: Vec<_> = vs.spec.hosts.iter().map(full).filter(|host| host::covers(host, &name)).collect();
    let is_exact = covering.contains(&name);
    covering.iter().map(String::len).max().filter(|_| !is_exact)
}
