//! An HTTP/2 stream to an app that speaks HTTP/2: gRPC, or a port that says so. Frames pass as they are, trailers too.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use model::{Cause, Failure};
use tokio::time::timeout;

use super::answer::{Answer, BrokenOff};
use super::{Answered, Call};
use crate::app::http2::Upload;

/// Forwards a request whose fields are edited already.
pub(super) async fn forward(mut call: Call, request: Request<Incoming>, headers: HeaderMap) -> Answered {
    let (mut parts, body) = request.into_parts();
    parts.headers = headers;
    parts.version = http::Version::HTTP_2;
    let received = Rc::new(Cell::new(0));
    let outgoing = Request::from_parts(parts, Upload::Caller(body, received.clone()));
    let worker = call.worker().clone();
    let sending = worker.apps.http2.send(&call.permit, &worker, &call.port, outgoing);
    // A gRPC answer may begin with its first message, minutes from now.
    let sent = match call.port.timeouts.response.filter(|_| !call.grpc) {
        Some(patience) => timeout(patience, sending)
            .await
            .unwrap_or_else(|_| Err(Failure::new(Cause::AppTimeout, "no answer within the response timeout"))),
        None => sending.await,
    };
    let (response, reused) = match sent {
        Ok(sent) => sent,
        Err(failure) => {
            call.record.received(received.take());
            return Err((failure, call));
        }
    };
    call.record.app(reused);
    Ok(FromHttp2::respond(call, response, received))
}

/// An answer from the app, passed on frame by frame.
pub(super) struct FromHttp2 {
    body: Incoming,
    call: Call,
    /// Bytes of the request's body that went to the app.
    received: Rc<Cell<u64>>,
    over: bool,
}

impl FromHttp2 {
    /// The answer as hyper sends it, with the rest of it behind.
    pub(super) fn respond(mut call: Call, response: Response<Incoming>, received: Rc<Cell<u64>>) -> Response<Answer> {
        call.record.responded(response.status().as_u16());
        if response.body().is_end_stream() {
            call.record.finished();
        }
        response.map(|body| Answer::Http2(Box::new(Self { body, call, received, over: false })))
    }

    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
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

    pub(super) fn is_over(&self) -> bool {
        self.over || self.body.is_end_stream()
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for FromHttp2 {
    fn drop(&mut self) {
        self.call.record.received(self.received.take());
    }
}
