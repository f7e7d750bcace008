//! Requests and answers of one version of HTTP in the other.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Version};
use http_body_util::Full;
use umbra_proxy::listen::Mode;
use umbra_proxy::worker::Limits;
use umbra_routing::{HeaderMatch, Protocol, RequestMatch, SpokenTo, StringMatch};

use crate::rig::{Backend, Http2Client, Proxy, Pushed, Seen, TestClient, full, talk, with_trailers};
use crate::{only, speaking, value};

const HTTP1: Version = Version::HTTP_11;
const HTTP2: Version = Version::HTTP_2;

fn intercepted() -> Mode {
    let address = "10.96.0.10:80".parse().expect("an address");
    Mode::Intercepted(Arc::new(move |_| Ok(address)))
}

/// Sends a POST in this version; gives status and body of the answer.
async fn post(client: Version, proxy: &Proxy) -> (StatusCode, bytes::Bytes) {
    let request = |uri: &str| Request::post(uri).header("x-end", "1");
    if client == HTTP2 {
        let mut client = Http2Client::connect(proxy.address()).await;
        let request = request("http://web/a?b=c").body(full("body")).expect("a request");
        let answer = client.send(request).await;
        (answer.status, answer.body)
    } else {
        let mut client = TestClient::connect(proxy.address()).await;
        let request = request("/a?b=c").header("host", "web").body(Full::from("body")).expect("a request");
        let answer = client.send(request).await;
        (answer.status(), answer.into_body())
    }
}

#[tokio::test]
async fn endpoints_are_spoken_to_as_their_port_says_and_else_as_the_client_speaks() {
    for (client, spoken_to, expected) in [
        (HTTP1, SpokenTo::Http1, HTTP1),
        (HTTP1, SpokenTo::Http2, HTTP2),
        (HTTP1, SpokenTo::AsClient, HTTP1),
        (HTTP2, SpokenTo::Http1, HTTP1),
        (HTTP2, SpokenTo::Http2, HTTP2),
        (HTTP2, SpokenTo::AsClient, HTTP2),
    ] {
        let what = format!("{client:?}, {spoken_to:?}");
        let v1 = speaking(expected).await;
        let proxy = Proxy::start(&only(v1.address, spoken_to));
        assert_eq!(post(client, &proxy).await, (StatusCode::OK, "ok".into()), "{what}");
        let Seen { version, target, mut headers, body, .. } = v1.seen().remove(0);
        let as_sent = if expected == HTTP2 { "http://web/a?b=c" } else { "/a?b=c" };
        assert_eq!((version, target.as_str(), body.as_ref()), (expected, as_sent, &b"body"[..]), "{what}");
        assert_eq!(headers.remove("host").is_some(), expected == HTTP1, "{what}");
        let others = HeaderMap::from_iter([
            (http::HeaderName::from_static("x-end"), HeaderValue::from_static("1")),
            (http::header::CONTENT_LENGTH, HeaderValue::from_static("4")),
        ]);
        assert_eq!(headers, others, "{what}");
    }
}

#[tokio::test]
async fn a_push_changes_what_the_next_request_is_spoken_in() {
    let (one, two) = (speaking(HTTP1).await, speaking(HTTP2).await);
    let proxy = Proxy::start(&only(one.address, SpokenTo::Http1));
    let mut client = Http2Client::connect(proxy.address()).await;
    assert_eq!(client.get("/").await.status, 200);
    proxy.push(&only(two.address, SpokenTo::Http2));
    assert_eq!(client.get("/").await.status, 200);
    assert_eq!((one.seen().len(), two.seen().len()), (1, 1));
}

#[tokio::test]
async fn the_preface_is_http_2_on_named_and_unnamed_ports() {
    for protocol in [Protocol::Http, Protocol::Unknown] {
        let v1 = speaking(HTTP2).await;
        let pushed = Pushed { protocol: Some(protocol), ..only(v1.address, SpokenTo::AsClient) };
        let proxy = Proxy::with(&pushed, Limits::default(), intercepted());
        let mut client = Http2Client::connect(proxy.address()).await;
        assert_eq!(client.get("/").await.body, "ok", "{protocol:?}");
        assert_eq!(proxy.count("umbra_passthrough_connections_total", &[]), 0, "{protocol:?}");
        assert_eq!(v1.seen()[0].version, HTTP2, "{protocol:?}");
    }
}

#[tokio::test]
async fn trailers_cross_to_and_from_http_1_where_both_ends_ask_for_them() {
    let summing = |version| {
        Backend::speaking(version, |_| {
            let answer = Response::builder().header("trailer", "x-sum");
            answer.body(with_trailers("answer", &[("x-sum", "2")])).expect("an answer")
        })
    };
    let asked = |v1: &Backend| {
        let seen = v1.seen().remove(0);
        assert_eq!((seen.body.as_ref(), seen.headers.contains_key("trailer")), (&b"ask"[..], true));
        assert_eq!(value(seen.trailers.as_ref().expect("trailers"), "x-sum"), Some("1"));
        seen
    };
    let v1 = summing(HTTP1).await;
    let proxy = Proxy::start(&only(v1.address, SpokenTo::Http1));
    let mut client = Http2Client::connect(proxy.address()).await;
    let request = Request::post("http://web/").header("te", "trailers").header("trailer", "x-sum");
    let answer = client.send(request.body(with_trailers("ask", &[("x-sum", "1")])).expect("a request")).await;
    assert_eq!(value(&answer.trailers.expect("trailers"), "x-sum"), Some("2"));
    asked(&v1);

    let v1 = summing(HTTP2).await;
    let proxy = Proxy::start(&only(v1.address, SpokenTo::Http2));
    let request = "POST / HTTP/1.1\r\nhost: web\r\nte: trailers\r\nconnection: te, close\r\ntrailer: x-sum\r\n\
                   transfer-encoding: chunked\r\n\r\n3\r\nask\r\n0\r\nx-sum: 1\r\n\r\n";
    let answer = talk(proxy.address(), request).await;
    assert!(answer.contains("6\r\nanswer\r\n0\r\nx-sum: 2\r\n"), "{answer}");
    assert_eq!(value(&asked(&v1).headers, "transfer-encoding"), None);
}

