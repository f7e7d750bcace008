//! Frames that no client library sends: what must not cross from HTTP/2 to an endpoint, of HTTP/1 above all (RFC 9113
//! sections 8.1.1, 8.2.1, 8.2.2, 8.3 and 10.3), and floods (section 10.5). Neither the primary nor the mirror gets any of it.

use http::Version;
use umbra_proxy::listen::Mode;
use umbra_proxy::worker::Limits;
use umbra_routing::SpokenTo;
use umbra_testkit::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, RST_STREAM, fields, frame,
};

use crate::raw::{Came, Raw};
use crate::rig::{Backend, Http2Client, Proxy, Pushed, full, until, within};
use crate::{mirrored, only, speaking};

const PROTOCOL_ERROR: u32 = 1;
const CANCEL: u32 = 8;
const ENHANCE_YOUR_CALM: u32 = 11;

type Field = (&'static str, &'static str);

const GET: [Field; 4] = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "web")];
const POST: [Field; 4] = [(":method", "POST"), GET[1], GET[2], GET[3]];

/// These fields and then those.
fn with(first: &[Field], more: &[Field]) -> Vec<u8> {
    fields(first.iter().chain(more))
}

/// A GET that says something else there; `None`: nothing.
fn but(name: &str, value: Option<&'static str>) -> Vec<u8> {
    let other = |(own, said): Field| match value {
        _ if own != name => Some((own, said)),
        value => value.map(|value| (own, value)),
    };
    fields(&GET.into_iter().filter_map(other).collect::<Vec<_>>())
}

/// A whole request without a body.
fn asked(head: &[u8]) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, 1, head)
}

/// A proxy, and what its primary and its mirror get.
struct Site {
    proxy: Proxy,
    backends: [Backend; 2],
}

impl Site {
    async fn start(version: Version, limits: Limits) -> Self {
        let backends = [speaking(version).await, speaking(version).await];
        let spoken_to = if version == Version::HTTP_2 { SpokenTo::Http2 } else { SpokenTo::Http1 };
        let pushed = Pushed { spoken_to, ..mirrored(backends[0].address, backends[1].address) };
        Self { proxy: Proxy::with(&pushed, limits, Mode::ByHost), backends }
    }

    /// What came of these bytes on a connection of their own.
    async fn came_of(&self, bytes: &[u8]) -> Came {
        let mut raw = Raw::begin(&self.proxy).await;
        raw.send(bytes).await;
        within("an answer or the end", raw.came()).await
    }

    /// A request as it should be gets through, and it alone has.
    async fn nothing_else_came(&self) {
        let mut client = Http2Client::connect(self.proxy.address()).await;
        assert_eq!(client.get("/right").await.status, 200);
        until("its copy is answered", || self.proxy.result("answered") == 1).await;
        for backend in &self.backends {
            let seen = backend.seen();
            assert!(seen.len() == 1 && seen[0].target.ends_with("/right"), "{seen:?}");
        }
    }
}

#[tokio::test]
async fn fields_that_would_smuggle_end_their_stream() {
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let site = Site::start(version, Limits::default()).await;
        for fields in [
            &[("x", "1\r\ny: 2")][..],
            &[("x", "1\r\n\r\nGET /two HTTP/1.1\r\nhost: web\r\n\r\n")],
            &[("x", "1\n")],
            &[("x", "1\ry")],
            &[("x", "1\0")],
            &[("x", "\x7f")],
            &[("x y", "1")],
            &[("x:", "1")],
            &[("", "1")],
            &[("x\r\ny", "1")],
            &[("X-Upper", "1")],
            &[("cookie", "a=1\r\nx: y")],
            &[("connection", "close")],
            &[("connection", "x"), ("x", "1")],
            &[("transfer-encoding", "chunked")],
            &[("upgrade", "websocket")],
            &[("keep-alive", "1")],
            &[("proxy-connection", "1")],
            &[("te", "gzip")],
            &[("te", "trailers, gzip")],
            &[("content-length", "x")],
            &[("content-length", "-1")],
            &[("content-length", "3, 3")],
            &[("content-length", "3"), ("content-length", "4")],
            &[("content-length", "3")],
            &[(":method", "POST")],
            &[(":scheme", "http")],
            &[(":path", "/other")],
            &[(":authority", "web")],
            &[(":status", "200")],
            &[(":protocol", "websocket")],
            &[(":unknown", "1")],
            &[("x", "1"), (":scheme", "http")],
        ] {
            let came = site.came_of(&asked(&with(&GET, fields))).await;
            assert!(matches!(came, Came::Ended | Came::Reset(PROTOCOL_ERROR)), "{fields:?}: {came:?}");
        }
        site.proxy.settled(0).await;
        site.nothing_else_came().await;
    }
}

#[tokio::test]
async fn what_names_no_target_is_not_forwarded() {
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let site = Site::start(version, Limits::default()).await;
        for (name, value) in [
            (":path", Some("")),
            (":path", Some("foo")),
            (":path", Some("*")),
            (":path", Some("http://other/")),
            (":path", Some("/a b")),
            (":path", Some("/a HTTP/1.1\r\nx: y")),
            (":path", Some("/a\n")),
            (":path", Some("/a\0")),
            (":path", Some("/%0")),
            (":path", None),
            (":method", Some("")),
            (":method", Some("G T")),
            (":method", Some("GET /two HTTP/1.1\r\nhost: web\r\n\r\nGET")),
            (":method", None),
            (":scheme", Some("ht tp")),
            (":scheme", Some("http\r\n")),
            (":scheme", None),
            (":authority", Some("web\r\nx: y")),
            (":authority", Some("web web")),
            (":authority", Some("web\0")),
            (":authority", Some("web/two")),
            (":authority", Some("root@web")),
            (":authority", Some("")),
            (":authority", None),
        ] {
            let came = site.came_of(&asked(&but(name, value))).await;
            assert!(
                matches!(came, Came::Ended | Came::Answered | Came::Reset(PROTOCOL_ERROR)),
                "{name} {value:?}: {came:?}"
            );
        }
        site.proxy.settled(0).await;
        site.nothing_else_came().await;
    }
}

