//! Connections that outlive what they were taken over for: a service that is no longer governed, a port that is gone, a
//! process that ends. Their clients are told to close; nothing fails.

mod rig;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use http::StatusCode;
use rig::{Backend, Proxy, Pushed, TestClient, read_head, rule, subset, to, until, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use umbra_proxy::listen::Mode;
use umbra_proxy::worker::Limits;

async fn mirrored() -> (Pushed, Backend) {
    let (v1, v2) = (Backend::named("v1").await, Backend::named("v2").await);
    let pushed = Pushed {
        rules: vec![rule(vec![to(subset("v1"), 0)], vec![subset("v2")])],
        sets: vec![(subset("v1"), vec![v1.address]), (subset("v2"), vec![v2.address])],
        ..Pushed::default()
    };
    (pushed, v1)
}

fn intercepted() -> Mode {
    let address = "10.96.0.10:80".parse().expect("an address");
    Mode::Intercepted(Arc::new(move |_| Ok(address)))
}

/// Connections are looked at every millisecond or so.
fn attentive() -> Limits {
    Limits { header_timeout: Duration::from_millis(5), ..Limits::default() }
}

const ASK: &[u8] = b"GET / HTTP/1.1\r\nhost: web\r\n\r\n";

#[tokio::test]
async fn idle_connections_to_what_is_no_longer_governed_are_closed() {
    let (pushed, _) = mirrored().await;
    for leaves in [None, Some(81)] {
        let proxy = Proxy::with(&pushed, attentive(), intercepted());
        let mut kept = TcpStream::connect(proxy.address()).await.expect("the proxy listens");
        kept.write_all(ASK).await.expect("a reader");
        assert!(within("an answer", read_head(&mut kept)).await.starts_with("HTTP/1.1 200"));
        within("the body", kept.read_exact(&mut [0; 2])).await.expect("all of it");
        let mut silent = TcpStream::connect(proxy.address()).await.expect("the proxy listens");
        until("both are accepted", || proxy.workers.accepted() == 2).await;
        match leaves {
            None => proxy.push_nothing(),
            port => proxy.push(&Pushed {
                port,
                sets: pushed.sets.clone(),
                rules: pushed.rules.clone(),
                ..Pushed::default()
            }),
        }
        for (what, stream) in [("used", &mut kept), ("silent", &mut silent)] {
            let end = within("the proxy closes", stream.read(&mut [0])).await;
            assert_eq!(end.ok(), Some(0), "{what}, {leaves:?}");
        }
    }
}

#[tokio::test]
async fn a_port_that_left_its_service_is_served_once_more_without_a_copy() {
    let (pushed, _) = mirrored().await;
    let proxy = Proxy::with(&pushed, Limits::default(), intercepted());
    let mut client = proxy.client().await;
    assert!(!client.get("/").await.headers().contains_key("connection"));
    proxy.settled(1).await;
    proxy.push(&Pushed { port: Some(81), ..pushed });
    let answer = client.get("/").await;
    assert_eq!((answer.status(), answer.body().as_ref()), (StatusCode::OK, &b"v1"[..]));
    assert_eq!(answer.headers()["connection"], "close");
    assert_eq!(proxy.count("umbra_shadow_eligible_total", &[]), 1);
}

#[tokio::test]
async fn a_pod_that_is_to_be_skipped_is_served_once_more_without_a_copy() {
    let (mut pushed, _) = mirrored().await;
    let proxy = Proxy::with(&pushed, Limits::default(), intercepted());
    let mut client = proxy.client().await;
    assert!(!client.get("/").await.headers().contains_key("connection"));
    proxy.settled(1).await;
    let ip = std::net::Ipv4Addr::LOCALHOST.into();
    let pod = rig::client_pod("shop");
    pushed.clients = vec![(ip, umbra_routing::Client { skip: true, ..pod.clone() })];
    proxy.push(&pushed);
    let answer = client.get("/").await;
    assert_eq!((answer.status(), answer.body().as_ref()), (StatusCode::OK, &b"v1"[..]));
    assert_eq!(answer.headers()["connection"], "close");
    assert_eq!(proxy.dropped("stopped"), 1);
    // The policy goes: the pod's next connection is like any other.
    pushed.clients = vec![(ip, pod)];
    proxy.push(&pushed);
    assert!(!proxy.client().await.get("/").await.headers().contains_key("connection"));
    proxy.settled(3).await;
}

#[tokio::test]
async fn while_draining_a_connection_that_never_had_a_request_still_serves_one() {
    for mode in [Mode::ByHost, intercepted()] {
        let (pushed, _) = mirrored().await;
        let proxy = Proxy::with(&pushed, Limits::default(), mode);
        let mut stream = TcpStream::connect(proxy.address()).await.expect("the proxy listens");
        until("it is accepted", || proxy.workers.accepted() == 1).await;
        let Proxy { workers, .. } = proxy;
        let address = workers.local_addr();
        let last = async {
            // The drain, polled first, has begun; the listener's end says that the worker knows.
            let refused = async {
                while TcpStream::connect(address).await.is_ok() {
                    tokio::task::yield_now().await;
                }
            };
            within("the listener closes", refused).await;
            stream.write_all(ASK).await.expect("a reader");
            within("an answer", read_head(&mut stream)).await
        };
        let (cut, answer) = tokio::join!(biased; workers.drain(Duration::from_secs(20)), last);
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("connection: close"), "{answer:?}");
        assert_eq!(cut, 0);
    }
}

#[tokio::test]
async fn no_request_fails_while_the_process_ends_under_load() {
    let (pushed, v1) = mirrored().await;
    let proxy = Proxy::with(&pushed, Limits::default(), intercepted());
    let (address, left_to_others, served) =
        (proxy.address(), Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let (left_to_others, served) = (Arc::clone(&left_to_others), Arc::clone(&served));
            tokio::spawn(async move {
                // As in the kernel: from then on new connections go elsewhere.
                while !left_to_others.load(Ordering::Acquire) {
                    let mut client = TestClient::connect(address).await;
                    loop {
                        let answer = client.post("/", "x").await;
                        assert_eq!(answer.status(), StatusCode::OK);
                        served.fetch_add(1, Ordering::Relaxed);
                        if answer.headers().contains_key("connection") {
                            break;
                        }
                    }
                }
            })
        })
        .collect();
    until("there is load", || served.load(Ordering::Relaxed) > 400).await;
    left_to_others.store(true, Ordering::Release);
    proxy.tables.disarm(&rig::service());
    let Proxy { workers, .. } = proxy;
    workers.stop_accepting();
    assert_eq!(workers.drain(Duration::from_secs(20)).await, 0);
    for client in clients {
        client.await.expect("no failed request");
    }
    assert_eq!(v1.seen().len(), served.load(Ordering::Relaxed) as usize);
}
