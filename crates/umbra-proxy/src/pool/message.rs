//! Heads on their way to endpoints of HTTP/1: as rules left them, or written down for later.

use std::rc::Rc;

use http_body::Body;

use super::link::Asked;
use crate::http1::{Framing, write};
use crate::recycle::Recycled;
use crate::version::RequestHead;

/// A request's head that a connection of HTTP/1 can send.
pub(crate) trait Message {
    fn asked(&self) -> Asked;

    /// Behind what is in `out`.
    fn write(&self, out: &mut Vec<u8>, body: &impl Body) -> Framing;
}

impl Message for RequestHead<'_> {
    fn asked(&self) -> Asked {
        Asked::new(self)
    }

    fn write(&self, out: &mut Vec<u8>, body: &impl Body) -> Framing {
        let framing = write::framing_of_request(self.headers, body);
        write::request(out, self, framing);
        framing
    }
}

impl Message for Written {
    fn asked(&self) -> Asked {
        self.asked
    }

    fn write(&self, out: &mut Vec<u8>, _: &impl Body) -> Framing {
        out.extend_from_slice(&self.bytes);
        self.framing
    }
}

/// A head of HTTP/1 as bytes.
pub(crate) struct Written {
    bytes: Vec<u8>,
    framing: Framing,
    asked: Asked,
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
