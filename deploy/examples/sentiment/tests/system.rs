//! The article's programs together, in one process on loopback.

#![allow(clippy::unwrap_used, reason = "a test that cannot set its stage fails")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clap::Parser;
use http::{Request, Response, Uri};
use http_body_util::Full;
use sentiment_example::client::Client;
use sentiment_example::resolver::{ResolvConf, Resolver};
use sentiment_example::sa_logic::SaLogic;
use sentiment_example::sa_web_app::SaWebApp;
use sentiment_example::{load, sa_logic, sa_web_app, server};
use serde_json::{Value, json};
use tokio::net::TcpListener;

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

async fn sa_logic(version: &str) -> SocketAddr {
    let (listener, address) = listener().await;
    let flags =
        ["sa-logic", "--listen", "127.0.0.1:0", "--version", version, "--seed", "1", "--sleep-seconds", "0"];
    let args = sa_logic::Args::parse_from(flags);
    let program = SaLogic::new(&args);
    tokio::spawn(async move {
        let answer = move |request| Arc::clone(&program).answer(request);
        server::serve(listener, &args.server, answer, std::future::pending()).await;
    });
    address
}

async fn sa_web_app(sa_logic: SocketAddr) -> SocketAddr {
    let (listener, address) = listener().await;
    let sa_logic = sa_logic.to_string();
    let args = ["sa-web-app", "--listen", "127.0.0.1:0", "--sa-logic-address", &sa_logic];
    let args = sa_web_app::Args::parse_from(args);
    let program = SaWebApp::new(&args).unwrap();
    tokio::spawn(async move {
        let answer = move |request| Arc::clone(&program).answer(request);
        server::serve(listener, &args.server, answer, std::future::pending()).await;
    });
    address
}

async fn users(web_app: SocketAddr, requests: &str) -> load::Report {
    let url = format!("http://{web_app}/sentiment");
    let flags =
        ["load", "--url", &url, "--rate", "10000", "--expect-version", "v1", "--request-id-prefix", "t"];
    let args = load::Args::parse_from(flags.into_iter().chain(["--requests", requests]));
    load::send(&args, |_| {}).await.unwrap()
}

async fn call(address: SocketAddr, method: &str, path: &str, body: &'static [u8]) -> Response<Bytes> {
    let resolver = Resolver::new(ResolvConf::default());
    let limit = Duration::from_secs(20);
    let client = Client::new(&Uri::from_static("http://localhost"), Some(address), resolver, limit).unwrap();
    let request = Request::builder().method(method).uri(path).header("host", "localhost");
    client.request(request.body(Full::new(Bytes::from_static(body))).unwrap()).await.unwrap()
}

async fn stats(address: SocketAddr) -> Value {
    serde_json::from_slice(call(address, "GET", "/stats", b"").await.body()).unwrap()
}

#[tokio::test]
async fn a_users_request_reaches_sa_logic_with_nothing_added() {
    let sa_logic = sa_logic("v1").await;
    let report = users(sa_web_app(sa_logic).await, "40").await;
    assert_eq!((report.requests, report.failed), (40, 0), "{:?}", report.failures);

    let stats = stats(sa_logic).await;
    assert_eq!(stats["requests"], json!({"/analyse/sentiment": 40}));
    let mut seen = stats["recorded"].as_array().unwrap().clone();
    let id = |request: &Value| request["headers"][2][1].as_str().unwrap()[2..].parse::<u32>().unwrap();
    seen.sort_by_key(id);
    let expected = json!({
        "method": "POST",
        "path": "/analyse/sentiment",
        "headers": [["host", "sa-logic"], ["content-type", "application/json"], ["x-request-id", "t-0"],
            ["content-length", "26"]],
        "body": r#"{"sentence":"I love yoga"}"#,
        "body_bytes": 26,
    });
    assert_eq!(seen[0], expected);
    assert!(seen.iter().map(id).eq(0..40), "each request once");
}

#[tokio::test]
async fn the_bug_reaches_users_when_nothing_shields_them() {
    let buggy = sa_logic("v2-buggy").await;
    let report = users(sa_web_app(buggy).await, "101").await;
    let stats = stats(buggy).await;
    let failing = stats["answers"]["500"].as_u64().unwrap();
    assert!((30..90).contains(&failing), "about 65 of 101 with this seed: {failing}");
    // The others are right, but of the wrong version.
    assert_eq!((report.requests, report.failed), (101, 101));
    let wrong_version = report.failures.get("answered by v2 instead of v1");
    assert_eq!(wrong_version.copied(), Some(101 - failing), "{:?}", report.failures);
}

#[tokio::test]
async fn sa_logic_refuses_what_it_cannot_answer_and_forgets_on_demand() {
    let sa_logic = sa_logic("v1").await;
    let status = async |method, path, body| call(sa_logic, method, path, body).await.status().as_u16();
    assert_eq!(status("GET", "/healthz", b"").await, 200);
    assert_eq!(status("GET", "/analyse/sentiment", b"").await, 405);
    assert_eq!(status("POST", "/analyse/sentiment", b"{}").await, 400);
    assert_eq!(status("POST", "/elsewhere", b"").await, 404);
    assert_eq!(stats(sa_logic).await["requests"], json!({"/analyse/sentiment": 2, "/elsewhere": 1}));
    assert_eq!(status("DELETE", "/stats", b"").await, 200);
    assert_eq!(stats(sa_logic).await["requests"], json!({}));
}

#[tokio::test]
async fn a_web_app_without_sa_logic_says_so() {
    let (listener, nobody) = listener().await;
    drop(listener);
    let answer = call(sa_web_app(nobody).await, "POST", "/sentiment", b"{}").await;
    assert_eq!(answer.status(), 502);
    let text = String::from_utf8_lossy(answer.body()).into_owned();
    assert!(text.contains(&format!("sa-logic: cannot connect to {nobody}")), "{text}");
}
