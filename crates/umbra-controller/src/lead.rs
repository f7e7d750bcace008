//! Whose word counts: the term and its epoch, which every push carries.
//!
//! A node refuses an epoch older than it has seen, so that a controller that has been replaced cannot push any more.
//! With a Lease (`elect`, by the rules of `lease`), a term's epoch is the resourceVersion of the write that won; a
//! controller that runs `alone` takes the API server's resourceVersion at its start. Both are of the same sequence
//! (KEP-5504: resourceVersions of etcd-backed servers are comparable integers).

#[cfg(feature = "kubernetes")]
pub mod alone;
#[cfg(feature = "kubernetes")]
pub mod elect;
#[cfg(feature = "kubernetes")]
pub mod lease;
mod term;

#[cfg(feature = "kubernetes")]
use std::time::Duration;

pub use term::Term;

/// For one question to the API server, or one write: longer than any that works takes. What hangs beyond it is asked
/// again, for else it would hang for ever where a network swallows packets.
#[cfg(feature = "kubernetes")]
pub(crate) const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// An epoch could not be had.
#[cfg(feature = "kubernetes")]
#[derive(Debug, thiserror::Error)]
pub enum EpochError {
    /// The API server's answer. Look at the kubeconfig, or at the controller's ClusterRole (list services).
    #[error("the API server does not answer: {0}")]
    Api(#[from] kube::Error),
    /// A resourceVersion that is not a number. Not an etcd-backed API server; umbra does not work with it.
    #[error("the API server's resourceVersion {0:?} is not a number")]
    ResourceVersion(String),
}

#[cfg(feature = "kubernetes")]
fn parsed(version: Option<String>) -> Result<u128, EpochError> {
    let version = version.unwrap_or_default();
    version.parse().map_err(|_| EpochError::ResourceVersion(version))
}
