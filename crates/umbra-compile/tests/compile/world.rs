//! A small cluster to compile: objects written as JSON, as `kubectl` would print them.

use serde_json::{Value, json};
use umbra_compile::{Compiled, Condition, Finding, Options, Outcome};
use umbra_index::api::ObjectKey;
use umbra_index::{Change, Dirty, Event, Index, Kind, ObjectName};
use umbra_routing::{BackendRef, Rule, ServiceName, ServiceTable};

pub(crate) struct World {
    pub(crate) index: Index,
    pub(crate) options: Options,
    objects: u32,
}

pub(crate) fn parse<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("a test's own object")
}

pub(crate) fn key(text: &str) -> ObjectKey {
    let (namespace, name) = text.split_once('/').expect("namespace/name");
    ObjectKey::new(namespace, name)
}

/// `{port, name: http}` on the ClusterIP 10.96.0.1 unless `spec` says otherwise.
pub(crate) fn service_json(name: &str, port: u16, spec: Value) -> Value {
    let key = key(name);
    let mut all = json!({
        "type": "ClusterIP", "clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1"], "selector": {"app": key.name},
        "ports": [{"name": "http", "port": port, "protocol": "TCP"}],
    });
    all.as_object_mut().expect("an object").extend(spec.as_object().cloned().unwrap_or_default());
    json!({"metadata": {"namespace": key.namespace, "name": key.name}, "spec": all})
}

pub(crate) fn pod_json(name: &str, ip: &str, labels: Value) -> Value {
    let key = key(name);
    json!({
        "metadata": {"namespace": key.namespace, "name": key.name, "uid": format!("uid-{}", key.name), "labels": labels},
        "spec": {"nodeName": "node-a"},
        "status": {"phase": "Running", "podIPs": [{"ip": ip}]},
    })
}

/// One ready endpoint per (pod, ip), on port 5000 named `http`.
pub(crate) fn slice_json(service: &str, name: &str, pods: &[(&str, &str)]) -> Value {
    let key = key(service);
    let endpoints: Vec<_> = pods
        .iter()
        .map(|(pod, ip)| {
            let uid = format!("uid-{pod}");
            json!({"addresses": [ip], "conditions": {"ready": true},
                   "targetRef": {"kind": "Pod", "namespace": key.namespace, "name": pod, "uid": uid}})
        })
        .collect();
    json!({
        "metadata": {"namespace": key.namespace, "name": name, "labels": {"kubernetes.io/service-name": key.name}},
        "addressType": "IPv4", "ports": [{"name": "http", "port": 5000, "protocol": "TCP"}], "endpoints": endpoints,
    })
}

impl World {
    /// Nothing at all.
    pub(crate) fn empty() -> Self {
        Self { index: Index::new(), options: Options::default(), objects: 0 }
    }

    /// Services `default/sa-logic` (80), `default/reviews` (9080 and 9081), `other/ratings` (9080); two pods each of
    /// v1 and v2 behind sa-logic.
    pub(crate) fn new() -> Self {
        let mut world = Self::empty();
        world.service("default/sa-logic", 80, json!({}));
        let two = json!({"ports": [{"name": "http", "port": 9080}, {"name": "http-alt", "port": 9081}]});
        world.service("default/reviews", 0, two);
        world.service("other/ratings", 9080, json!({}));
        for (pod, ip, version) in
            [("v1-a", "10.1.0.1", "v1"), ("v1-b", "10.1.0.2", "v1"), ("v2-a", "10.1.0.3", "v2")]
        {
            world.pod(&format!("default/{pod}"), ip, json!({"app": "sa-logic", "version": version}));
        }
        world.slice(slice_json(
            "default/sa-logic",
            "sa-logic-x",
            &[("v1-a", "10.1.0.1"), ("v1-b", "10.1.0.2"), ("v2-a", "10.1.0.3")],
        ));
        world
    }

    pub(crate) fn service(&mut self, name: &str, port: u16, spec: Value) -> Dirty {
        self.index.apply(Event::Service(Change::Apply(parse(service_json(name, port, spec)))))
    }

    pub(crate) fn pod(&mut self, name: &str, ip: &str, labels: Value) -> Dirty {
        self.index.apply(Event::Pod(Change::Apply(parse(pod_json(name, ip, labels)))))
    }

    pub(crate) fn slice(&mut self, slice: Value) -> Dirty {
        self.index.apply(Event::EndpointSlice(Change::Apply(parse(slice))))
    }

    pub(crate) fn policy(&mut self, name: &str, spec: Value) -> Dirty {
        let key = key(name);
        let object = json!({"metadata": {"namespace": key.namespace, "name": key.name}, "spec": spec});
        self.index.apply(Event::NetworkPolicy(Change::Apply(parse(object))))
    }

