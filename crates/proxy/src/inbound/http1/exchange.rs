//! One request and its answer, both on their way at once, driven by the caller's task alone.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use h1::{Method, ResponseHead};
use model::{Cause, Failure};
use net::Buffer;
use telemetry::{Limit, Record};
use tokio::time::Instant;

use super::pump::{Broken, Pump};
use crate::app::Link;
use crate::config::Port;
use crate::inbound::caller::Caller;
use crate::inbound::disconnected;
use crate::inbound::interval::Interval;
use crate::tries::{Tries, Try};

/// How long a caller that ended its side may still be read from as a caller that waits: some end theirs with the request
/// (`nc -N`), most are gone.
const GRACE: Duration = Duration::from_secs(1);

/// A request being sent on one connection to the app, and the answer read from it.
pub(super) struct Exchange<'c> {
    pub(super) caller: &'c mut Caller,
    pub(super) port: &'c Port,
    pub(super) record: &'c mut Record,
    pub(super) app: Link,
    pub(super) tries: &'c mut Tries,
    pub(super) attempt: &'c Try,
    /// The request is kept until the answer's head is there: its status may ask for another try.
    keeps_request: bool,
    /// Bytes from the app, read and not yet understood.
    pub(super) outbox: Buffer,
    pub(super) request: &'c mut Pump,
    /// The app no longer takes the request; its answer may have come before.
    pub(super) request_broken: bool,
    pub(super) method: Method,
    waiting: Option<Waiting>,
    /// When that has taken too long.
    patience: Option<Instant>,
    interval: Interval,
    caller_ended: bool,
    /// The answer lives long by design: no bound on the whole request holds.
    pub(super) streams: bool,
}

/// What the exchange waits for, as far as time is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waiting {
    /// The caller's next body bytes.
    Body,
    /// The app to take body bytes.
    AppTakes,
    /// The app's answer to begin.
    Answer,
    /// The caller to take the answer's bytes.
    CallerTakes,
    /// The app's next bytes, for as long as it likes.
    Stream,
    /// A caller that ended its side: gone, or patient.
    Grace,
}

/// Why there is no answer head.
#[derive(Debug)]
pub(super) enum NoAnswer {
    /// The app's connection ended before a byte of an answer: the request may be repeated, where it can be.
    Closed(&'static str),
    /// Anything else.
    Failed(Failure),
}

impl<'c> Exchange<'c> {
    pub(super) fn new(
        caller: &'c mut Caller,
        port: &'c Port,
        record: &'c mut Record,
        (tries, attempt): (&'c mut Tries, &'c Try),
        app: Link,
        request: &'c mut Pump,
        method: Method,
    ) -> Self {
        let interval = Interval::from(caller.worker.now());
        Self {
            caller,
            port,
            record,
            app,
            keeps_request: tries.replayed() > 0,
            tries,
            attempt,
            outbox: Buffer::default(),
            request,
            request_broken: false,
            method,
            waiting: None,
            patience: None,
            interval,
            caller_ended: false,
            streams: false,
        }
    }

    /// Sends the request and reads the answer's head into `response`; how many bytes of the outbox it takes. Called again
    /// after an informational answer.
    pub(super) async fn answer_head(&mut self, response: &mut ResponseHead) -> Result<usize, NoAnswer> {
        let limits = h1::Limits { head_bytes: self.port.limits.head_bytes, fields: self.port.limits.head_fields };
        poll_fn(|cx| self.poll_answer_head(cx, response, &limits)).await
    }

