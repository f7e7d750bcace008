//! Names of resources on the wire.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::digest::Digest;
use crate::table::ServiceName;

/// The name of one resource: `service/<ns>/<name>`, `backends/<digest>`, `client/<pod ip>` or `node`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    /// A governed service's table.
    Service(ServiceName),
    /// A backend set.
    Backends(Digest),
    /// A local pod.
    Client(IpAddr),
    /// The node's own settings.
    Node,
}

/// A key that is not of the four forms. The controller's fault.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is not service/<namespace>/<name>, backends/<digest>, client/<ip> or node")]
pub struct KeyError(String);

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(service) => write!(f, "service/{}/{}", service.namespace, service.name),
            Self::Backends(digest) => write!(f, "backends/{digest}"),
            Self::Client(ip) => write!(f, "client/{ip}"),
            Self::Node => f.write_str("node"),
        }
    }
}

impl FromStr for Key {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let error = || KeyError(text.to_owned());
        if text == "node" {
            return Ok(Self::Node);
        }
        let (kind, rest) = text.split_once('/').ok_or_else(error)?;
        match kind {
            "service" => {
                let (namespace, name) = rest.split_once('/').ok_or_else(error)?;
                if namespace.is_empty() || name.is_empty() || name.contains('/') {
                    return Err(error());
                }
                Ok(Self::Service(ServiceName::new(namespace, name)))
            }
            "backends" => rest.parse().map(Self::Backends).map_err(|_| error()),
            "client" => rest.parse().map(Self::Client).map_err(|_| error()),
            _ => Err(error()),
        }
    }
}

impl Serialize for Key {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}
