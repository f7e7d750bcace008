//! What copies and clients may take, who is copied, and what a copy's exchange may go through without its user's notice.

mod bounds;
mod clients;
mod exchanges;
mod marks;
#[path = "../rig/mod.rs"]
mod rig;

use std::net::SocketAddr;

use rig::{Pushed, read_head, rule, subset, to};
use tokio::io::AsyncWriteExt;
use tokio::sync::{mpsc, watch};
use umbra_proxy::worker::Limits;

/// All requests to v1, a copy of each to v2.
fn mirrored(v1: SocketAddr, v2: SocketAddr) -> Pushed {
    Pushed {
        rules: vec![rule(vec![to(subset("v1"), 0)], vec![subset("v2")])],
        sets: vec![(subset("v1"), vec![v1]), (subset("v2"), vec![v2])],
        ..Pushed::default()
    }
}

fn limits(change: impl FnOnce(&mut Limits)) -> Limits {
    let mut limits = Limits::default();
    change(&mut limits);
    limits
}

/// Takes requests and never answers; tells the number of each connection that brought one.
async fn silent() -> (SocketAddr, mpsc::UnboundedReceiver<usize>) {
    let (tell, told) = mpsc::unbounded_channel();
    let address = rig::raw_backend(move |number, mut stream| {
        let tell = tell.clone();
        async move {
            read_head(&mut stream).await;
            // A test that has ended does not listen any more.
            let _ = tell.send(number);
            std::future::pending::<()>().await;
        }
    })
    .await;
    (address, told)
}

/// Answers its name to each request once the gate is open; tells when it was asked.
async fn gated(
    name: &'static str,
    gate: &watch::Receiver<bool>,
) -> (SocketAddr, mpsc::UnboundedReceiver<()>) {
    let (arrives, arrived) = mpsc::unbounded_channel();
    let gate = gate.clone();
    let address = rig::raw_backend(move |_, mut stream| {
        let (mut gate, arrives) = (gate.clone(), arrives.clone());
        async move {
            read_head(&mut stream).await;
            arrives.send(()).expect("the test waits");
            gate.wait_for(|open| *open).await.expect("the test goes on");
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{name}", name.len());
            // Whoever asked may have gone.
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    })
    .await;
    (address, arrived)
}
