//! A backend of HTTP/2 whose every frame the test decides.

use std::future::Future;
use std::net::SocketAddr;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::{Request, Response};

use crate::rig::raw_backend;

/// One request at it.
pub(crate) struct Asked {
    /// Which of the backend's connections it came on.
    pub(crate) connection: usize,
    pub(crate) request: Request<RecvStream>,
    pub(crate) respond: SendResponse<Bytes>,
}

impl Asked {
    /// Answers 200 without a body.
    pub(crate) fn ok(mut self) {
        // The client may have left.
        let _ = self.respond.send_response(Response::new(()), true);
    }

    /// Reads the request's body to its end.
    pub(crate) async fn read(&mut self) -> usize {
        let mut read = 0;
        while let Some(Ok(chunk)) = self.request.body_mut().data().await {
            read += chunk.len();
            self.request.body_mut().flow_control().release_capacity(chunk.len()).expect("it was read");
        }
        read
    }
}

/// Serves each request as `serve` says, on connections that begin with `settings`.
pub(crate) async fn peer<F, Fut>(settings: h2::server::Builder, serve: F) -> SocketAddr
where
    F: Fn(Asked) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    raw_backend(move |connection, stream| {
        let (settings, serve) = (settings.clone(), serve.clone());
        async move {
            let mut server = settings.handshake::<_, Bytes>(stream).await.expect("a client of HTTP/2");
            while let Some(Ok((request, respond))) = server.accept().await {
                tokio::spawn(serve(Asked { connection, request, respond }));
            }
        }
    })
    .await
}
