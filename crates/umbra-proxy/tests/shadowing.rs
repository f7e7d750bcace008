//! What a mirror sees, and that nothing it does reaches the user. The sums add up in every case.

mod rig;

use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use futures::future::join_all;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::TokioIo;
use rig::{
    Backend, Proxy, Pushed, TestClient, get, read_head, refusing, resetting, rule, subset, to, undefined,
    until, within,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::watch;
use umbra_proxy::listen::Mode;
use umbra_proxy::worker::Limits;
use umbra_routing::{BackendRef, Mirror, SpokenTo};
use umbra_testkit::{TcpEnd, wait_for};

fn mirrored(v1: std::net::SocketAddr, v2: Vec<std::net::SocketAddr>) -> Pushed {
    Pushed {
        rules: vec![rule(vec![to(subset("v1"), 0)], vec![subset("v2")])],
        sets: vec![(subset("v1"), vec![v1]), (subset("v2"), v2)],
        ..Pushed::default()
    }
}

fn limits(change: impl FnOnce(&mut Limits)) -> Limits {
    let mut limits = Limits::default();
    change(&mut limits);
    limits
}

#[tokio::test]
async fn the_copy_is_the_same_request_and_its_answer_goes_nowhere() {
    let v1 = Backend::named("v1").await;
    let v2 = Backend::answering(|_| {
        let mut wrong = Response::new(Full::from("wrong"));
        *wrong.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        wrong
    })
    .await;
    let proxy = Proxy::start(&mirrored(v1.address, vec![v2.address]));
    let mut client = proxy.client().await;
    for number in 0..20 {
        let request = Request::post(format!("/a?n={number}")).header("host", "web").header("x-odd", "\u{e4}");
        let answer =
            client.send(request.body(Full::from(format!("body {number}"))).expect("a request")).await;
        assert_eq!((answer.status(), answer.body().as_ref()), (StatusCode::OK, &b"v1"[..]));
    }
    proxy.settled(20).await;
    assert_eq!(proxy.result("answered"), 20);
    let plain = |backend: &Backend| {
        let mut seen = backend.seen();
        seen.iter_mut().for_each(|seen| seen.connection = 0);
        seen.sort_by(|a, b| a.target.cmp(&b.target));
        seen
    };
    assert_eq!(plain(&v1), plain(&v2), "path, headers and body");
    let five_hundred = ["request_role=\"shadow\"", "response_code=\"500\"", "destination_version=\"v2\""];
    assert_eq!(proxy.count("istio_requests_total", &five_hundred), 20);
    assert_eq!(proxy.count("istio_requests_total", &["request_role=\"shadow\"", "reporter=\"source\""]), 0);
    assert_eq!(proxy.count("istio_requests_total", &["request_role=\"primary\"", "reporter=\"source\""]), 20);
    assert_eq!(
        proxy.count("istio_requests_total", &["request_role=\"primary\"", "reporter=\"destination\""]),
        20
    );
    assert!(v2.seen().iter().all(|seen| seen.connection < 2), "mirror connections are used again");
}

#[tokio::test]
async fn a_big_body_to_a_mirror_that_never_reads_reaches_the_primary_and_is_dropped_for_the_mirror() {
    let v1 = Backend::answering(|seen| Response::new(Full::from(seen.body.len().to_string()))).await;
    let v2 = rig::raw_backend(|_, stream| async move {
        let _never_read = stream;
        std::future::pending::<()>().await;
    })
    .await;
    let proxy = Proxy::start(&mirrored(v1.address, vec![v2]));
    let size = 64 << 20;
    let answer = proxy.client().await.post("/", vec![b'x'; size]).await;
    assert_eq!(answer.body(), size.to_string().as_bytes());
    proxy.settled(1).await;
    assert_eq!(proxy.dropped("body_budget"), 1);
}

/// A mirror that reads a head, says `answer`, and goes on reading when it is told to.
struct ReadsLate {
    address: std::net::SocketAddr,
    /// The head is read.
    asked: UnboundedReceiver<()>,
    go_on: watch::Sender<bool>,
    /// How its connection ended.
    ended: UnboundedReceiver<std::io::Result<usize>>,
}

async fn reads_late(answer: &'static [u8]) -> ReadsLate {
    let (go_on, goes_on) = watch::channel(false);
    let ((ask, asked), (end, ended)) = (unbounded_channel(), unbounded_channel());
    let address = rig::raw_backend(move |_, mut stream| {
        let (ask, end, mut goes_on) = (ask.clone(), end.clone(), goes_on.clone());
        async move {
            read_head(&mut stream).await;
            stream.write_all(answer).await.expect("the proxy is there");
            // The test may have ended, here and below.
            let _ = ask.send(());
            if goes_on.wait_for(|goes_on| *goes_on).await.is_ok() {
                let _ = end.send(stream.read_to_end(&mut Vec::new()).await);
            }
        }
    })
    .await;
    ReadsLate { address, asked, go_on, ended }
}

#[tokio::test]
async fn a_copy_that_is_given_up_leaves_nothing_in_the_kernel() {
    const CLOSES: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    for (size, answer, outcome) in
        [(64 << 20, &b""[..], [1, 0, 0]), (1 << 20, b"", [0, 1, 0]), (2 << 20, CLOSES, [0, 0, 1])]
    {
        let v1 = Backend::named("v1").await;
        let mut v2 = reads_late(answer).await;
        let quick = limits(|limits| limits.shadow.timeout = Duration::from_millis(20));
        let proxy = Proxy::with(&mirrored(v1.address, vec![v2.address]), quick, Mode::ByHost);
        let mut client = TcpStream::connect(proxy.address()).await.expect("the proxy listens");
        let head = format!("POST / HTTP/1.1\r\nhost: web\r\ncontent-length: {size}\r\n\r\nx");
        client.write_all(head.as_bytes()).await.expect("a reader");
        // A copy that was given up before has nothing on its connection, which may end as it likes.
        within("the copy is on its way", v2.asked.recv()).await.expect("the mirror is there");
        client.write_all(&vec![b'x'; size - 1]).await.expect("a reader");
        read_head(&mut client).await;
        proxy.settled(1).await;
        let dropped = proxy.dropped("body_budget");
        assert_eq!([dropped, proxy.result("timed_out"), proxy.result("answered")], outcome, "{size}");
        v2.go_on.send_replace(true);
        let end = within("the connection ends", v2.ended.recv()).await.expect("it says how");
        let reset = std::io::ErrorKind::ConnectionReset;
        assert_eq!(end.expect_err("not as if it were whole").kind(), reset, "{size}");
    }
}

#[tokio::test]
async fn a_connection_whose_copy_was_answered_ends_well() {
    const STAYS: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
    const CLOSES: &[u8] = b"HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n";
    for answer in [STAYS, CLOSES] {
        let v1 = Backend::named("v1").await;
        let mut v2 = reads_late(answer).await;
        let quick = limits(|limits| limits.idle_timeout = Duration::from_millis(20));
        let proxy = Proxy::with(&mirrored(v1.address, vec![v2.address]), quick, Mode::ByHost);
        assert_eq!(proxy.client().await.get("/").await.body(), "v1");
        proxy.settled(1).await;
        assert_eq!(proxy.result("answered"), 1);
        v2.go_on.send_replace(true);
        let end = within("the connection ends", v2.ended.recv()).await.expect("it says how");
        assert_eq!(end.expect("no reset"), 0);
    }
}

/// Whether the kernel looks after the connection from one port to another: with nothing on its way that waits to be
/// acknowledged, the timer that runs is that of keepalive.
fn is_looked_after([port, peer]: [u16; 2]) -> bool {
    wait_for("what was sent is acknowledged", Duration::from_secs(60), || {
        match TcpEnd::between(port, peer)?.context("there is no such connection")?.timer {
            0 => Ok(false),
            2 => Ok(true),
            timer => anyhow::bail!("timer {timer}"),
        }
    })
    .expect("the mirror is there")
}

/// A backend that reads a head (or the preface of HTTP/2), says this and no more; from which port each came, and to which.
async fn silent(greeting: &'static [u8]) -> (std::net::SocketAddr, UnboundedReceiver<[u16; 2]>) {
    let (ask, asked) = unbounded_channel();
    let address = rig::raw_backend(move |_, mut stream| {
        let ask = ask.clone();
        async move {
            read_head(&mut stream).await;
            stream.write_all(greeting).await.expect("a reader");
            let ends = [stream.peer_addr(), stream.local_addr()];
            // The test may have ended.
            let _ = ask.send(ends.map(|end| end.expect("it is connected").port()));
            std::future::pending::<()>().await;
        }
    })
    .await;
    (address, asked)
}

#[tokio::test]
async fn the_kernel_looks_after_whom_nobody_else_gives_up() {
    let whole = "GET / HTTP/1.1\r\nhost: web\r\n\r\n";
    let begun = "POST / HTTP/1.1\r\nhost: web\r\ncontent-length: 2\r\n\r\nx";
    // An empty SETTINGS frame: without one a peer is asked nothing (RFC 9113, section 3.4).
    let settings = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
    for (spoken_to, greeting, head, looked_after) in [
        // An answer may take as long as its user waits; a copy has its timeout, once its body has ended.
        (SpokenTo::Http1, &[][..], whole, [true, false]),
        (SpokenTo::Http1, &[], begun, [true, true]),
        // Its connections are for many, and stay.
        (SpokenTo::Http2, settings, whole, [true, true]),
    ] {
        let ((v1, mut primary), (v2, mut mirror)) = (silent(greeting).await, silent(greeting).await);
        let proxy = Proxy::start(&Pushed { spoken_to, ..mirrored(v1, vec![v2]) });
        let mut client = TcpStream::connect(proxy.address()).await.expect("the proxy listens");
        client.write_all(head.as_bytes()).await.expect("a reader");
        let ports = within("both were asked", async { [primary.recv().await, mirror.recv().await] }).await;
        let seen = ports.map(|port| is_looked_after(port.expect("it is there")));
        assert_eq!(seen, looked_after, "{spoken_to:?}: {head}");
    }
}

#[tokio::test]
async fn a_big_body_to_a_mirror_that_reads_arrives_whole() {
    let (v1, v2) = (Backend::named("v1").await, Backend::named("v2").await);
    let proxy = Proxy::with(
        &mirrored(v1.address, vec![v2.address]),
        limits(|limits| {
            limits.shadow.body_bytes = limits.shadow.worker_bytes;
            limits.shadow.mirror.queued_bytes = limits.shadow.worker_bytes;
        }),
        Mode::ByHost,
    );
    let body: Vec<u8> = (0..8u32 << 20).map(|n| (n % 251) as u8).collect();
    proxy.client().await.post("/", body.clone()).await;
    proxy.settled(1).await;
    assert_eq!(proxy.result("answered"), 1);
    assert!(v2.seen()[0].body == body, "byte for byte");
}

#[tokio::test]
async fn a_silent_mirror_times_out_alone() {
    let v1 = Backend::named("v1").await;
    let v2 = rig::raw_backend(|_, mut stream| async move {
        read_head(&mut stream).await;
        std::future::pending::<()>().await;
    })
    .await;
    let quick = limits(|limits| limits.shadow.timeout = Duration::from_millis(20));
    let proxy = Proxy::with(&mirrored(v1.address, vec![v2]), quick, Mode::ByHost);
    assert_eq!(proxy.client().await.get("/").await.body(), "v1");
    proxy.settled(1).await;
    assert_eq!(proxy.result("timed_out"), 1);
    let ut = ["request_role=\"shadow\"", "response_code=\"504\"", "response_flags=\"UT\""];
    assert_eq!(proxy.count("istio_requests_total", &ut), 1);
}

#[tokio::test]
async fn a_refusing_mirror_fails_then_opens_the_breaker() {
    let v1 = Backend::named("v1").await;
    let proxy = Proxy::start(&mirrored(v1.address, vec![refusing()]));
    let mut client = proxy.client().await;
    for number in 1..=20 {
        assert_eq!(client.get("/").await.body(), "v1");
        proxy.settled(number).await;
    }
    // Five open it; on a slow machine a probe may follow. When exactly is tested beside the breaker.
    let (failed, breaker) = (proxy.result("failed"), proxy.dropped("breaker"));
    assert!(failed >= 5 && breaker > 0 && failed + breaker == 20, "{failed} failed, {breaker} held back");
    let uf = ["request_role=\"shadow\"", "response_code=\"503\"", "response_flags=\"UF\""];
    assert_eq!(proxy.count("istio_requests_total", &uf), failed);
}

#[tokio::test]
async fn a_mirror_that_resets_what_it_took_fails_and_leaves_the_breaker_closed() {
    let v1 = Backend::named("v1").await;
    let proxy = Proxy::start(&mirrored(v1.address, vec![resetting()]));
    let mut client = proxy.client().await;
    // Of so many, some resets are there when connecting ends, and five of them in a row.
    for _ in 0..200 {
        assert_eq!(client.get("/").await.body(), "v1");
    }
    proxy.settled(200).await;
    assert_eq!((proxy.result("failed"), proxy.dropped("breaker")), (200, 0));
    let uc = ["request_role=\"shadow\"", "response_code=\"503\"", "response_flags=\"UC\""];
    assert_eq!(proxy.count("istio_requests_total", &uc), 200);
}

/// Several clients ask at the same time, so often each.
async fn ask(clients: &mut [TestClient], times: usize) {
    let each = clients.iter_mut().map(|client| async move {
        for _ in 0..times {
            assert_eq!(client.get("/").await.body(), "v1");
        }
    });
    join_all(each).await;
}

#[tokio::test]
async fn a_mirror_that_hangs_up_on_each_copy_gets_fewer_until_it_answers() {
    let (v1, v2) = (Backend::named("v1").await, Backend::named("v2").await);
    let reads_and_closes = rig::raw_backend(|_, mut stream| async move {
        read_head(&mut stream).await;
    })
    .await;
    for hangs_up in [resetting(), reads_and_closes] {
        let proxy = Proxy::start(&mirrored(v1.address, vec![hangs_up]));
        let mut clients =
            [proxy.client().await, proxy.client().await, proxy.client().await, proxy.client().await];
        let mut sent = 0;
        // How many in a row, and how many a second then, is tested beside the rule.
        let held_back = async {
            while proxy.dropped("hung_up") == 0 {
                ask(&mut clients, 50).await;
                sent += 200;
            }
        };
        within("copies are held back", held_back).await;
        proxy.settled(sent).await;
        // `overflow`: too many are in flight when the mirror stands still for a moment.
        let failed = proxy.result("failed");
        let held_back = proxy.dropped("hung_up") + proxy.dropped("overflow");
        assert!(failed >= 512 && failed + held_back == sent, "{failed} failed, {held_back} held back");

        proxy.push(&mirrored(v1.address, vec![v2.address]));
        let answered = async {
            while proxy.result("answered") == 0 {
                ask(&mut clients[..1], 1).await;
                sent += 1;
                proxy.settled(sent).await;
            }
        };
        within("one of the few is answered", answered).await;
        let held_back = proxy.dropped("hung_up");
        ask(&mut clients, 100).await;
        proxy.settled(sent + 400).await;
        assert_eq!((proxy.result("answered"), proxy.dropped("hung_up")), (401, held_back));
    }
}

#[tokio::test]
async fn a_mirror_that_begins_its_answers_gets_all_copies_however_it_ends_them() {
    let v1 = Backend::named("v1").await;
    let closes = "HTTP/1.1 500 No\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    let breaks_off = "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf";
    for (answer, result) in [(closes, "answered"), (breaks_off, "failed"), ("HTTP/1.1 what", "failed")] {
        let v2 = rig::raw_backend(move |_, mut stream| async move {
            read_head(&mut stream).await;
            // The proxy may have left.
            let _ = stream.write_all(answer.as_bytes()).await;
        })
        .await;
        let proxy = Proxy::start(&mirrored(v1.address, vec![v2]));
        let mut clients =
            [proxy.client().await, proxy.client().await, proxy.client().await, proxy.client().await];
        // So many at once that those who hang up would get fewer.
        ask(&mut clients, 300).await;
        proxy.settled(1_200).await;
        assert_eq!((proxy.result(result), proxy.dropped("hung_up")), (1_200, 0), "{answer:?}");
    }
}

#[tokio::test]
async fn a_mirror_that_answers_on_kept_connections_keeps_its_breaker_closed() {
    let v1 = Backend::named("v1").await;
    let v2 = Backend::named("v2").await;
    let proxy = Proxy::start(&mirrored(v1.address, vec![v2.address]));
    let mut client = proxy.client().await;
    let mut sent = 0;
    // Four failed connects, one less than open the breaker, after each answer on the connection that is kept.
    for (mirror, requests) in [(v2.address, 1), (refusing(), 4), (v2.address, 1), (refusing(), 4)] {
        proxy.push(&mirrored(v1.address, vec![mirror]));
        for _ in 0..requests {
            client.get("/").await;
            sent += 1;
            proxy.settled(sent).await;
        }
    }
    assert_eq!((proxy.result("answered"), proxy.result("failed"), proxy.dropped("breaker")), (2, 8, 0));
}

#[tokio::test]
async fn only_so_many_copies_are_in_flight_and_the_rest_are_dropped() {
    let v1 = Backend::named("v1").await;
    let v2 = rig::raw_backend(|_, mut stream| async move {
        read_head(&mut stream).await;
        std::future::pending::<()>().await;
    })
    .await;
    let few = limits(|limits| {
        limits.shadow.mirror.in_flight = 4;
        limits.shadow.timeout = Duration::from_millis(500);
    });
    let proxy = Proxy::with(&mirrored(v1.address, vec![v2]), few, Mode::ByHost);
    let mut client = proxy.client().await;
    for _ in 0..10 {
        assert_eq!(client.get("/").await.body(), "v1");
    }
    proxy.settled(10).await;
    assert_eq!(proxy.result("timed_out") + proxy.dropped("overflow"), 10);
    assert!(proxy.result("timed_out") >= 4);
}

#[tokio::test]
async fn users_get_the_last_sockets_and_copies_none_of_them() {
    let (v1, v2) = (Backend::named("v1").await, Backend::named("v2").await);
    // A client's connection, and one to each of v1 and v2.
    let few = limits(|limits| {
        limits.shadow.open_sockets = 3;
        limits.idle_timeout = Duration::from_secs(60);
    });
    let proxy = Proxy::with(&mirrored(v1.address, vec![v2.address]), few, Mode::ByHost);
    let mut client = proxy.client().await;
    client.get("/").await;
    proxy.settled(1).await;
    let mut second = proxy.client().await;
    assert_eq!(second.get("/").await.body(), "v1");
    proxy.settled(2).await;
    assert_eq!((proxy.result("answered"), proxy.dropped("connections")), (1, 1));
}

#[tokio::test]
async fn a_mirror_without_endpoints_or_definition_drops_and_users_notice_nothing() {
    let v1 = Backend::named("v1").await;
    let mut pushed = mirrored(v1.address, vec![]);
    pushed.rules[0].mirrors.push(Mirror::new(1_000_000, undefined("v3")));
    let elsewhere = BackendRef::all(umbra_routing::ServiceName::new("default", "gone"), 80);
    pushed.rules[0].mirrors.push(Mirror::new(0, elsewhere));
    let proxy = Proxy::start(&pushed);
    assert_eq!(proxy.client().await.get("/").await.body(), "v1");
    proxy.settled(2).await;
    assert_eq!((proxy.dropped("no_endpoint"), proxy.dropped("unresolved")), (1, 1));
}

#[tokio::test]
async fn what_never_reached_a_primary_is_not_copied() {
    let v2 = Backend::named("v2").await;
    let proxy = Proxy::start(&mirrored(refusing(), vec![v2.address]));
    let answer = proxy.client().await.get("/").await;
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    proxy.settled(1).await;
    assert_eq!((proxy.dropped("primary_failed"), v2.seen().len()), (1, 0));
}

#[tokio::test]
async fn a_client_that_leaves_in_the_middle_of_its_body_takes_its_copy_along() {
    let (v1, v2) = (Backend::named("v1").await, Backend::named("v2").await);
    let proxy = Proxy::start(&mirrored(v1.address, vec![v2.address]));
    let mut stream = TcpStream::connect(proxy.address()).await.expect("the proxy listens");
    stream
        .write_all(b"POST / HTTP/1.1\r\nhost: web\r\ncontent-length: 10\r\n\r\nhalf")
        .await
        .expect("a reader");
    until("the copy is drawn", || proxy.count("umbra_shadow_eligible_total", &[]) == 1).await;
    drop(stream);
    proxy.settled(1).await;
    assert_eq!((proxy.dropped("incomplete"), v2.seen().len()), (1, 0));
}

#[tokio::test]
async fn a_client_that_leaves_after_its_body_does_not_end_its_copy() {
    let (asked, mut is_asked) = tokio::sync::mpsc::unbounded_channel();
    let v1 = rig::raw_backend(move |_, mut stream| {
        let asked = asked.clone();
        async move {
            read_head(&mut stream).await;
            asked.send(()).expect("the test waits");
            std::future::pending::<()>().await;
        }
    })
    .await;
    let v2 = Backend::named("v2").await;
    let proxy = Proxy::start(&mirrored(v1, vec![v2.address]));
    let mut stream = TcpStream::connect(proxy.address()).await.expect("the proxy listens");
    stream.write_all(b"GET / HTTP/1.1\r\nhost: web\r\n\r\n").await.expect("a reader");
    // Before that there is nothing to copy.
    within("the primary is asked", is_asked.recv()).await.expect("it is");
    drop(stream);
    proxy.settled(1).await;
    assert_eq!(proxy.result("answered"), 1);
    until("the user's leaving is counted", || {
        proxy.count("istio_requests_total", &["response_flags=\"DC\""]) > 0
    })
    .await;
}

#[tokio::test]
async fn shadows_stop_when_told_and_when_the_service_is_released() {
    let (v1, v2) = (Backend::named("v1").await, Backend::named("v2").await);
    let pushed = mirrored(v1.address, vec![v2.address]);
    let proxy = Proxy::start(&pushed);
    let mut client = proxy.client().await;
    client.get("/").await;
    proxy.settled(1).await;
    proxy.tables.stop_shadows(true);
    client.get("/").await;
    proxy.settled(2).await;
    assert_eq!(proxy.dropped("stopped"), 1);
    proxy.tables.stop_shadows(false);
    proxy.tables.disarm(&rig::service());
    let answer = client.get("/").await;
    assert_eq!(answer.headers().get("connection").map(|value| value.as_bytes()), Some(&b"close"[..]));
    proxy.settled(3).await;
    assert_eq!(proxy.dropped("stopped"), 2);
    proxy.tables.arm(&rig::service());
    let mut client = proxy.client().await;
    client.get("/").await;
    proxy.settled(4).await;
    assert_eq!(v2.seen().len(), 2);
    proxy.push_nothing();
    let answer = client.get("/").await;
    assert_eq!(answer.body(), "v1", "an open connection goes on");
    assert!(answer.headers().contains_key("connection"));
    assert_eq!(proxy.count("umbra_shadow_eligible_total", &[]), 4, "and wants no copies");
}

#[tokio::test]
async fn shares_are_drawn_on_their_own_and_within_three_sigma() {
    let (v1, v2, v3) = (Backend::named("v1").await, Backend::named("v2").await, Backend::named("v3").await);
    let mut pushed = mirrored(v1.address, vec![v3.address]);
    pushed.rules[0].destinations = vec![to(subset("v1"), 80), to(subset("v3"), 20)];
    pushed.rules[0].mirrors[0].per_million = 250_000;
    pushed.sets.push((subset("v3"), vec![v2.address]));
    let proxy = Proxy::start(&pushed);
    let mut client = proxy.client().await;
    let n = 2_000;
    for _ in 0..n {
        assert_eq!(client.get("/").await.status(), StatusCode::OK);
    }
    let within_three_sigma = |count: u64, share: f64| {
        let (mean, sigma) = (f64::from(n) * share, (f64::from(n) * share * (1.0 - share)).sqrt());
        assert!((count as f64 - mean).abs() <= 3.0 * sigma, "{count} of {n} at {share}");
    };
    within_three_sigma(v1.seen().len() as u64, 0.8);
    within_three_sigma(proxy.count("umbra_shadow_eligible_total", &[]), 0.25);
}

#[tokio::test]
async fn the_body_is_copied_while_it_streams() {
    let (v1, v2) = (Backend::named("v1").await, Backend::named("v2").await);
    let proxy = Proxy::start(&mirrored(v1.address, vec![v2.address]));
    let stream = TcpStream::connect(proxy.address()).await.expect("the proxy listens");
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("a connection");
    tokio::spawn(connection);
    let mut trailers = http::HeaderMap::new();
    trailers.insert("x-sum", http::HeaderValue::from_static("7"));
    let frames = [
        Ok::<_, std::convert::Infallible>(Frame::data(Bytes::from("one "))),
        Ok(Frame::data(Bytes::from("two"))),
        Ok(Frame::trailers(trailers.clone())),
    ];
    let body = StreamBody::new(futures::stream::iter(frames));
    let request =
        Request::post("/").header("host", "web").header("trailer", "x-sum").body(body).expect("a request");
    let answer = within("an answer", sender.send_request(request)).await.expect("an answer");
    assert_eq!(answer.into_body().collect().await.expect("whole").to_bytes(), "v1");
    proxy.settled(1).await;
    assert_eq!(proxy.result("answered"), 1, "{}", proxy.metrics.encode());
    for backend in [&v1, &v2] {
        let seen = &backend.seen()[0];
        assert_eq!((seen.body.as_ref(), seen.trailers.as_ref()), (&b"one two"[..], Some(&trailers)));
        assert!(!seen.headers.contains_key("content-length"));
    }
}

#[tokio::test]
async fn an_upgrade_is_joined_and_not_copied() {
    let v1 = rig::raw_backend(|_, mut stream| async move {
        let head = read_head(&mut stream).await.to_lowercase();
        assert!(head.contains("upgrade: echo") && head.contains("connection: upgrade"), "{head}");
        let switch = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: echo\r\nconnection: upgrade\r\n\r\n";
        stream.write_all(switch).await.expect("a reader");
        let (mut read, mut write) = stream.split();
        let _ = tokio::io::copy(&mut read, &mut write).await;
    })
    .await;
    let v2 = Backend::named("v2").await;
    let proxy = Proxy::start(&mirrored(v1, vec![v2.address]));
    let mut stream = TcpStream::connect(proxy.address()).await.expect("the proxy listens");
    let ask = b"GET / HTTP/1.1\r\nhost: web\r\nconnection: Upgrade\r\nupgrade: echo\r\n\r\n";
    stream.write_all(ask).await.expect("a reader");
    let head = within("the switch", read_head(&mut stream)).await.to_lowercase();
    assert!(head.starts_with("http/1.1 101") && head.contains("upgrade: echo"), "{head}");
    // Bytes that would be a bad head if anybody still parsed them.
    let bytes = b"\0content-length: 1\ntransfer-encoding: x\n\n";
    stream.write_all(bytes).await.expect("a reader");
    let mut back = vec![0; bytes.len()];
    within("the echo", stream.read_exact(&mut back)).await.expect("all of it");
    assert_eq!(back, bytes);
    proxy.settled(1).await;
    assert_eq!((proxy.dropped("upgrade"), v2.seen().len()), (1, 0));
}

#[tokio::test]
async fn an_offer_of_h2c_is_declined_and_the_request_copied() {
    let (v1, v2) = (Backend::named("v1").await, Backend::named("v2").await);
    let proxy = Proxy::start(&mirrored(v1.address, vec![v2.address]));
    let mut stream = TcpStream::connect(proxy.address()).await.expect("the proxy listens");
    let ask = b"GET / HTTP/1.1\r\nhost: web\r\nconnection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMA\r\n\r\n";
    stream.write_all(ask).await.expect("a reader");
    assert!(within("an answer", read_head(&mut stream)).await.starts_with("HTTP/1.1 200"));
    proxy.settled(1).await;
    assert_eq!(proxy.result("answered"), 1);
    for backend in [&v1, &v2] {
        let names: Vec<_> = backend.seen()[0].headers.keys().map(|name| name.to_string()).collect();
        assert_eq!(names, ["host"]);
    }
}

#[tokio::test]
async fn copies_in_flight_at_the_end_are_counted() {
    let v1 = Backend::named("v1").await;
    let v2 = rig::raw_backend(|_, mut stream| async move {
        read_head(&mut stream).await;
        std::future::pending::<()>().await;
    })
    .await;
    let proxy = Proxy::start(&mirrored(v1.address, vec![v2]));
    let mut client = TestClient::connect(proxy.address()).await;
    client.send(get("/")).await;
    let Proxy { workers, metrics, .. } = proxy;
    assert_eq!(workers.drain(Duration::from_secs(5)).await, 0, "an idle connection is not cut");
    let text = metrics.encode();
    let shutdown = text.lines().find(|line| line.contains("reason=\"shutdown\"")).expect("a series");
    assert!(shutdown.ends_with(" 1"), "{shutdown}");
}
