//! Who is copied: by a key, and by the mark of copies.

use std::net::IpAddr;

use http::{HeaderName, Request};
use umbra_proxy::listen::Mode;
use umbra_proxy::worker::{Limits, Options};
use umbra_routing::{Mirror, SampleBy};

use crate::mirrored;
use crate::rig::{Backend, Proxy, Pushed, TestClient, client_pod, subset};

const MARK: &str = "x-umbra-shadow";

fn marking(pushed: &Pushed) -> Proxy {
    let options = Options {
        listen: ([127, 0, 0, 1], 0).into(),
        workers: 1,
        mode: Mode::ByHost,
        limits: Limits::default(),
        shadow_mark: Some(HeaderName::from_static(MARK)),
        seed: Some(7),
    };
    Proxy::told(pushed, options)
}

async fn get(client: &mut TestClient, name: &str, value: &str) {
    let request = Request::get("/").header("host", "web").header(name, value);
    let answer = client.send(request.body(Default::default()).expect("a request")).await;
    assert_eq!(answer.body(), "v1");
}

fn marks(backend: &Backend) -> Vec<Option<String>> {
    let mark = |headers: &http::HeaderMap| Some(headers.get(MARK)?.to_str().expect("ASCII").to_owned());
    backend.seen().iter().map(|seen| mark(&seen.headers)).collect()
}

#[tokio::test]
async fn a_copy_is_marked_and_what_it_causes_is_not_copied_again() {
    let (v1, v2) = (Backend::named("v1").await, Backend::named("v2").await);
    let me = ([127, 0, 0, 1].into(), client_pod("default"));
    let pushed = Pushed { clients: vec![me], ..mirrored(v1.address, v2.address) };
    let proxy = marking(&pushed);
    let mut client = proxy.client().await;
    client.get("/").await;
    get(&mut client, MARK, "1").await;
    proxy.settled(2).await;
    assert_eq!((proxy.result("answered"), proxy.dropped("marked")), (1, 1));
    assert_eq!(marks(&v1), [None, Some("1".into())], "users' requests are as they came");
    assert_eq!(marks(&v2), [Some("1".into())]);
}

#[tokio::test]
async fn a_strangers_mark_keeps_nothing_from_being_copied() {
    let (v1, v2) = (Backend::named("v1").await, Backend::named("v2").await);
    let proxy = marking(&mirrored(v1.address, v2.address));
    get(&mut proxy.client().await, MARK, "mine").await;
    proxy.settled(1).await;
    assert_eq!(proxy.result("answered"), 1);
    assert_eq!((marks(&v1), marks(&v2)), (vec![Some("mine".into())], vec![Some("1".into())]));
}

#[tokio::test]
async fn one_user_is_always_copied_and_another_never() {
    let (v1, v2) = (Backend::named("v1").await, Backend::named("v2").await);
    let mut pushed = mirrored(v1.address, v2.address);
    let by_user = Some(SampleBy::Header { name: "x-user".into() });
    pushed.rules[0].mirrors = vec![Mirror { sample: by_user, ..Mirror::new(1_000, subset("v2")) }];
    let proxy = Proxy::start(&pushed);
    let mut client = proxy.client().await;
    for _ in 0..10 {
        // One of the thousandth that is in, which routing's own test knows.
        get(&mut client, "x-user", "user-1114").await;
        get(&mut client, "x-user", "user-1115").await;
        client.get("/").await;
    }
    proxy.settled(10).await;
    let users: Vec<_> = v2.seen().iter().map(|seen| seen.headers["x-user"].clone()).collect();
    assert_eq!(users, ["user-1114"; 10]);
}

#[tokio::test]
async fn one_pod_is_always_copied_and_another_never() {
    let (v1, v2) = (Backend::named("v1").await, Backend::named("v2").await);
    let mut pushed = mirrored(v1.address, v2.address);
    pushed.rules[0].mirrors =
        vec![Mirror { sample: Some(SampleBy::Source), ..Mirror::new(500_000, subset("v2")) }];
    let proxy = Proxy::start(&pushed);
    // Loopback has many addresses: about half of these are in.
    let pods: Vec<IpAddr> = (1..=32).map(|last| [127, 0, 1, last].into()).collect();
    let mut copied = Vec::new();
    let mut eligible = 0;
    for pod in pods {
        let mut client = TestClient::connect_from(pod, proxy.address()).await;
        for _ in 0..3 {
            client.get("/").await;
        }
        let now = proxy.count("umbra_shadow_eligible_total", &[]);
        copied.push(now - eligible);
        eligible = now;
    }
    proxy.settled(eligible).await;
    assert!(
        copied.iter().all(|copies| [0, 3].contains(copies)),
        "all of a pod's requests or none: {copied:?}"
    );
    assert!(copied.contains(&0) && copied.contains(&3), "{copied:?}");
}
