//! One copy for each request, whole, whatever way the user's exchange or the mirror's takes.

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use umbra_routing::{Retries, RetryOn};

use crate::rig::{Backend, Proxy, raw_backend, read_head, until, within};
use crate::{gated, mirrored, silent};

async fn connected(proxy: &Proxy, ask: &str) -> TcpStream {
    let mut stream = TcpStream::connect(proxy.address()).await.expect("the proxy listens");
    stream.write_all(ask.as_bytes()).await.expect("a reader");
    stream
}

#[tokio::test]
async fn a_body_that_waited_for_100_is_copied_whole() {
    let (v1, v2) = (Backend::named("v1").await, Backend::named("v2").await);
    let proxy = Proxy::start(&mirrored(v1.address, v2.address));
    let ask = "POST / HTTP/1.1\r\nhost: web\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n";
    let mut stream = connected(&proxy, ask).await;
    assert!(within("go on", read_head(&mut stream)).await.starts_with("HTTP/1.1 100"));
    stream.write_all(b"body").await.expect("a reader");
    assert!(within("the head", read_head(&mut stream)).await.starts_with("HTTP/1.1 200"));
    proxy.settled(1).await;
    assert_eq!((proxy.result("answered"), v2.seen()[0].body.clone()), (1, Bytes::from("body")));
    let bytes = |role| {
        let of = [format!("request_role=\"{role}\""), "reporter=\"destination\"".into()];
        proxy.count("istio_request_bytes_sum", &of.each_ref().map(String::as_str))
    };
    until("the user's exchange is counted", || bytes("primary") > 0).await;
    assert_eq!(bytes("shadow"), bytes("primary"), "head and body");
}

