//! Which HTTP a connection speaks: clients are told, backends hear it from the first bytes.

use anyhow::Result;

use super::http2::{Http2, PREFACE, Whole};
use super::message::Reader;
use super::shape::Text;
use crate::socket::Socket;

/// One end of a connection.
#[derive(Debug)]
pub(super) enum Wire {
    /// A backend's, on which nothing has come.
    New,
    Http1(Reader),
    Http2(Box<Http2>),
}

impl Wire {
    /// A client's, and what it says first.
    pub(super) fn client(is_http2: bool, out: &mut Vec<u8>) -> Self {
        if is_http2 { Self::Http2(Box::new(Http2::client(out))) } else { Self::Http1(Reader::default()) }
    }

    /// Takes what came, and gives each message that is whole now. `out` is to be sent.
    ///
    /// # Errors
    /// What came is not what the harness reads.
    pub(super) fn feed(
        &mut self,
        bytes: &[u8],
        out: &mut Vec<u8>,
        mut whole: impl FnMut(Whole),
    ) -> Result<()> {
        if let Self::New = self {
            // No method of HTTP/1.1 begins so, and a preface comes in one piece.
            let is_http2 = !bytes.is_empty() && bytes.starts_with(&PREFACE[..PREFACE.len().min(bytes.len())]);
            *self = if is_http2 {
                Self::Http2(Box::new(Http2::server(out)))
            } else {
                Self::Http1(Reader::default())
            };
        }
        match self {
            Self::Http2(http2) => http2.feed(bytes, out, whole),
            Self::Http1(reader) => reader.feed(bytes, |message| whole(Whole { message, stream: 0 })),
            Self::New => Ok(()),
        }
    }

    /// A request more.
    pub(super) fn ask(&mut self, text: &Text, socket: &mut Socket, out: &mut Vec<u8>) -> std::io::Result<()> {
        match self {
            Self::Http2(http2) => http2.ask(text, out),
            Self::Http1(_) | Self::New => socket.send(&text.http1)?,
        }
        Ok(())
    }

    /// The answer to the request of this stream.
    pub(super) fn answer(
        &mut self,
        stream: u32,
        text: &Text,
        socket: &mut Socket,
        out: &mut Vec<u8>,
    ) -> std::io::Result<()> {
        match self {
            Self::Http2(http2) => http2.say(stream, text, out),
            Self::Http1(_) | Self::New => socket.send(&text.http1)?,
        }
        Ok(())
    }
}
