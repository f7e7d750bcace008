use futures::FutureExt as _;
use tokio::net::TcpListener;

use super::*;
use crate::descriptors::Sockets;
use crate::http2::Endless;

/// A request with a body of no known length.
struct Upload;

impl Message for Upload {
    fn asked(&self) -> Asked {
        Asked::default()
    }

    fn write(&self, out: &mut Vec<u8>, _: &impl Body) -> Framing {
        out.extend_from_slice(b"POST / HTTP/1.1\r\nhost: web\r\ntransfer-encoding: chunked\r\n\r\n");
        Framing::Chunked
    }
}

#[tokio::test]
async fn a_body_is_read_ahead_while_its_endpoint_takes_nothing_and_only_then() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let (ours, theirs) = tokio::join!(TcpStream::connect(address), listener.accept());
    let (ours, _theirs) = (ours.expect("it listens"), theirs.expect("a proxy"));
    let link = Link::new(ours, Sockets::default().open(), Rc::default(), 1024);
    let body = Endless::default();
    link.begin(&Upload, body.clone());
    assert_eq!(body.0.get(), 0);
    // Its kernel takes megabytes before it takes nothing.
    let head = std::future::poll_fn(|cx| link.poll_head(cx)).now_or_never();
    assert!(head.is_none(), "nobody answers");
    assert_eq!(body.0.get(), 1);
}
