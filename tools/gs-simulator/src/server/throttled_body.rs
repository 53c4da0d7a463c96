//! A body that is sent in small pieces.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::{Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep};

use crate::service::answer::BodyThrottle;

/// Its length is announced, as that of any other answer.
#[derive(Debug)]
pub(crate) struct ThrottledBody {
    left: Bytes,
    throttle: BodyThrottle,
    pause: Pin<Box<Sleep>>,
}

impl ThrottledBody {
    pub(crate) fn new(body: Bytes, throttle: BodyThrottle) -> Self {
        Self { left: body, throttle, pause: Box::pin(sleep(throttle.pause)) }
    }
}

impl HttpBody for ThrottledBody {
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
        let next = Instant::now() + self.throttle.pause;
        self.pause.as_mut().reset(next);
        let length = self.throttle.bytes.min(self.left.len());
        Poll::Ready(Some(Ok(Frame::data(self.left.split_to(length)))))
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(u64::try_from(self.left.len()).unwrap_or(u64::MAX))
    }
}