    /// Younger than all before it.
    pub(crate) fn virtual_service(&mut self, name: &str, spec: Value) -> Dirty {
        let object = json!({"metadata": self.meta(name), "spec": spec});
        self.index.apply(Event::VirtualService(Change::Apply(parse(object))))
    }

    /// Younger than all before it.
    pub(crate) fn destination_rule(&mut self, name: &str, spec: Value) -> Dirty {
        let object = json!({"metadata": self.meta(name), "spec": spec});
        self.index.apply(Event::DestinationRule(Change::Apply(parse(object))))
    }

    /// Subsets v1 and v2 of sa-logic, by the label `version`.
    pub(crate) fn versions(&mut self) {
        self.destination_rule("default/sa-logic", versions("sa-logic"));
    }

    /// Rules for `sa-logic` with subsets as the article has them.
    pub(crate) fn with_rules(http: Value) -> Self {
        let mut world = Self::new();
        world.versions();
        world.virtual_service("default/sa-logic", json!({"hosts": ["sa-logic"], "http": http}));
        world
    }

    pub(crate) fn compile(&self, service: &str) -> Compiled {
        umbra_compile::service(self.index.view(), &key(service), &self.options)
    }

    /// The table of `default/sa-logic`.
    pub(crate) fn table(&self) -> ServiceTable {
        match self.compile("default/sa-logic") {
            Compiled { outcome: Outcome::Table(table), .. } => table,
            other => panic!("no table: {other:?}"),
        }
    }

    /// The default rules on the first port of `default/sa-logic`.
    pub(crate) fn rules(&self) -> Vec<Rule> {
        self.table().ports[0].variants[0].rules.clone()
    }

    /// The rules that clients of `namespace` get there.
    pub(crate) fn rules_for(&self, namespace: &str) -> Vec<Rule> {
        let variants = self.table().ports[0].variants.clone();
        let own = variants.iter().find(|variant| variant.client_namespace.as_deref() == Some(namespace));
        own.unwrap_or(&variants[0]).rules.clone()
    }

    /// The rules that clients of `namespace` get on a port of a service; empty when it is not taken over.
    pub(crate) fn rules_on(&self, service: &str, port: u16, namespace: &str) -> Vec<Rule> {
        let Outcome::Table(table) = self.compile(service).outcome else { return Vec::new() };
        let port = table.ports.iter().find(|candidate| candidate.number == port).expect("a port");
        port.variant(Some(namespace)).expect("a default variant").rules.clone()
    }

    /// The names of [`rules_for`](Self::rules_for).
    pub(crate) fn names_for(&self, namespace: &str) -> Vec<String> {
        self.rules_for(namespace).into_iter().map(|rule| rule.name).collect()
    }

    pub(crate) fn is_held(&self) -> bool {
        matches!(self.compile("default/sa-logic").outcome, Outcome::Hold(_))
    }

    /// All findings of `default/sa-logic`, as text with their condition and reason.
    pub(crate) fn findings(&self) -> Vec<String> {
        self.compile("default/sa-logic").findings.iter().map(text).collect()
    }

    pub(crate) fn object_findings(&self, kind: Kind, name: &str) -> Vec<String> {
        let name = ObjectName::new(kind, key(name));
        umbra_compile::object_findings(self.index.view(), &name).iter().map(text).collect()
    }

    fn meta(&mut self, name: &str) -> Value {
        self.objects += 1;
        let key = key(name);
        json!({"namespace": key.namespace, "name": key.name, "uid": format!("uid-{}", self.objects), "generation": 1,
               "creationTimestamp": format!("2026-01-01T00:00:{:02}Z", self.objects)})
    }
}

/// `False(Condition) Reason path: message`
pub(crate) fn text(finding: &Finding) -> String {
    let condition = match finding.condition {
        Some(Condition::Accepted) => "Accepted=False ",
        Some(Condition::ResolvedRefs) => "ResolvedRefs=False ",
        None => "",
    };
    format!("{condition}{} {}: {}", finding.reason, finding.path, finding.message)
}

pub(crate) fn versions(host: &str) -> Value {
    json!({"host": host, "subsets": [
        {"name": "v1", "labels": {"version": "v1"}}, {"name": "v2", "labels": {"version": "v2"}}]})
}

/// A destination of sa-logic.
pub(crate) fn to(subset: &str) -> Value {
    json!({"destination": {"host": "sa-logic", "subset": subset}})
}

pub(crate) fn backend(service: &str, port: u16, subset: &str) -> BackendRef {
    let key = key(service);
    let service = ServiceName::new(key.namespace, key.name);
    let selector = [("version".to_owned(), subset.to_owned())];
    BackendRef {
        service,
        port,
        subset: Some(subset.to_owned()),
        selector: Some(selector.into_iter().collect()),
    }
}

#[track_caller]
pub(crate) fn assert_has(findings: &[String], part: &str) {
    assert!(findings.iter().any(|finding| finding.contains(part)), "no {part:?} among {findings:#?}");
}
