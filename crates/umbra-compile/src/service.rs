//! One service: its table, or why there is none.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use umbra_index::api::{ObjectKey, Service, VirtualService};
use umbra_index::{View, host};
use umbra_routing::{Port, Rule, ServiceName, ServiceTable};

use crate::claim_findings::{self, about_host};
use crate::claims::{Candidate, Claim, Claims, Part};
use crate::exported;
use crate::finding::{Condition, Finding, ObjectRef, Reason};
use crate::hold::{HeldScope, Hold};
use crate::options::Options;
use crate::policies;
use crate::protocol::protocol;
use crate::rule_spec::RuleSpec;
use crate::spec;
use crate::variants::{Lists, push_variant};

/// What became of a service.
#[derive(Clone, Debug, PartialEq)]
pub struct Compiled {
    /// What nodes get.
    pub outcome: Outcome,
    /// What authors should know, of every object that was read; sorted, each once.
    pub findings: Vec<Finding>,
    /// The VirtualServices and DestinationRules that the outcome rests on, sorted; also those that hold.
    pub governed_by: Vec<ObjectRef>,
}

/// What nodes get.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Take this service over.
    Table(ServiceTable),
    /// Leave it alone.
    NotGoverned,
    /// A VirtualService is invalid: keep its rules ([`held`](crate::held)).
    Hold(Hold),
}

/// Compiles one service. A service that does not exist is not governed.
pub fn service(view: View<'_>, service: &ObjectKey, options: &Options) -> Compiled {
    let candidates: Vec<_> = view.virtual_services_for(service).filter(|vs| may_claim(vs)).collect();
    let Some(object) = view.service(service).filter(|_| !candidates.is_empty()) else {
        return Compiled::not_governed(BTreeSet::new());
    };
    if let Err((reason, why)) = can_be_taken_over(object) {
        let findings = candidates.iter().map(|vs| {
            // One that covers many services is not wrong because of one of them.
            let condition = names(vs, service).then_some(Condition::Accepted);
            about_host(vs, service, condition, reason, &why)
        });
        return Compiled::not_governed(findings.collect());
    }
    let claims = Claims::new(view, service, candidates, options);
    let mut work = Work::new(view, object, service, options);
    for client in client_namespaces(view, &claims) {
        for port in 0..work.table.ports.len() {
            work.take(client.as_deref(), port, &claims);
        }
    }
    work.findings.extend(claim_findings::findings(&claims, object, &work.winners));
    if work.winners.is_empty() {
        return Compiled::not_governed(work.findings);
    }
    work.policies(&claims, options);
    work.finish()
}

/// One without any rule is invalid and holds what it had.
fn may_claim(vs: &VirtualService) -> bool {
    vs.spec.is_for_mesh() && !spec::is_only_for_others(vs)
}

fn names(vs: &VirtualService, service: &ObjectKey) -> bool {
    let full = |name: &String| host::claimed_name(name, &vs.metadata.namespace);
    vs.spec.hosts.iter().any(|name| full(name) == host::name_of(service))
}

/// The namespaces whose clients a VirtualService or a DestinationRule may make a difference for; the default (`None`)
/// comes first.
fn client_namespaces(view: View<'_>, claims: &Claims<'_>) -> BTreeSet<Option<String>> {
    let mut clients = claims.namespaces();
    let rules = claims.candidates.iter().flat_map(|candidate| &candidate.rules);
    let targets = rules.flat_map(RuleSpec::targets);
    let services: BTreeSet<_> =
        targets.filter_map(|to| host::service_of(&to.destination.host, &to.object.key.namespace)).collect();
    for rule in services.iter().flat_map(|service| view.destination_rules_for(service)) {
        clients.insert(Some(rule.metadata.namespace.clone()));
        clients.extend(exported::named(&exported::of_rule(rule)).cloned().map(Some));
    }
    clients
}

impl Compiled {
    fn not_governed(findings: BTreeSet<Finding>) -> Self {
        Self {
            outcome: Outcome::NotGoverned,
            findings: findings.into_iter().collect(),
            governed_by: Vec::new(),
        }
    }
}

/// Whether connections to this Service pass a ClusterIP with an HTTP port, or why not.
fn can_be_taken_over(service: &Service) -> Result<(), (Reason, String)> {
    let spec = &service.spec;
    let unsupported = |why: &str| Err((Reason::UnsupportedService, why.to_owned()));
    if spec.kind == "ExternalName" {
        return unsupported(
            "the Service is of type ExternalName: it has no ClusterIP whose connections umbra could take",
        );
    }
    if spec.cluster_ip == "None" || spec.cluster_ips.iter().any(|ip| ip == "None") {
        return unsupported(
            "the Service is headless: clients connect to pods, past umbra; give it a ClusterIP",
        );
    }
    if spec.internal_traffic_policy == "Local" {
        return unsupported(
            "the Service has internalTrafficPolicy Local, which umbra does not keep; set it to Cluster",
        );
    }
    if !spec.ports.iter().any(|port| protocol(port).is_some()) {
        let why =
            "no port of the Service speaks HTTP: name one http, http-... or grpc-..., or set its appProtocol";
        return Err((Reason::NoHttpPort, why.to_owned()));
    }
    Ok(())
}

