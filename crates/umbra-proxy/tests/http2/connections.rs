//! Connections of HTTP/2 that are shared, full, refused or ended, on either side.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use http::{Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, StreamBody};
use tokio::sync::{Barrier, mpsc, watch};
use umbra_proxy::listen::Mode;
use umbra_proxy::worker::Limits;
use umbra_routing::{Retries, RetryOn, SpokenTo};

use crate::peer::{Asked, peer};
use crate::rig::{
    AnyBody, Backend, Http2Client, Proxy, Pushed, TestClient, full, http2_get, raw_backend, until, within,
};
use crate::{only, speaking, value};

fn settings(max_streams: u32) -> h2::server::Builder {
    let mut settings = h2::server::Builder::new();
    settings.max_concurrent_streams(max_streams);
    settings
}

fn post(path: &str) -> Request<AnyBody> {
    Request::post(format!("http://web{path}")).body(full("body")).expect("a request")
}

fn flagged(proxy: &Proxy, flags: &str) -> u64 {
    let flags = format!("response_flags=\"{flags}\"");
    proxy.count("istio_requests_total", &["reporter=\"source\"", &flags])
}

#[tokio::test]
async fn requests_share_connections_as_far_as_their_peer_allows() {
    for (allowed, expected) in [(100, 1), (2, 3)] {
        let all = Arc::new(Barrier::new(6));
        let connections = Arc::new(AtomicUsize::new(0));
        let most = Arc::clone(&connections);
        let v1 = peer(settings(allowed), move |asked| {
            let (all, most) = (Arc::clone(&all), Arc::clone(&most));
            async move {
                most.fetch_max(asked.connection + 1, Ordering::SeqCst);
                all.wait().await;
                asked.ok();
            }
        })
        .await;
        let proxy = Proxy::start(&only(v1, SpokenTo::Http2));
        let client = Http2Client::connect(proxy.address()).await;
        let asked = (0..6).map(|_| {
            let mut client = client.clone();
            async move { client.get("/").await.status }
        });
        let statuses = futures::future::join_all(asked).await;
        assert_eq!(statuses, [StatusCode::OK; 6], "none waits for another");
        assert_eq!(connections.load(Ordering::SeqCst), expected, "{allowed} allowed");
    }
}

#[tokio::test]
async fn a_full_endpoint_is_waited_for_when_no_more_connections_are_made() {
    let v1 = peer(settings(1), |asked| async move { asked.ok() }).await;
    let proxy = Proxy::start(&only(v1, SpokenTo::Http2));
    let client = Http2Client::connect(proxy.address()).await;
    let asked = (0..100).map(|_| {
        let mut client = client.clone();
        async move { client.get("/").await.status }
    });
    let statuses = futures::future::join_all(asked).await;
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
}

/// A primary that says on which of its connections a request came, at once for "/" and when told for others; how many
/// connections it has.
async fn numbering() -> (std::net::SocketAddr, watch::Sender<bool>, watch::Receiver<usize>) {
    let (release, gate) = watch::channel(false);
    let (open, opened) = watch::channel(0_usize);
    let open = Arc::new(open);
    let v1 = raw_backend(move |connection, stream| {
        let (open, gate) = (Arc::clone(&open), gate.clone());
        async move {
            open.send_modify(|open| *open += 1);
            let mut server = settings(100).handshake::<_, Bytes>(stream).await.expect("a client of HTTP/2");
            while let Some(Ok((request, mut respond))) = server.accept().await {
                let mut gate = gate.clone();
                tokio::spawn(async move {
                    if request.uri().path() != "/" {
                        gate.wait_for(|open| *open).await.expect("the test goes on");
                    }
                    let answer = Response::builder().header("connection-number", connection);
                    // The client may have left.
                    let _ = respond.send_response(answer.body(()).expect("an answer"), true);
                });
            }
            open.send_modify(|open| *open -= 1);
        }
    })
    .await;
    (v1, release, opened)
}

#[tokio::test]
async fn a_busy_endpoint_has_a_second_connection_until_it_is_idle() {
    let (v1, release, mut open) = numbering().await;
    let limits = Limits { idle_timeout: Duration::from_millis(50), ..Limits::default() };
    let proxy = Proxy::with(&only(v1, SpokenTo::Http2), limits, Mode::ByHost);
    let mut client = Http2Client::connect(proxy.address()).await;
    let held: Vec<_> = (0..40)
        .map(|_| {
            let mut client = client.clone();
            tokio::spawn(async move { client.get("/held").await.status })
        })
        .collect();
    // Far fewer than one connection takes: it is made beforehand, and has less to do.
    let second = async { while value(&client.get("/").await.headers, "connection-number") == Some("0") {} };
    within("a second connection", second).await;
    release.send(true).expect("the backend waits");
    for status in held {
        assert_eq!(status.await.expect("no panic"), 200);
    }
    within("they end when idle", open.wait_for(|open| *open == 0)).await.expect("the backend counts");
}

