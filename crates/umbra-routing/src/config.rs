//! A node's configuration: what was pushed, checked, hashed and kept.
//!
//! Takes: [`Put`] and [`Patch`] as received. Gives: what changed, for the proxy to turn into routes and interception.
//! Never half-applies: everything is parsed before anything is changed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use serde_json::value::RawValue;

use crate::backends::{BackendRef, BackendSet, Endpoint};
use crate::digest::{self, Digest};
use crate::key::Key;
use crate::snapshot::head_of;
use crate::table::{Client, NodeSettings, ServiceTable};
use crate::wire::{Patch, Put, SetPatch};

/// Everything a node was told, by key.
#[derive(Debug, Default)]
pub struct Config {
    resources: BTreeMap<Key, Held>,
    digest: Digest,
}

/// A resource, decoded.
#[derive(Clone, Debug, PartialEq)]
pub enum Resource {
    /// `service/<ns>/<name>`
    Service(ServiceTable),
    /// `backends/<digest>`
    Backends(BackendSet),
    /// `client/<ip>`
    Client(Client),
    /// `node`
    Node(NodeSettings),
}

/// Which keys a push touched: added, changed or removed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Look each up with [`Config::get`]; absent means removed.
    pub changed: BTreeSet<Key>,
}

/// A push that was not applied. The controller's fault; it sends all.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A value that is not what its key says.
    #[error("{key}: {source}")]
    Malformed {
        /// Which.
        key: Key,
        /// Why.
        source: serde_json::Error,
    },
    /// A value that belongs under another key, or two changes of one key.
    #[error("{key}: {what}")]
    Disagrees {
        /// Which.
        key: Key,
        /// How.
        what: String,
    },
    /// Made against something else than what this node has.
    #[error("the patch is against {base}, this node has {have}")]
    Base {
        /// The patch's base.
        base: Digest,
        /// What is here.
        have: Digest,
    },
    /// Endpoints for something that is not a backend set here, or an endpoint that is not there.
    #[error("{key}: {what}")]
    Patch {
        /// Which.
        key: Key,
        /// Why.
        what: String,
    },
}

#[derive(Debug)]
struct Held {
    resource: Resource,
    /// Of the value as sent; of a backend set, of its head.
    head: Digest,
    /// Hash of each endpoint as sent.
    endpoints: BTreeMap<SocketAddr, Digest>,
}

impl Config {
    /// The digest of everything here.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// One resource.
    pub fn get(&self, key: &Key) -> Option<&Resource> {
        self.resources.get(key).map(|held| &held.resource)
    }