/// A service being compiled.
struct Work<'a> {
    view: View<'a>,
    root_namespace: &'a str,
    table: ServiceTable,
    findings: BTreeSet<Finding>,
    governed_by: BTreeSet<ObjectRef>,
    held: BTreeMap<(Option<String>, u16), HeldScope>,
    /// The VirtualServices that some clients get, or are held by.
    winners: BTreeSet<ObjectKey>,
    /// Some VirtualService that is understood applies.
    governed: bool,
}

impl<'a> Work<'a> {
    fn new(view: View<'a>, object: &Service, service: &ObjectKey, options: &'a Options) -> Self {
        let ports = object.spec.ports.iter();
        let ports = ports.filter_map(|port| {
            Some(Port { number: port.port, protocol: protocol(port)?, variants: Vec::new() })
        });
        let name = ServiceName::new(&service.namespace, &service.name);
        let table = ServiceTable {
            service: name,
            addresses: addresses(object),
            ports: ports.collect(),
            leave_alone: None,
            rules_of: BTreeSet::new(),
        };
        let (findings, governed_by, held, winners) = Default::default();
        let root_namespace = &options.root_namespace;
        Self { view, root_namespace, table, findings, governed_by, held, winners, governed: false }
    }

    /// Adds what clients of one namespace get on one port; the default (`None`) comes first.
    fn take(&mut self, client: Option<&str>, port: usize, claims: &Claims<'_>) {
        let number = self.table.ports[port].number;
        match claims.claim(client, number) {
            Claim::Held { by, before } => {
                before.iter().chain([&by]).for_each(|candidate| self.won(candidate));
                self.held.insert((client.map(str::to_owned), number), by.held(&before));
            }
            Claim::Rules(parts) => {
                let rules = self.rules(client, number, &parts);
                if client.is_none() && !rules.iter().any(Rule::takes_everything) {
                    self.findings.extend(parts.first().map(|part| no_fallback(part.candidate)));
                }
                push_variant(&mut self.table.ports[port], client, rules);
            }
        }
    }

    fn won(&mut self, candidate: &Candidate<'_>) {
        self.winners.insert(candidate.vs.metadata.key());
        self.governed_by.insert(candidate.object());
        self.governed_by.extend(candidate.delegates.iter().cloned());
    }

    fn rules(&mut self, client: Option<&str>, port: u16, parts: &[Part<'_, '_>]) -> Vec<Rule> {
        for part in parts {
            self.won(part.candidate);
            self.governed = true;
            self.table.rules_of.insert(part.candidate.vs.metadata.uid.clone());
        }
        let service = &self.table.service;
        let lists = Lists { view: self.view, service, root_namespace: self.root_namespace };
        let list = lists.of(client, port, parts);
        self.governed_by.extend(list.used);
        for finding in list.findings {
            // What every client meets is said once, not for each namespace again.
            let is_same = |said: &Finding| {
                (&said.object, &said.path, said.reason) == (&finding.object, &finding.path, finding.reason)
            };
            if client.is_none() || !self.findings.iter().any(is_same) {
                self.findings.insert(finding);
            }
        }
        list.rules
    }

    fn policies(&mut self, claims: &Claims<'_>, options: &Options) {
        let mut told: Vec<String> = Vec::new();
        told.extend(policies::about_clients(self.view, options).map(str::to_owned));
        self.table.leave_alone = policies::leave_alone(self.view, &self.table, options);
        let about_table = self.table.leave_alone.clone();
        told.extend(about_table.or_else(|| policies::ignored(self.view, &self.table, options)));
        for why in told {
            let reason = Reason::NetworkPolicy;
            self.findings.extend(claim_findings::of_winners(claims, &self.winners, reason, &why));
        }
    }

    fn finish(self) -> Compiled {
        let outcome = if self.held.is_empty() {
            Outcome::Table(self.table)
        } else {
            Outcome::Hold(Hold { scopes: self.held, fresh: self.table, fresh_governed: self.governed })
        };
        Compiled {
            outcome,
            findings: self.findings.into_iter().collect(),
            governed_by: self.governed_by.into_iter().collect(),
        }
    }
}

/// The catch-all rule of the default variant is what the kernel follows while a proxy is dead.
fn no_fallback(candidate: &Candidate<'_>) -> Finding {
    Finding {
        object: candidate.object(),
        condition: None,
        reason: Reason::NoFallback,
        path: "spec.http".to_owned(),
        message: "no rule takes every request, so while a node's proxy is dead its pods are served by kube-proxy from all \
                  endpoints of the Service; add a last rule without match, and they stay on its destination"
            .to_owned(),
    }
}

fn addresses(service: &Service) -> Vec<IpAddr> {
    let spec = &service.spec;
    let one = std::slice::from_ref(&spec.cluster_ip);
    let listed = if spec.cluster_ips.is_empty() { one } else { spec.cluster_ips.as_slice() };
    listed.iter().filter_map(|ip| ip.parse().ok()).collect()
}
