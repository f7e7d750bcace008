use futures::FutureExt as _;
use tokio::net::TcpListener;

use super::*;
use crate::descriptors::Sockets;
use crate::http2::Endless;

#[tokio::test]
async fn an_answer_is_read_ahead_while_its_client_takes_nothing_and_only_then() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let (theirs, ours) = tokio::join!(TcpStream::connect(address), listener.accept());
    let (_theirs, ours) = (theirs.expect("it listens"), ours.expect("a client").0);
    let client = Client::new(ours, b"", Sockets::default().open(), (Rc::default(), 1024));
    client.begin(|_| Framing::Chunked);
    let mut body = Endless::default();
    let reads = Rc::clone(&body.0);
    // Its kernel takes megabytes before it takes nothing.
    let relayed = client.relay(&mut body).now_or_never();
    assert!(relayed.is_none(), "nobody reads, and there is no end");
    assert_eq!(reads.get(), 1);
}
