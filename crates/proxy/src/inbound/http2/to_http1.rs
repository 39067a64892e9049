//! An HTTP/2 stream to an app that speaks HTTP/1.1: the answer's body owns the app's connection and keeps pushing the
//! request while it is read.

mod content;

use std::future::poll_fn;
use std::task::{Context, Poll};

use h1::{BodyDecoder, ResponseHead};
use http::{Method, Request};
use model::{Cause, Failure};
use net::{Buffer, Deadline};
use telemetry::Limit;
use tokio::time::Instant;

use super::upload::Upload;
use super::{Answered, Call};
use crate::app::{Link, Reuse};
use crate::inbound::interval::Interval;
use crate::linger::RequestBody;
use crate::tries::{Tries, Try, Why};

/// Forwards a request whose head is written already.
pub(super) fn forward(call: Call, request: Request<RequestBody>, head: Vec<u8>) -> impl Future<Output = Answered> {
    let method = method_of(request.method());
    let idempotent = request.method().is_idempotent();
    let begun = FromHttp1::begin(call, idempotent, |replayed| Upload::new(head, request, replayed));
    async move {
        let mut exchange = begun?;
        let mut reuse = if idempotent { Reuse::Any } else { Reuse::Fresh };
        loop {
            let reused = match exchange.connect(reuse).await {
                Ok(reused) => reused,
                Err(failure) => return Err(exchange.told(failure)),
            };
            let answered = exchange.answer_head(method).await;
            let whole = exchange.upload.is_whole();
            let (failure, why) = match answered {
                Ok((head, length)) => {
                    let why = Why::Status(head.status());
                    exchange.learn(head.status());
                    if !exchange.again(why, whole) {
                        exchange.tries.tell(&mut exchange.call.record);
                        return Ok(exchange.into_response(head, length));
                    }
                    (None, why)
                }
                Err(NoAnswer { failure, closed }) => {
                    let why = if closed && reused { Why::Stale } else { Why::of(&failure) };
                    (Some(failure), why)
                }
            };
            if let Some(failure) = failure.filter(|_| !exchange.again(why, whole)) {
                return Err(exchange.told(failure));
            }
            exchange.rewind();
            reuse = if why == Why::Stale { Reuse::No } else { reuse };
            exchange.tries.pause(exchange.call.worker()).await;
        }
    }
}

fn method_of(method: &Method) -> h1::Method {
    match *method {
        Method::HEAD => h1::Method::Head,
        // An extended CONNECT goes to the app as the GET that asks for an upgrade.
        Method::GET | Method::CONNECT => h1::Method::Get,
        _ => h1::Method::Other,
    }
}

/// Why there is no answer head, and whether the app closed before a byte of one.
pub(super) struct NoAnswer {
    pub(super) failure: Failure,
    closed: bool,
}

/// An answer from the app, and the connection it comes on.
pub(super) struct FromHttp1 {
    call: Call,
    tries: Tries,
    /// The try under way, and its connection.
    attempt: Option<Try>,
    app: Option<Link>,
    outbox: Buffer,
    upload: Upload,
    upload_state: UploadState,
    decoder: Option<BodyDecoder>,
    length: Option<u64>,
    reusable: bool,
    keep_alive: Option<u32>,
    deadline: Deadline,
    interval: Interval,
    /// When the whole answer has taken too long.
    bound: Option<Instant>,
    over: bool,
    /// What comes behind the content that was handed over.
    next: Option<content::Next>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum UploadState {
    Going,
    Done,
    /// The app no longer takes the request.
    Refused,
}

impl FromHttp1 {
    /// Begins a request, which its body sends; in a box, for it is to become the answer's body and move no more.
    ///
    /// # Errors
    /// As many are under way to the service as may be.
    pub(super) fn begin(
        call: Call,
        idempotent: bool,
        upload: impl FnOnce(usize) -> Upload,
    ) -> Result<Box<Self>, (Failure, Call)> {
        let tries = match Tries::begin(&call.port, call.target.clone(), idempotent) {
            Ok(tries) => tries,
            Err(failure) => return Err((failure, call)),
        };
        let interval = Interval::from(call.worker().now());
        Ok(Box::new(Self {
            upload: upload(tries.replayed()),
            call,
            tries,
            attempt: None,
            app: None,
            outbox: Buffer::default(),
            upload_state: UploadState::Going,
            decoder: None,
            length: None,
            reusable: false,
            keep_alive: None,
            deadline: Deadline::new(),
            interval,
            bound: None,
            over: false,
            next: None,
        }))
    }

    /// Takes a connection for the next try; whether an earlier request used it.
    ///
    /// # Errors
    /// There is none to be had.
    pub(super) async fn connect(&mut self, reuse: Reuse) -> Result<bool, Failure> {
        let worker = self.call.worker().clone();
        let taking = worker.apps.take(&self.call.permit, &worker, &self.call.port, &mut self.tries, reuse);
        let (attempt, taken) = taking.await?;
        self.call.record.app(taken.reused);
        (self.attempt, self.app) = (Some(attempt), Some(taken.link));
        Ok(taken.reused)
    }

    /// Has the endpoint's state learn from an answer.
    fn learn(&mut self, status: u16) {
        if let Some(attempt) = &self.attempt {
            self.tries.answered(attempt, status);
        }
    }

    /// Whether there is another try: see [`Tries::again`].
    fn again(&mut self, why: Why, whole: bool) -> bool {
        self.attempt.as_ref().is_some_and(|attempt| self.tries.again(attempt, why, whole))
    }

    /// Begins again, on another connection: this one's try is over.
    fn rewind(&mut self) {
        (self.attempt, self.app) = (None, None);
        self.outbox = Buffer::default();
        self.upload.rewind();
        self.upload_state = UploadState::Going;
        self.deadline = Deadline::new();
    }

