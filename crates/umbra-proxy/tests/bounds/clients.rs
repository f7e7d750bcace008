//! What clients may take of a proxy, and that one of them takes nothing from the others.

use std::net::IpAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use umbra_proxy::listen::Mode;
use umbra_routing::SpokenTo;

use crate::rig::{Backend, Http2Client, Proxy, Pushed, TestClient, read_head, talk, until, within};
use crate::{gated, limits, mirrored};

const GET: &str = "GET / HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n";

fn pod(last: u8) -> IpAddr {
    [127, 0, 1, last].into()
}

#[tokio::test]
async fn a_pod_with_too_many_connections_hurts_itself_alone() {
    let v1 = Backend::named("v1").await;
    let few = limits(|limits| limits.connections_per_client = 2);
    let proxy = Proxy::with(&mirrored(v1.address, v1.address), few, Mode::ByHost);
    let mut kept = [proxy.client().await, proxy.client().await];
    for client in &mut kept {
        assert_eq!(client.get("/").await.body(), "v1");
    }
    assert_eq!(talk(proxy.address(), GET).await, "", "one too many");
    assert_eq!(proxy.count("umbra_refused_connections_total", &["reason=\"too_many_of_client\""]), 1);
    let mut other = TestClient::connect_from(pod(2), proxy.address()).await;
    assert_eq!(other.get("/").await.body(), "v1");
    for client in &mut kept {
        assert_eq!(client.get("/").await.body(), "v1", "those it has go on");
    }
    drop(kept);
    let served = async { while !talk(proxy.address(), GET).await.ends_with("v1") {} };
    within("its place is free again", served).await;
}

#[tokio::test]
async fn all_clients_together_have_only_so_many() {
    let v1 = Backend::named("v1").await;
    let few = limits(|limits| limits.connections = 2);
    let proxy = Proxy::with(&mirrored(v1.address, v1.address), few, Mode::ByHost);
    let mut one = TestClient::connect_from(pod(1), proxy.address()).await;
    let mut two = TestClient::connect_from(pod(2), proxy.address()).await;
    for client in [&mut one, &mut two] {
        assert_eq!(client.get("/").await.body(), "v1");
    }
    assert_eq!(talk(proxy.address(), GET).await, "");
    assert_eq!(proxy.count("umbra_refused_connections_total", &["reason=\"too_many\""]), 1);
}

#[tokio::test]
async fn a_client_that_has_not_said_a_word_may_take_its_time() {
    let v1 = Backend::named("v1").await;
    let hasty = limits(|limits| limits.header_timeout = Duration::from_millis(20));
    let proxy = Proxy::with(&mirrored(v1.address, v1.address), hasty, Mode::ByHost);
    let mut silent = TcpStream::connect(proxy.address()).await.expect("the proxy listens");
    until("it is accepted", || proxy.workers.accepted() == 1).await;
    // One that came later and has begun (a POST, or HTTP/2) is let go meanwhile.
    let mut begun = TcpStream::connect(proxy.address()).await.expect("the proxy listens");
    begun.write_all(b"P").await.expect("a reader");
    assert_eq!(within("the end", begun.read(&mut [0; 1])).await.expect("no reset"), 0);
    silent.write_all(GET.as_bytes()).await.expect("a reader");
    let answer = within("its answer", read_head(&mut silent)).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer:?}");
    assert_eq!(proxy.count("umbra_bad_requests_total", &["stalled"]), 1);
}

#[tokio::test]
async fn a_client_that_never_says_a_word_is_let_go() {
    let v1 = Backend::named("v1").await;
    let hasty = limits(|limits| {
        limits.client_idle_timeout = Duration::from_millis(20);
        // So that it is not this that lets it go.
        limits.header_timeout = Duration::from_secs(3600);
    });
    let proxy = Proxy::with(&mirrored(v1.address, v1.address), hasty, Mode::ByHost);
    let mut stream = TcpStream::connect(proxy.address()).await.expect("the proxy listens");
    assert_eq!(within("the end", stream.read(&mut [0; 1])).await.expect("no reset"), 0);
}

#[tokio::test]
async fn an_idle_client_of_http_2_is_let_go_and_one_that_waits_for_its_answer_is_not() {
    let (release, gate) = watch::channel(false);
    let (v1, mut arrived) = gated("v1", &gate).await;
    let mut pushed = Pushed { spoken_to: SpokenTo::Http1, ..mirrored(v1, v1) };
    pushed.rules[0].mirrors.clear();
    let hasty = limits(|limits| limits.client_idle_timeout = Duration::from_secs(1));
    let proxy = Proxy::with(&pushed, hasty, Mode::ByHost);
    let busy = Http2Client::connect(proxy.address()).await;
    let ask = |mut client: Http2Client| tokio::spawn(async move { client.get("/").await.body });
    let first = ask(busy.clone());
    within("the request arrives", arrived.recv()).await.expect("it did");
    // Two that came later and waited as long, one after the other.
    for _ in 0..2 {
        let idle = Http2Client::connect(proxy.address()).await;
        until("an idle client is told", || idle.sender.is_closed()).await;
    }
    let second = ask(busy);
    within("its connection takes another", arrived.recv()).await.expect("it did");
    release.send(true).expect("the backend waits");
    for asking in [first, second] {
        assert_eq!(within("its answer", asking).await.expect("no panic"), "v1");
    }
}
