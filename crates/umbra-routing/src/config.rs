//! A node's configuration: what was pushed, checked, hashed and kept.
//!
//! Takes: [`Put`] and [`Patch`] as received. Gives: what changed, for the proxy to turn into routes and interception.
//! Never half-applies: everything is parsed before anything is changed. Never lets go of a table that a push holds.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use serde_json::value::RawValue;

use crate::backends::{BackendRef, BackendSet, Endpoint};
use crate::digest::{self, Digest};
use crate::key::Key;
use crate::snapshot::head_of;
use crate::table::{Client, NodeSettings, ServiceTable};
use crate::wire::{Holds, Patch, Put, SetPatch};

/// Everything a node was told, by key.
#[derive(Debug, Default)]
pub struct Config {
    resources: BTreeMap<Key, Stored>,
    /// Those of `resources` that are no longer sent and stay by [`Holds`]: tables, and the sets that these name. In
    /// force like the others, but not in the digest.
    kept: BTreeSet<Key>,
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
struct Stored {
    resource: Resource,
    /// Of the value as sent; of a backend set, of its head.
    head: Digest,
    /// Hash of each endpoint as sent.
    endpoints: BTreeMap<SocketAddr, Digest>,
}

/// Values as sent, decoded; `None` for a key that is not sent any more.
type Sent = BTreeMap<Key, Option<Stored>>;

impl Config {
    /// The digest of everything that was sent.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// One resource.
    pub fn get(&self, key: &Key) -> Option<&Resource> {
        self.resources.get(key).map(|stored| &stored.resource)
    }

    /// All resources in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&Key, &Resource)> {
        self.resources.iter().map(|(key, stored)| (key, &stored.resource))
    }

    /// Tables that are kept although they are not sent, in the order of their keys. They are in force like the others.
    pub fn held(&self) -> impl Iterator<Item = (&Key, &ServiceTable)> {
        self.kept.iter().filter_map(|key| match self.get(key)? {
            Resource::Service(table) => Some((key, table)),
            _ => None,
        })
    }

    /// Replaces everything, but for what is held.
    ///
    /// # Errors
    /// A malformed value; nothing has changed then.
    pub fn put(&mut self, put: &Put) -> Result<Applied, ConfigError> {
        let decoded =
            put.resources.iter().map(|(key, raw)| Ok((key.clone(), Some(Stored::decode(key, raw)?))));
        let mut sent = decoded.collect::<Result<Sent, ConfigError>>()?;
        for key in self.resources.keys().filter(|key| !put.resources.contains_key(key)) {
            sent.insert(key.clone(), None);
        }
        self.settle(sent, &put.hold)
    }

    /// Applies a delta as one.
    ///
    /// # Errors
    /// Another base, a malformed value, or endpoints that do not fit; nothing has changed then.
    pub fn patch(&mut self, patch: &Patch) -> Result<Applied, ConfigError> {
        if patch.base != self.digest {
            return Err(ConfigError::Base { base: patch.base, have: self.digest });
        }
        let mut sent: Sent = patch.remove.iter().map(|key| (key.clone(), None)).collect();
        for (key, raw) in &patch.upsert {
            sent.insert(key.clone(), Some(Stored::decode(key, raw)?));
        }
        for (key, change) in &patch.patch {
            let what = || "patched, and replaced or removed by the same push".into();
            agrees(key, !sent.contains_key(key), what)?;
            sent.insert(key.clone(), Some(self.patched_set(key, change)?));
        }
        self.settle(sent, &patch.hold)
    }

    /// The last step of a push, after which it has been applied. What `hold` covers of all that is not sent any more
    /// stays, also when it is kept already; all else that was kept goes.
    fn settle(&mut self, mut sent: Sent, hold: &Holds) -> Result<Applied, ConfigError> {
        for key in hold.keys() {
            agrees(key, matches!(key, Key::Service(_)), || "held, and not a service".into())?;
            let value = sent.entry(key.clone()).or_insert(None);
            agrees(key, value.is_none(), || "sent, and held by the same push".into())?;
        }
        let covered = self.covered(hold);
        for key in &self.kept {
            sent.entry(key.clone()).or_insert(None);
        }
        let mut changed = BTreeSet::new();
        for (key, value) in sent {
            let differs = match value {
                Some(stored) => self.store(key.clone(), stored),
                None if covered.contains(&key) => self.keep(&key),
                None => self.forget(&key),
            };
            if differs {
                changed.insert(key);
            }
        }
        Ok(Applied { changed })
    }

    /// Tables that `hold` covers, and the sets they name.
    fn covered(&self, hold: &Holds) -> BTreeSet<Key> {
        let mut covered = BTreeSet::new();
        for (key, uids) in hold {
            if let Some(Resource::Service(table)) = self.get(key)
                && table.rests_on(uids)
            {
                covered.insert(key.clone());
                covered.extend(table.backends().filter_map(BackendRef::key));
            }
        }
        covered
    }

    /// Puts or replaces what was sent. True when its value differs from the one in force.
    fn store(&mut self, key: Key, stored: Stored) -> bool {
        let hash = stored.hash();
        self.digest = self.digest.plus(hash);
        let was_sent = !self.kept.remove(&key);
        let old = self.resources.insert(key, stored).map(|old| old.hash());
        if was_sent {
            self.digest = self.digest.minus(old.unwrap_or_default());
        }
        old != Some(hash)
    }

    /// Leaves in force what is not sent any more, if it is there. Nothing differs by that.
    fn keep(&mut self, key: &Key) -> bool {
        if let Some(stored) = self.resources.get(key)
            && self.kept.insert(key.clone())
        {
            self.digest = self.digest.minus(stored.hash());
        }
        false
    }

    /// True when it was there.
    fn forget(&mut self, key: &Key) -> bool {
        let Some(old) = self.resources.remove(key) else { return false };
        if !self.kept.remove(key) {
            self.digest = self.digest.minus(old.hash());
        }
        true
    }

    fn patched_set(&self, key: &Key, change: &SetPatch) -> Result<Stored, ConfigError> {
        let error = |what: String| ConfigError::Patch { key: key.clone(), what };
        // The sender knows nothing of a set that is only kept.
        let sent = self.resources.get(key).filter(|_| !self.kept.contains(key));
        let stored = sent.ok_or_else(|| error("no such backend set here".into()))?;
        let Resource::Backends(set) = &stored.resource else {
            return Err(error("not a backend set".into()));
        };
        let mut endpoints: BTreeMap<SocketAddr, Endpoint> =
            set.endpoints.iter().map(|endpoint| (endpoint.address, endpoint.clone())).collect();
        let mut hashes = stored.endpoints.clone();
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
        Ok(Stored { resource: Resource::Backends(set), head: stored.head, endpoints: hashes })
    }
}

impl Stored {
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
