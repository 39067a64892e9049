//! Answers to an HTTP/2 caller, whoever they come from: one enum, and each variant owns what it needs until it is sent.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use model::{Cause, Failure};
use telemetry::Record;

use super::Stream;
use super::to_http1::FromHttp1;
use super::to_http2::FromHttp2;
use crate::inbound::refusal;

/// The body of an answer.
pub(super) enum Answer {
    /// One of ours.
    Own(Own),
    /// From an app that speaks HTTP/1.1.
    Http1(Box<FromHttp1>),
    /// From an app that speaks HTTP/2.
    Http2(Box<FromHttp2>),
    /// None: the stream has become a tunnel, which keeps its own record.
    Tunnel,
}

/// A text of ours.
pub(super) struct Own {
    text: Bytes,
    stream: Stream,
    /// Kept until the text is sent: dropping it writes the log line.
    _record: Record,
}

/// The answer breaks off: the stream is reset, for the caller to see that it is not whole.
#[derive(Debug)]
pub(super) struct BrokenOff(pub(super) Cause);

impl std::fmt::Display for BrokenOff {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.explanation())
    }
}

impl std::error::Error for BrokenOff {}

/// Answers in our own name.
pub(super) fn refuse(failure: &Failure, mut record: Record, is_head: bool, stream: Stream) -> Response<Answer> {
    record.fail(failure);
    let text = refusal::body(failure);
    let status = StatusCode::from_u16(failure.cause.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    record.responded(status.as_u16());
    let length = text.len();
    let text = if is_head { Bytes::new() } else { Bytes::from(text) };
    let mut response = Response::new(Answer::Own(Own { text, stream, _record: record }));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    headers.insert("x-outrigger-error", HeaderValue::from_static(failure.cause.label()));
    if let Some(seconds) = refusal::retry_after(failure).and_then(|seconds| HeaderValue::from_str(seconds).ok()) {
        headers.insert(header::RETRY_AFTER, seconds);
    }
    if failure.cause == Cause::MethodNotAllowed {
        headers.insert(header::ALLOW, HeaderValue::from_static(refusal::ALLOWED));
    }
    response
}

impl Answer {
    fn stream(&self) -> Option<&Stream> {
        match self {
            Self::Own(own) => Some(&own.stream),
            Self::Http1(answer) => Some(answer.stream()),
            Self::Http2(answer) => Some(answer.stream()),
            Self::Tunnel => None,
        }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        let frame = match &mut *self {
            Self::Tunnel => Poll::Ready(None),
            Self::Own(own) if own.text.is_empty() => Poll::Ready(None),
            Self::Own(own) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut own.text))))),
            Self::Http1(answer) => answer.poll_frame(cx),
            Self::Http2(answer) => answer.poll_frame(cx),
        };
        if let Some(stream) = self.stream() {
            match frame {
                Poll::Pending => stream.watch.exhausted(),
                Poll::Ready(_) => stream.watch.handed_over(),
            }
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Tunnel => true,
            Self::Own(own) => own.text.is_empty(),
            Self::Http1(answer) => answer.is_over(),
            Self::Http2(answer) => answer.is_over(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Tunnel => SizeHint::with_exact(0),
            Self::Own(own) => SizeHint::with_exact(own.text.len() as u64),
            Self::Http1(answer) => answer.size_hint(),
            Self::Http2(answer) => answer.size_hint(),
        }
    }
}
