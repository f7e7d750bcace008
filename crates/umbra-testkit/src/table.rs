//! Tables as a controller pushes them, for a proxy that a test starts by itself: a service with a v1 that answers, and a
//! v2 that gets copies, if there is one.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use serde_json::value::{RawValue, to_raw_value};
use umbra_routing::{
    BackendRef, BackendSet, CONFIG_PATH, EPOCH_HEADER, Endpoint, Key, Mirror, Port, Protocol, Put, Rule,
    STATE_PATH, ServiceName, ServiceTable, SpokenTo, VERSION_HEADER, Variant, WeightedBackend,
};

use crate::http;

/// A service of the namespace `default`, with the port 80 and one rule for all requests.
#[derive(Clone, Debug)]
pub struct Shadowed<'a> {
    /// Its name.
    pub name: &'a str,
    /// The endpoint of v1, which answers.
    pub v1: SocketAddr,
    /// The copies that v2 gets; `None`: there is no v2.
    pub v2: Option<Copies>,
    /// What else the rule does; its name, destinations and mirrors are set here.
    pub rule: Rule,
}

/// Copies of a service's requests.
#[derive(Clone, Copy, Debug)]
pub struct Copies {
    /// Who gets them; `None`: v2 is scaled to zero.
    pub endpoint: Option<SocketAddr>,
    /// Of so many millionths of the requests.
    pub per_million: u32,
}

/// Everything that a node has to know of these services.
///
/// # Errors
/// When something cannot be written as JSON.
pub fn put(services: &[Shadowed<'_>]) -> Result<Put> {
    let mut resources = BTreeMap::new();
    for service in services {
        let name = ServiceName::new("default", service.name);
        let mirror = service.v2.map(|v2| Mirror::new(v2.per_million, subset(service.name, "v2")));
        let rule = Rule {
            name: "main".into(),
            destinations: vec![WeightedBackend::new(1, subset(service.name, "v1"))],
            mirrors: mirror.into_iter().collect(),
            ..service.rule.clone()
        };
        let variants = vec![Variant { client_namespace: None, rules: vec![rule] }];
        let port = Port { number: 80, protocol: Protocol::Http, variants };
        let table = ServiceTable {
            service: name.clone(),
            addresses: vec![],
            ports: vec![port],
            leave_alone: None,
            rules_of: Default::default(),
        };
        resources.insert(Key::Service(name), to_raw_value(&table)?);
        resources.extend([endpoints(service.name, "v1", &[service.v1])?]);
        let v2 = service.v2.map(|v2| endpoints(service.name, "v2", v2.endpoint.as_slice()));
        resources.extend(v2.transpose()?);
    }
    Ok(Put { resources, ..Put::default() })
}

/// Pushes all of it over plain HTTP, as a controller of the epoch 1.
///
/// # Errors
/// When the proxy does not take it.
pub fn push(to: SocketAddr, version: u64, services: &[Shadowed<'_>]) -> Result<()> {
    push_put(to, version, &put(services)?)
}

/// Pushes what is more than a list of services, as [`push`] does.
///
/// # Errors
/// When the proxy does not take it.
pub fn push_put(to: SocketAddr, version: u64, put: &Put) -> Result<()> {
    let body = serde_json::to_string(put)?;
    let headers = [(EPOCH_HEADER, "1"), (VERSION_HEADER, &version.to_string())];
    let answer = http::exchange(http::connect(to)?, "PUT", CONFIG_PATH, &headers, &body)?;
    ensure!(answer.status == 200, "{}\n{}", answer.head, answer.body);
    Ok(())
}

/// Asks for what is in force, as a controller does that has nothing to push.
///
/// # Errors
/// When the proxy does not answer.
pub fn ask(of: SocketAddr) -> Result<()> {
    let answer = http::exchange(http::connect(of)?, "GET", STATE_PATH, &[(EPOCH_HEADER, "1")], "")?;
    ensure!(answer.status == 200, "{}\n{}", answer.head, answer.body);
    Ok(())
}

fn subset(service: &str, version: &str) -> BackendRef {
    let selector = BTreeMap::from([("version".to_owned(), version.to_owned())]);
    BackendRef {
        service: ServiceName::new("default", service),
        port: 80,
        subset: Some(version.to_owned()),
        selector: Some(selector),
    }
}

/// The endpoints of one version, which replace what [`put`] says of it: more than one, or none.
///
/// # Errors
/// When something cannot be written as JSON.
pub fn endpoints(service: &str, version: &str, addresses: &[SocketAddr]) -> Result<(Key, Box<RawValue>)> {
    speaking(service, version, addresses, SpokenTo::default())
}

/// The same, with what is spoken to them: what [`put`] says of them is that they are spoken to as the client speaks.
///
/// # Errors
/// When something cannot be written as JSON.
pub fn speaking(
    service: &str,
    version: &str,
    addresses: &[SocketAddr],
    spoken_to: SpokenTo,
) -> Result<(Key, Box<RawValue>)> {
    let backend = subset(service, version);
    let key = backend.key().context("a defined subset has a key")?;
    let endpoint = |&address| Endpoint {
        address,
        pod: None,
        namespace: "default".into(),
        workload: format!("{service}-{version}"),
        app: service.to_owned(),
        version: version.to_owned(),
        canonical_name: service.to_owned(),
        canonical_revision: version.to_owned(),
        zone: None,
    };
    let selector = backend.selector.context("defined")?;
    let set = BackendSet {
        service: backend.service,
        port: 80,
        selector,
        spoken_to,
        endpoints: addresses.iter().map(endpoint).collect(),
    };
    Ok((key, to_raw_value(&set)?))
}
