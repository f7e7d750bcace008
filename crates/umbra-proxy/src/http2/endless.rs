//! A body without an end, for tests of who reads it: it always has a frame, and counts how often it is read ahead.

use std::cell::Cell;
use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame};

use super::ReadAhead;

#[derive(Clone, Default)]
pub(crate) struct Endless(pub(crate) Rc<Cell<usize>>);

impl Body for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[0; 16 * 1024])))))
    }
}

impl ReadAhead for Endless {
    fn read_ahead(self: Pin<&mut Self>, _: &mut Context<'_>) {
        self.0.set(self.0.get() + 1);
    }
}
