//! Where tables, endpoints and clients come from.

use std::collections::BTreeMap;
#[cfg(feature = "kubernetes")]
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use umbra_compile::{Finding, Hold, Options, Outcome};
use umbra_index::api::ObjectKey;
use umbra_index::{Index, host};
use umbra_routing::{BackendRef, BackendSet, Client, Endpoint, Key, ServiceName, ServiceTable};

use super::ExplainError;
use super::node;
use super::request::Wanted;
#[cfg(feature = "kubernetes")]
use crate::args::ClusterArgs;
#[cfg(feature = "kubernetes")]
use crate::cluster;
use crate::files::{self, Object, World};

/// Where tables, endpoints and clients come from.
pub struct Source(Of);

/// Of objects, or of what a node has.
enum Of {
    Objects(Box<Objects>),
    Node(NodeConfig),
}

/// The objects of files or of a cluster.
struct Objects {
    index: Index,
    /// These are all there are: a Service without EndpointSlices has no endpoints. Files may lack them.
    all: bool,
    /// How they are compiled.
    options: Options,
}

/// A node's configuration, as its admin port tells it.
#[derive(Default)]
pub(super) struct NodeConfig {
    pub(super) tables: Vec<ServiceTable>,
    pub(super) sets: BTreeMap<Key, BackendSet>,
    pub(super) clients: Vec<Client>,
}

/// A service's table, or why there is none.
pub(super) enum Known {
    Table(Box<ServiceTable>),
    Not(String),
}

/// The client, as far as it is known: its namespace always is.
pub(super) struct From {
    pub(super) namespace: String,
    pub(super) labels: BTreeMap<String, String>,
}

impl Source {
    pub(super) fn of_files(paths: &[PathBuf]) -> Result<Self, ExplainError> {
        let changes = World::default().look(&files::read(paths));
        if !changes.problems.is_empty() {
            let problems: Vec<String> = changes.problems.iter().map(ToString::to_string).collect();
            return Err(ExplainError::Files(problems.join("\n")));
        }
        let mut index = Index::new();
        for event in changes.events {
            index.apply(event);
        }
        Ok(Self::new(index, false))
    }

    /// What cannot be read of a cluster is said, and left out, as the controller does it.
    #[cfg(feature = "kubernetes")]
    pub(super) fn of_cluster(from: &ClusterArgs) -> Result<Self, ExplainError> {
        let listed = cluster::read(from)?;
        for (_, why) in &listed.undecodable {
            writeln!(std::io::stderr(), "umbra explain: {why}")?;
        }
        Ok(Self::of_objects(listed.objects.iter().map(|(_, object)| object)))
    }

