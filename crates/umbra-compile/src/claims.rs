//! Which VirtualService governs a service, for clients of which namespace (spec/istio.md 2.4 and 4.7).

use std::collections::{BTreeMap, BTreeSet};

use umbra_index::api::{Destination, HttpRoute, ObjectKey, Service, VirtualService};
use umbra_index::{Kind, View, host};

use crate::finding::{Condition, Finding, ObjectRef, Reason};
use crate::service::Options;

/// The claims on one service, decided.
pub(crate) struct Claims<'a> {
    service: &'a ObjectKey,
    candidates: &'a [&'a VirtualService],
    foreign: bool,
    /// By client namespace (`None`: all others), the oldest VirtualService that applies to these clients. Namespaces
    /// are here because a VirtualService or a DestinationRule in them may make a difference.
    pub(crate) winners: BTreeMap<Option<String>, Option<&'a VirtualService>>,
}

impl<'a> Claims<'a> {
    /// Decides between `candidates`, oldest first.
    pub(crate) fn new(
        view: View<'_>,
        service: &'a ObjectKey,
        candidates: &'a [&'a VirtualService],
        options: &Options,
    ) -> Self {
        let mut claims =
            Self { service, candidates, foreign: options.foreign_virtual_services, winners: BTreeMap::new() };
        let mut clients: BTreeSet<Option<String>> = BTreeSet::from([None]);
        for vs in candidates {
            clients.insert(Some(vs.metadata.namespace.clone()));
            let destinations = vs.spec.http.iter().flat_map(HttpRoute::destinations);
            clients.extend(destinations.flat_map(|to| rule_namespaces(view, vs, to)).map(Some));
        }
        for client in clients {
            let winner = claims.winner(client.as_deref());
            claims.winners.insert(client, winner);
        }
        claims
    }

    fn winner(&self, client: Option<&str>) -> Option<&'a VirtualService> {
        self.candidates.iter().copied().find(|vs| {
            let namespace = &vs.metadata.namespace;
            self.foreign || *namespace == self.service.namespace || client == Some(namespace)
        })
    }

    /// What authors should know of their claims.
    pub(crate) fn findings(&self, service: &Service) -> BTreeSet<Finding> {
        let mut findings = BTreeSet::new();
        for vs in self.candidates {
            if !self.wins(vs) {
                findings.insert(self.conflict(vs));
                continue;
            }
            let told = outside_umbra(service).map(|why| (Reason::ReachableOutsideUmbra, why.to_owned()));
            let told = told.chain(not_kept(service).map(|why| (Reason::NotKept, why)));
            findings.extend(told.map(|(reason, why)| about_host(vs, self.service, None, reason, &why)));
            if !self.foreign && vs.metadata.namespace != self.service.namespace {
                let why = format!(
                    "the Service is in another namespace: the rules apply to clients in namespace {} only",
                    vs.metadata.namespace
                );
                findings.insert(about_host(vs, self.service, None, Reason::OwnNamespaceOnly, &why));
            }
        }
        findings
    }

    /// The same information for each author whose rules some clients get.
    pub(crate) fn of_winners(&self, reason: Reason, why: &str) -> impl Iterator<Item = Finding> {
        let winners = self.candidates.iter().filter(|vs| self.wins(vs));
        winners.map(move |vs| about_host(vs, self.service, None, reason, why))
    }

    fn wins(&self, vs: &VirtualService) -> bool {
        self.winners.values().flatten().any(|winner| winner.metadata.key() == vs.metadata.key())
    }

    fn conflict(&self, vs: &VirtualService) -> Finding {
        let winner = self.winner(Some(&vs.metadata.namespace)).map(|winner| winner.metadata.key());
        let why = format!(
            "the older virtualservice {} has this host, and only one can; merge the two, or delete one",
            winner.unwrap_or_default()
        );
        about_host(vs, self.service, Some(Condition::Accepted), Reason::Conflicted, &why)
    }
}

/// A finding about the host in `vs` that names `service`.
pub(crate) fn about_host(
    vs: &VirtualService,
    service: &ObjectKey,
    condition: Option<Condition>,
    reason: Reason,
    why: &str,
) -> Finding {
    let namespace = &vs.metadata.namespace;
    let is_this =
        |host: &String| host::service_of(&host.to_ascii_lowercase(), namespace).as_ref() == Some(service);
    let index = vs.spec.hosts.iter().position(is_this).unwrap_or(0);
    Finding {
        object: ObjectRef::new(Kind::VirtualService, &vs.metadata),
        condition,
        reason,
        path: format!("spec.hosts[{index}]"),
        message: format!("{}: {why}", host::name_of(service)),
    }
}

/// Ways past the ClusterIP, or past what it promises.
fn outside_umbra(service: &Service) -> impl Iterator<Item = &'static str> {
    let spec = &service.spec;
    let kind = match spec.kind.as_str() {
        "NodePort" => Some("the Service has node ports, whose callers umbra does not see"),
        "LoadBalancer" => Some("the Service has a load balancer, whose callers umbra does not see"),
        _ => None,
    };
    let sticky = (spec.session_affinity == "ClientIP").then_some(
        "the Service has sessionAffinity ClientIP, which umbra does not keep for the callers it serves",
    );
    let external = (!spec.external_ips.is_empty())
        .then_some("the Service has externalIPs, whose callers umbra does not see");
    kind.into_iter().chain(sticky).chain(external)
}

/// Which endpoints are near, umbra does not ask.
fn not_kept(service: &Service) -> impl Iterator<Item = String> {
    let near = service.spec.traffic_distribution.iter().filter(|near| !near.is_empty());
    near.map(|near| {
        format!("the Service has trafficDistribution {near}, which umbra does not keep: it uses endpoints of all zones")
    })
}

/// The namespaces with DestinationRules for a destination's service.
fn rule_namespaces(view: View<'_>, vs: &VirtualService, to: &Destination) -> BTreeSet<String> {
    let service = host::service_of(&to.host, &vs.metadata.namespace);
    let rules = service.map(|service| view.destination_rules_for(&service)).unwrap_or_default();
    rules.into_iter().map(|rule| rule.metadata.namespace.clone()).collect()
}
