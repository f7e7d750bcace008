//! Upgrades (WebSocket and others): once the primary has switched protocols, bytes pass both ways until both are done.
//! Never mirrored: a copy of a tunnel is half a conversation.

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use crate::balance::Lease;
use crate::serve::Serving;

/// Joins both ends, in a task of its own, as soon as both have switched.
pub(crate) fn join(serving: &Serving, client: OnUpgrade, upstream: OnUpgrade, lease: Lease) {
    serving.becomes_tunnel();
    let tracker = serving.worker.connections.clone();
    tracker.spawn_local(async move {
        let _lease = lease;
        let (client, upstream) = match tokio::try_join!(client, upstream) {
            Ok(both) => both,
            Err(error) => return tracing::debug!(%error, "an upgrade was not completed"),
        };
        let (mut client, mut upstream) = (TokioIo::new(client), TokioIo::new(upstream));
        if let Err(error) = tokio::io::copy_bidirectional(&mut client, &mut upstream).await {
            tracing::debug!(%error, "an upgraded connection broke");
        }
    });
}
