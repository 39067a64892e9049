//! Request bodies towards an HTTP/2 app, and how far they have come.

use std::cell::Cell;
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use model::{Cause, Failure};
use telemetry::Limit;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use crate::config::Timeouts;
use crate::worker::Worker;

/// The body of a request to an HTTP/2 app.
#[derive(Debug)]
pub(crate) struct Upload {
    source: Source,
    progress: Rc<Progress>,
}

#[derive(Debug)]
enum Source {
    /// An HTTP/2 caller's, frame by frame.
    Caller(Incoming),
    /// An HTTP/1 caller's, through a channel of one slot.
    Channel(mpsc::Receiver<Result<Frame<Bytes>, Aborted>>),
    None,
}

/// The caller broke off: the stream to the app is reset.
#[derive(Debug)]
pub(crate) struct Aborted;

impl std::fmt::Display for Aborted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the caller broke off within the request body")
    }
}

impl std::error::Error for Aborted {}

impl Upload {
    pub(crate) fn caller(body: Incoming) -> Self {
        Self { source: Source::Caller(body), progress: Rc::new(Progress::new()) }
    }

    pub(crate) fn channel(frames: mpsc::Receiver<Result<Frame<Bytes>, Aborted>>) -> Self {
        Self { source: Source::Channel(frames), progress: Rc::new(Progress::new()) }
    }

    pub(crate) fn none() -> Self {
        Self { source: Source::None, progress: Rc::new(Progress::new()) }
    }

    pub(crate) fn progress(&self) -> Rc<Progress> {
        self.progress.clone()
    }

    /// The same once more, where there is nothing of it that could be used up.
    pub(crate) fn again(&self) -> Option<Self> {
        matches!(self.source, Source::None).then(|| Self { source: Source::None, progress: self.progress.clone() })
    }
}

impl http_body::Body for Upload {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Self { source, progress } = &mut *self;
        progress.moved(Waiting::ForCaller);
        let frame: Option<Result<_, Self::Error>> = match source {
            Source::Caller(incoming) => {
                ready!(Pin::new(incoming).poll_frame(cx)).map(|frame| frame.map_err(Into::into))
            }
            Source::Channel(frames) => ready!(frames.poll_recv(cx)).map(|frame| frame.map_err(Into::into)),
            Source::None => None,
        };
        progress.moved(Waiting::ForApp);
        if let Some(data) = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref()) {
            progress.bytes.set(progress.bytes.get() + data.len() as u64);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Caller(incoming) => incoming.is_end_stream(),
            Source::Channel(_) => false,
            Source::None => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Caller(incoming) => incoming.size_hint(),
            Source::Channel(_) => SizeHint::new(),
            Source::None => SizeHint::with_exact(0),
        }
    }
}

/// How far a body has come, as seen by the one who waits for the answer.
#[derive(Debug)]
pub(crate) struct Progress {
    bytes: Cell<u64>,
    waiting: Cell<Waiting>,
    since: Cell<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waiting {
    ForCaller,
    ForApp,
}

impl Progress {
    fn new() -> Self {
        Self { bytes: Cell::new(0), waiting: Cell::new(Waiting::ForApp), since: Cell::new(Instant::now()) }
    }

    fn moved(&self, waiting: Waiting) {
        if self.waiting.replace(waiting) != waiting {
            self.since.set(Instant::now());
        }
    }

    /// Body bytes that went towards the app since the last call.
    pub(crate) fn take_bytes(&self) -> u64 {
        self.bytes.take()
    }

    /// Waits for an answer as long as the bounds allow: for each part of the body from the caller, for the app to take it,
    /// and for the answer once the app has the whole request.
    pub(crate) async fn bound<T>(
        &self,
        worker: &Worker,
        timeouts: &Timeouts,
        answer: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let mut answer = pin!(answer);
        loop {
            let (waiting, since) = (self.waiting.get(), self.since.get());
            let patience = match waiting {
                Waiting::ForCaller => Some(timeouts.body),
                Waiting::ForApp => timeouts.response,
            };
            let ends = patience.map(|patience| since + patience);
            // Whom we wait for changes without a word: it is looked at again from time to time.
            let look = Instant::now() + timeouts.body;
            match timeout_at(ends.map_or(look, |ends| ends.min(look)), &mut answer).await {
                Ok(answered) => return answered,
                Err(_) if self.since.get() != since => {}
                Err(_) if ends.is_some_and(|ends| ends <= Instant::now()) => {
                    return Err(out_of_patience(worker, waiting));
                }
                Err(_) => {}
            }
        }
    }
}

fn out_of_patience(worker: &Worker, waiting: Waiting) -> Failure {
    match waiting {
        Waiting::ForCaller => {
            worker.telemetry.limit_hit(Limit::Body);
            Failure::new(Cause::RequestTimeout, "the request body stalled")
        }
        Waiting::ForApp => Failure::new(Cause::AppTimeout, "no answer within the response timeout"),
    }
}
