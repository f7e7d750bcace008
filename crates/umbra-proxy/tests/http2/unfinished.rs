//! Clients that stop in the middle of what they say, and never read on: their connections end all the same.

use std::time::Duration;

use http::Version;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use umbra_proxy::listen::Mode;
use umbra_proxy::worker::Limits;
use umbra_routing::SpokenTo;
use umbra_testkit::frames::{END_HEADERS, END_STREAM, HEADERS, PREFACE, SETTINGS, fields, frame};

use crate::raw::{Came, Raw};
use crate::rig::{Proxy, until, within};
use crate::{only, speaking};

const GET: [(&str, &str); 4] =
    [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "web")];
const SOON: Duration = Duration::from_millis(20);

#[tokio::test]
async fn an_unfinished_preface_ends_in_time_and_frees_its_connection() {
    // Up to here it may become a POST, or has to become HTTP/2.
    const LENGTHS: [usize; 4] = [1, 3, 16, PREFACE.len() - 1];
    let v1 = speaking(Version::HTTP_2).await;
    let limits = Limits { header_timeout: SOON, connections_per_client: LENGTHS.len(), ..Limits::default() };
    let proxy = Proxy::with(&only(v1.address, SpokenTo::Http2), limits, Mode::ByHost);
    let mut stalled = Vec::new();
    for length in LENGTHS {
        let mut stream = TcpStream::connect(proxy.address()).await.expect("the proxy listens");
        stream.write_all(&PREFACE[..length]).await.expect("a reader");
        stalled.push(stream);
    }
    for stream in &mut stalled {
        assert_eq!(within("the end", stream.read(&mut [0; 1])).await.expect("no reset"), 0);
    }
    until("they are counted", || proxy.count("umbra_bad_requests_total", &["stalled"]) == 4).await;
    let request = frame(HEADERS, END_STREAM | END_HEADERS, 1, &fields(&GET));
    let served = async {
        loop {
            let mut raw = Raw::begin(&proxy).await;
            raw.send(&request).await;
            if raw.came().await == Came::Served {
                break;
            }
        }
    };
    within("their places are free again, though their clients have not closed", served).await;
    drop(stalled);
}

#[tokio::test]
async fn a_client_that_falls_silent_is_let_go_whatever_it_has_begun() {
    let v1 = speaking(Version::HTTP_2).await;
    let limits = Limits { header_timeout: SOON, client_idle_timeout: SOON, ..Limits::default() };
    let proxy = Proxy::with(&only(v1.address, SpokenTo::Http2), limits, Mode::ByHost);
    let settings = frame(SETTINGS, 0, 0, &[]);
    let request = frame(HEADERS, END_STREAM | END_HEADERS, 1, &fields(&GET));
    let headless = frame(HEADERS, END_STREAM, 1, &fields(&GET));
    for (what, said) in [
        ("nothing", vec![]),
        ("half of a frame's head", settings[..4].to_vec()),
        ("half of a frame", [&settings, &request[..20]].concat()),
        ("a head without its end", [settings.clone(), headless].concat()),
        ("a request, and no answer to a PING", [settings.clone(), request].concat()),
    ] {
        let stream = TcpStream::connect(proxy.address()).await.expect("the proxy listens");
        let mut raw = Raw(stream);
        raw.send(&[PREFACE, &said].concat()).await;
        within(what, raw.ended()).await;
    }
}