/// A POST with these fields, a frame for each part of its body, and trailers, if there are some.
fn posted(head: &[Field], parts: &[&str], trailers: &[Field]) -> Vec<u8> {
    let mut bytes = frame(HEADERS, END_HEADERS, 1, &with(&POST, head));
    for (number, part) in (1..).zip(parts) {
        let is_last = number == parts.len() && trailers.is_empty();
        bytes.extend(frame(DATA, if is_last { END_STREAM } else { 0 }, 1, part.as_bytes()));
    }
    if !trailers.is_empty() {
        bytes.extend(frame(HEADERS, END_STREAM | END_HEADERS, 1, &fields(trailers)));
    }
    bytes
}

#[tokio::test]
async fn a_body_that_is_not_what_its_head_says_is_no_whole_request_anywhere() {
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let site = Site::start(version, Limits::default()).await;
        let length = |length| [("content-length", length)];
        for (head, parts, trailers) in [
            (&length("3")[..], &["ab"][..], &[][..]),
            (&length("3"), &["abcd"], &[]),
            (&length("3"), &["abc", "d"], &[]),
            (&length("3"), &["abc", "GET /two HTTP/1.1\r\nhost: web\r\n\r\n"], &[]),
            (&length("3"), &["a", ""], &[]),
            (&length("3"), &["a"], &[("x", "1")]),
            (&length("0"), &["a"], &[]),
            (&[], &["abc"], &[("X-Upper", "1")]),
            (&[], &["abc"], &[("x", "1\r\n\r\nGET /two HTTP/1.1\r\nhost: web\r\n\r\n")]),
            (&[], &["abc"], &[("x\r\ny", "1")]),
            (&[], &["abc"], &[("transfer-encoding", "chunked")]),
            (&[], &["abc"], &[("connection", "close")]),
        ] {
            let what = format!("{version:?}: {head:?} {parts:?} {trailers:?}");
            let came = site.came_of(&posted(head, parts, trailers)).await;
            assert!(matches!(came, Came::Ended | Came::Reset(PROTOCOL_ERROR)), "{what}: {came:?}");
        }
        site.nothing_else_came().await;
    }
}

#[tokio::test]
async fn a_pseudo_header_among_trailers_tells_nobody_anything() {
    // RFC 9113 section 8.1 has it refused; the h2 crate lets it fall.
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let site = Site::start(version, Limits::default()).await;
        let came = site.came_of(&posted(&[], &["abc"], &[(":path", "/two"), ("x", "1")])).await;
        site.proxy.settled(u64::from(came == Came::Served)).await;
        for seen in site.backends.iter().flat_map(Backend::seen) {
            let trailers = seen.trailers.unwrap_or_default();
            assert!(!seen.target.ends_with("two") && seen.body == "abc", "{version:?}: {}", seen.target);
            assert!(trailers.keys().all(|name| name == "x"), "{version:?}: {trailers:?}");
        }
    }
}

#[tokio::test]
async fn a_head_that_is_too_large_is_told_so_and_reaches_nobody() {
    let limits = Limits { head_bytes: 2_000, ..Limits::default() };
    let site = Site::start(Version::HTTP_11, limits).await;
    let mut client = Http2Client::connect(site.proxy.address()).await;
    let one = http::Request::get("http://web/").header("x", "y".repeat(2_000));
    let many = (0..60).fold(http::Request::get("http://web/"), |many, n| many.header(format!("x-{n}"), "1"));
    for request in [one, many] {
        let answer = client.send(request.body(full("")).expect("a request")).await;
        assert_eq!(answer.status, 431);
    }
    assert_eq!(client.get("/").await.status, 200, "the connection lives on");
    site.proxy.settled(1).await;
    assert_eq!(site.backends.each_ref().map(|backend| backend.seen().len()), [1, 1]);
}

#[tokio::test]
async fn a_flood_ends_its_connection_and_nobody_elses() {
    let v1 = speaking(Version::HTTP_11).await;
    let proxy = Proxy::start(&only(v1.address, SpokenTo::Http1));
    let mut other = Http2Client::connect(proxy.address()).await;
    let stream = |number: u32| 2 * number + 1;
    let resets = (0..2_000).flat_map(|number| {
        let request = frame(HEADERS, END_STREAM | END_HEADERS, stream(number), &fields(&GET));
        [request, frame(RST_STREAM, 0, stream(number), &CANCEL.to_be_bytes())]
    });
    let more = fields(&[("x", "1")]);
    let endless = std::iter::once(frame(HEADERS, END_STREAM, 1, &fields(&GET)))
        .chain((0..2_000).map(|_| frame(CONTINUATION, 0, 1, &more)));
    let floods: [(&str, Vec<u8>); 2] =
        [("resets", resets.flatten().collect()), ("a head without an end", endless.flatten().collect())];
    for (number, (what, flood)) in (1..).zip(floods) {
        let mut raw = Raw::begin(&proxy).await;
        raw.send(&flood).await;
        let code = within("the connection ends", raw.ended()).await;
        assert!(code.is_none_or(|code| code == ENHANCE_YOUR_CALM), "{what}: {code:?}");
        until("it is counted", || proxy.count("umbra_bad_requests_total", &["malformed"]) == number).await;
        assert_eq!(other.get("/").await.status, 200, "{what}");
    }
}
