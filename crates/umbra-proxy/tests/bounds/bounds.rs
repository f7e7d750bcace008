//! Each bound drops copies, with its reason, and never touches a user.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::net::TcpStream;
use umbra_proxy::listen::Mode;

use crate::rig::{Backend, Proxy, until, within};
use crate::{limits, mirrored, silent};

#[tokio::test]
async fn only_so_many_copies_go_out_in_a_second() {
    let (v1, v2) = (Backend::named("v1").await, Backend::named("v2").await);
    let slow = limits(|limits| limits.shadow.mirror.per_second = NonZeroU32::new(1));
    let proxy = Proxy::with(&mirrored(v1.address, v2.address), slow, Mode::ByHost);
    let mut client = proxy.client().await;
    for _ in 0..100 {
        assert_eq!(client.get("/").await.body(), "v1");
    }
    proxy.settled(100).await;
    let (answered, dropped) = (proxy.result("answered"), proxy.dropped("rate"));
    assert!(answered > 0 && dropped > 0 && answered + dropped == 100, "{answered} sent, {dropped} not");
}

#[tokio::test]
async fn a_mirror_has_only_so_many_connections_and_its_breaker_does_not_mind() {
    let v1 = Backend::named("v1").await;
    let (v2, mut connections) = silent().await;
    let few = limits(|limits| {
        limits.shadow.mirror.connections = 2;
        limits.shadow.timeout = Duration::from_secs(60);
    });
    let proxy = Proxy::with(&mirrored(v1.address, v2), few, Mode::ByHost);
    let mut client = proxy.client().await;
    for _ in 0..10 {
        assert_eq!(client.get("/").await.body(), "v1");
    }
    until("all others are dropped", || proxy.dropped("connections") == 8).await;
    for number in [0, 1] {
        assert_eq!(within("a copy arrives", connections.recv()).await, Some(number));
    }
    assert_eq!((connections.try_recv().ok(), proxy.dropped("breaker")), (None, 0));
}

#[tokio::test]
async fn what_waits_for_one_mirror_is_bounded() {
    let (v1, v2) = (Backend::named("v1").await, Backend::named("v2").await);
    let none = limits(|limits| limits.shadow.mirror.queued_bytes = 0);
    let proxy = Proxy::with(&mirrored(v1.address, v2.address), none, Mode::ByHost);
    let mut client = proxy.client().await;
    assert_eq!(client.post("/", "body").await.body(), "v1");
    assert_eq!(client.get("/").await.body(), "v1");
    proxy.settled(2).await;
    assert_eq!((proxy.dropped("body_budget"), proxy.result("answered")), (1, 1));
    assert_eq!(v1.seen()[0].body, "body");
}

/// A worker that holds up its users: each connection that it takes costs it so long while `slow` is set.
fn held_up(slow: &Arc<AtomicBool>, cost: Duration) -> Mode {
    let (slow, address) = (Arc::clone(slow), "10.96.0.10:80".parse().expect("an address"));
    Mode::Intercepted(Arc::new(move |_| {
        if slow.load(Ordering::Relaxed) {
            // The load itself: this thread does nothing else meanwhile.
            std::thread::sleep(cost);
        }
        Ok(address)
    }))
}

#[tokio::test]
async fn a_worker_that_keeps_users_waiting_gives_up_copies_until_it_is_in_time() {
    const LAG: Duration = Duration::from_millis(90);
    let (v1, v2) = (Backend::named("v1").await, Backend::named("v2").await);
    let slow = Arc::new(AtomicBool::new(false));
    let limits = limits(|limits| limits.shadow.lag = LAG);
    let proxy = Proxy::with(&mirrored(v1.address, v2.address), limits, held_up(&slow, 2 * LAG));
    let mut client = proxy.client().await;
    assert_eq!(client.get("/").await.body(), "v1");
    proxy.settled(1).await;
    assert_eq!((proxy.result("answered"), proxy.dropped("busy")), (1, 0));
    slow.store(true, Ordering::Relaxed);
    let mut held_open = Vec::new();
    let given_up = async {
        while proxy.dropped("busy") == 0 {
            for _ in 0..4 {
                held_open.push(TcpStream::connect(proxy.address()).await.expect("the proxy listens"));
            }
            assert_eq!(client.get("/").await.body(), "v1");
        }
    };
    within("copies are given up", given_up).await;
    slow.store(false, Ordering::Relaxed);
    let before = proxy.result("answered");
    let copied = async {
        while proxy.result("answered") == before {
            assert_eq!(client.get("/").await.body(), "v1");
        }
    };
    within("copies are made again", copied).await;
}
