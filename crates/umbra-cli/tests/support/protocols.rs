//! A backend that speaks HTTP/1.1 and HTTP/2 and answers which of them it was asked in, and a client of each.

use std::net::{Ipv4Addr, SocketAddr};

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{Request, Response};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};

const HTTP_1: &str = "HTTP/1.1";
const HTTP_2: &str = "HTTP/2";

/// Starts it; gives its port. Its thread ends with the test program.
pub(crate) fn backend() -> u16 {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    listener.set_nonblocking(true).unwrap();
    std::thread::spawn(move || {
        runtime().block_on(async {
            let listener = TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream));
            }
        });
    });
    port
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// HTTP/2 begins with a preface that no method of HTTP/1 has (RFC 9113 section 3.4). What goes wrong is the client's to tell.
async fn answer(mut stream: TcpStream) {
    let mut first = [0; 3];
    while stream.peek(&mut first).await.is_ok_and(|count| (1..first.len()).contains(&count)) {
        stream.readable().await.unwrap();
    }
    if &first != b"PRI" {
        let _request = stream.read(&mut [0; 4096]).await;
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: 8\r\nconnection: close\r\n\r\n{HTTP_1}");
        let _ = stream.write_all(answer.as_bytes()).await;
        return;
    }
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    while let Some(Ok((_, mut respond))) = connection.accept().await {
        let head = Response::builder().header(CONTENT_LENGTH, HTTP_2.len()).body(()).unwrap();
        if let Ok(mut body) = respond.send_response(head, false) {
            let _ = body.send_data(Bytes::from_static(HTTP_2.as_bytes()), true);
        }
    }
}

/// The answer to a request in HTTP/2, by a connection of its own.
pub(crate) fn get_http2(address: SocketAddr, host: &str) -> String {
    runtime().block_on(asked_in_http2(address, host))
}

async fn asked_in_http2(address: SocketAddr, host: &str) -> String {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let request = Request::get(format!("http://{host}/")).body(()).unwrap();
    let (answer, _) = client.send_request(request, true).unwrap();
    let mut body = answer.await.unwrap().into_body();
    let mut text = Vec::new();
    while let Some(part) = body.data().await {
        text.extend(part.unwrap());
    }
    String::from_utf8(text).unwrap()
}
