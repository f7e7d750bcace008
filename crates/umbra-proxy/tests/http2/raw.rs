//! A client of HTTP/2 whose every byte the test decides.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use umbra_testkit::frames::{GOAWAY, HEADERS, PREFACE, RST_STREAM, SETTINGS, STATUS_200, frame};

use crate::rig::Proxy;

/// A connection that has begun.
pub(crate) struct Raw(pub(crate) TcpStream);

/// What came of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Came {
    Served,
    /// An answer with another status than 200.
    Answered,
    /// Its stream was reset, for this.
    Reset(u32),
    /// The whole connection was ended.
    Ended,
}

impl Raw {
    pub(crate) async fn begin(proxy: &Proxy) -> Self {
        let stream = TcpStream::connect(proxy.address()).await.expect("the proxy listens");
        let mut raw = Self(stream);
        raw.send(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).await;
        raw
    }

    /// The proxy may have ended the connection before it had all of it.
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        let _ = self.0.write_all(bytes).await;
    }

    /// The next frame's kind and payload; `None`: the connection was ended.
    pub(crate) async fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).await.ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length.try_into().expect("short")];
        self.0.read_exact(&mut payload).await.ok()?;
        Some((head[3], payload))
    }

    /// What comes of its only request.
    pub(crate) async fn came(&mut self) -> Came {
        loop {
            match self.next().await {
                None => return Came::Ended,
                Some((RST_STREAM, code)) => {
                    return Came::Reset(u32::from_be_bytes(code.try_into().expect("a code")));
                }
                Some((HEADERS, head)) if head.first() == Some(&STATUS_200) => return Came::Served,
                Some((HEADERS, _)) => return Came::Answered,
                Some(_) => {}
            }
        }
    }

    /// Waits until the proxy ends the connection. Why, if it has said so: the code of its last GOAWAY.
    pub(crate) async fn ended(&mut self) -> Option<u32> {
        let mut code = None;
        while let Some((kind, payload)) = self.next().await {
            if kind == GOAWAY {
                code = payload.get(4..8).and_then(|code| code.try_into().ok()).map(u32::from_be_bytes);
            }
        }
        code
    }
}