    /// These objects, and no others.
    pub fn of_objects<'a>(all: impl Iterator<Item = &'a Object> + Clone) -> Self {
        Self::new(Object::index(all), true)
    }

    fn new(index: Index, all: bool) -> Self {
        Self(Of::Objects(Box::new(Objects { index, all, options: Options::default() })))
    }

    /// Compiles as a controller with these options does; what a node has is compiled already.
    #[must_use]
    pub fn compiled_with(mut self, options: Options) -> Self {
        if let Of::Objects(objects) = &mut self.0 {
            objects.options = options;
        }
        self
    }

    /// What the proxy has whose admin port is at `address` (`127.0.0.1:15000`).
    ///
    /// # Errors
    /// It does not tell.
    pub fn of_node(address: &str) -> Result<Self, ExplainError> {
        node::config(address).map(|config| Self(Of::Node(config)))
    }

    /// The Service that a host means for this client: a ClusterIP, or a name as the client's DNS completes it.
    pub(super) fn service(&self, wanted: &Wanted) -> Result<ServiceName, ExplainError> {
        let missing = || ExplainError::NoService(wanted.host.clone());
        if let Ok(ip) = wanted.host.parse::<IpAddr>() {
            return self.by_address(ip).ok_or_else(missing);
        }
        let name = completed(&wanted.host, &wanted.from.namespace).ok_or_else(missing)?;
        self.has(&name).then_some(name).ok_or_else(missing)
    }

    fn by_address(&self, ip: IpAddr) -> Option<ServiceName> {
        match &self.0 {
            Of::Objects(objects) => {
                let ip = ip.to_string();
                let mut services = objects.index.view().services();
                let found = services.find(|service| {
                    service.spec.cluster_ip == ip || service.spec.cluster_ips.contains(&ip)
                })?;
                Some(ServiceName::new(&found.metadata.namespace, &found.metadata.name))
            }
            Of::Node(config) => {
                let found = config.tables.iter().find(|table| table.addresses.contains(&ip))?;
                Some(found.service.clone())
            }
        }
    }

    fn has(&self, name: &ServiceName) -> bool {
        match &self.0 {
            Of::Objects(objects) => {
                objects.index.view().service(&ObjectKey::new(&name.namespace, &name.name)).is_some()
            }
            // What is not governed, a node does not know; that is an answer, too.
            Of::Node(_) => true,
        }
    }

    /// What a node has for clients of this namespace on this port.
    pub(super) fn table(&self, service: &ServiceName, client: &str, port: u16) -> Known {
        let Objects { index, options, .. } = match &self.0 {
            Of::Objects(objects) => &**objects,
            Of::Node(config) => {
                let found = config.tables.iter().find(|table| table.service == *service);
                let not =
                    || Known::Not("the node has no table for it: it is not governed, or not yet".to_owned());
                return found.map_or_else(not, |table| Known::Table(Box::new(table.clone())));
            }
        };
        let key = ObjectKey::new(&service.namespace, &service.name);
        let compiled = umbra_compile::service(index.view(), &key, options);
        match compiled.outcome {
            Outcome::Table(table) => Known::Table(Box::new(table)),
            Outcome::NotGoverned => Known::Not("no VirtualService governs it".to_owned()),
            Outcome::Hold(hold) => {
                unless_held(&hold, client, port).unwrap_or_else(|| held(&compiled.findings))
            }
        }
    }

    /// `None`: nobody has said which there are.
    pub(super) fn endpoints(&self, backend: &BackendRef) -> Option<Vec<SocketAddr>> {
        let addresses = |endpoints: &[Endpoint]| endpoints.iter().map(|endpoint| endpoint.address).collect();
        match &self.0 {
            Of::Objects(objects) => {
                let service = ObjectKey::new(&backend.service.namespace, &backend.service.name);
                let view = objects.index.view();
                let is_known = objects.all || view.slices(&service).next().is_some();
                is_known.then(|| addresses(&umbra_compile::backends(view, backend).endpoints))
            }
            Of::Node(config) => {
                let set = backend.key().and_then(|key| config.sets.get(&key));
                Some(set.map(|set| addresses(&set.endpoints)).unwrap_or_default())
            }
        }
    }

    /// A pod that is not there is a client of that namespace without labels.
    pub(super) fn client(&self, pod: &ObjectKey) -> From {
        let labels = match &self.0 {
            Of::Objects(objects) => objects.index.view().pod(pod).map(|found| found.labels.as_ref().clone()),
            Of::Node(config) => {
                let is_it = |client: &&Client| client.namespace == pod.namespace && client.pod == pod.name;
                config.clients.iter().find(is_it).map(|client| client.labels.clone())
            }
        };
        From { namespace: pod.namespace.clone(), labels: labels.unwrap_or_default() }
    }
}

/// The table, when none of what it has for these clients is held.
fn unless_held(hold: &Hold, client: &str, port: u16) -> Option<Known> {
    let is_held = |client: Option<&str>| hold.scopes.contains_key(&(client.map(str::to_owned), port));
    if is_held(Some(client)) || is_held(None) {
        return None;
    }
    umbra_compile::held(None, hold).map(|table| Known::Table(Box::new(table)))
}

fn held(findings: &[Finding]) -> Known {
    let problems: Vec<String> = findings.iter().map(ToString::to_string).collect();
    Known::Not(format!("a VirtualService is invalid, and nodes keep its last rules: {}", problems.join("; ")))
}

/// `svc`, `svc.ns`, `svc.ns.svc` and the full name, with or without a last dot (spec/istio.md 2.2).
fn completed(name: &str, namespace: &str) -> Option<ServiceName> {
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    let full = match name.split('.').collect::<Vec<_>>().as_slice() {
        [service] => format!("{service}.{namespace}{}", host::SERVICE_SUFFIX),
        [_, _] => format!("{name}{}", host::SERVICE_SUFFIX),
        [service, namespace, "svc"] => format!("{service}.{namespace}{}", host::SERVICE_SUFFIX),
        _ => name,
    };
    let key = host::service_of(&full, namespace)?;
    Some(ServiceName::new(key.namespace, key.name))
}
