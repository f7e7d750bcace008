//! Copies in HTTP/2: whole, within their bounds, and never a primary's trouble.

use std::time::Duration;

use http::{Request, Response, StatusCode, Version};
use tokio::sync::mpsc;
use umbra_proxy::listen::Mode;
use umbra_proxy::worker::Limits;
use umbra_routing::SpokenTo;

use crate::peer::{Asked, peer};
use crate::rig::{
    Backend, Http2Client, Proxy, Pushed, full, grpc, raw_backend, resetting, with_trailers, within,
};
use crate::{mirrored, speaking, value};

fn limits(change: impl FnOnce(&mut Limits)) -> Limits {
    let mut limits = Limits::default();
    change(&mut limits);
    limits
}

/// A mirror that gives no window: nothing of a body gets to it.
async fn without_window() -> std::net::SocketAddr {
    let mut settings = h2::server::Builder::new();
    settings.initial_window_size(0);
    peer(settings, |asked: Asked| async move {
        let _held = asked;
        std::future::pending().await
    })
    .await
}

fn post(bytes: usize) -> Request<crate::rig::AnyBody> {
    Request::post("http://web/").body(full(vec![b'x'; bytes])).expect("a request")
}

#[tokio::test]
async fn the_copy_is_the_same_request_with_its_trailers() {
    let v1 =
        Backend::speaking(Version::HTTP_2, |_| Response::new(with_trailers("v1", &[("grpc-status", "0")])))
            .await;
    let v2 =
        Backend::speaking(Version::HTTP_2, |_| Response::new(with_trailers("v2", &[("grpc-status", "13")])))
            .await;
    let proxy = Proxy::start(&mirrored(v1.address, v2.address));
    let mut client = Http2Client::connect(proxy.address()).await;
    for _ in 0..10 {
        let answer = client.send(grpc("/pay.Orders/Put", with_trailers("ask", &[("x-sum", "1")]))).await;
        assert_eq!((answer.status, answer.body.as_ref()), (StatusCode::OK, &b"v1"[..]));
        assert_eq!(value(&answer.trailers.expect("trailers"), "grpc-status"), Some("0"));
    }
    proxy.settled(10).await;
    assert_eq!(proxy.result("answered"), 10);
    assert_eq!(v1.seen(), v2.seen(), "head, body and trailers, each on one connection");
    let seen = &v2.seen()[0];
    assert_eq!(value(seen.trailers.as_ref().expect("trailers"), "x-sum"), Some("1"));
    let labels = ["request_role=\"shadow\"", "request_protocol=\"grpc\"", "grpc_response_status=\"13\""];
    assert_eq!(proxy.count("istio_requests_total", &labels), 10);
}

#[tokio::test]
async fn a_mirror_is_spoken_to_as_its_own_port_says() {
    let (v1, v2) = (speaking(Version::HTTP_2).await, speaking(Version::HTTP_11).await);
    let mut pushed = mirrored(v1.address, v2.address);
    pushed.mirrors_spoken_to = Some(SpokenTo::Http1);
    let proxy = Proxy::start(&pushed);
    let mut client = Http2Client::connect(proxy.address()).await;
    assert_eq!(client.send(post(3)).await.status, 200);
    proxy.settled(1).await;
    assert_eq!((v1.seen()[0].version, v2.seen()[0].version), (Version::HTTP_2, Version::HTTP_11));
    assert_eq!(
        (v2.seen()[0].body.as_ref(), value(&v2.seen()[0].headers, "host")),
        (&b"xxx"[..], Some("web"))
    );
}

#[tokio::test]
async fn a_mirror_without_a_window_costs_its_copy_and_not_the_primary() {
    let (v1, v2) = (speaking(Version::HTTP_2).await, without_window().await);
    let proxy = Proxy::start(&mirrored(v1.address, v2));
    let mut client = Http2Client::connect(proxy.address()).await;
    const LARGE: usize = 32 << 20;
    assert_eq!(client.send(post(LARGE)).await.status, 200);
    proxy.settled(1).await;
    assert_eq!((v1.seen()[0].body.len(), proxy.dropped("body_budget")), (LARGE, 1));
}

