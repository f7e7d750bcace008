//! Clients that give up a request in the middle of its body: its stream ends everywhere, and others go on beside it.

use std::net::SocketAddr;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, SendStream};
use http::Request;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::sync::mpsc::{self, UnboundedReceiver};
use umbra_routing::SpokenTo;

use crate::peer::{Asked, peer};
use crate::rig::{Proxy, Pushed, raw_backend, until, within};
use crate::{mirrored, only};

/// What a backend got of an upload.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Got {
    Part,
    Whole(usize),
    Reset(Option<Reason>),
}

/// What it got of which request, and on which of its connections.
type Told = UnboundedReceiver<(String, usize, Got)>;

/// A backend that tells all that it gets.
async fn telling() -> (SocketAddr, Told) {
    let (told, tells) = mpsc::unbounded_channel();
    let address = peer(h2::server::Builder::new(), move |mut asked: Asked| {
        let told = told.clone();
        async move {
            let (path, connection) = (asked.request.uri().path().to_owned(), asked.connection);
            let tell = |got| told.send((path.clone(), connection, got)).expect("the test goes on");
            let mut read = 0;
            while let Some(chunk) = asked.request.body_mut().data().await {
                match chunk {
                    Ok(chunk) => {
                        asked.request.body_mut().flow_control().release_capacity(chunk.len()).expect("read");
                        read += chunk.len();
                        if !chunk.is_empty() {
                            tell(Got::Part);
                        }
                    }
                    Err(error) => return tell(Got::Reset(error.reason())),
                }
            }
            tell(Got::Whole(read));
            asked.ok();
        }
    })
    .await;
    (address, tells)
}

async fn connect(proxy: &Proxy) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(proxy.address()).await.expect("the proxy listens");
    let (sender, connection) = h2::client::handshake(stream).await.expect("a connection");
    tokio::spawn(connection);
    sender
}

/// A POST whose body has begun.
async fn begin(client: &SendRequest<Bytes>, path: &str) -> (ResponseFuture, SendStream<Bytes>) {
    let mut client = client.clone().ready().await.expect("a connection");
    let request = Request::post(format!("http://web{path}")).body(()).expect("a request");
    let (answer, mut body) = client.send_request(request, false).expect("a connection");
    body.send_data("half".into(), false).expect("a connection");
    (answer, body)
}

fn primaries(proxy: &Proxy, flags: &str) -> u64 {
    let flags = format!("response_flags=\"{flags}\"");
    let labels = ["reporter=\"source\"", "request_role=\"primary\"", &flags];
    proxy.count("istio_requests_total", &labels)
}

#[tokio::test]
async fn an_upload_that_is_given_up_ends_its_stream_and_its_copy_and_no_others() {
    let ((v1, mut primary), (v2, mut mirror)) = (telling().await, telling().await);
    let proxy = Proxy::start(&mirrored(v1, v2));
    let client = connect(&proxy).await;
    let (_answer, mut left) = begin(&client, "/left").await;
    for told in [&mut primary, &mut mirror] {
        let part = ("/left".to_owned(), 0, Got::Part);
        assert_eq!(within("half of it arrives", told.recv()).await, Some(part));
    }
    let (answer, mut stays) = begin(&client, "/stays").await;
    for told in [&mut primary, &mut mirror] {
        let part = ("/stays".to_owned(), 0, Got::Part);
        assert_eq!(within("half of it arrives", told.recv()).await, Some(part));
    }
    left.send_reset(Reason::CANCEL);
    for told in [&mut primary, &mut mirror] {
        let reset = ("/left".to_owned(), 0, Got::Reset(Some(Reason::CANCEL)));
        assert_eq!(within("its end arrives", told.recv()).await, Some(reset));
    }
    stays.send_data("rest".into(), true).expect("a connection");
    assert_eq!(within("the other is answered", answer).await.expect("an answer").status(), 200);
    for told in [&mut primary, &mut mirror] {
        let rest = [Got::Part, Got::Whole(8)].map(|got| Some(("/stays".to_owned(), 0, got)));
        assert_eq!([within("the rest", told.recv()).await, within("its end", told.recv()).await], rest);
    }
    let (answer, mut next) = begin(&client, "/next").await;
    next.send_data(Bytes::new(), true).expect("a connection");
    assert_eq!(within("the next is answered", answer).await.expect("an answer").status(), 200);
    proxy.settled(3).await;
    assert_eq!((proxy.dropped("incomplete"), proxy.result("answered")), (1, 2));
    until("the exchanges are counted", || primaries(&proxy, "-") == 2).await;
    assert_eq!(primaries(&proxy, "DC"), 1);
    let copies = proxy.count("istio_requests_total", &["request_role=\"shadow\""]);
    assert_eq!(copies, 2, "what was not sent whole is none");
    for told in [&mut primary, &mut mirror] {
        let part = Some(("/next".to_owned(), 0, Got::Part));
        assert_eq!(within("on the same connection", told.recv()).await, part);
    }
}

#[tokio::test]
async fn an_upload_that_is_given_up_does_not_look_whole_in_http_1() {
    let (told, mut tells) = mpsc::unbounded_channel();
    let v1 = raw_backend(move |_, mut stream| {
        let told = told.clone();
        async move {
            let (mut all, mut half) = (Vec::new(), true);
            while let Ok(1..) = stream.read_buf(&mut all).await {
                if half && all.windows(4).any(|four| four == b"half") {
                    half = false;
                    told.send(None).expect("the test goes on");
                }
            }
            told.send(Some(String::from_utf8(all).expect("text"))).expect("the test goes on");
        }
    })
    .await;
    let proxy = Proxy::start(&Pushed { ..only(v1, SpokenTo::Http1) });
    let client = connect(&proxy).await;
    let (_answer, mut left) = begin(&client, "/left").await;
    assert_eq!(within("half of it arrives", tells.recv()).await, Some(None));
    left.send_reset(Reason::CANCEL);
    let all = within("the connection ends", tells.recv()).await.flatten().expect("what came");
    assert!(all.ends_with("\r\n\r\n4\r\nhalf\r\n"), "no last chunk: {all:?}");
    until("the exchange is counted", || primaries(&proxy, "DC") == 1).await;
}
