//! The epoch of a controller that runs alone: the API server's resourceVersion at its start.
//!
//! It grows across restarts and needs no clock and no state of our own. Never says that nobody else runs.

use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use kube::Client;
use kube::api::{Api, ListParams};

use super::{ANSWER_LIMIT, EpochError, parsed};

/// The longest pause between two questions to an API server that is not there yet.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// The epoch of a controller that starts now. Waits for an API server that is not there yet.
///
/// # Errors
/// The API server refuses, or is of a kind that has no comparable versions.
pub async fn epoch(client: &Client) -> Result<u128, EpochError> {
    let mut pause = Duration::from_millis(500);
    loop {
        match tokio::time::timeout(ANSWER_LIMIT, ask(client)).await {
            Ok(Err(EpochError::Api(error @ (kube::Error::Service(_) | kube::Error::HyperError(_))))) => {
                tracing::warn!(%error, "the API server is not there yet");
            }
            Err(error) => tracing::warn!(%error, "the API server does not answer"),
            Ok(answer) => return answer,
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn ask(client: &Client) -> Result<u128, EpochError> {
    let services = Api::<Service>::all(client.clone());
    let list = services.list_metadata(&ListParams::default().limit(1)).await?;
    parsed(list.metadata.resource_version)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use http::{Request, Response};
    use kube::client::Body;
    use serde_json::json;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_api_server_that_does_not_answer_is_asked_again() {
        let asked = std::sync::Arc::new(AtomicUsize::new(0));
        let count = std::sync::Arc::clone(&asked);
        let service = tower::service_fn(move |_: Request<Body>| {
            let number = count.fetch_add(1, Ordering::SeqCst);
            async move {
                if number == 0 {
                    std::future::pending::<()>().await;
                }
                let list = json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1",
                    "metadata": {"resourceVersion": "42"}, "items": []});
                Ok::<_, Infallible>(Response::new(Body::from(list.to_string().into_bytes())))
            }
        });
        assert_eq!(epoch(&Client::new(service, "default")).await.unwrap(), 42);
        assert_eq!(asked.load(Ordering::SeqCst), 2);
    }
}
