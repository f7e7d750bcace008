//! Looking destinations up: host, port and subset to a backend set, or why not.

use std::collections::BTreeSet;

use umbra_index::api::{Destination, ObjectKey, Service, values};
use umbra_index::{Kind, View, host};
use umbra_routing::{BackendRef, Rule, ServiceName};

use crate::audience::Audience;
use crate::claims::Applying;
use crate::finding::{Condition, Finding, ObjectRef, Reason};
use crate::protocol::is_tcp;
use crate::rule_spec::Target;
use crate::subsets::Subsets;

/// Turns rules into those that some clients get on one port.
pub(crate) struct Resolver<'a> {
    view: View<'a>,
    audience: &'a Audience<'a>,
    port: u16,
    findings: BTreeSet<Finding>,
    used: BTreeSet<ObjectRef>,
}

/// Why a destination is not there.
type Unresolved = (Reason, String);

impl<'a> Resolver<'a> {
    pub(crate) fn new(view: View<'a>, audience: &'a Audience<'a>, port: u16) -> Self {
        Self { view, audience, port, findings: BTreeSet::new(), used: BTreeSet::new() }
    }

    /// What it came across: findings, and the DestinationRules that the rules rest on.
    pub(crate) fn finish(self) -> (BTreeSet<Finding>, BTreeSet<ObjectRef>) {
        (self.findings, self.used)
    }

    pub(crate) fn rule(&mut self, applying: &Applying<'_>) -> Rule {
        applying.spec.on_the_wire(applying.matches.clone(), |target| self.backend(target))
    }

    fn backend(&mut self, target: &Target) -> BackendRef {
        let to = &target.destination;
        let namespace = &target.object.key.namespace;
        let named = host::service_of(&to.host, namespace);
        // A host that cannot be a service keeps its name for messages and metrics.
        let service = named.clone().unwrap_or_else(|| ObjectKey::new(namespace, &to.host));
        let subset = to.subset_name();
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
                self.say(Some(Condition::ResolvedRefs), reason, target, self.seen_from(message));
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

    fn say(&mut self, condition: Option<Condition>, reason: Reason, target: &Target, message: String) {
        let (object, path) = (target.object.clone(), target.path.clone());
        self.findings.insert(Finding { object, condition, reason, path, message });
    }

    fn note_node_local(&mut self, key: &ObjectKey, target: &Target) {
        if self.view.service(key).is_some_and(|service| service.spec.internal_traffic_policy == "Local") {
            let message = format!(
                "Service {} has internalTrafficPolicy Local, which umbra does not keep for a destination: it uses \
                 endpoints of all nodes",
                host::name_of(key)
            );
            self.say(None, Reason::NotKept, target, message);
        }
    }

    /// Absent: the port the client used, even when the service has another, single one (spec/istio.md 4.2).
    fn port_of(&self, to: &Destination) -> Option<u16> {
        match &to.port {
            Some(port) => values::port(port.number),
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
        let subsets = Subsets::of(self.view, service, self.audience);
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
        let labels: Vec<_> =
            self.audience.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        match self.audience.namespace {
            None => message,
            Some(client) if labels.is_empty() => format!("{message} (for clients in namespace {client})"),
            Some(client) => {
                format!("{message} (for clients in namespace {client} with labels {})", labels.join(","))
            }
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
