//! A body that comes drop by drop.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::{Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep};

use crate::answer::Drip;

/// Its length is announced, as that of any other answer.
#[derive(Debug)]
pub(crate) struct Dripping {
    left: Bytes,
    drip: Drip,
    pause: Pin<Box<Sleep>>,
}

impl Dripping {
    pub(crate) fn new(body: Bytes, drip: Drip) -> Self {
        Self { left: body, drip, pause: Box::pin(sleep(drip.pause)) }
    }
}

impl HttpBody for Dripping {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left.is_empty() {
            return Poll::Ready(None);
        }
        ready!(self.pause.as_mut().poll(context));
        let next = Instant::now() + self.drip.pause;
        self.pause.as_mut().reset(next);
        let length = self.drip.bytes.min(self.left.len());
        Poll::Ready(Some(Ok(Frame::data(self.left.split_to(length)))))
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(u64::try_from(self.left.len()).unwrap_or(u64::MAX))
    }
}
