//! What is wrong or unsupported in a resource, in words its author can act on.

use std::fmt;

use umbra_index::api::{Meta, ObjectKey};
use umbra_index::{Kind, ObjectName};

/// One state of one object: what a finding or a result is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectRef {
    /// Which kind.
    pub kind: Kind,
    /// Namespace and name.
    pub key: ObjectKey,
    /// Tells it from an older object of the same name.
    pub uid: String,
    /// The spec that was read.
    pub generation: i64,
}

impl ObjectRef {
    /// The object of this kind with this metadata.
    pub fn new(kind: Kind, meta: &Meta) -> Self {
        Self { kind, key: meta.key(), uid: meta.uid.clone(), generation: meta.generation }
    }

    /// Its kind, namespace and name.
    pub fn name(&self) -> ObjectName {
        ObjectName::new(self.kind, self.key.clone())
    }
}

/// One thing that an author should know.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Finding {
    /// Whose spec it is about.
    pub object: ObjectRef,
    /// Which condition of that object it makes `False`; `None` is for information only.
    pub condition: Option<Condition>,
    /// The condition's reason.
    pub reason: Reason,
    /// The field, as `spec.http[0].mirror`.
    pub path: String,
    /// What is wrong and the way out, without the object and the path.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}: {}", self.object.kind, self.object.key, self.path, self.message)
    }
}

/// The conditions that a finding can make `False`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Condition {
    /// The object is understood and used.
    Accepted,
    /// All services, ports and subsets it names exist.
    ResolvedRefs,
}

/// Why: a closed list of CamelCase words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// A value makes no sense: a bad regex, weights without a sum.
    Invalid,
    /// A field that umbra does not know and cannot leave out.
    UnsupportedField,
    /// Some of it is left out; the rest is used.
    PartiallyInvalid,
    /// An older VirtualService has the host.
    Conflicted,
    /// It is in another namespace than the service, and so for clients of its own namespace only.
    OwnNamespaceOnly,
    /// It is for gateways only.
    NotForMesh,
    /// It has no http rule, or none for the clients it could be for.
    NoHttpRule,
    /// `exportTo` makes it for nobody.
    NotExported,
    /// The VirtualService that a rule delegates to is not there, or of no use.
    DelegateNotFound,
    /// It has no hosts, and no VirtualService delegates to it.
    NotDelegatedTo,
    /// Not a name that can be a service of this cluster.
    UnsupportedHost,
    /// No such Service.
    HostNotFound,
    /// The Service has no such port.
    PortNotFound,
    /// No DestinationRule defines the subset.
    SubsetNotFound,
    /// Headless, ExternalName, or node-local: there is no ClusterIP to take over.
    UnsupportedService,
    /// No port of the Service speaks HTTP.
    NoHttpPort,
    /// A rule behind one that takes everything.
    UnreachableRule,
    /// Some clients reach the Service past umbra.
    ReachableOutsideUmbra,
    /// The Service asks for a choice of endpoints that umbra does not make.
    NotKept,
    /// No rule takes every request: the kernel knows no primary for when the proxy is dead.
    NoFallback,
    /// A NetworkPolicy would see the node's address in place of the client's.
    NetworkPolicy,
}

impl Reason {
    /// The word in the condition.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "Invalid",
            Self::UnsupportedField => "UnsupportedField",
            Self::PartiallyInvalid => "PartiallyInvalid",
            Self::Conflicted => "Conflicted",
            Self::OwnNamespaceOnly => "OwnNamespaceOnly",
            Self::NotForMesh => "NotForMesh",
            Self::NoHttpRule => "NoHttpRule",
            Self::NotExported => "NotExported",
            Self::DelegateNotFound => "DelegateNotFound",
            Self::NotDelegatedTo => "NotDelegatedTo",
            Self::UnsupportedHost => "UnsupportedHost",
            Self::HostNotFound => "HostNotFound",
            Self::PortNotFound => "PortNotFound",
            Self::SubsetNotFound => "SubsetNotFound",
            Self::UnsupportedService => "UnsupportedService",
            Self::NoHttpPort => "NoHttpPort",
            Self::UnreachableRule => "UnreachableRule",
            Self::ReachableOutsideUmbra => "ReachableOutsideUmbra",
            Self::NotKept => "NotKept",
            Self::NoFallback => "NoFallback",
            Self::NetworkPolicy => "NetworkPolicy",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
