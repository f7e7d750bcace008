//! Whose word counts: the epoch that every push carries.
//!
//! A node refuses an epoch older than it has seen, so that a controller that has been replaced cannot push any more.
//! One replica runs for now, and its epoch is the API server's resourceVersion at its start: it grows across restarts,
//! needs no clock and no state of our own. With a Lease it becomes the resourceVersion of the write that won, which
//! is of the same sequence (KEP-5504: resourceVersions of etcd-backed servers are comparable integers).

use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use kube::Client;
use kube::api::{Api, ListParams};

/// The longest pause between two questions to an API server that is not there yet.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// An epoch could not be had.
#[derive(Debug, thiserror::Error)]
pub enum EpochError {
    /// The API server's answer. Look at the kubeconfig, or at the controller's ClusterRole (list services).
    #[error("the API server does not answer: {0}")]
    Api(#[from] kube::Error),
    /// A resourceVersion that is not a number. Not an etcd-backed API server; umbra does not work with it.
    #[error("the API server's resourceVersion {0:?} is not a number")]
    ResourceVersion(String),
}

/// The epoch of a controller that starts now. Waits for an API server that is not there yet.
///
/// # Errors
/// The API server refuses, or is of a kind that has no comparable versions.
pub async fn epoch(client: &Client) -> Result<u128, EpochError> {
    let mut pause = Duration::from_millis(500);
    loop {
        match ask(client).await {
            Err(EpochError::Api(error @ (kube::Error::Service(_) | kube::Error::HyperError(_)))) => {
                tracing::warn!(%error, "the API server is not there yet");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            answer => return answer,
        }
    }
}

async fn ask(client: &Client) -> Result<u128, EpochError> {
    let services = Api::<Service>::all(client.clone());
    let list = services.list_metadata(&ListParams::default().limit(1)).await?;
    let version = list.metadata.resource_version.unwrap_or_default();
    version.parse().map_err(|_| EpochError::ResourceVersion(version))
}
