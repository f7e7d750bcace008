//! The push API's bodies: what controller and node say to each other.
//!
//! `PUT /v1/config` sends a [`Put`], `PATCH /v1/config` a [`Patch`]; both are answered by a [`Reply`] (200) or a
//! [`Refusal`] (400, 403, 409, 412, 413, 503). `GET /v1/state` gives a [`State`]. Epoch and version travel as decimal
//! strings in headers. Unknown fields are ignored, so that versions may differ during a rollout; hashes are made
//! over the bytes as sent, so an ignored field does not spoil the digest.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::digest::Digest;
use crate::key::Key;

/// Where pushes go. The path names the wire's version: two that differ do not misread each other, they cannot talk.
pub const CONFIG_PATH: &str = if cfg!(feature = "next-wire") { "/next/config" } else { "/v1/config" };
/// Where a node tells what it has. See [`CONFIG_PATH`].
pub const STATE_PATH: &str = if cfg!(feature = "next-wire") { "/next/state" } else { "/v1/state" };

/// Header with the leader's epoch; a node refuses one older than it has seen (409).
pub const EPOCH_HEADER: &str = "umbra-epoch";
/// Header with the snapshot's version.
pub const VERSION_HEADER: &str = "umbra-version";

/// Services in hold whose rules the sender does not have, with the uids of the objects that hold them: a new
/// controller does not know what an object said before it became invalid. A node keeps the table it has under such a
/// key, if it has rules of one of these objects ([`ServiceTable::rules_of`](crate::ServiceTable::rules_of)), and the
/// backend sets that the table names; it leaves them out of the digest and shows the table in [`Reply::held`]. A table
/// that rests on other objects goes: the rules of a deleted object are not kept under its successor's hold.
pub type Holds = BTreeMap<Key, BTreeSet<String>>;

/// Everything a node has to know.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Put {
    /// Resources by key.
    pub resources: BTreeMap<Key, Box<RawValue>>,
    /// What to keep although it is not sent; all of it each time, and none of `resources`.
    #[serde(default, skip_serializing_if = "Holds::is_empty")]
    pub hold: Holds,
}

/// What changes from `base`, applied as one.
#[derive(Debug, Serialize, Deserialize)]
pub struct Patch {
    /// The digest this was made against; another one is refused (412), and the controller sends all.
    pub base: Digest,
    /// New or replaced resources.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub upsert: BTreeMap<Key, Box<RawValue>>,
    /// Endpoints that came to or went from sets that stay.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub patch: BTreeMap<Key, SetPatch>,
    /// Resources that are gone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<Key>,
    /// What to keep although it is not sent, or not any more; all of it each time, not what changes from `base`.
    #[serde(default, skip_serializing_if = "Holds::is_empty")]
    pub hold: Holds,
}

/// Changes of one backend set. An endpoint that changes is both removed and added; removals come first.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct SetPatch {
    /// Endpoints that came.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub add: Vec<Box<RawValue>>,
    /// Addresses that went.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<SocketAddr>,
}

/// A push was applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reply {
    /// New with each start of the proxy.
    pub boot_id: String,
    /// The epoch now in force, decimal.
    pub epoch: String,
    /// The version now in force, decimal.
    pub version: String,
    /// Of all resources that were sent, refused ones included; not of those that [`Put::hold`] keeps.
    pub digest: Digest,
    /// Services whose connections this node takes over.
    pub armed: Vec<Key>,
    /// Resources that are held but cannot be used.
    pub refused: Vec<RefusedKey>,
    /// Tables that [`Put::hold`] keeps, as JSON: a controller that does not understand one of them can still read the
    /// rest. At least one of them, the others as far as they have room in an answer: what the controller takes up it
    /// sends, and so the next answer has room for others.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub held: BTreeMap<Key, serde_json::Value>,
}

/// A resource that a node cannot use; what it had before stays in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedKey {
    /// Which.
    pub key: Key,
    /// Why, for people.
    pub reason: String,
}

/// A push was not applied; nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// A short word: `malformed`, `base`, `epoch`, `too_large`, `busy`, `forbidden`.
    pub reason: String,
    /// For people.
    pub message: String,
}

/// What a node has: reconciles, and is the heartbeat.
pub type State = Reply;