    /// The call, its record told of all tries, with what it failed of.
    pub(super) fn told(mut self: Box<Self>, failure: Failure) -> (Failure, Call) {
        self.tries.tell(&mut self.call.record);
        (failure, self.call)
    }

    /// Sends the request and reads until the final answer's head is there. Informational answers are dropped: the library
    /// cannot send them.
    pub(super) async fn answer_head(&mut self, method: h1::Method) -> Result<(Box<ResponseHead>, usize), NoAnswer> {
        let limits =
            h1::Limits { head_bytes: self.call.port.limits.head_bytes, fields: self.call.port.limits.head_fields };
        let mut head = self.call.worker().response_heads.take().unwrap_or_default();
        head.reset();
        loop {
            let length = poll_fn(|cx| self.poll_answer_head(cx, &mut head, &limits, method)).await?;
            if !(100..200).contains(&head.status()) || head.status() == 101 {
                return Ok((head, length));
            }
            self.call.worker().telemetry.dropped_informational();
            self.outbox.consume(length);
            head.reset();
        }
    }

    fn poll_answer_head(
        &mut self,
        cx: &mut Context<'_>,
        head: &mut ResponseHead,
        limits: &h1::Limits,
        method: h1::Method,
    ) -> Poll<Result<usize, NoAnswer>> {
        let fail = |cause, detail: &'static str| {
            Poll::Ready(Err(NoAnswer { failure: Failure::new(cause, detail), closed: false }))
        };
        if self.push_upload(cx).is_err() {
            return fail(Cause::ClientDisconnected, "the caller broke off within the request body");
        }
        loop {
            if !self.outbox.is_empty() {
                match head.parse(self.outbox.filled(), limits, method) {
                    Ok(Some(length)) => return Poll::Ready(Ok(length)),
                    Ok(None) => {}
                    Err(e) => return fail(Cause::AppProtocol, e.reason()),
                }
            }
            match self.poll_read_app(cx) {
                Poll::Ready(true) => {}
                Poll::Ready(false) => {
                    let failure = Failure::new(Cause::AppClosed, "the app closed the connection");
                    return Poll::Ready(Err(NoAnswer { failure, closed: self.outbox.is_empty() }));
                }
                Poll::Pending => break,
            }
        }
        let bound = self.attempt.as_ref().and_then(|attempt| attempt.deadline);
        if let Some(bound) = bound {
            let due = self.deadline.at().map_or(bound, |at| at.min(bound));
            self.deadline.set(Some(due));
        }
        match self.deadline.poll_expired(cx) {
            Poll::Ready(()) if bound.is_some_and(|bound| bound <= Instant::now()) => {
                fail(Cause::AppTimeout, "no answer within the timeout of a try")
            }
            Poll::Ready(()) if self.upload_state == UploadState::Going => {
                self.call.worker().telemetry.limit_hit(Limit::Body);
                fail(Cause::RequestTimeout, "the request body stalled")
            }
            Poll::Ready(()) => fail(Cause::AppTimeout, "no answer within the response timeout"),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Pushes the request as far as it goes; an error is the caller's.
    fn push_upload(&mut self, cx: &mut Context<'_>) -> Result<(), Cause> {
        let Some(app) = self.app.as_mut().filter(|_| self.upload_state == UploadState::Going) else { return Ok(()) };
        let pushed = self.upload.poll(cx, app, &mut self.call);
        if self.upload.moved() {
            // Patience for the answer begins when the app has the whole request; a caller that stalls has its own bound.
            self.deadline.set(Some(self.call.worker().now() + self.call.port.timeouts.body));
        }
        match pushed {
            Poll::Pending => return Ok(()),
            Poll::Ready(Ok(())) => self.upload_state = UploadState::Done,
            Poll::Ready(Err(Cause::ClientDisconnected)) => return Err(Cause::ClientDisconnected),
            Poll::Ready(Err(_)) => self.upload_state = UploadState::Refused,
        }
        let response = self.call.port.timeouts.response.filter(|_| !self.call.grpc);
        self.deadline.set(response.map(|within| self.call.worker().now() + within));
        Ok(())
    }

    /// Reads once from the app; `false` at the end of its stream, orderly or not.
    fn poll_read_app(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        let Some(app) = &mut self.app else { return Poll::Ready(false) };
        let worker = self.call.worker().clone();
        worker.buffers.back(&mut self.outbox);
        let read = app.poll_read_buffer(cx, &mut self.outbox);
        worker.buffers.release(&mut self.outbox);
        read.map(|read| matches!(read, Ok(n) if n > 0))
    }

    /// Has the record tell how the app answered a request that is sent once.
    pub(super) fn answered(&mut self, status: u16) {
        self.learn(status);
        self.tries.tell(&mut self.call.record);
    }

    /// The same where it did not.
    pub(super) fn failed(mut self: Box<Self>, no_answer: NoAnswer) -> (Failure, Call) {
        self.again(Why::of(&no_answer.failure), false);
        self.told(no_answer.failure)
    }

    /// What an upgraded connection needs: the call, the socket, and what was read from it.
    pub(super) fn into_parts(self: Box<Self>) -> (Call, Option<Link>, Buffer, (Tries, Option<Try>)) {
        let Self { call, app, outbox, tries, attempt, .. } = *self;
        (call, app, outbox, (tries, attempt))
    }

    /// Drops an answer's head from what was read.
    pub(super) fn consume(&mut self, length: usize) {
        self.outbox.consume(length);
    }

    pub(super) fn head_bytes(&self) -> &[u8] {
        self.outbox.filled()
    }
}
