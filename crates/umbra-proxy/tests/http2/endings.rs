//! Endpoints that end their connections in the middle of answers.

use std::net::SocketAddr;

use bytes::Bytes;
use h2::{Reason, SendStream};
use http::Response;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::sync::watch;
use umbra_routing::SpokenTo;

use crate::only;
use crate::rig::{Http2Client, Proxy, http2_get, raw_backend, until, within};

/// How a connection ends.
#[derive(Clone, Copy, Debug)]
enum Ends {
    /// GOAWAY, and then what it has begun.
    Politely,
    /// GOAWAY with an error, and nothing any more.
    WithAnError,
    /// Without a word.
    Cut,
}

/// Answers two requests of a connection by halves, and ends it like this once told to; others are answered at once.
async fn by_halves(ends: Ends, told: watch::Receiver<bool>) -> SocketAddr {
    raw_backend(move |_, stream| {
        let mut told = told.clone();
        async move {
            let mut server = h2::server::handshake(stream).await.expect("a client of HTTP/2");
            let mut halves: Vec<SendStream<Bytes>> = Vec::new();
            let mut is_told = false;
            loop {
                let next = tokio::select! {
                    next = server.accept() => next,
                    _ = told.wait_for(|told| *told), if !is_told && halves.len() == 2 => {
                        is_told = true;
                        match ends {
                            Ends::Cut => return,
                            Ends::WithAnError => server.abrupt_shutdown(Reason::INTERNAL_ERROR),
                            Ends::Politely => {
                                server.graceful_shutdown();
                                for mut half in halves.drain(..) {
                                    half.send_data(" and half".into(), true).expect("a client");
                                }
                            }
                        }
                        continue;
                    }
                };
                let Some(Ok((request, mut respond))) = next else { return };
                let ends = request.uri().path() == "/";
                let mut answer = respond.send_response(Response::new(()), ends).expect("a client");
                if !ends {
                    answer.send_data("half".into(), false).expect("a client");
                    halves.push(answer);
                }
            }
        }
    })
    .await
}

/// The body of an answer whose first half is there.
async fn half(client: &mut Http2Client) -> Incoming {
    let answer = within("a head", client.sender.send_request(http2_get("/half"))).await.expect("a head");
    let mut body = answer.into_body();
    let half = within("a half", body.frame()).await.expect("a frame").expect("data");
    assert_eq!(half.into_data().expect("data"), "half");
    body
}

fn flagged(proxy: &Proxy, flags: &str) -> u64 {
    let flags = format!("response_flags=\"{flags}\"");
    proxy.count("istio_requests_total", &["reporter=\"source\"", &flags])
}

#[tokio::test]
async fn a_connection_that_ends_within_answers_breaks_them_unless_it_ends_politely() {
    for (ends, rest, flags) in
        [(Ends::Politely, Some(" and half"), "-"), (Ends::WithAnError, None, "UC"), (Ends::Cut, None, "UC")]
    {
        let (tell, told) = watch::channel(false);
        let proxy = Proxy::start(&only(by_halves(ends, told).await, SpokenTo::Http2));
        let mut client = Http2Client::connect(proxy.address()).await;
        let halves = [half(&mut client).await, half(&mut client).await];
        tell.send(true).expect("the backend waits");
        for body in halves {
            let got = within("its end", body.collect()).await.ok().map(|whole| whole.to_bytes());
            assert_eq!(got.as_deref(), rest.map(str::as_bytes), "{ends:?}: half an answer is none");
        }
        until("the exchanges are counted", || flagged(&proxy, flags) == 2).await;
        assert_eq!(client.get("/").await.status, 200, "{ends:?}: the client's connection lives on");
        assert_eq!(proxy.workers.accepted(), 1, "{ends:?}");
    }
}