#[tokio::test]
async fn a_peer_that_ends_its_connections_politely_fails_no_request() {
    // Each connection takes three requests and then says goodbye, while more are on their way.
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    let v1 = raw_backend(move |_, stream| {
        counted.fetch_add(1, Ordering::SeqCst);
        async move {
            let mut server = h2::server::handshake(stream).await.expect("a client of HTTP/2");
            let mut served = 0;
            while let Some(Ok((_, mut respond))) = server.accept().await {
                let _: Result<h2::SendStream<Bytes>, _> = respond.send_response(Response::new(()), true);
                served += 1;
                if served == 3 {
                    server.graceful_shutdown();
                }
            }
        }
    })
    .await;
    let proxy = Proxy::start(&only(v1, SpokenTo::Http2));
    let client = Http2Client::connect(proxy.address()).await;
    for _ in 0..20 {
        let asked = (0..5).map(|_| {
            let mut client = client.clone();
            async move { client.send(post("/")).await.status }
        });
        let statuses = futures::future::join_all(asked).await;
        assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    }
    assert!(connections.load(Ordering::SeqCst) > 10, "they did end");
}

#[tokio::test]
async fn a_connection_that_died_idle_is_replaced() {
    let v1 = speaking(Version::HTTP_2).await;
    let (cut, cutting) = watch::channel(0_usize);
    let at = v1.address;
    let between = raw_backend(move |number, mut stream| {
        let mut cutting = cutting.clone();
        async move {
            let mut to = tokio::net::TcpStream::connect(at).await.expect("it listens");
            let mut over = async || cutting.wait_for(|cut| *cut > number).await.is_ok();
            tokio::select! {
                _ = tokio::io::copy_bidirectional(&mut stream, &mut to) => {}
                _ = over() => {}
            }
        }
    })
    .await;
    let proxy = Proxy::start(&only(between, SpokenTo::Http2));
    let mut client = Http2Client::connect(proxy.address()).await;
    for round in 1..4 {
        assert_eq!(client.send(post("/")).await.status, 200, "round {round}");
        cut.send(round).expect("the backend waits");
    }
    assert_eq!(v1.seen().len(), 3, "none twice");
}

#[tokio::test]
async fn a_stream_that_was_given_up_is_told_and_only_a_refused_one_is_safe_to_repeat() {
    let retries = |on| Some(Retries { attempts: 1, on: vec![on], ..Retries::default() });
    for (reason, retries, status, flags) in [
        (Reason::REFUSED_STREAM, None, 503, "UR"),
        (Reason::REFUSED_STREAM, retries(RetryOn::RefusedStream), 200, "-"),
        (Reason::INTERNAL_ERROR, retries(RetryOn::RefusedStream), 503, "UR"),
        (Reason::INTERNAL_ERROR, retries(RetryOn::Reset), 200, "-"),
    ] {
        let what = format!("{reason:?}, {retries:?}");
        let asked = Arc::new(AtomicUsize::new(0));
        let first = Arc::clone(&asked);
        let v1 = peer(settings(100), move |mut asked: Asked| {
            let is_first = first.fetch_add(1, Ordering::SeqCst) == 0;
            async move {
                match is_first {
                    true => asked.respond.send_reset(reason),
                    false => asked.ok(),
                }
            }
        })
        .await;
        let mut pushed = only(v1, SpokenTo::Http2);
        pushed.rules[0].retries = retries;
        let proxy = Proxy::start(&pushed);
        let mut client = Http2Client::connect(proxy.address()).await;
        assert_eq!(client.send(post("/")).await.status.as_u16(), status, "{what}");
        until("the exchange is counted", || flagged(&proxy, flags) == 1).await;
        assert_eq!(client.get("/").await.status, 200, "{what}: the connection lives on");
    }
}

