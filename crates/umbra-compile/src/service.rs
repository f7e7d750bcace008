//! One service: its table, or why there is none.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use umbra_index::api::{ObjectKey, Service, VirtualService};
use umbra_index::{Kind, View};
use umbra_routing::{
    BackendRef, Port, RequestMatch, Rule, ServiceName, ServiceTable, Variant, WeightedBackend,
};

use crate::claims::{Claims, about_host};
use crate::destination::Resolver;
use crate::finding::{Condition, Finding, ObjectRef, Reason};
use crate::hold::{HeldScope, Hold};
use crate::policies;
use crate::protocol::protocol;
use crate::spec::{self, RuleSpec};

/// What the cluster's administrator decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// A VirtualService applies to clients of all namespaces, as in Istio, also when it is not in the service's own
    /// namespace (`--foreign-virtualservices=istio`).
    pub foreign_virtual_services: bool,
    /// What becomes of traffic that a NetworkPolicy is about (`--network-policies`).
    pub network_policies: NetworkPolicies,
}

/// What becomes of traffic that a NetworkPolicy is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NetworkPolicies {
    /// It is not taken over: the policy goes on seeing who connects where.
    #[default]
    Guard,
    /// It is taken over: the policy sees the node's address in place of the client's.
    Ignore,
}

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
    let candidates: Vec<_> = view.virtual_services_for(service).filter(|vs| claims(vs)).collect();
    let Some(object) = view.service(service).filter(|_| !candidates.is_empty()) else {
        return Compiled::not_governed(BTreeSet::new());
    };
    if let Err((reason, why)) = can_be_taken_over(object) {
        let findings =
            candidates.iter().map(|vs| about_host(vs, service, Some(Condition::Accepted), reason, &why));
        return Compiled::not_governed(findings.collect());
    }
    let claims = Claims::new(view, service, &candidates, options);
    let mut work = Work::new(view, object, service);
    work.findings.extend(claims.findings(object));
    let clients = policies::about_clients(view, options);
    work.findings.extend(clients.into_iter().flat_map(|why| claims.of_winners(Reason::NetworkPolicy, why)));
    for (client, winner) in &claims.winners {
        work.scope(client.as_deref(), *winner);
    }
    work.table.leave_alone = policies::leave_alone(view, &work.table, options);
    let told = work.table.leave_alone.clone().or_else(|| policies::ignored(view, &work.table, options));
    work.findings.extend(told.iter().flat_map(|why| claims.of_winners(Reason::NetworkPolicy, why)));
    work.finish()
}

/// A VirtualService without an http rule leaves its hosts to others (spec/istio.md 4.7).
fn claims(vs: &VirtualService) -> bool {
    spec::is_for_mesh(vs) && !vs.spec.http.is_empty()
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
    table: ServiceTable,
    findings: BTreeSet<Finding>,
    governed_by: BTreeSet<ObjectRef>,
    held: BTreeMap<Option<String>, HeldScope>,
    /// Some VirtualService that is understood applies.
    governed: bool,
}

impl<'a> Work<'a> {
    fn new(view: View<'a>, object: &Service, service: &ObjectKey) -> Self {
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
        let (findings, governed_by, held) = Default::default();
        Self { view, table, findings, governed_by, held, governed: false }
    }

    /// Adds the variants of one client namespace; the default (`None`) comes first.
    fn scope(&mut self, client: Option<&str>, winner: Option<&VirtualService>) {
        let Some(vs) = winner else {
            let service = self.table.service.clone();
            for port in &mut self.table.ports {
                let rules = vec![to_all_endpoints(&service, port.number)];
                push_variant(port, client, rules);
            }
            return;
        };
        let understood = spec::understand(vs);
        self.findings.extend(understood.findings);
        self.governed_by.insert(ObjectRef::new(Kind::VirtualService, &vs.metadata));
        match understood.rules {
            Ok(rules) => self.resolve(client, vs, &rules),
            Err(held) => {
                self.held.insert(client.map(str::to_owned), held);
            }
        }
    }

    fn resolve(&mut self, client: Option<&str>, vs: &VirtualService, specs: &[RuleSpec<'_>]) {
        self.governed = true;
        self.table.rules_of.insert(vs.metadata.uid.clone());
        let takes_all = |rule: &RuleSpec<'_>| {
            rule.matches.is_empty() || rule.matches.iter().any(RequestMatch::takes_everything)
        };
        if client.is_none() && !specs.iter().any(takes_all) {
            self.findings.insert(no_fallback(vs));
        }
        for port in &mut self.table.ports {
            let mut resolver = Resolver::new(self.view, vs, client, port.number);
            let rules = specs.iter().map(|spec| resolver.rule(spec)).collect();
            let (findings, used) = resolver.finish();
            self.governed_by.extend(used);
            for finding in findings {
                // What every client meets is said once, not for each namespace again.
                let is_same = |said: &Finding| {
                    (&said.object, &said.path, said.reason)
                        == (&finding.object, &finding.path, finding.reason)
                };
                if client.is_none() || !self.findings.iter().any(is_same) {
                    self.findings.insert(finding);
                }
            }
            push_variant(port, client, rules);
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
fn no_fallback(vs: &VirtualService) -> Finding {
    Finding {
        object: ObjectRef::new(Kind::VirtualService, &vs.metadata),
        condition: None,
        reason: Reason::NoFallback,
        path: "spec.http".to_owned(),
        message: "no rule takes every request, so while a node's proxy is dead its pods are served by kube-proxy from all \
                  endpoints of the Service; add a last rule without match, and they stay on its destination"
            .to_owned(),
    }
}

/// Variants that say the same as the default are left out.
pub(crate) fn push_variant(port: &mut Port, client: Option<&str>, rules: Vec<Rule>) {
    let is_default = |variant: &&Variant| variant.client_namespace.is_none();
    if port.variants.iter().find(is_default).is_none_or(|default| default.rules != rules) {
        port.variants.push(Variant { client_namespace: client.map(str::to_owned), rules });
    }
}

/// What a service does without a VirtualService.
fn to_all_endpoints(service: &ServiceName, port: u16) -> Rule {
    let backend = BackendRef::all(service.clone(), port);
    Rule {
        name: "default".to_owned(),
        destinations: vec![WeightedBackend::new(1, backend)],
        ..Rule::default()
    }
}

fn addresses(service: &Service) -> Vec<IpAddr> {
    let spec = &service.spec;
    let one = std::slice::from_ref(&spec.cluster_ip);
    let listed = if spec.cluster_ips.is_empty() { one } else { spec.cluster_ips.as_slice() };
    listed.iter().filter_map(|ip| ip.parse().ok()).collect()
}