    fn poll_answer_head(
        &mut self,
        cx: &mut Context<'_>,
        response: &mut ResponseHead,
        limits: &h1::Limits,
    ) -> Poll<Result<usize, NoAnswer>> {
        self.poll_request(cx).map_err(NoAnswer::Failed)?;
        loop {
            if !self.outbox.is_empty() {
                match response.parse(self.outbox.filled(), limits, self.method) {
                    Ok(Some(length)) => return Poll::Ready(Ok(length)),
                    Ok(None) => {}
                    Err(e) => {
                        return Poll::Ready(Err(NoAnswer::Failed(Failure::new(Cause::AppProtocol, e.reason()))));
                    }
                }
            }
            self.caller.worker.buffers.back(&mut self.outbox);
            let read = self.app.poll_read_buffer(cx, &mut self.outbox);
            let nothing = self.outbox.is_empty();
            self.caller.worker.buffers.release(&mut self.outbox);
            match read {
                Poll::Ready(Ok(n)) if n > 0 && self.keeps_request => {}
                Poll::Ready(Ok(n)) if n > 0 => self.request.never_rewind(),
                Poll::Ready(ended) => return Poll::Ready(Err(closed(nothing, &ended))),
                Poll::Pending => break,
            }
        }
        self.watch_caller(cx).map_err(NoAnswer::Failed)?;
        self.poll_patience(cx, None).map(|failure| Err(NoAnswer::Failed(failure)))
    }

    /// Pushes the request as far as it goes. That the app no longer takes it is not yet a failure.
    fn poll_request(&mut self, cx: &mut Context<'_>) -> Result<(), Failure> {
        if self.request_broken {
            return Ok(());
        }
        let caller = &mut *self.caller;
        let scratch = &mut *caller.worker.scratch.borrow_mut();
        let pushed = self.request.poll(cx, &mut caller.io, &mut caller.inbox, &mut self.app, scratch);
        caller.worker.buffers.release(&mut caller.inbox);
        self.record.received(self.request.carried());
        match pushed {
            Poll::Ready(Err(Broken::Write(_))) => self.request_broken = true,
            Poll::Ready(Err(Broken::Read(e))) => return Err(disconnected(&e)),
            Poll::Ready(Err(Broken::Ended)) => {
                return Err(Failure::new(Cause::ClientDisconnected, "the caller closed within the request body"));
            }
            Poll::Ready(Err(Broken::Malformed(e))) => return Err(super::malformed(e)),
            Poll::Ready(Ok(())) | Poll::Pending => {}
        }
        Ok(())
    }

    /// Sends the answer, its head written already, to its end; the request goes on meanwhile.
    pub(super) async fn answer_body(&mut self, answer: &mut Pump) -> Result<(), Failure> {
        poll_fn(|cx| self.poll_answer_body(cx, answer)).await
    }

    fn poll_answer_body(&mut self, cx: &mut Context<'_>, answer: &mut Pump) -> Poll<Result<(), Failure>> {
        let pushed = {
            let caller = &mut *self.caller;
            let scratch = &mut *caller.worker.scratch.borrow_mut();
            answer.poll(cx, &mut self.app, &mut self.outbox, &mut caller.io, scratch)
        };
        self.caller.worker.buffers.release(&mut self.outbox);
        self.record.sent(answer.carried());
        match pushed {
            Poll::Ready(Ok(())) => return Poll::Ready(Ok(())),
            Poll::Ready(Err(broken)) => return Poll::Ready(Err(answer_broken(&broken))),
            Poll::Pending => {}
        }
        self.poll_request(cx)?;
        self.watch_caller(cx)?;
        self.poll_patience(cx, Some(answer)).map(Err)
    }

    /// Notices a caller that goes away while the app works. What it sends instead waits in the inbox for its turn.
    fn watch_caller(&mut self, cx: &mut Context<'_>) -> Result<(), Failure> {
        let watching = self.request.is_read() && self.caller.inbox.is_empty() && !self.caller_ended;
        if !watching {
            return Ok(());
        }
        match self.caller.poll_fill(cx) {
            Poll::Ready(Ok(0)) => self.caller_ended = true,
            Poll::Ready(Err(e)) => return Err(disconnected(&e)),
            Poll::Ready(Ok(_)) | Poll::Pending => {}
        }
        Ok(())
    }

