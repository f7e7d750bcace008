//! What users get: routing, streaming, reuse of connections, bad input, passthrough, draining.

mod rig;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::{Request, Response, StatusCode};
use http_body_util::Full;
use rig::{
    Backend, Proxy, Pushed, TestClient, client_pod, get, on_path, raw_backend, read_head, refusing, rule,
    subset, talk, to, undefined, until, within,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use umbra_proxy::listen::Mode;
use umbra_proxy::worker::Limits;
use umbra_routing::{Answer, Protocol, RequestMatch, Rule, StringMatch};

fn only(v1: SocketAddr) -> Pushed {
    one_of(vec![v1])
}

fn one_of(v1: Vec<SocketAddr>) -> Pushed {
    Pushed {
        rules: vec![rule(vec![to(subset("v1"), 0)], vec![])],
        sets: vec![(subset("v1"), v1)],
        ..Pushed::default()
    }
}

/// Every connection was headed to the service's address.
fn intercepted() -> Mode {
    headed_to("10.96.0.10:80")
}

fn headed_to(address: &str) -> Mode {
    let address = address.parse().expect("an address");
    Mode::Intercepted(Arc::new(move |_| Ok(address)))
}

async fn echo() -> SocketAddr {
    raw_backend(|_, mut stream| async move {
        let (mut read, mut write) = stream.split();
        let _ = tokio::io::copy(&mut read, &mut write).await;
    })
    .await
}

#[tokio::test]
async fn the_first_rule_that_matches_serves_and_none_is_404() {
    let (v1, v2) = (Backend::named("v1").await, Backend::named("v2").await);
    let pushed = Pushed {
        rules: vec![
            on_path("/a", rule(vec![to(subset("v1"), 0)], vec![])),
            on_path("/b", rule(vec![to(subset("v2"), 0)], vec![])),
            on_path("/none", rule(vec![to(subset("v4"), 0)], vec![])),
            on_path("/undefined", rule(vec![to(undefined("v3"), 0)], vec![])),
        ],
        sets: vec![
            (subset("v1"), vec![v1.address]),
            (subset("v2"), vec![v2.address]),
            (subset("v4"), vec![]),
        ],
        ..Pushed::default()
    };
    let proxy = Proxy::start(&pushed);
    let mut client = proxy.client().await;
    assert_eq!(client.get("/a/x?y").await.body(), "v1");
    assert_eq!(client.get("/b").await.body(), "v2");
    for (path, status, flags) in [("/c", 404, "NR"), ("/none", 503, "UH"), ("/undefined", 503, "NC")] {
        let answer = client.get(path).await;
        assert_eq!(answer.status(), status, "{path}: {:?}", answer.body());
        let labels = [&*format!("response_code=\"{status}\""), &*format!("response_flags=\"{flags}\"")];
        assert_eq!(proxy.count("istio_requests_total", &labels), 1, "{path}");
    }
    let unknown = Request::get("/").header("host", "nobody").body(Full::default()).expect("a request");
    assert_eq!(client.send(unknown).await.status(), 404);
    assert_eq!(v1.seen()[0].target, "/a/x?y");
}

#[tokio::test]
async fn where_the_list_ends_for_some_requests_there_is_no_route() {
    let v1 = Backend::named("v1").await;
    let end = Rule { answer: Some(Answer::NoRoute), ..on_path("/end", rule(vec![], vec![])) };
    let rules = vec![end, rule(vec![to(subset("v1"), 0)], vec![])];
    let proxy = Proxy::start(&Pushed { rules, ..only(v1.address) });
    let mut client = proxy.client().await;
    assert_eq!(client.get("/end").await.status(), 404);
    let no_route = ["response_code=\"404\"", "response_flags=\"NR\""];
    assert_eq!(proxy.count("istio_requests_total", &no_route), 1);
    assert_eq!(client.get("/a").await.body(), "v1");
}

#[tokio::test]
async fn heads_arrive_as_sent_less_what_ends_at_a_hop() {
    let v1 = Backend::answering(|_| {
        let answer = Response::builder().header("x-own", "1").header("keep-alive", "timeout=9");
        answer
            .header("connection", "x-hop, keep-alive")
            .header("x-hop", "1")
            .body(Full::from("ok"))
            .expect("an answer")
    })
    .await;
    let proxy = Proxy::start(&only(v1.address));
    let mut client = proxy.client().await;
    let request =
        Request::post("/p").header("host", "web").header("x-end", "1").header("connection", "x-hop");
    let answer = client.send(request.header("x-hop", "1").body(Full::from("b")).expect("a request")).await;
    let names = |headers: &http::HeaderMap| {
        let mut names: Vec<_> = headers.keys().map(|name| name.to_string()).collect();
        names.sort();
        names
    };
    assert_eq!(names(answer.headers()), ["content-length", "date", "x-own"], "the date is the backend's");
    assert_eq!(names(&v1.seen()[0].headers), ["content-length", "host", "x-end"]);
    assert_eq!(v1.seen()[0].headers["host"], "web");
    let absolute = "GET http://web.default:80/abs?q HTTP/1.1\r\nhost: other\r\nconnection: close\r\n\r\n";
    assert!(talk(proxy.address(), absolute).await.starts_with("HTTP/1.1 200"));
    assert_eq!(
        (v1.seen()[1].target.as_str(), &v1.seen()[1].headers["host"]),
        ("/abs?q", &"web.default:80".parse().expect("a value"))
    );
}

#[tokio::test]
async fn connections_are_kept_alive_on_both_sides() {
    let v1 = Backend::named("v1").await;
    let proxy = Proxy::start(&only(v1.address));
    let mut client = proxy.client().await;
    for _ in 0..50 {
        client.post("/", "x").await;
    }
    assert_eq!(proxy.workers.accepted(), 1);
    assert!(v1.seen().iter().all(|seen| seen.connection == 0));
    let head = Request::head("/").header("host", "web").body(Full::default()).expect("a request");
    let answer = client.send(head).await;
    assert_eq!((answer.headers()["content-length"].as_bytes(), answer.body().len()), (&b"2"[..], 0));
    assert_eq!(client.get("/").await.body(), "v1", "the connection survives HEAD");
}

#[tokio::test]
async fn bodies_stream_both_ways_before_either_is_whole() {
    let v1 = raw_backend(|_, mut stream| async move {
        read_head(&mut stream).await;
        let mut first = [0; 5];
        stream.read_exact(&mut first).await.expect("the first part");
        let answer = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nearly\r\n";
        stream.write_all(answer).await.expect("a reader");
        stream.read_exact(&mut first).await.expect("the last part");
        stream.write_all(b"4\r\nlate\r\n0\r\n\r\n").await.expect("a reader");
        stream.read_u8().await.expect_err("the proxy closes");
    })
    .await;
    let proxy = Proxy::start(&only(v1));
    let mut stream = TcpStream::connect(proxy.address()).await.expect("the proxy listens");
    stream
        .write_all(b"POST / HTTP/1.1\r\nhost: web\r\ncontent-length: 10\r\n\r\nfirst")
        .await
        .expect("a reader");
    let mut seen = Vec::new();
    let early = async {
        while !seen.ends_with(b"5\r\nearly\r\n") {
            seen.push(stream.read_u8().await.expect("more"));
        }
    };
    within("the answer begins before the request has ended", early).await;
    stream.write_all(b"later").await.expect("a reader");
    let late = async {
        while !seen.ends_with(b"4\r\nlate\r\n0\r\n\r\n") {
            seen.push(stream.read_u8().await.expect("more"));
        }
    };
    within("the rest", late).await;
}

#[tokio::test]
async fn a_client_that_waits_for_100_gets_it_and_trailers_come_back() {
    let v1 = raw_backend(|_, mut stream| async move {
        read_head(&mut stream).await;
        let mut body = [0; 4];
        stream.read_exact(&mut body).await.expect("the body");
        let answer = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n4\r\nbody\r\n0\r\nx-sum: 9\r\n\r\n";
        stream.write_all(answer).await.expect("a reader");
        stream.read_u8().await.expect_err("the proxy closes");
    })
    .await;
    let proxy = Proxy::start(&only(v1));
    let mut stream = TcpStream::connect(proxy.address()).await.expect("the proxy listens");
    let ask = b"POST / HTTP/1.1\r\nhost: web\r\nexpect: 100-continue\r\nte: trailers\r\nconnection: te\r\ncontent-length: 4\r\n\r\n";
    stream.write_all(ask).await.expect("a reader");
    assert!(within("go on", read_head(&mut stream)).await.starts_with("HTTP/1.1 100"));
    stream.write_all(b"body").await.expect("a reader");
    assert!(within("the head", read_head(&mut stream)).await.starts_with("HTTP/1.1 200"));
    let rest = async {
        let mut rest = Vec::new();
        while !rest.ends_with(b"x-sum: 9\r\n\r\n") {
            rest.push(stream.read_u8().await.expect("more"));
        }
    };
    within("trailers", rest).await;
}

#[tokio::test]
async fn an_endpoint_that_refuses_is_followed_by_another() {
    let v1 = Backend::named("v1").await;
    let proxy = Proxy::start(&one_of(vec![refusing(), v1.address, refusing()]));
    let mut client = proxy.client().await;
    for _ in 0..50 {
        assert_eq!(client.post("/", "x").await.body(), "v1");
    }
    proxy.push(&one_of(vec![refusing(), refusing()]));
    assert_eq!(client.get("/").await.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(proxy.count("istio_requests_total", &["response_flags=\"UF\""]) > 0);
}

#[tokio::test]
async fn an_endpoint_that_fails_quickly_attracts_nobody() {
    let good = Backend::named("v1").await;
    let failing = Backend::answering(|_| {
        let mut answer = Response::new(Full::from("failed"));
        *answer.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        answer
    })
    .await;
    let proxy = Proxy::start(&one_of(vec![failing.address, good.address]));
    let mut client = proxy.client().await;
    for _ in 0..50 {
        client.get("/").await;
    }
    let seen = failing.seen().len();
    assert!((1..10).contains(&seen), "{seen} of 50");
}

/// Answers one request, then closes when told; each connection does the same.
async fn closes_idle(closed: tokio::sync::mpsc::UnboundedSender<usize>) -> SocketAddr {
    raw_backend(move |number, mut stream| {
        let closed = closed.clone();
        async move {
            read_head(&mut stream).await;
            let mut body = [0; 1];
            stream.read_exact(&mut body).await.expect("the body");
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.expect("a reader");
            drop(stream);
            closed.send(number).expect("the test waits");
        }
    })
    .await
}

#[tokio::test]
async fn a_kept_connection_that_was_closed_fails_no_request() {
    let (closed, mut closes) = tokio::sync::mpsc::unbounded_channel();
    let proxy = Proxy::start(&only(closes_idle(closed).await));
    let mut client = proxy.client().await;
    for number in 0..200 {
        assert_eq!(client.post("/", "x").await.status(), StatusCode::OK, "request {number}");
        // The next request goes out right behind the close, before the proxy has had reason to look.
        assert_eq!(within("the close", closes.recv()).await, Some(number));
    }
}

/// Closes a connection that has been idle for `patience`, like many servers, and counts in `closed`.
async fn impatient(patience: Duration, closed: &'static AtomicUsize) -> SocketAddr {
    raw_backend(move |_, mut stream| async move {
        stream.set_nodelay(true).expect("a socket");
        // Looked at: an accepted socket is taken to be readable until a read has said otherwise.
        while tokio::time::timeout(patience, stream.peek(&mut [0])).await.is_ok() {
            if read_head(&mut stream).await.is_empty() {
                return;
            }
            stream.read_u8().await.expect("the body");
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.expect("a reader");
        }
        closed.fetch_add(1, Ordering::Relaxed);
    })
    .await
}

#[tokio::test]
async fn a_backend_that_closes_idle_connections_fails_no_post_at_gaps_around_its_patience() {
    static CLOSED: AtomicUsize = AtomicUsize::new(0);
    let proxy = Proxy::start(&only(impatient(Duration::from_millis(20), &CLOSED).await));
    let posts = (0..8).map(|seed| {
        let address = proxy.address();
        tokio::spawn(async move {
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut client = TestClient::connect(address).await;
            for number in 0..60 {
                assert_eq!(
                    client.post("/", "x").await.status(),
                    StatusCode::OK,
                    "client {seed}, request {number}"
                );
                // The gap is what is tested, not a way to wait for anything.
                tokio::time::sleep(Duration::from_micros(rng.u64(17_000..23_000))).await;
            }
        })
    });
    for post in posts.collect::<Vec<_>>() {
        post.await.expect("no failed request");
    }
    assert!(CLOSED.load(Ordering::Relaxed) > 0, "none of its connections was idle for so long");
}

#[tokio::test]
async fn a_repeatable_request_is_sent_again_when_a_kept_connection_dies_of_it() {
    let v1 = raw_backend(|number, mut stream| async move {
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.expect("a reader");
        if number == 0 {
            // Reads the second request, then dies without a word.
            read_head(&mut stream).await;
        } else {
            std::future::pending::<()>().await;
        }
    })
    .await;
    let proxy = Proxy::start(&only(v1));
    let mut client = proxy.client().await;
    assert_eq!(client.get("/1").await.status(), StatusCode::OK);
    assert_eq!(client.get("/2").await.status(), StatusCode::OK);
    assert_eq!(proxy.count("umbra_upstream_replaced_total", &[]), 1);
}

#[tokio::test]
async fn a_request_that_may_have_been_processed_is_not_repeated() {
    let v1 = raw_backend(|_, mut stream| async move {
        read_head(&mut stream).await;
        let mut body = [0; 1];
        stream.read_exact(&mut body).await.expect("the body");
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.expect("a reader");
        read_head(&mut stream).await;
        stream.read_exact(&mut body).await.expect("the body");
    })
    .await;
    let proxy = Proxy::start(&only(v1));
    let mut client = proxy.client().await;
    assert_eq!(client.post("/", "x").await.status(), StatusCode::OK);
    assert_eq!(client.post("/", "x").await.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(proxy.count("istio_requests_total", &["response_flags=\"UC\"", "reporter=\"source\""]), 1);
}

#[tokio::test]
async fn bad_heads_get_their_status_and_nothing_is_forwarded() {
    let v1 = Backend::named("v1").await;
    let limits = Limits { header_timeout: Duration::from_millis(50), ..Limits::default() };
    let proxy = Proxy::with(&only(v1.address), limits, intercepted());
    let many: String = (0..200).map(|n| format!("x-{n}: 1\r\n")).collect();
    let cases = [
        ("nonsense", "\0\r\n\r\n".to_owned(), "400"),
        ("a bad header", "GET / HTTP/1.1\r\nhost: web\r\nbad header: 1\r\n\r\n".to_owned(), "400"),
        ("both framings", "POST / HTTP/1.1\r\nhost: web\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(), "400"),
        ("both, the other way", "POST / HTTP/1.1\r\nhost: web\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n".to_owned(), "400"),
        ("two lengths", "POST / HTTP/1.1\r\nhost: web\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd".to_owned(), "400"),
        ("no host", "GET / HTTP/1.1\r\nx: 1\r\n\r\n".to_owned(), "400"),
        ("two hosts", "GET / HTTP/1.1\r\nhost: web\r\nhost: web\r\n\r\n".to_owned(), "400"),
        ("a big header", format!("GET / HTTP/1.1\r\nhost: web\r\nx: {}\r\n\r\n", "y".repeat(100_000)), "431"),
        ("many headers", format!("GET / HTTP/1.1\r\nhost: web\r\n{many}\r\n"), "431"),
        ("a stalled head", "GET / HTTP/1.1\r\nhost: w".to_owned(), "408"),
    ];
    for (what, text, status) in cases {
        let answer = talk(proxy.address(), &text).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{what}: {answer:?}");
    }
    assert!(v1.seen().is_empty(), "{:?}", v1.seen());
    let mut client = proxy.client().await;
    assert_eq!(client.get("/").await.body(), "v1", "the process is unharmed");
    let old = talk(proxy.address(), "GET /old HTTP/1.0\r\n\r\n").await;
    assert!(old.contains(" 200 OK"), "{old}");
    assert_eq!(
        v1.seen()[1].headers["host"],
        "web.default.svc.cluster.local",
        "named for a server of HTTP/1.1"
    );
    let smuggled = "POST / HTTP/1.1\r\nhost: web\r\ncontent-length: 2\r\n\r\nhi\
        POST / HTTP/1.1\r\nhost: web\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n";
    let answers = talk(proxy.address(), smuggled).await;
    assert!(
        answers.contains(" 200 OK") && answers.contains(" 400 "),
        "the second request is seen too: {answers}"
    );
    assert_eq!(v1.seen().len(), 3);
}

#[tokio::test]
async fn an_idle_client_is_left_alone() {
    let v1 = Backend::named("v1").await;
    let limits = Limits { header_timeout: Duration::from_millis(5), ..Limits::default() };
    let proxy = Proxy::with(&only(v1.address), limits, intercepted());
    let mut client = proxy.client().await;
    client.get("/").await;
    // Many checks for a stalled head pass meanwhile; the worker's ticks say so.
    let ticks = proxy.workers.ticks();
    until("the worker has ticked", || proxy.workers.ticks()[0] > ticks[0]).await;
    assert_eq!(client.get("/").await.body(), "v1");
    assert_eq!(proxy.workers.accepted(), 1);
}

#[tokio::test]
async fn what_is_not_http_passes_through_untouched() {
    let proxy = Proxy::with(&only(echo().await), Limits::default(), intercepted());
    for bytes in [&b"\x16\x03\x01\x02\x00tls"[..], b"\x16"] {
        let mut stream = TcpStream::connect(proxy.address()).await.expect("the proxy listens");
        stream.write_all(bytes).await.expect("a reader");
        stream.shutdown().await.expect("a socket");
        let mut back = Vec::new();
        within("the echo", stream.read_to_end(&mut back)).await.expect("all of it");
        assert_eq!(back, bytes);
    }
    assert_eq!(proxy.count("umbra_passthrough_connections_total", &[]), 2);
    until("bytes are counted", || {
        proxy.count("umbra_passthrough_bytes_total", &["direction=\"received\""]) == 9
    })
    .await;
}

#[tokio::test]
async fn bytes_go_where_a_catch_all_of_any_form_says_and_are_refused_without_one() {
    let any = [
        StringMatch::Prefix("/".into()),
        StringMatch::Prefix(String::new()),
        StringMatch::Regex(".*".into()),
    ];
    let pushed = |uri: StringMatch, v1: SocketAddr| {
        let matches = vec![RequestMatch { uri: Some(uri), ..Default::default() }];
        let mut pushed = only(v1);
        pushed.rules[0].matches = matches;
        pushed
    };
    let v1 = echo().await;
    for uri in any {
        let what = format!("{uri:?}");
        let proxy = Proxy::with(&pushed(uri, v1), Limits::default(), intercepted());
        let mut stream = TcpStream::connect(proxy.address()).await.expect("the proxy listens");
        stream.write_all(b"\x16\x03\x01\x02\x00tls").await.expect("a reader");
        stream.shutdown().await.expect("a socket");
        let mut back = Vec::new();
        within("the echo", stream.read_to_end(&mut back)).await.expect("all of it");
        assert_eq!(back, b"\x16\x03\x01\x02\x00tls", "{what}");
    }
    let api = StringMatch::Prefix("/api".into());
    let proxy = Proxy::with(&pushed(api, v1), Limits::default(), intercepted());
    assert_eq!(talk(proxy.address(), "\x16\x03\x01").await, "");
    assert_eq!(proxy.count("umbra_refused_connections_total", &["no_upstream"]), 1);
}

#[tokio::test]
async fn on_an_unnamed_port_a_silent_client_is_passed_through_and_http_is_not() {
    let pushed = |v1| Pushed { protocol: Some(Protocol::Unknown), ..only(v1) };
    let greets = raw_backend(|_, mut stream| async move {
        stream.write_all(b"220 hello\r\n").await.expect("a reader");
        stream.read_u8().await.expect_err("the client closes");
    })
    .await;
    let limits = Limits { sniff_timeout: Duration::from_millis(10), ..Limits::default() };
    let proxy = Proxy::with(&pushed(greets), limits, intercepted());
    let mut stream = TcpStream::connect(proxy.address()).await.expect("the proxy listens");
    let mut greeting = [0; 11];
    within("the server speaks first", stream.read_exact(&mut greeting)).await.expect("all of it");
    assert_eq!(&greeting, b"220 hello\r\n");
    assert_eq!(proxy.count("umbra_passthrough_connections_total", &[]), 1);

    // With all the time: this test may be late by itself.
    let limits = Limits { sniff_timeout: Duration::from_secs(3600), ..Limits::default() };
    let v1 = Backend::named("v1").await;
    let proxy = Proxy::with(&pushed(v1.address), limits, intercepted());
    assert_eq!(proxy.client().await.get("/").await.body(), "v1");
    assert_eq!(proxy.count("umbra_passthrough_connections_total", &[]), 0);
}

#[tokio::test]
async fn connections_that_are_not_governed_or_not_intercepted_are_refused() {
    let v1 = Backend::named("v1").await;
    let stranger = Proxy::with(&only(v1.address), Limits::default(), headed_to("10.96.0.11:80"));
    assert_eq!(talk(stranger.address(), "").await, "");
    assert_eq!(stranger.count("umbra_refused_connections_total", &["not_governed"]), 1);
    let straight = Mode::Intercepted(Arc::new(|stream: &TcpStream| stream.local_addr()));
    let straight = Proxy::with(&only(v1.address), Limits::default(), straight);
    assert_eq!(talk(straight.address(), "").await, "");
    assert_eq!(straight.count("umbra_refused_connections_total", &["not_intercepted"]), 1);
    let untracked = Proxy::with(&only(v1.address), Limits::default(), Mode::intercepted());
    assert_eq!(talk(untracked.address(), "").await, "");
    assert_eq!(untracked.count("umbra_refused_connections_total", &["not_intercepted"]), 1);
    assert!(v1.seen().is_empty());
}

#[tokio::test]
async fn ipv6_destinations_are_governed_too() {
    let v1 = Backend::named("v1").await;
    let proxy = Proxy::with(&only(v1.address), Limits::default(), headed_to("[fd00::10]:80"));
    assert_eq!(proxy.client().await.get("/").await.body(), "v1");
}

#[tokio::test]
async fn the_clients_namespace_selects_the_variant_and_is_waited_for() {
    let (v1, v2) = (Backend::named("v1").await, Backend::named("v2").await);
    let pushed = || Pushed {
        rules: vec![rule(vec![to(subset("v1"), 0)], vec![])],
        variants: vec![("beta".into(), vec![rule(vec![to(subset("v2"), 0)], vec![])])],
        sets: vec![(subset("v1"), vec![v1.address]), (subset("v2"), vec![v2.address])],
        ..Pushed::default()
    };
    let patient = Limits { client_wait: Duration::from_secs(20), ..Limits::default() };
    let proxy = Proxy::with(&pushed(), patient, intercepted());
    let mut client = proxy.client().await;
    let answer = async { client.get("/").await };
    let come = async {
        until("the connection is there", || proxy.workers.accepted() == 1).await;
        let me = ([127, 0, 0, 1].into(), client_pod("beta"));
        proxy.push(&Pushed { clients: vec![me], ..pushed() });
    };
    let (answer, ()) = tokio::join!(answer, come);
    assert_eq!(answer.body(), "v2");
    let labels =
        ["source_workload=\"caller\"", "source_workload_namespace=\"beta\"", "destination_version=\"v2\""];
    assert_eq!(proxy.count("istio_requests_total", &labels), 2, "both reporters");
    let hasty = Limits { client_wait: Duration::from_millis(1), ..Limits::default() };
    let proxy = Proxy::with(&pushed(), hasty, intercepted());
    assert_eq!(proxy.client().await.get("/").await.body(), "v1", "an unknown source gets the default");
    assert_eq!(proxy.count("umbra_unknown_sources_total", &[]), 1);
}

#[tokio::test]
async fn a_push_changes_an_open_connections_next_request() {
    let (v1, v2) = (Backend::named("v1").await, Backend::named("v2").await);
    let proxy = Proxy::start(&only(v1.address));
    let mut client = proxy.client().await;
    assert_eq!(client.get("/").await.body(), "v1");
    proxy.push(&only(v2.address));
    assert_eq!(client.get("/").await.body(), "v2");
    proxy.push(&one_of(vec![]));
    assert_eq!(client.get("/").await.status(), StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn draining_finishes_what_is_in_flight_and_cuts_the_rest() {
    let (release, gate) = tokio::sync::watch::channel(false);
    let (arrives, mut arrived) = tokio::sync::mpsc::unbounded_channel();
    let v1 = raw_backend(move |_, mut stream| {
        let (mut gate, arrives) = (gate.clone(), arrives.clone());
        async move {
            let head = read_head(&mut stream).await;
            arrives.send(()).expect("the test waits");
            if head.contains("/finish") {
                gate.wait_for(|open| *open).await.expect("the test goes on");
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.expect("a reader");
            }
            std::future::pending::<()>().await;
        }
    })
    .await;
    let proxy = Proxy::start(&only(v1));
    let mut finishing = TestClient::connect(proxy.address()).await;
    let finish = tokio::spawn(async move {
        let answer = finishing.get("/finish").await;
        (answer.status(), answer.headers().get("connection").cloned())
    });
    let mut hanging = TestClient::connect(proxy.address()).await;
    let hang = tokio::spawn(async move { hanging.sender.send_request(get("/hang")).await.is_err() });
    let mut idle = TcpStream::connect(proxy.address()).await.expect("the proxy listens");
    // Both requests have to be at the backend before it is fair to stop.
    for _ in 0..2 {
        within("both requests arrive", arrived.recv()).await;
    }
    until("all are accepted", || proxy.workers.accepted() == 3).await;
    let Proxy { workers, .. } = proxy;
    let address = workers.local_addr();
    workers.stop_accepting();
    let refused = async {
        while TcpStream::connect(address).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    within("the listener closes", refused).await;
    let drained = tokio::spawn(workers.drain(Duration::from_secs(6)));
    assert_eq!(within("an idle connection is closed", idle.read(&mut [0])).await.ok(), Some(0));
    release.send(true).expect("the backend waits");
    let (status, connection) = finish.await.expect("no panic");
    assert_eq!((status, connection), (StatusCode::OK, Some("close".parse().expect("a value"))));
    assert_eq!(within("the drain ends", drained).await.expect("no panic"), 1, "one was cut");
    assert!(hang.await.expect("no panic"));
}

/// A dual-stack service has each pod in both families; a node that lacks one of them fails no request for it.
#[tokio::test]
async fn the_family_that_the_client_asked_for_answers() {
    let (v1, v2) = (Backend::named("v1").await, Backend::named("v2").await);
    // Documentation addresses (RFC 3849): nobody is there, and a node without IPv6 has no way to them.
    let six = |port: u16| std::net::SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1], port));
    let pushed = Pushed {
        rules: vec![rule(vec![to(subset("v1"), 0)], vec![subset("v2")])],
        sets: vec![
            (subset("v1"), vec![v1.address, six(1), six(2), six(3)]),
            (subset("v2"), vec![v2.address, six(1), six(2), six(3)]),
        ],
        ..Pushed::default()
    };
    let to_v4 = Mode::Intercepted(Arc::new(|_| Ok("10.96.0.10:80".parse().expect("an address"))));
    let proxy = Proxy::with(&pushed, Limits::default(), to_v4);
    for _ in 0..20 {
        let answer = proxy.client().await.get("/").await;
        assert_eq!((answer.status(), answer.body().as_ref()), (StatusCode::OK, &b"v1"[..]));
    }
    proxy.settled(20).await;
    assert_eq!((v1.seen().len(), v2.seen().len()), (20, 20));
}
