//! gRPC: statuses, local answers, and what metrics say of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::{HeaderValue, Request, Response, StatusCode, Version};
use umbra_routing::{Answer, DirectResponse, Retries, RetryOn, Rule, SpokenTo};

use crate::rig::{
    Backend, Http2Client, Proxy, full, grpc, http2_get, on_path, refusing, rule, subset, to, undefined,
    until, with_trailers,
};
use crate::{only, value};

#[tokio::test]
async fn trailers_go_both_ways() {
    let v1 = Backend::speaking(Version::HTTP_2, |_| {
        Response::new(with_trailers("answer", &[("grpc-status", "0"), ("x-sum", "2")]))
    })
    .await;
    let proxy = Proxy::start(&only(v1.address, SpokenTo::Http2));
    let mut client = Http2Client::connect(proxy.address()).await;
    let answer = client.send(grpc("/pay.Orders/Get", with_trailers("ask", &[("x-sum", "1")]))).await;
    assert_eq!((answer.status, answer.body.as_ref()), (StatusCode::OK, &b"answer"[..]));
    let trailers = answer.trailers.expect("trailers");
    assert_eq!((value(&trailers, "grpc-status"), value(&trailers, "x-sum")), (Some("0"), Some("2")));
    let seen = &v1.seen()[0];
    assert_eq!(value(seen.trailers.as_ref().expect("trailers"), "x-sum"), Some("1"));
    assert_eq!((value(&seen.headers, "te"), seen.body.as_ref()), (Some("trailers"), &b"ask"[..]));
}

#[tokio::test]
async fn local_answers_are_grpcs_own_for_grpc_only() {
    let mut pushed = only(refusing(), SpokenTo::Http2);
    let direct = Answer::Direct(DirectResponse { status: 404, body: b"no % way".to_vec() });
    pushed.rules = vec![
        on_path("/direct", Rule { answer: Some(direct), ..Rule::default() }),
        on_path("/refusing", rule(vec![to(subset("v1"), 0)], vec![])),
        on_path("/undefined", rule(vec![to(undefined("v3"), 0)], vec![])),
    ];
    let proxy = Proxy::start(&pushed);
    let mut client = Http2Client::connect(proxy.address()).await;
    for (path, status, flags) in
        [("/direct", "12", "-"), ("/refusing", "14", "UF"), ("/undefined", "14", "NC"), ("/none", "12", "NR")]
    {
        let answer = client.send(grpc(path, full(""))).await;
        assert_eq!(
            (answer.status, value(&answer.headers, "grpc-status")),
            (StatusCode::OK, Some(status)),
            "{path}"
        );
        assert_eq!(value(&answer.headers, "content-type"), Some("application/grpc"), "{path}");
        assert!(answer.body.is_empty() && answer.trailers.is_none(), "{path}");
        let labels = [
            "reporter=\"source\"",
            "request_protocol=\"grpc\"",
            "response_code=\"200\"",
            &format!("grpc_response_status=\"{status}\""),
            &format!("response_flags=\"{flags}\""),
        ];
        assert_eq!(proxy.count("istio_requests_total", &labels), 1, "{path}");
        let plain = client.send(http2_get(path)).await;
        assert_ne!(plain.status, 200, "{path}: only gRPC has a status of its own");
        let head = Request::head(format!("http://web{path}")).body(full("")).expect("a request");
        let head = client.send(head).await;
        assert_eq!((head.status, head.body.len()), (plain.status, 0), "{path}");
        let length = plain.body.len().to_string();
        assert_eq!(value(&head.headers, "content-length"), Some(length.as_str()), "{path}");
    }
    let answer = client.send(grpc("/direct", full(""))).await;
    assert_eq!(value(&answer.headers, "grpc-message"), Some("no %25 way"));
}

#[tokio::test]
async fn metrics_tell_grpc_and_its_status_from_trailers_or_head() {
    let v1 = Backend::speaking(Version::HTTP_2, |seen| match seen.headers.get("x-head") {
        Some(_) => Response::builder().header("grpc-status", "5").body(full("")).expect("an answer"),
        None => Response::new(with_trailers("m", &[("grpc-status", "7")])),
    })
    .await;
    let proxy = Proxy::start(&only(v1.address, SpokenTo::Http2));
    let mut client = Http2Client::connect(proxy.address()).await;
    client.send(grpc("/", full("m"))).await;
    let mut headers_only = grpc("/", full("m"));
    headers_only.headers_mut().insert("x-head", HeaderValue::from_static("1"));
    client.send(headers_only).await;
    client.get("/").await;
    for (protocol, status) in [("grpc", "7"), ("grpc", "5"), ("http", "")] {
        let labels = [
            "reporter=\"source\"",
            "response_flags=\"-\"",
            &format!("request_protocol=\"{protocol}\""),
            &format!("grpc_response_status=\"{status}\""),
        ];
        until("the exchange is counted", || proxy.count("istio_requests_total", &labels) == 1).await;
    }
}

#[tokio::test]
async fn a_headers_only_answer_is_retried_by_its_status() {
    let asked = Arc::new(AtomicUsize::new(0));
    let first = Arc::clone(&asked);
    let v1 = Backend::speaking(Version::HTTP_2, move |_| match first.fetch_add(1, Ordering::SeqCst) {
        0 => Response::builder().header("grpc-status", "14").body(full("")).expect("an answer"),
        _ => Response::new(with_trailers("m", &[("grpc-status", "0")])),
    })
    .await;
    let mut pushed = only(v1.address, SpokenTo::Http2);
    let on = vec![RetryOn::Unavailable];
    pushed.rules[0].retries = Some(Retries { attempts: 1, on, ..Retries::default() });
    let proxy = Proxy::start(&pushed);
    let mut client = Http2Client::connect(proxy.address()).await;
    let answer = client.send(grpc("/", full("ask"))).await;
    assert_eq!((answer.body.as_ref(), asked.load(Ordering::SeqCst)), (&b"m"[..], 2));
    assert!(v1.seen().iter().all(|seen| seen.body == "ask"), "the body was kept");
}