/// Answers the status that `x-status` says, and a body where there may be one.
async fn with_status(version: Version) -> Backend {
    Backend::speaking(version, |seen| {
        let status = value(&seen.headers, "x-status").unwrap_or("200");
        let body = if status == "200" && seen.method != "HEAD" { "four" } else { "" };
        Response::builder().status(status).body(full(body)).expect("an answer")
    })
    .await
}

#[tokio::test]
async fn answers_without_a_body_cross_as_they_are() {
    for (spoken_to, backend) in [(SpokenTo::Http1, HTTP1), (SpokenTo::Http2, HTTP2)] {
        let v1 = with_status(backend).await;
        let proxy = Proxy::start(&only(v1.address, spoken_to));
        let mut two = Http2Client::connect(proxy.address()).await;
        let mut one = TestClient::connect(proxy.address()).await;
        for (method, status) in [("HEAD", "200"), ("GET", "204"), ("GET", "304")] {
            let what = format!("{method} {status} from {backend:?}");
            let request = |uri| {
                Request::builder().method(method).uri(uri).header("host", "web").header("x-status", status)
            };
            let answer = two.send(request("http://web/").body(full("")).expect("a request")).await;
            assert_eq!((answer.status.as_str(), answer.body.len()), (status, 0), "{what}");
            let answer = one.send(request("/").body(Full::default()).expect("a request")).await;
            assert_eq!((answer.status().as_str(), answer.body().len()), (status, 0), "{what}");
            assert_eq!(answer.headers().get("transfer-encoding"), None, "{what}");
            assert_eq!(one.get("/").await.body(), "four", "{what}: the connection lives on");
        }
        assert_eq!(two.get("/").await.body, "four");
        assert_eq!(proxy.workers.accepted(), 2);
    }
}

#[tokio::test]
async fn a_get_with_a_body_of_no_known_length_is_whole_in_http_1() {
    let v1 = speaking(HTTP1).await;
    let proxy = Proxy::start(&only(v1.address, SpokenTo::Http1));
    let mut client = Http2Client::connect(proxy.address()).await;
    let request = Request::get("http://web/").body(with_trailers("some", &[])).expect("a request");
    assert_eq!(client.send(request).await.status, 200);
    assert_eq!(v1.seen()[0].body, "some");
    assert_eq!(value(&v1.seen()[0].headers, "transfer-encoding"), Some("chunked"));
}

#[tokio::test]
async fn cookie_crumbs_are_one_header_before_rules_see_them() {
    for (spoken_to, backend) in [(SpokenTo::Http1, HTTP1), (SpokenTo::Http2, HTTP2)] {
        let v1 = speaking(backend).await;
        let mut pushed = only(v1.address, spoken_to);
        let cookie = HeaderMatch { name: "cookie".into(), value: StringMatch::Exact("a=1; b=2".into()) };
        pushed.rules[0].matches = vec![RequestMatch { headers: vec![cookie], ..RequestMatch::default() }];
        let proxy = Proxy::start(&pushed);
        let mut client = Http2Client::connect(proxy.address()).await;
        let request = Request::get("http://web/").header("cookie", "a=1").header("cookie", "b=2");
        assert_eq!(client.send(request.body(full("")).expect("a request")).await.status, 200);
        let cookies: Vec<_> = v1.seen()[0].headers.get_all("cookie").iter().cloned().collect();
        assert_eq!(cookies, ["a=1; b=2"]);
    }
}

#[tokio::test]
async fn an_offer_to_upgrade_is_declined_for_an_endpoint_of_http_2() {
    let v1 = speaking(HTTP2).await;
    let proxy = Proxy::start(&only(v1.address, SpokenTo::Http2));
    let request = "GET / HTTP/1.1\r\nhost: web\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n\
                   GET /next HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n";
    let answers = talk(proxy.address(), request).await;
    assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 2, "{answers}");
    assert!(!v1.seen()[0].headers.contains_key("upgrade"));
}

#[tokio::test]
async fn what_makes_no_sense_is_answered_in_words_and_not_forwarded() {
    let v1 = speaking(HTTP1).await;
    let proxy = Proxy::start(&only(v1.address, SpokenTo::Http1));
    let mut client = Http2Client::connect(proxy.address()).await;
    let mut many = Request::get("http://web/");
    for number in 0..=100 {
        many = many.header(format!("x-{number}"), "1");
    }
    let refused = [
        (Request::get("http://web/").header("host", "other"), 400, "host"),
        (Request::get("http://user@web/"), 400, "host"),
        (Request::get("http://web/%zz"), 400, "path"),
        (many, 431, "too_large"),
    ];
    for (request, status, reason) in refused {
        let answer = client.send(request.body(full("")).expect("a request")).await;
        assert_eq!(answer.status.as_u16(), status, "{reason}");
        assert!(proxy.count("umbra_bad_requests_total", &[reason]) > 0, "{reason}");
        assert!(!answer.body.is_empty(), "{reason}");
    }
    let connect = Request::connect("web:80").body(full("")).expect("a request");
    assert_eq!(client.send(connect).await.status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(client.get("/").await.status, 200, "the connection lives on");
    assert_eq!(v1.seen().len(), 1);
}
