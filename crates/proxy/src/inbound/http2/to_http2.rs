//! An HTTP/2 stream to an app that speaks HTTP/2: gRPC, or a port that says so. Frames pass as they are, trailers too.

use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use model::{Cause, Failure};
use net::Deadline;

use super::answer::{Answer, BrokenOff};
use super::{Answered, Call, Stream};
use tokio::time::Instant;

use crate::app::http2::{Guard, Sent};
use crate::app::upload::{Progress, Upload};
use crate::inbound::interval::Interval;
use crate::linger::RequestBody;
use crate::tries::Tries;

/// Forwards a request whose fields are edited already.
pub(super) async fn forward(mut call: Call, request: Request<RequestBody>, headers: HeaderMap) -> Answered {
    let (mut parts, body) = request.into_parts();
    parts.headers = headers;
    parts.version = http::Version::HTTP_2;
    if let Some(authority) = parts.uri.authority() {
        let host = call.port.host(authority.as_str());
        if host != authority.as_str() {
            parts.uri = with_host(&parts.uri, host);
        }
    }
    let idempotent = parts.method.is_idempotent();
    let mut tries = match Tries::begin(&call.port, call.target.clone(), idempotent) {
        Ok(tries) => tries,
        Err(failure) => return Err((failure, call)),
    };
    let upload = if body.is_end_stream() { Upload::none() } else { Upload::caller(body, tries.replayed()) };
    let progress = upload.progress();
    let worker = call.worker().clone();
    let request = Request::from_parts(parts, upload);
    let sent = {
        let mut sending = pin!(worker.apps.http2.send(&call.permit, &worker, &call.port, &mut tries, request));
        // A gRPC answer may begin with its first message, minutes from now.
        match call.grpc {
            true => sending.await,
            false => progress.bound(&worker, &call.port.timeouts, sending.as_mut()).await,
        }
    };
    if sent.as_ref().is_err_and(|failure| failure.cause == Cause::AppTimeout) {
        tries.out_of_patience();
    }
    tries.tell(&mut call.record);
    match sent {
        Ok(sent) => Ok(FromHttp2::respond(call, tries, sent, progress)),
        Err(failure) => {
            call.record.received(progress.take_bytes());
            Err((failure, call))
        }
    }
}

/// The same target at another host.
fn with_host(uri: &http::Uri, host: &str) -> http::Uri {
    let mut parts = uri.clone().into_parts();
    parts.authority = host.parse().ok();
    parts.scheme.get_or_insert(http::uri::Scheme::HTTP);
    http::Uri::from_parts(parts).unwrap_or_else(|_| uri.clone())
}

/// An answer from the app, passed on frame by frame.
pub(super) struct FromHttp2 {
    body: Incoming,
    call: Call,
    request: Rc<Progress>,
    deadline: Deadline,
    interval: Interval,
    /// When the whole answer has taken too long.
    bound: Option<Instant>,
    over: bool,
    _until_the_end: (Tries, Guard),
}

impl FromHttp2 {
    /// The answer as hyper sends it, with the rest of it behind.
    pub(super) fn respond(mut call: Call, tries: Tries, sent: Sent, request: Rc<Progress>) -> Response<Answer> {
        let Sent { response, reused, guard } = sent;
        call.record.app(reused);
        call.record.responded(response.status().as_u16());
        let mut bound = tries.deadline().filter(|_| !call.grpc);
        if super::is_event_stream(response.headers()) {
            bound = None;
            call.record.stream("sse");
        }
        if response.body().is_end_stream() {
            call.record.finished();
        }
        let (deadline, interval) = (Deadline::new(), Interval::from(Instant::now()));
        let _until_the_end = (tries, guard);
        response.map(|body| {
            Answer::Http2(Box::new(Self {
                body,
                call,
                request,
                deadline,
                interval,
                bound,
                over: false,
                _until_the_end,
            }))
        })
    }

    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
            self.call.record.received(self.request.take_bytes());
            self.interval.poll(cx, &mut self.deadline, &mut self.call.record);
            return super::poll_bound(cx, self.bound, &mut self.deadline).map(|failure| {
                self.call.record.fail(&failure);
                Some(Err(BrokenOff(failure.cause)))
            });
        };
        match frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    self.call.record.sent(data.len() as u64);
                }
                // After the last frame nobody may ask for another.
                if self.body.is_end_stream() || frame.is_trailers() {
                    self.call.record.finished();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(e)) => {
                self.call.record.fail(&Failure::new(Cause::AppBroken, e.to_string()));
                Poll::Ready(Some(Err(BrokenOff(Cause::AppBroken))))
            }
            None => {
                self.over = true;
                self.call.record.finished();
                Poll::Ready(None)
            }
        }
    }

    pub(super) fn stream(&self) -> &Stream {
        &self.call.stream
    }

    pub(super) fn is_over(&self) -> bool {
        self.over || self.body.is_end_stream()
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for FromHttp2 {
    fn drop(&mut self) {
        self.call.record.received(self.request.take_bytes());
    }
}
