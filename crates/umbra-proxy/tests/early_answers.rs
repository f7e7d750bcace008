//! Answers that come before their request has ended: nothing of either is lost, and connections go on where they can.

mod rig;

use std::net::SocketAddr;

use rig::{Proxy, Pushed, on_path, raw_backend, read_head, rule, subset, to, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

fn only(v1: SocketAddr) -> Pushed {
    let rules = vec![rule(vec![to(subset("v1"), 1)], vec![])];
    Pushed { rules, sets: vec![(subset("v1"), vec![v1])], ..Pushed::default() }
}

async fn read(stream: &mut TcpStream, expected: &str) {
    let mut came = vec![0; expected.len()];
    within(expected, stream.read_exact(&mut came)).await.expect("all of it");
    assert_eq!(String::from_utf8_lossy(&came), expected);
}

#[tokio::test]
async fn a_request_that_was_answered_early_gets_there_whole_and_its_connections_go_on() {
    let v1 = raw_backend(|connection, mut stream| async move {
        assert_eq!(connection, 0, "one for both requests");
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nearly").await.expect("a reader");
        read(&mut stream, "firstlater").await;
        assert!(read_head(&mut stream).await.starts_with("GET /next "));
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nnext").await.expect("a reader");
        stream.read_u8().await.expect_err("the proxy closes");
    })
    .await;
    let proxy = Proxy::start(&only(v1));
    let mut stream = TcpStream::connect(proxy.address()).await.expect("the proxy listens");
    let ask = b"POST / HTTP/1.1\r\nhost: web\r\ncontent-length: 10\r\n\r\nfirst";
    stream.write_all(ask).await.expect("a reader");
    read(&mut stream, "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nearly").await;
    stream.write_all(b"laterGET /next HTTP/1.1\r\nhost: web\r\n\r\n").await.expect("a reader");
    read(&mut stream, "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nnext").await;
}

#[tokio::test]
async fn a_body_that_nobody_wants_does_not_cost_the_connection() {
    let v1 = raw_backend(|_, mut stream| async move {
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nv1").await.expect("a reader");
        stream.read_u8().await.expect_err("the proxy closes");
    })
    .await;
    let pushed = only(v1);
    let rules = pushed.rules.iter().map(|rule| on_path("/a", rule.clone())).collect();
    let proxy = Proxy::start(&Pushed { rules, ..pushed });
    let mut stream = TcpStream::connect(proxy.address()).await.expect("the proxy listens");
    for framing in ["content-length: 3\r\n\r\nabc", "transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"]
    {
        let ask = format!("POST /none HTTP/1.1\r\nhost: web\r\n{framing}");
        stream.write_all(ask.as_bytes()).await.expect("a reader");
        let head = within("its head", read_head(&mut stream)).await;
        assert!(head.starts_with("HTTP/1.1 404 "), "{head}");
        let (_, length) = head.split_once("content-length: ").expect("it has one");
        let length = length.lines().next().and_then(|length| length.parse().ok()).expect("a number");
        within("its text", stream.read_exact(&mut vec![0; length])).await.expect("all of it");
    }
    stream.write_all(b"GET /a HTTP/1.1\r\nhost: web\r\n\r\n").await.expect("a reader");
    read(&mut stream, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nv1").await;
}

#[tokio::test]
async fn no_protocol_is_switched_to_in_the_middle_of_a_body() {
    let (came, mut seen) = mpsc::unbounded_channel();
    let v1 = raw_backend(move |_, mut stream| {
        let came = came.clone();
        async move {
            read_head(&mut stream).await;
            let answer = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n";
            stream.write_all(answer).await.expect("a reader");
            let mut rest = Vec::new();
            // An end or a reset.
            let _ = stream.read_to_end(&mut rest).await;
            came.send(String::from_utf8_lossy(&rest).into_owned()).expect("the test waits for it");
        }
    })
    .await;
    let proxy = Proxy::start(&only(v1));
    let mut stream = TcpStream::connect(proxy.address()).await.expect("the proxy listens");
    let ask = "POST / HTTP/1.1\r\nhost: web\r\nconnection: upgrade\r\nupgrade: x\r\ncontent-length: 10\r\n\r\nfirst";
    stream.write_all(ask.as_bytes()).await.expect("a reader");
    read(&mut stream, "HTTP/1.1 503 Service Unavailable\r\n").await;
    // The rest of the body is not sent as bytes of another protocol.
    assert!("first".starts_with(&within("its end", seen.recv()).await.expect("it says what came")));
}
