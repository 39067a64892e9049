//! What callers still send of a request that was answered early: read for a while, unseen, so that they see the answer.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::timeout;

/// How long callers are read from at most once they have their answer, and what they may send in the meantime.
pub(crate) const LINGER: Duration = Duration::from_secs(5);
pub(crate) const LINGER_BYTES: usize = 16 * 1024 * 1024;

/// What the streams of a connection share: how many of them are read on. They count as open with the library, so these are few, and a
/// caller that never ends its requests finds room for others.
#[derive(Debug)]
pub(crate) struct Lingering {
    streams: Cell<usize>,
    most: usize,
    forbidden: Cell<bool>,
}

impl Lingering {
    /// For a connection that has so many streams at once.
    pub(crate) fn new(streams: usize) -> Self {
        Self { streams: Cell::new(0), most: (streams / 4).max(1), forbidden: Cell::new(false) }
    }

    /// How many streams are read on.
    pub(crate) fn streams(&self) -> usize {
        self.streams.get()
    }

    /// Does something that drops bodies for which nobody waits: their streams are reset at once.
    pub(crate) fn forbidden(&self, drops: impl FnOnce()) {
        self.forbidden.set(true);
        drops();
        self.forbidden.set(false);
    }

    fn begin(self: &Rc<Self>) -> Option<Linger> {
        let may = self.streams.get() < self.most && !self.forbidden.get() && !std::thread::panicking();
        may.then(|| {
            self.streams.set(self.streams.get() + 1);
            Linger(self.clone())
        })
    }
}

/// A stream that is read on, counted until dropped.
struct Linger(Rc<Lingering>);

impl Drop for Linger {
    fn drop(&mut self) {
        self.0.streams.set(self.0.streams.get() - 1);
    }
}

/// The body of a request in HTTP/2. Where it is dropped before its end, the rest is read all the same: RFC 9113, 8.1 has a server reset
/// the stream behind an early answer, but there are callers that lose the answer over that, curl 7.88 among them. A stream with too
/// much left is reset in the end. (CONNECT has no body: the library keeps its stream to itself.)
#[derive(Debug)]
pub(crate) struct RequestBody {
    /// None where it was over from the start.
    body: Option<Incoming>,
    lingering: Rc<Lingering>,
}

impl RequestBody {
    pub(crate) fn new(body: Incoming, lingering: Rc<Lingering>) -> Self {
        Self { body: Some(body).filter(|body| !body.is_end_stream()), lingering }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        match &mut self.body {
            Some(body) => Pin::new(body).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        let body = self.body.take().filter(|body| !body.is_end_stream());
        if let Some(body) = body
            && let Some(linger) = self.lingering.begin()
        {
            tokio::task::spawn_local(async move {
                let _linger = linger;
                // Whether to its end or not, the library knows what to tell the caller.
                let _ = timeout(LINGER, discard(body)).await;
            });
        }
    }
}

/// Reads to the end, which a stream that was reset has reached.
async fn discard(mut body: Incoming) {
    let mut left = LINGER_BYTES;
    while let Some(Ok(frame)) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        // Empty frames are not free either.
        let read = frame.data_ref().map_or(1, |data| data.len().max(1));
        if read >= left {
            return;
        }
        left -= read;
    }
}
