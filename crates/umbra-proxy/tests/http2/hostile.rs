//! Frames that no client library sends: what must not cross from HTTP/2 to HTTP/1 (RFC 9113 sections 8.2.1, 8.2.2, 8.3 and
//! 10.3), and floods (section 10.5).

use http::Version;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use umbra_routing::SpokenTo;

use crate::rig::{Http2Client, Proxy, until, within};
use crate::{only, speaking};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const PROTOCOL_ERROR: u32 = 1;
const ENHANCE_YOUR_CALM: u32 = 11;
const END_STREAM_AND_HEADERS: u8 = 0x1 | 0x4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// `GET http://web/` with these fields.
fn get(fields: &[(&str, &str)]) -> Vec<u8> {
    get_path("/", fields)
}

/// Each field is a literal that is not indexed (RFC 7541 section 6.2.2).
fn get_path(path: &str, fields: &[(&str, &str)]) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).expect("short")], text.as_bytes()].concat();
    let mut block = [vec![0x82, 0x86, 0x04], text(path), vec![0x01], text("web")].concat();
    for (name, value) in fields {
        block.push(0);
        block.extend([text(name), text(value)].concat());
    }
    block
}

/// The next frame's kind and payload; `None`: the connection was ended.
async fn next(stream: &mut TcpStream) -> Option<(u8, Vec<u8>)> {
    let mut head = [0; 9];
    stream.read_exact(&mut head).await.ok()?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    let mut payload = vec![0; length.try_into().expect("short")];
    stream.read_exact(&mut payload).await.ok()?;
    Some((head[3], payload))
}

/// Why the stream was reset; `None`: the whole connection was ended.
async fn refusal(stream: &mut TcpStream) -> Option<u32> {
    loop {
        match next(stream).await? {
            (RST_STREAM, code) => return Some(u32::from_be_bytes(code.try_into().expect("a code"))),
            // It was answered.
            (HEADERS, _) => return Some(0),
            _ => {}
        }
    }
}

/// A connection that has begun.
async fn begun(proxy: &Proxy) -> TcpStream {
    let mut stream = TcpStream::connect(proxy.address()).await.expect("the proxy listens");
    let settings = frame(SETTINGS, 0, 0, &[]);
    stream.write_all(&[PREFACE, &settings].concat()).await.expect("a reader");
    stream
}

#[tokio::test]
async fn fields_that_would_smuggle_end_their_stream() {
    let v1 = speaking(Version::HTTP_11).await;
    let proxy = Proxy::start(&only(v1.address, SpokenTo::Http1));
    for fields in [
        &[("x", "1\r\ny: 2")][..],
        &[("x", "1\n")],
        &[("x", "1\0")],
        &[("x y", "1")],
        &[("x\r\ny", "1")],
        &[("X-Upper", "1")],
        &[("connection", "close")],
        &[("transfer-encoding", "chunked")],
        &[("upgrade", "websocket")],
        &[("keep-alive", "1")],
        &[("proxy-connection", "1")],
        &[("te", "gzip")],
        &[("content-length", "x")],
        &[("content-length", "3"), ("content-length", "4")],
        &[("content-length", "3")],
        &[(":path", "/other")],
        &[(":protocol", "websocket")],
        &[("x", "1"), (":scheme", "http")],
    ] {
        let mut stream = begun(&proxy).await;
        let request = frame(HEADERS, END_STREAM_AND_HEADERS, 1, &get(fields));
        stream.write_all(&request).await.expect("a reader");
        let refusal = within("the stream or the connection ends", refusal(&mut stream)).await;
        assert!(matches!(refusal, None | Some(PROTOCOL_ERROR)), "{fields:?}: {refusal:?}");
    }
    assert_eq!(v1.seen(), []);
}

#[tokio::test]
async fn what_is_no_path_is_not_forwarded() {
    let v1 = speaking(Version::HTTP_11).await;
    let proxy = Proxy::start(&only(v1.address, SpokenTo::Http1));
    for path in ["", "foo", "*", "http://other/", "/a b", "/a HTTP/1.1\r\nx: y", "/%0"] {
        let mut stream = begun(&proxy).await;
        let request = frame(HEADERS, END_STREAM_AND_HEADERS, 1, &get_path(path, &[]));
        stream.write_all(&request).await.expect("a reader");
        // Reset, or answered with 400.
        let refusal = within("an answer or a reset", refusal(&mut stream)).await;
        assert!(matches!(refusal, None | Some(0 | PROTOCOL_ERROR)), "{path:?}: {refusal:?}");
    }
    assert_eq!(v1.seen(), []);
}

#[tokio::test]
async fn a_flood_ends_its_connection_and_nobody_elses() {
    let v1 = speaking(Version::HTTP_11).await;
    let proxy = Proxy::start(&only(v1.address, SpokenTo::Http1));
    let mut other = Http2Client::connect(proxy.address()).await;
    let stream = |number: u32| 2 * number + 1;
    let resets = (0..2_000).flat_map(|number| {
        let request = frame(HEADERS, END_STREAM_AND_HEADERS, stream(number), &get(&[]));
        [request, frame(RST_STREAM, 0, stream(number), &8_u32.to_be_bytes())]
    });
    let endless = std::iter::once(frame(HEADERS, 0x1, 1, &get(&[])))
        .chain((0..2_000).map(|_| frame(CONTINUATION, 0, 1, &[0, 1, b'x', 1, b'1'])));
    let floods: [(&str, Vec<u8>); 2] =
        [("resets", resets.flatten().collect()), ("a head without an end", endless.flatten().collect())];
    for (number, (what, flood)) in (1..).zip(floods) {
        let mut stream = begun(&proxy).await;
        // The proxy may have ended the connection before it is through.
        let _ = stream.write_all(&flood).await;
        let goodbye = async {
            loop {
                match next(&mut stream).await {
                    Some((GOAWAY, payload)) => break Some(payload[4..8].to_vec()),
                    Some(_) => {}
                    None => break None,
                }
            }
        };
        let code = within("the connection ends", goodbye).await;
        let calm = ENHANCE_YOUR_CALM.to_be_bytes().to_vec();
        assert!(code.as_ref().is_none_or(|code| *code == calm), "{what}: {code:?}");
        until("it is counted", || proxy.count("umbra_bad_requests_total", &["malformed"]) == number).await;
        assert_eq!(other.get("/").await.status, 200, "{what}");
    }
}
