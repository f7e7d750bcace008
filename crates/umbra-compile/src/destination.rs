//! Looking destinations up: host, port and subset to a backend set, or why not.

use std::collections::BTreeSet;

use umbra_index::api::{Destination, ObjectKey, Service, VirtualService};
use umbra_index::{Kind, View, host};
use umbra_routing::{BackendRef, Mirror, Rule, ServiceName, WeightedBackend};

use crate::finding::{Finding, ObjectRef, Reason};
use crate::protocol::is_tcp;
use crate::report::Report;
use crate::spec::{RuleSpec, Target};
use crate::subsets::Subsets;

/// Turns the rules of one VirtualService into those that clients of one namespace get on one port.
pub(crate) struct Resolver<'a> {
    view: View<'a>,
    vs: &'a VirtualService,
    /// `None`: clients of all namespaces that see nothing of their own.
    client: Option<&'a str>,
    port: u16,
    report: Report,
    used: BTreeSet<ObjectRef>,
}

/// Why a destination is not there.
type Unresolved = (Reason, String);

impl<'a> Resolver<'a> {
    pub(crate) fn new(view: View<'a>, vs: &'a VirtualService, client: Option<&'a str>, port: u16) -> Self {
        let object = ObjectRef::new(Kind::VirtualService, &vs.metadata);
        let used = BTreeSet::from([object.clone()]);
        Self { view, vs, client, port, report: Report::new(object), used }
    }

    /// What it came across: findings, and the objects that the rules rest on.
    pub(crate) fn finish(self) -> (BTreeSet<Finding>, BTreeSet<ObjectRef>) {
        (self.report.into_findings(), self.used)
    }

    pub(crate) fn rule(&mut self, spec: &RuleSpec<'_>) -> Rule {
        let mut destinations = Vec::new();
        for (weight, target) in &spec.destinations {
            // Also looked up at weight 0: the author learns of a bad name before giving it a share.
            let backend = self.backend(target);
            if *weight > 0 {
                destinations.push(WeightedBackend::new(*weight, backend));
            }
        }
        let mirrors = spec.mirrors.iter();
        let mirrors =
            mirrors.map(|(share, target)| Mirror { backend: self.backend(target), per_million: *share });
        Rule {
            name: spec.name.clone(),
            matches: spec.matches.clone(),
            mirrors: mirrors.collect(),
            destinations,
            ..Rule::default()
        }
    }

    fn backend(&mut self, target: &Target<'_>) -> BackendRef {
        let to = target.destination;
        let named = host::service_of(&to.host, &self.vs.metadata.namespace);
        // A host that cannot be a service keeps its name for messages and metrics.
        let service = named.clone().unwrap_or_else(|| ObjectKey::new(&self.vs.metadata.namespace, &to.host));
        let subset = to.subset.as_deref().filter(|subset| !subset.is_empty());
        let found = match named {
            Some(service) => {
                self.note_node_local(&service, target);
                self.find_port(&service, to).and_then(|()| self.find_subset(&service, subset))
            }
            None => Err((Reason::HostNotFound, not_a_service(&to.host))),
        };
        let selector = match found {
            Ok(selector) => Some(selector),
            Err((reason, message)) => {
                self.report.unresolved(reason, &target.path, self.seen_from(message));
                None
            }
        };
        BackendRef {
            service: ServiceName::new(service.namespace, service.name),
            port: self.port_of(to).unwrap_or(0),
            subset: subset.map(str::to_owned),
            selector,
        }
    }

    fn note_node_local(&mut self, key: &ObjectKey, target: &Target<'_>) {
        if self.view.service(key).is_some_and(|service| service.spec.internal_traffic_policy == "Local") {
            let message = format!(
                "Service {} has internalTrafficPolicy Local, which umbra does not keep for a destination: it uses \
                 endpoints of all nodes",
                host::name_of(key)
            );
            self.report.note(Reason::NotKept, &target.path, message);
        }
    }

    /// Absent: the port the client used, even when the service has another, single one (spec/istio.md 4.2).
    fn port_of(&self, to: &Destination) -> Option<u16> {
        match &to.port {
            Some(port) => u16::try_from(port.number).ok().filter(|number| *number > 0),
            None => Some(self.port),
        }
    }

    fn find_port(&self, key: &ObjectKey, to: &Destination) -> Result<(), Unresolved> {
        let name = host::name_of(key);
        let Some(service) = self.view.service(key) else {
            return Err((Reason::HostNotFound, format!("Service {name} does not exist")));
        };
        if service.spec.kind == "ExternalName" {
            let message =
                format!("Service {name} is of type ExternalName and has no endpoints; name the real one");
            return Err((Reason::UnsupportedService, message));
        }
        let port = self.port_of(to);
        if port.is_some_and(|port| service.spec.ports.iter().any(|there| there.port == port && is_tcp(there)))
        {
            return Ok(());
        }
        let there = ports_of(service);
        let message = match &to.port {
            Some(port) => format!("Service {name} has no TCP port {}; it has {there}", port.number),
            None => format!(
                "Service {name} has no TCP port {}, which is the one clients use here; it has {there}: choose with \
                 port.number",
                self.port
            ),
        };
        Err((Reason::PortNotFound, message))
    }

    fn find_subset(
        &mut self,
        service: &ObjectKey,
        subset: Option<&str>,
    ) -> Result<umbra_index::api::Labels, Unresolved> {
        let Some(name) = subset else { return Ok(umbra_index::api::Labels::new()) };
        let subsets = Subsets::of(self.view, service, self.client);
        let rules = subsets.rules.iter();
        self.used.extend(rules.map(|rule| ObjectRef::new(Kind::DestinationRule, &rule.metadata)));
        if let Some(subset) = subsets.get(name) {
            return Ok(subset.labels.clone());
        }
        let host = host::name_of(service);
        let mut message = format!("subset {name:?} is not defined by any DestinationRule for {host}");
        if !subsets.rules.is_empty() {
            let rules: Vec<_> = subsets.rules.iter().map(|rule| rule.metadata.key().to_string()).collect();
            let names: Vec<_> = subsets.names().into_iter().collect();
            message += &format!(" (destinationrule {} defines: {})", rules.join(", "), names.join(", "));
        }
        Err((Reason::SubsetNotFound, message))
    }

    fn seen_from(&self, message: String) -> String {
        match self.client {
            Some(client) => format!("{message} (for clients in namespace {client})"),
            None => message,
        }
    }
}

fn ports_of(service: &Service) -> String {
    let ports: Vec<_> =
        service.spec.ports.iter().filter(|port| is_tcp(port)).map(|port| port.port.to_string()).collect();
    if ports.is_empty() { "none".to_owned() } else { ports.join(", ") }
}

fn not_a_service(name: &str) -> String {
    let short = name.strip_suffix(".svc").unwrap_or(name);
    let full = format!("{short}{}", host::SERVICE_SUFFIX);
    if host::service_of(&full, "").is_some() {
        format!("host {name:?} has a dot and is taken as a full name, which no Service has; write {full:?}")
    } else {
        format!("host {name:?} is not the name of a Service of this cluster")
    }
}