/// Answers each head at once, and reads nothing of a body.
async fn hasty(answer: &'static [u8]) -> std::net::SocketAddr {
    raw_backend(move |_, mut stream| async move {
        read_head(&mut stream).await;
        stream.write_all(answer).await.expect("a reader");
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await
}

#[tokio::test]
async fn a_body_that_an_early_answer_made_needless_is_no_copy() {
    let v1 = hasty(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno").await;
    let v2 = Backend::named("v2").await;
    let proxy = Proxy::start(&mirrored(v1, v2.address));
    let ask = "POST / HTTP/1.1\r\nhost: web\r\ncontent-length: 10\r\n\r\nhalf";
    let mut stream = connected(&proxy, ask).await;
    assert!(within("the answer", read_head(&mut stream)).await.starts_with("HTTP/1.1 403"));
    drop(stream);
    proxy.settled(1).await;
    assert_eq!((proxy.dropped("incomplete"), v2.seen().len()), (1, 0));
}

#[tokio::test]
async fn a_mirror_that_answers_early_is_judged_by_that_and_the_user_by_the_primary() {
    let v1 = Backend::answering(|seen| Response::new(Full::from(seen.body.clone()))).await;
    let v2 = hasty(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno").await;
    let proxy = Proxy::start(&mirrored(v1.address, v2));
    let ask = "POST / HTTP/1.1\r\nhost: web\r\ncontent-length: 8\r\n\r\nhalf";
    let mut stream = connected(&proxy, ask).await;
    until("the copy is judged", || proxy.result("answered") == 1).await;
    stream.write_all(b"rest").await.expect("a reader");
    assert!(within("the head", read_head(&mut stream)).await.starts_with("HTTP/1.1 200"));
    let mut body = [0; 8];
    within("the body", stream.read_exact(&mut body)).await.expect("all of it");
    assert_eq!(&body, b"halfrest");
    proxy.settled(1).await;
    let forbidden = ["request_role=\"shadow\"", "response_code=\"403\""];
    assert_eq!(proxy.count("istio_requests_total", &forbidden), 1);
}

#[tokio::test]
async fn copies_of_head_are_head_and_their_connection_lives_on() {
    let long = |_: &_| Response::new(Full::from("a body that HEAD only tells the length of"));
    let (v1, v2) = (Backend::answering(long).await, Backend::answering(long).await);
    let proxy = Proxy::start(&mirrored(v1.address, v2.address));
    let mut client = proxy.client().await;
    for (number, method) in [(1, Method::HEAD), (2, Method::HEAD), (3, Method::GET)] {
        let request = Request::builder().method(&method).uri("/").header("host", "web");
        let answer = client.send(request.body(Full::default()).expect("a request")).await;
        assert_eq!(answer.headers()["content-length"], "41");
        assert_eq!(answer.body().is_empty(), method == Method::HEAD);
        proxy.settled(number).await;
    }
    assert_eq!(proxy.result("answered"), 3);
    let seen: Vec<_> = v2.seen().into_iter().map(|seen| (seen.method, seen.connection)).collect();
    assert_eq!(seen, [(Method::HEAD, 0), (Method::HEAD, 0), (Method::GET, 0)]);
}

#[tokio::test]
async fn a_client_that_closes_its_half_has_its_request_copied() {
    let (release, gate) = watch::channel(false);
    let ((v1, mut at_v1), (v2, mut at_v2)) = (gated("v1", &gate).await, gated("v2", &gate).await);
    let proxy = Proxy::start(&mirrored(v1, v2));
    let mut stream = connected(&proxy, "GET / HTTP/1.1\r\nhost: web\r\n\r\n").await;
    for asked in [&mut at_v1, &mut at_v2] {
        within("both are asked", asked.recv()).await.expect("they are");
    }
    stream.shutdown().await.expect("its own half");
    // Whether it still wants its answer nobody knows; its copy goes on.
    release.send(true).expect("the backends wait");
    within("the end", stream.read_to_end(&mut Vec::new())).await.expect("no reset");
    proxy.settled(1).await;
    assert_eq!(proxy.result("answered"), 1);
}

#[tokio::test]
async fn a_mirror_that_closes_its_half_at_once_fails_its_copies_alone() {
    let v1 = Backend::named("v1").await;
    let v2 = raw_backend(|_, mut stream| async move {
        stream.shutdown().await.expect("its own half");
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let proxy = Proxy::start(&mirrored(v1.address, v2));
    let mut client = proxy.client().await;
    for number in 1..=10 {
        assert_eq!(client.post("/", "body").await.body(), "v1");
        proxy.settled(number).await;
    }
    assert_eq!((proxy.result("failed"), proxy.dropped("breaker")), (10, 0), "it took every connection");
}

#[tokio::test]
async fn a_mirror_whose_answers_are_errors_keeps_its_breaker_closed() {
    let v1 = Backend::named("v1").await;
    let v2 = hasty(b"HTTP/1.1 500 Oops\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await;
    let proxy = Proxy::start(&mirrored(v1.address, v2));
    let mut client = proxy.client().await;
    for number in 1..=20 {
        client.get("/").await;
        proxy.settled(number).await;
    }
    assert_eq!((proxy.result("answered"), proxy.dropped("breaker")), (20, 0));
}

#[tokio::test]
async fn a_request_that_is_sent_again_is_copied_once() {
    let asked = std::sync::atomic::AtomicUsize::new(0);
    let v1 = Backend::answering(move |_| {
        let before = asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let mut answer = Response::new(Full::from("v1"));
        if before < 2 {
            *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        }
        answer
    })
    .await;
    let v2 = Backend::named("v2").await;
    let mut pushed = mirrored(v1.address, v2.address);
    let on = vec![RetryOn::FiveXx];
    pushed.rules[0].retries = Some(Retries { attempts: 2, on, backoff_ms: Some(1), ..Retries::default() });
    let proxy = Proxy::start(&pushed);
    assert_eq!(proxy.client().await.post("/", "once").await.status(), StatusCode::OK);
    proxy.settled(1).await;
    let bodies = |backend: &Backend| backend.seen().into_iter().map(|seen| seen.body).collect::<Vec<_>>();
    assert_eq!((bodies(&v1), bodies(&v2)), (vec![Bytes::from("once"); 3], vec![Bytes::from("once")]));
}

#[tokio::test]
async fn a_client_that_leaves_after_its_body_and_before_its_answer_has_it_copied_whole() {
    let ((v1, mut asked), v2) = (silent().await, Backend::named("v2").await);
    let proxy = Proxy::start(&mirrored(v1, v2.address));
    let stream = connected(&proxy, "POST / HTTP/1.1\r\nhost: web\r\ncontent-length: 4\r\n\r\nbody").await;
    within("the primary is asked", asked.recv()).await.expect("it is");
    until("the copy is answered", || proxy.result("answered") == 1).await;
    drop(stream);
    proxy.settled(1).await;
    assert_eq!(v2.seen()[0].body, "body");
}