#[tokio::test]
async fn retries_that_were_not_enough_are_told() {
    let v1 = peer(settings(100), |mut asked: Asked| async move {
        match asked.request.uri().path() {
            "/answered" => {
                let mut answer = Response::new(());
                *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
                asked.respond.send_response(answer, true).expect("a client");
            }
            _ => asked.respond.send_reset(Reason::CANCEL),
        }
    })
    .await;
    let mut pushed = only(v1, SpokenTo::Http2);
    let on = vec![RetryOn::FiveXx];
    pushed.rules[0].retries = Some(Retries { attempts: 1, on, backoff_ms: Some(1), ..Retries::default() });
    let proxy = Proxy::start(&pushed);
    let mut client = Http2Client::connect(proxy.address()).await;
    for (path, flags) in [("/answered", "URX"), ("/reset", "UR,URX")] {
        assert_eq!(client.get(path).await.status, 503, "{path}");
        until("the exchange is counted", || flagged(&proxy, flags) == 1).await;
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_ends_its_stream_alone() {
    let (half, halves) = watch::channel(0_usize);
    let v1 = peer(settings(100), move |mut asked: Asked| {
        let mut halves = halves.clone();
        async move {
            let mut body = asked.respond.send_response(Response::new(()), false).expect("a client");
            let path = asked.request.uri().path().to_owned();
            body.send_data("half".into(), path == "/").expect("a client");
            if let Some(number) = path.strip_prefix("/broken-") {
                let number: usize = number.parse().expect("a number");
                halves.wait_for(|seen| *seen >= number).await.expect("the test goes on");
                body.send_reset(Reason::CANCEL);
            }
        }
    })
    .await;
    let proxy = Proxy::start(&only(v1, SpokenTo::Http2));
    let mut client = Http2Client::connect(proxy.address()).await;
    let answer = client.sender.send_request(http2_get("/broken-1")).await.expect("a head");
    let mut body = answer.into_body();
    assert!(within("a half", body.frame()).await.expect("a frame").expect("data").is_data());
    half.send(1).expect("the backend waits");
    assert!(within("its end", body.frame()).await.expect("an error").is_err(), "half an answer is none");
    until("the exchange is counted", || flagged(&proxy, "UR") == 1).await;
    assert_eq!(client.get("/").await.body, "half", "the connection lives on");
    let mut old = TestClient::connect(proxy.address()).await;
    let answer = old.sender.send_request(crate::rig::get("/broken-2")).await.expect("a head");
    let mut body = answer.into_body();
    assert!(within("a half", body.frame()).await.expect("a frame").expect("data").is_data());
    half.send(2).expect("the backend waits");
    assert!(within("its end", body.frame()).await.expect("an error").is_err(), "no last chunk");
}

#[tokio::test]
async fn a_peer_that_does_not_speak_http_2_takes_no_connection() {
    let v1 = Backend::named("v1").await;
    let proxy = Proxy::start(&only(v1.address, SpokenTo::Http2));
    let mut client = Http2Client::connect(proxy.address()).await;
    assert_eq!(client.get("/").await.status, 503);
    assert_eq!(flagged(&proxy, "UF"), 1);
}

#[tokio::test]
async fn a_client_that_gives_up_a_request_gives_up_the_primarys_stream_alone() {
    let (reset, mut was_reset) = mpsc::unbounded_channel();
    let v1 = peer(settings(100), move |mut asked: Asked| {
        let reset = reset.clone();
        async move {
            if asked.request.uri().path() == "/left" {
                reset.send(None).expect("the test waits");
                let reason = std::future::poll_fn(|cx| asked.respond.poll_reset(cx)).await;
                reset.send(Some((asked.connection, reason.ok()))).expect("the test waits");
            } else {
                asked.ok();
            }
        }
    })
    .await;
    let proxy = Proxy::start(&only(v1, SpokenTo::Http2));
    let mut client = Http2Client::connect(proxy.address()).await;
    client.get("/").await;
    let mut leaving = client.clone();
    let left = tokio::spawn(async move { leaving.send(http2_get("/left")).await.status });
    assert_eq!(within("it is at the primary", was_reset.recv()).await, Some(None));
    left.abort();
    let reason = within("the primary hears of it", was_reset.recv()).await.flatten();
    assert_eq!(reason, Some((0, Some(Reason::CANCEL))));
    assert_eq!(client.get("/").await.status, 200, "neither connection ended");
    until("the exchange is counted", || flagged(&proxy, "DC") == 1).await;
}

/// A body that is sent piece by piece, and its sender.
fn upload() -> (mpsc::UnboundedSender<Bytes>, AnyBody) {
    let (upload, pieces) = mpsc::unbounded_channel();
    let frames = futures::stream::unfold(pieces, |mut pieces: mpsc::UnboundedReceiver<Bytes>| async {
        let piece = pieces.recv().await?;
        Some((Ok(hyper::body::Frame::data(piece)), pieces))
    });
    (upload, StreamBody::new(frames).boxed())
}

#[tokio::test]
async fn both_sides_of_a_call_stream_at_once() {
    let v1 = peer(settings(100), |mut asked: Asked| async move {
        let mut back = asked.respond.send_response(Response::new(()), false).expect("a client");
        while let Some(Ok(chunk)) = asked.request.body_mut().data().await {
            asked.request.body_mut().flow_control().release_capacity(chunk.len()).expect("it was read");
            back.send_data(chunk, false).expect("a client");
        }
        back.send_trailers(http::HeaderMap::new()).expect("a client");
    })
    .await;
    let proxy = Proxy::start(&only(v1, SpokenTo::Http2));
    let mut client = Http2Client::connect(proxy.address()).await;
    let (upload, body) = upload();
    let answer = client.sender.send_request(crate::rig::grpc("/", body)).await.expect("a head");
    let mut answer = answer.into_body();
    for word in ["ping", "pong"] {
        upload.send(word.into()).expect("it is read");
        let echo = within("the echo", answer.frame()).await.expect("a frame").expect("data");
        assert_eq!(echo.into_data().expect("data"), word);
    }
    drop(upload);
    let end = within("the end", answer.collect()).await.expect("a whole answer");
    assert!(end.to_bytes().is_empty());
    until("the exchange is counted", || flagged(&proxy, "-") == 1).await;
}

#[tokio::test]
async fn a_timeout_counts_while_the_answer_and_the_request_are_both_under_way() {
    let v1 = peer(settings(100), |mut asked: Asked| async move {
        let mut body = asked.respond.send_response(Response::new(()), false).expect("a client");
        body.send_data("first".into(), false).expect("a client");
        asked.read().await;
        std::future::pending::<()>().await;
    })
    .await;
    let mut pushed = only(v1, SpokenTo::Http2);
    pushed.rules[0].timeout_ms = Some(50);
    let proxy = Proxy::start(&pushed);
    let mut client = Http2Client::connect(proxy.address()).await;
    let (upload, body) = upload();
    upload.send("x".into()).expect("it is read");
    let request = Request::post("http://web/").body(body).expect("a request");
    let answer = within("a head", client.sender.send_request(request)).await.expect("an answer");
    let mut answer = answer.into_body();
    let first = within("a chunk", answer.frame()).await.expect("a frame").expect("data");
    assert_eq!(first.into_data().expect("data"), "first");
    assert_eq!(flagged(&proxy, "UT"), 0, "the time begins with the request's end");
    drop(upload);
    let cut = within("the answer is cut", answer.frame()).await;
    assert!(cut.expect("an error").is_err());
    until("the exchange is counted", || flagged(&proxy, "UT") == 1).await;
}

/// A primary that holds what it is asked until told, and tells when it was asked.
async fn holding() -> (std::net::SocketAddr, watch::Sender<bool>, mpsc::UnboundedReceiver<()>) {
    let (release, gate) = watch::channel(false);
    let (arrives, arrived) = mpsc::unbounded_channel();
    let v1 = peer(settings(100), move |asked: Asked| {
        let (mut gate, arrives) = (gate.clone(), arrives.clone());
        async move {
            arrives.send(()).expect("the test waits");
            gate.wait_for(|open| *open).await.expect("the test goes on");
            asked.ok();
        }
    })
    .await;
    (v1, release, arrived)
}

#[tokio::test]
async fn draining_says_goodbye_and_finishes_what_is_in_flight() {
    let (v1, release, mut arrived) = holding().await;
    let proxy = Proxy::start(&only(v1, SpokenTo::Http2));
    let mut finishing = Http2Client::connect(proxy.address()).await;
    let finish = tokio::spawn(async move { finishing.get("/").await.status });
    within("the request arrives", arrived.recv()).await.expect("it did");
    let idle = Http2Client::connect(proxy.address()).await;
    let drained = tokio::spawn(proxy.workers.drain(Duration::from_secs(10)));
    until("an idle client is told", || idle.sender.is_closed()).await;
    release.send(true).expect("the backend waits");
    assert_eq!(finish.await.expect("no panic"), 200);
    assert_eq!(within("the drain ends", drained).await.expect("no panic"), 0, "nothing was cut");
}

#[tokio::test]
async fn a_service_that_is_released_says_goodbye_and_finishes_what_is_in_flight() {
    let (v1, release, mut arrived) = holding().await;
    let address = "10.96.0.10:80".parse().expect("an address");
    let mode = Mode::Intercepted(Arc::new(move |_| Ok(address)));
    let limits = Limits { header_timeout: Duration::from_millis(5), ..Limits::default() };
    let proxy = Proxy::with(&Pushed { ..only(v1, SpokenTo::Http2) }, limits, mode);
    let client = Http2Client::connect(proxy.address()).await;
    let mut finishing = client.clone();
    let finish = tokio::spawn(async move { finishing.get("/").await.status });
    within("the request arrives", arrived.recv()).await.expect("it did");
    let idle = Http2Client::connect(proxy.address()).await;
    proxy.tables.disarm(&crate::rig::service());
    until("an idle client is told", || idle.sender.is_closed()).await;
    release.send(true).expect("the backend waits");
    assert_eq!(finish.await.expect("no panic"), 200);
    until("the busy one is told, too", || client.sender.is_closed()).await;
}
