//! Heads on their way to endpoints: as rules left them, or written down for later.

use std::rc::Rc;

use http::Request;
use http::uri::Authority;
use http_body::Body;

use super::link::Asked;
use crate::http1::{Framing, write};
use crate::recycle::Recycled;
use crate::version::RequestHead;

/// A request's head.
#[derive(Clone, Copy)]
pub(crate) enum Message<'a> {
    Head(RequestHead<'a>),
    /// For HTTP/1 alone.
    Written(&'a Written),
}

impl Message<'_> {
    pub(super) fn asked(&self) -> Asked {
        match self {
            Self::Head(head) => Asked::new(head),
            Self::Written(written) => written.asked,
        }
    }

    /// Behind what is in `out`.
    pub(super) fn write(&self, out: &mut Vec<u8>, body: &impl Body) -> Framing {
        match self {
            Self::Head(head) => {
                let framing = write::framing_of_request(head.headers, body);
                write::request(out, head, framing);
                framing
            }
            Self::Written(written) => {
                out.extend_from_slice(&written.bytes);
                written.framing
            }
        }
    }

    /// `named`: what the last one on its connection named.
    pub(super) fn for_http2(&self, named: &mut Option<Authority>) -> Request<()> {
        match self {
            Self::Head(head) => head.for_http2(named),
            Self::Written(_) => unreachable!("a head is written down for HTTP/1 alone"),
        }
    }
}

/// A head of HTTP/1 as bytes.
pub(crate) struct Written {
    pub(super) bytes: Vec<u8>,
    pub(super) framing: Framing,
    pub(super) asked: Asked,
    recycled: Rc<Recycled>,
}

impl Written {
    pub(crate) fn new(head: &RequestHead<'_>, body: &impl Body, recycled: &Rc<Recycled>) -> Self {
        let mut bytes = recycled.head();
        let framing = write::framing_of_request(head.headers, body);
        write::request(&mut bytes, head, framing);
        Self { bytes, framing, asked: Asked::new(head), recycled: Rc::clone(recycled) }
    }

    /// In bytes.
    pub(crate) fn size(&self) -> usize {
        self.bytes.len()
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        self.recycled.put_head(std::mem::take(&mut self.bytes));
    }
}
