//! Snapshots: what every node should have, serialised once, and the delta from one to the next.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::value::RawValue;

use crate::backends::BackendSet;
use crate::digest::{self, Digest};
use crate::key::Key;
use crate::table::{Client, NodeSettings, ServiceTable};
use crate::wire::{Holds, Patch, Put, SetPatch};

/// One resource, serialised once however many nodes get it.
#[derive(Clone, Debug)]
pub struct Encoded {
    value: Box<RawValue>,
    hash: Digest,
    /// Endpoints by address, for backend sets only.
    endpoints: Option<BTreeMap<SocketAddr, (Box<RawValue>, Digest)>>,
    /// The hash without endpoints: equal heads differ by endpoints only, and can be patched.
    head: Digest,
}

/// Resources by key, with the sum of their hashes kept up to date: asking for it costs nothing.
#[derive(Clone, Debug, Default)]
pub struct Resources {
    by_key: BTreeMap<Key, Arc<Encoded>>,
    digest: Digest,
}

impl Resources {
    /// Puts or replaces one. The old one stays when it is the same: a delta then skips it by its pointer.
    pub fn insert(&mut self, (key, encoded): (Key, Arc<Encoded>)) {
        let old = self.get(&key).map(|old| old.hash);
        if old == Some(encoded.hash) {
            return;
        }
        self.digest = self.digest.minus(old.unwrap_or_default()).plus(encoded.hash);
        self.by_key.insert(key, encoded);
    }

    /// Takes one out, if it is there.
    pub fn remove(&mut self, key: &Key) {
        if let Some(old) = self.by_key.remove(key) {
            self.digest = self.digest.minus(old.hash);
        }
    }

    /// The resource of this key.
    pub fn get(&self, key: &Key) -> Option<&Arc<Encoded>> {
        self.by_key.get(key)
    }

    /// All keys, in order.
    pub fn keys(&self) -> impl Iterator<Item = &Key> {
        self.by_key.keys()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }
}

impl FromIterator<(Key, Arc<Encoded>)> for Resources {
    fn from_iter<I: IntoIterator<Item = (Key, Arc<Encoded>)>>(all: I) -> Self {
        let mut resources = Self::default();
        all.into_iter().for_each(|resource| resources.insert(resource));
        resources
    }
}

/// What all nodes should have, at one version.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Grows with each snapshot of one leader.
    pub version: u64,
    /// Resources that every node gets.
    pub shared: Arc<Resources>,
    /// Resources of single nodes: their pods and settings.
    pub nodes: BTreeMap<String, Arc<Resources>>,
    /// What nodes keep although it is not sent.
    pub hold: Arc<Holds>,
}

/// What one node should have.
#[derive(Clone, Debug)]
pub struct NodeView {
    /// The snapshot's version.
    pub version: u64,
    shared: Arc<Resources>,
    own: Arc<Resources>,
    hold: Arc<Holds>,
    digest: Digest,
}

impl Encoded {
    /// A governed service's table.
    pub fn service(table: &ServiceTable) -> (Key, Arc<Self>) {
        let key = Key::Service(table.service.clone());
        let encoded = Self::whole(&key, table);
        (key, encoded)
    }

    /// A local pod.
    pub fn client(ip: std::net::IpAddr, client: &Client) -> (Key, Arc<Self>) {
        let key = Key::Client(ip);
        let encoded = Self::whole(&key, client);
        (key, encoded)
    }

    /// A node's settings.
    pub fn node(settings: &NodeSettings) -> (Key, Arc<Self>) {
        (Key::Node, Self::whole(&Key::Node, settings))
    }

    /// A backend set, under the key of the reference it belongs to.
    pub fn backends(key: Key, set: &BackendSet) -> (Key, Arc<Self>) {
        let value = raw(set);
        let head = digest::of_resource(&key, head_of(set).as_bytes());
        let endpoints: BTreeMap<_, _> = set
            .endpoints
            .iter()
            .map(|endpoint| {
                let value = raw(endpoint);
                let hash = digest::of_endpoint(&key, value.get().as_bytes());
                (endpoint.address, (value, hash))
            })
            .collect();
        let hash = endpoints.values().fold(head, |sum, (_, hash)| sum.plus(*hash));
        (key, Arc::new(Self { value, hash, endpoints: Some(endpoints), head }))
    }