    /// Ready with the reason once whatever is waited for has taken too long.
    fn poll_patience(&mut self, cx: &mut Context<'_>, mut answer: Option<&mut Pump>) -> Poll<Failure> {
        loop {
            let moved = self.request.moved() | answer.as_mut().is_some_and(|answer| answer.moved());
            let waiting = self.waiting(answer.as_deref());
            if moved || self.waiting != Some(waiting) {
                self.waiting = Some(waiting);
                self.patience = self.patience(waiting).map(|patience| self.caller.worker.now() + patience);
            }
            let bound = self.bound(answer.is_some());
            let due = [Some(self.interval.due()), self.patience, bound].into_iter().flatten().min();
            self.caller.deadline.set(due);
            if self.caller.deadline.poll_expired(cx).is_pending() {
                return Poll::Pending;
            }
            if bound.is_some_and(|bound| bound <= Instant::now()) {
                return Poll::Ready(Failure::new(Cause::AppTimeout, "not answered within the request's timeout"));
            }
            if self.patience.is_some_and(|patience| patience <= Instant::now()) {
                match waiting {
                    Waiting::Body => self.caller.worker.telemetry.limit_hit(Limit::Body),
                    Waiting::CallerTakes => self.caller.worker.telemetry.limit_hit(Limit::Write),
                    _ => {}
                }
                return Poll::Ready(out_of_patience(waiting));
            }
            self.interval.tell(self.record);
        }
    }

    /// When the try, or the whole request, has taken too long whatever it waits for.
    fn bound(&self, answered: bool) -> Option<Instant> {
        if answered { self.tries.deadline().filter(|_| !self.streams) } else { self.attempt.deadline }
    }

    fn waiting(&self, answer: Option<&Pump>) -> Waiting {
        match answer {
            Some(answer) if answer.is_blocked() => Waiting::CallerTakes,
            _ if self.caller_ended => Waiting::Grace,
            Some(_) => Waiting::Stream,
            None if self.request_broken => Waiting::Answer,
            None if self.request.is_blocked() => Waiting::AppTakes,
            None if !self.request.is_read() => Waiting::Body,
            None => Waiting::Answer,
        }
    }

    fn patience(&self, waiting: Waiting) -> Option<Duration> {
        let timeouts = &self.port.timeouts;
        match waiting {
            Waiting::Body => Some(timeouts.body),
            Waiting::AppTakes | Waiting::Answer => timeouts.response,
            Waiting::CallerTakes => Some(timeouts.write),
            Waiting::Stream => None,
            Waiting::Grace => Some(GRACE),
        }
    }
}

fn out_of_patience(waiting: Waiting) -> Failure {
    match waiting {
        Waiting::Body => Failure::new(Cause::RequestTimeout, "the request body stalled"),
        Waiting::AppTakes => Failure::new(Cause::AppTimeout, "the app stopped reading the request body"),
        Waiting::Answer | Waiting::Stream => Failure::new(Cause::AppTimeout, "no answer within the response timeout"),
        Waiting::CallerTakes => Failure::new(Cause::ClientDisconnected, "the caller stopped reading the answer"),
        Waiting::Grace => Failure::new(Cause::ClientDisconnected, "the caller closed the connection"),
    }
}

fn closed(nothing: bool, ended: &io::Result<usize>) -> NoAnswer {
    let detail = match ended {
        Ok(_) => "the app closed the connection",
        Err(_) => "the app reset the connection",
    };
    if nothing {
        NoAnswer::Closed(detail)
    } else {
        NoAnswer::Failed(Failure::new(Cause::AppClosed, "the app closed the connection within the head of its answer"))
    }
}

fn answer_broken(broken: &Broken) -> Failure {
    match broken {
        Broken::Ended => Failure::new(Cause::AppBroken, "the app closed the connection within its answer"),
        Broken::Read(e) => Failure::new(Cause::AppBroken, e.to_string()),
        Broken::Malformed(e) => Failure::new(Cause::AppProtocol, e.reason()),
        Broken::Write(e) => disconnected(e),
    }
}
