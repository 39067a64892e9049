//! What callers still send of a request that was answered early: read for a while, unseen, so that they see the answer.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::timeout;

/// How long callers are read from at most once they have their answer, and what they may send in the meantime.
pub(crate) const LINGER: Duration = Duration::from_secs(5);
pub(crate) const LINGER_BYTES: usize = 16 * 1024 * 1024;

/// The body of a request in HTTP/2. Where it is dropped before its end, the rest is read all the same: RFC 9113, 8.1 has a server reset
/// the stream behind an early answer, but there are callers that lose the answer over that, curl 7.88 among them. A stream with too
/// much left is reset in the end.
#[derive(Debug)]
pub(crate) struct RequestBody(Option<Incoming>);

impl RequestBody {
    pub(crate) fn new(body: Incoming) -> Self {
        // What is over needs nobody to read it.
        Self(Some(body).filter(|body| !body.is_end_stream()))
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        match &mut self.0 {
            Some(body) => Pin::new(body).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if let Some(body) = self.0.take().filter(|body| !body.is_end_stream()) {
            tokio::task::spawn_local(timeout(LINGER, discard(body)));
        }
    }
}

/// Reads to the end, which a stream that was reset has reached.
async fn discard(mut body: Incoming) {
    let mut left = LINGER_BYTES;
    while let Some(Ok(frame)) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        let read = frame.data_ref().map_or(0, Bytes::len);
        if read >= left {
            return;
        }
        left -= read;
    }
}
