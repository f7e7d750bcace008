//! HTTP/2 without TLS on both sides: which version is spoken where, what a request becomes in the other one, gRPC,
//! connections that end, and copies.

mod connections;
mod endings;
mod grpc;
mod hostile;
mod messages;
mod peer;
mod raw;
#[path = "../rig/mod.rs"]
mod rig;
mod shadows;
mod small;
mod unfinished;
mod uploads;
mod windows;

use std::net::SocketAddr;

use http::{HeaderMap, Response, Version};
use rig::{Backend, Pushed, full, rule, subset, to};
use umbra_routing::SpokenTo;

fn only(v1: SocketAddr, spoken_to: SpokenTo) -> Pushed {
    Pushed {
        rules: vec![rule(vec![to(subset("v1"), 0)], vec![])],
        sets: vec![(subset("v1"), vec![v1])],
        spoken_to,
        ..Pushed::default()
    }
}

fn mirrored(v1: SocketAddr, v2: SocketAddr) -> Pushed {
    Pushed {
        rules: vec![rule(vec![to(subset("v1"), 0)], vec![subset("v2")])],
        sets: vec![(subset("v1"), vec![v1]), (subset("v2"), vec![v2])],
        spoken_to: SpokenTo::Http2,
        ..Pushed::default()
    }
}

async fn speaking(version: Version) -> Backend {
    Backend::speaking(version, |_| Response::new(full("ok"))).await
}

fn value<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).map(|value| value.to_str().expect("ASCII"))
}