    fn whole(key: &Key, value: &impl serde::Serialize) -> Arc<Self> {
        let value = raw(value);
        let hash = digest::of_resource(key, value.get().as_bytes());
        Arc::new(Self { value, hash, endpoints: None, head: hash })
    }

    /// What it adds to the digest.
    pub fn hash(&self) -> Digest {
        self.hash
    }
}

/// What a backend set is apart from its endpoints; both ends hash this text.
pub(crate) fn head_of(set: &BackendSet) -> String {
    serde_json::to_string(&(&set.service, set.port, &set.selector, set.spoken_to))
        .expect("plain maps serialise")
}

fn raw(value: &impl serde::Serialize) -> Box<RawValue> {
    serde_json::value::to_raw_value(value).expect("tables are plain data with text keys")
}

impl Snapshot {
    /// What `node` should have.
    pub fn node(&self, node: &str) -> NodeView {
        let own = self.nodes.get(node).cloned().unwrap_or_default();
        let digest = self.shared.digest.plus(own.digest);
        let (shared, hold) = (Arc::clone(&self.shared), Arc::clone(&self.hold));
        NodeView { version: self.version, shared, own, hold, digest }
    }
}

impl NodeView {
    /// The digest the node answers once it has all of this.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// A node that has all of `other` has all of this: there is nothing to send. Equal digests are not enough, since
    /// what is held is not in them.
    pub fn is_same(&self, other: &NodeView) -> bool {
        self.digest == other.digest && self.hold == other.hold
    }

    /// The full push.
    pub fn put(&self) -> Put {
        let resources = self.iter().map(|(key, encoded)| (key.clone(), encoded.value.clone())).collect();
        Put { resources, hold: Holds::clone(&self.hold) }
    }

    /// What changes from `base` to this. An endpoint's change travels alone.
    pub fn patch_from(&self, base: &NodeView) -> Patch {
        let mut patch = Patch {
            base: base.digest,
            upsert: BTreeMap::new(),
            patch: BTreeMap::new(),
            remove: base
                .iter()
                .filter(|(key, _)| self.get(key).is_none())
                .map(|(key, _)| key.clone())
                .collect(),
            hold: Holds::clone(&self.hold),
        };
        for (key, new) in self.iter() {
            match base.get(key) {
                Some(old) if Arc::ptr_eq(old, new) || old.hash == new.hash => {}
                Some(old) if old.endpoints.is_some() && old.head == new.head => {
                    patch.patch.insert(key.clone(), endpoints_from(old, new));
                }
                _ => {
                    patch.upsert.insert(key.clone(), new.value.clone());
                }
            }
        }
        patch
    }

    fn iter(&self) -> impl Iterator<Item = (&Key, &Arc<Encoded>)> {
        self.shared.by_key.iter().chain(&self.own.by_key)
    }

    fn get(&self, key: &Key) -> Option<&Arc<Encoded>> {
        self.shared.get(key).or_else(|| self.own.get(key))
    }
}

fn endpoints_from(old: &Encoded, new: &Encoded) -> SetPatch {
    let none = BTreeMap::new();
    let (old, new) = (old.endpoints.as_ref().unwrap_or(&none), new.endpoints.as_ref().unwrap_or(&none));
    let same = |address, hash| old.get(address).is_some_and(|(_, old)| old == hash);
    SetPatch {
        add: new.iter().filter(|(at, (_, hash))| !same(at, hash)).map(|(_, (raw, _))| raw.clone()).collect(),
        remove: old
            .iter()
            .filter(|(at, (_, hash))| new.get(at).is_none_or(|(_, new)| new != hash))
            .map(|(at, _)| *at)
            .collect(),
    }
}
