//! Request bodies towards an HTTP/2 app, and how far they have come.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as _, Frame, SizeHint};
use model::{Cause, Failure};
use telemetry::Limit;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use crate::config::Timeouts;
use crate::linger::RequestBody;
use crate::worker::Worker;

/// The body of a request to an HTTP/2 app, for one try.
#[derive(Debug)]
pub(crate) struct Upload {
    body: Rc<Body>,
    /// Which try this is for: an earlier one gets nothing more.
    turn: u32,
    /// Frames of the kept ones that this try has had.
    had: usize,
}

/// A body that may have to be sent once more.
#[derive(Debug)]
struct Body {
    state: RefCell<State>,
    progress: Rc<Progress>,
}

#[derive(Debug)]
struct State {
    source: Source,
    turn: u32,
    kept: Vec<Kept>,
    kept_bytes: usize,
    /// Bytes worth keeping.
    keeps: usize,
    /// Whether all that was read so far is kept.
    whole: bool,
    over: bool,
}

#[derive(Clone, Debug)]
enum Kept {
    Data(Bytes),
    Trailers(HeaderMap),
}

#[derive(Debug)]
enum Source {
    /// An HTTP/2 caller's, frame by frame.
    Caller(RequestBody),
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

type Read = Option<Result<Frame<Bytes>, Box<dyn std::error::Error + Send + Sync>>>;

impl Upload {
    /// An HTTP/2 caller's body, of which so many bytes are kept to be sent once more.
    pub(crate) fn caller(body: RequestBody, keeps: usize) -> Self {
        Self::of(Source::Caller(body), keeps)
    }

    /// An HTTP/1 caller's, of which so many bytes are kept.
    pub(crate) fn channel(frames: mpsc::Receiver<Result<Frame<Bytes>, Aborted>>, keeps: usize) -> Self {
        Self::of(Source::Channel(frames), keeps)
    }

    pub(crate) fn none() -> Self {
        Self::of(Source::None, 0)
    }

    fn of(source: Source, keeps: usize) -> Self {
        let over = matches!(source, Source::None);
        let (kept, kept_bytes) = (Vec::new(), 0);
        let state = RefCell::new(State { source, turn: 0, kept, kept_bytes, keeps, whole: true, over });
        Self { body: Rc::new(Body { state, progress: Rc::new(Progress::new()) }), turn: 0, had: 0 }
    }

    pub(crate) fn progress(&self) -> Rc<Progress> {
        self.body.progress.clone()
    }

    /// The same once more, for the next try, as long as nothing of it is lost.
    pub(crate) fn again(&self) -> Option<Self> {
        self.body.state.borrow().whole.then(|| Self { body: self.body.clone(), turn: self.turn + 1, had: 0 })
    }
}

impl State {
    fn poll_source(&mut self, cx: &mut Context<'_>) -> Poll<Read> {
        Poll::Ready(match &mut self.source {
            Source::Caller(incoming) => {
                ready!(Pin::new(incoming).poll_frame(cx)).map(|frame| frame.map_err(Into::into))
            }
            Source::Channel(frames) => ready!(frames.poll_recv(cx)).map(|frame| frame.map_err(Into::into)),
            Source::None => None,
        })
    }

    /// Keeps a frame, if it is still worth it; `true` where it was kept.
    fn keep(&mut self, frame: &Frame<Bytes>) -> bool {
        let kept = match (frame.data_ref(), frame.trailers_ref()) {
            (Some(data), _) => Kept::Data(data.clone()),
            (None, Some(trailers)) => Kept::Trailers(trailers.clone()),
            (None, None) => return self.whole,
        };
        self.kept_bytes += frame.data_ref().map_or(0, Bytes::len);
        self.whole &= self.keeps > 0 && self.kept_bytes <= self.keeps;
        if self.whole {
            self.kept.push(kept);
        } else {
            self.kept = Vec::new();
        }
        self.whole
    }
}

impl http_body::Body for Upload {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Self { body, turn, had } = &mut *self;
        let (state, progress) = (&mut *body.state.borrow_mut(), &body.progress);
        state.turn = state.turn.max(*turn);
        if *turn < state.turn {
            return Poll::Ready(Some(Err(Aborted.into())));
        }
        if let Some(kept) = state.kept.get(*had) {
            *had += 1;
            return Poll::Ready(Some(Ok(match kept.clone() {
                Kept::Data(data) => Frame::data(data),
                Kept::Trailers(trailers) => Frame::trailers(trailers),
            })));
        }
        if state.over {
            return Poll::Ready(None);
        }
        progress.moved(Waiting::ForCaller);
        let frame = ready!(state.poll_source(cx));
        progress.moved(Waiting::ForApp);
        match &frame {
            Some(Ok(frame)) => {
                *had += usize::from(state.keep(frame));
                let bytes = frame.data_ref().map_or(0, Bytes::len);
                progress.bytes.set(progress.bytes.get() + bytes as u64);
            }
            Some(Err(_)) => state.whole = false,
            None => state.over = true,
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        let state = self.body.state.borrow();
        let ended = match &state.source {
            Source::Caller(incoming) => incoming.is_end_stream(),
            Source::Channel(_) => false,
            Source::None => true,
        };
        (ended || state.over) && self.had >= state.kept.len()
    }

    fn size_hint(&self) -> SizeHint {
        let state = self.body.state.borrow();
        match &state.source {
            Source::Caller(incoming) if self.turn == 0 => incoming.size_hint(),
            Source::None => SizeHint::with_exact(0),
            _ => SizeHint::new(),
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