#[tokio::test]
async fn a_copy_that_is_given_up_gives_back_what_it_held() {
    // Room for one of these bodies: the second copy gets it only once the first one's is free.
    const BODY: usize = 60_000;
    let (v1, v2) = (speaking(Version::HTTP_2).await, without_window().await);
    let limits = limits(|limits| {
        limits.shadow.timeout = Duration::from_millis(20);
        limits.shadow.body_bytes = BODY * 3 / 2;
        limits.shadow.worker_bytes = BODY * 3 / 2;
    });
    let proxy = Proxy::with(&mirrored(v1.address, v2), limits, Mode::ByHost);
    let mut client = Http2Client::connect(proxy.address()).await;
    for number in 1..=3 {
        assert_eq!(client.send(post(BODY)).await.status, 200);
        proxy.settled(number).await;
        assert_eq!(proxy.result("timed_out"), number);
    }
}

#[tokio::test]
async fn a_copy_that_times_out_ends_its_stream_and_others_go_on_beside_it() {
    let (reset, mut resets) = mpsc::unbounded_channel();
    let v2 = peer(h2::server::Builder::new(), move |mut asked: Asked| {
        let reset = reset.clone();
        async move {
            if asked.request.uri().path() != "/hang" {
                return asked.ok();
            }
            let reason = std::future::poll_fn(|cx| asked.respond.poll_reset(cx)).await;
            reset.send((asked.connection, reason.ok())).expect("the test waits");
        }
    })
    .await;
    let v1 = speaking(Version::HTTP_2).await;
    let limits = limits(|limits| limits.shadow.timeout = Duration::from_secs(2));
    let proxy = Proxy::with(&mirrored(v1.address, v2), limits, Mode::ByHost);
    let mut client = Http2Client::connect(proxy.address()).await;
    client.get("/hang").await;
    client.get("/").await;
    let told = within("the mirror hears of it", resets.recv()).await;
    assert_eq!(told, Some((0, Some(h2::Reason::CANCEL))));
    client.get("/").await;
    proxy.settled(3).await;
    assert_eq!((proxy.result("timed_out"), proxy.result("answered")), (1, 2));
}

#[tokio::test]
async fn a_mirror_that_gives_up_streams_or_its_connection_is_a_failure_of_its_own() {
    let v2 = peer(h2::server::Builder::new(), |mut asked: Asked| async move {
        asked.respond.send_reset(h2::Reason::REFUSED_STREAM);
    })
    .await;
    let v1 = speaking(Version::HTTP_2).await;
    let proxy = Proxy::start(&mirrored(v1.address, v2));
    let mut client = Http2Client::connect(proxy.address()).await;
    assert_eq!(client.send(post(3)).await.body, "ok");
    proxy.settled(1).await;
    assert_eq!(proxy.result("failed"), 1);
    let labels = ["request_role=\"shadow\"", "response_flags=\"UR\""];
    assert_eq!(proxy.count("istio_requests_total", &labels), 1);
}

#[tokio::test]
async fn a_mirror_that_ends_what_it_took_before_it_spoke_http_2_leaves_the_breaker_closed() {
    let (v1, not_http2) = (speaking(Version::HTTP_2).await, Backend::named("v2").await);
    for v2 in [resetting(), not_http2.address] {
        let proxy = Proxy::start(&mirrored(v1.address, v2));
        let mut client = Http2Client::connect(proxy.address()).await;
        for number in 1..=20 {
            assert_eq!(client.send(post(3)).await.body, "ok");
            proxy.settled(number).await;
        }
        assert_eq!((proxy.result("failed"), proxy.dropped("breaker")), (20, 0));
    }
}

#[tokio::test]
async fn a_mirror_that_takes_connections_and_never_speaks_times_out_and_leaves_the_breaker_closed() {
    let v1 = Backend::named("v1").await;
    let v2 = raw_backend(|_, stream| async move {
        let _silent = stream;
        std::future::pending::<()>().await;
    })
    .await;
    // Loopback connects at once, so that this is for what HTTP/2 begins with alone.
    let quick = limits(|limits| limits.connect_timeout = Duration::from_millis(20));
    let pushed = Pushed {
        spoken_to: SpokenTo::Http1,
        mirrors_spoken_to: Some(SpokenTo::Http2),
        ..mirrored(v1.address, v2)
    };
    let proxy = Proxy::with(&pushed, quick, Mode::ByHost);
    let mut client = Http2Client::connect(proxy.address()).await;
    for number in 1..=10 {
        assert_eq!(client.send(post(3)).await.body, "v1");
        proxy.settled(number).await;
    }
    assert_eq!((proxy.result("timed_out"), proxy.dropped("breaker")), (10, 0));
}
