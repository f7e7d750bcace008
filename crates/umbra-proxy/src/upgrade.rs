//! Upgrades (WebSocket and others): once the primary has switched protocols, bytes pass both ways until both are done.
//! Never mirrored: a copy of a tunnel is half a conversation.

use bytes::BytesMut;
use tokio::io::{AsyncWriteExt, copy_bidirectional};
use tokio::net::TcpStream;

use crate::balance::Lease;
use crate::descriptors::Open;

/// A primary that speaks something else than HTTP now.
pub(crate) struct Switched {
    pub(crate) upstream: (TcpStream, BytesMut, Open),
    pub(crate) lease: Lease,
}

/// Joins both ends until both are done. What was read behind either head goes first.
pub(crate) async fn join((mut client, sent, _open): (TcpStream, BytesMut, Open), switched: Switched) {
    let Switched { upstream: (mut upstream, answered, _open), lease: _lease } = switched;
    let joined = async {
        upstream.write_all(&sent).await?;
        client.write_all(&answered).await?;
        drop((sent, answered));
        copy_bidirectional(&mut client, &mut upstream).await
    };
    if let Err(error) = joined.await {
        tracing::debug!(%error, "an upgraded connection broke");
    }
}