    /// All resources in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&Key, &Resource)> {
        self.resources.iter().map(|(key, held)| (key, &held.resource))
    }

    /// Replaces everything.
    ///
    /// # Errors
    /// A malformed value; nothing has changed then.
    pub fn put(&mut self, put: &Put) -> Result<Applied, ConfigError> {
        let decoded = put.resources.iter().map(|(key, raw)| Ok((key.clone(), Held::decode(key, raw)?)));
        let resources = decoded.collect::<Result<BTreeMap<_, _>, ConfigError>>()?;
        let differs = |key: &Key| match (self.resources.get(key), resources.get(key)) {
            (Some(old), Some(new)) => old.hash() != new.hash(),
            _ => true,
        };
        let changed =
            self.resources.keys().chain(resources.keys()).filter(|key| differs(key)).cloned().collect();
        self.digest = resources.values().fold(Digest::default(), |sum, held| sum.plus(held.hash()));
        self.resources = resources;
        Ok(Applied { changed })
    }

    /// Applies a delta as one.
    ///
    /// # Errors
    /// Another base, a malformed value, or endpoints that do not fit; nothing has changed then.
    pub fn patch(&mut self, patch: &Patch) -> Result<Applied, ConfigError> {
        if patch.base != self.digest {
            return Err(ConfigError::Base { base: patch.base, have: self.digest });
        }
        let mut new: BTreeMap<Key, Option<Held>> =
            patch.remove.iter().map(|key| (key.clone(), None)).collect();
        for (key, raw) in &patch.upsert {
            new.insert(key.clone(), Some(Held::decode(key, raw)?));
        }
        for (key, change) in &patch.patch {
            if new.contains_key(key) {
                let what = "patched, and replaced or removed by the same push".into();
                return Err(ConfigError::Disagrees { key: key.clone(), what });
            }
            new.insert(key.clone(), Some(self.patched_set(key, change)?));
        }
        let changed = new.keys().cloned().collect();
        for (key, held) in new {
            self.replace(key, held);
        }
        Ok(Applied { changed })
    }

    fn replace(&mut self, key: Key, held: Option<Held>) {
        let old = match held {
            Some(held) => {
                self.digest = self.digest.plus(held.hash());
                self.resources.insert(key, held)
            }
            None => self.resources.remove(&key),
        };
        if let Some(old) = old {
            self.digest = self.digest.minus(old.hash());
        }
    }

    fn patched_set(&self, key: &Key, change: &SetPatch) -> Result<Held, ConfigError> {
        let error = |what: String| ConfigError::Patch { key: key.clone(), what };
        let held = self.resources.get(key).ok_or_else(|| error("no such backend set here".into()))?;
        let Resource::Backends(set) = &held.resource else {
            return Err(error("not a backend set".into()));
        };
        let mut endpoints: BTreeMap<SocketAddr, Endpoint> =
            set.endpoints.iter().map(|endpoint| (endpoint.address, endpoint.clone())).collect();
        let mut hashes = held.endpoints.clone();
        for address in &change.remove {
            endpoints.remove(address).ok_or_else(|| error(format!("no endpoint {address} here")))?;
            hashes.remove(address);
        }
        for raw in &change.add {
            let endpoint: Endpoint = parse(key, raw)?;
            hashes.insert(endpoint.address, digest::of_endpoint(key, raw.get().as_bytes()));
            endpoints.insert(endpoint.address, endpoint);
        }
        let set = BackendSet { endpoints: endpoints.into_values().collect(), ..set.clone() };
        Ok(Held { resource: Resource::Backends(set), head: held.head, endpoints: hashes })
    }
}

impl Held {
    fn hash(&self) -> Digest {
        self.endpoints.values().fold(self.head, |sum, hash| sum.plus(*hash))
    }

    fn decode(key: &Key, raw: &RawValue) -> Result<Self, ConfigError> {
        let resource = match key {
            Key::Service(service) => {
                let table: ServiceTable = parse(key, raw)?;
                agrees(key, table.service == *service, || format!("the table is that of {}", table.service))?;
                Resource::Service(table)
            }
            Key::Client(_) => Resource::Client(parse(key, raw)?),
            Key::Node => Resource::Node(parse(key, raw)?),
            Key::Backends(_) => return Self::decode_set(key, raw),
        };
        let head = digest::of_resource(key, raw.get().as_bytes());
        Ok(Self { resource, head, endpoints: BTreeMap::new() })
    }

    fn decode_set(key: &Key, raw: &RawValue) -> Result<Self, ConfigError> {
        #[derive(serde::Deserialize)]
        struct RawEndpoints {
            endpoints: Vec<Box<RawValue>>,
        }
        let mut set: BackendSet = parse(key, raw)?;
        let named = BackendRef {
            service: set.service.clone(),
            port: set.port,
            subset: None,
            selector: Some(set.selector.clone()),
        };
        let named = named.key().expect("it has a selector");
        agrees(key, named == *key, || format!("the backend set is that of key {named}"))?;
        let raw_endpoints: RawEndpoints = parse(key, raw)?;
        let hashes = set.endpoints.iter().zip(&raw_endpoints.endpoints);
        let endpoints =
            hashes.map(|(e, raw)| (e.address, digest::of_endpoint(key, raw.get().as_bytes()))).collect();
        set.endpoints.sort_by_key(|endpoint| endpoint.address);
        let head = digest::of_resource(key, head_of(&set).as_bytes());
        Ok(Self { resource: Resource::Backends(set), head, endpoints })
    }
}

fn agrees(key: &Key, agrees: bool, what: impl FnOnce() -> String) -> Result<(), ConfigError> {
    match agrees {
        true => Ok(()),
        false => Err(ConfigError::Disagrees { key: key.clone(), what: what() }),
    }
}

fn parse<'a, T: serde::Deserialize<'a>>(key: &Key, raw: &'a RawValue) -> Result<T, ConfigError> {
    serde_json::from_str(raw.get()).map_err(|source| ConfigError::Malformed { key: key.clone(), source })
}
