//! An answer's content on its way from the app's connection into frames.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h1::{BodyDecoder, Piece, ResponseHead};
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use http_body::{Frame, SizeHint};
use model::{Cause, Failure};
use net::Io;
use tokio::io::AsyncReadExt;

use super::{FromHttp1, UploadState};
use crate::inbound::http2::answer::{Answer, BrokenOff};
use crate::inbound::http2::heads::response_headers;
use crate::inbound::http2::{Stream, is_event_stream, poll_bound};
use crate::worker::GATHERED;

/// Bytes that are read at once, where so many follow.
const READ_BYTES: u64 = 64 * 1024;

/// Room to read so much: a byte more, since a read that fills its room is followed by one that finds nothing.
fn room(length: u64) -> usize {
    length.saturating_add(1).min(READ_BYTES) as usize
}

/// What comes behind an answer's content.
pub(super) enum Next {
    /// Its end, or its trailers.
    Over(Option<HeaderMap>),
    /// The end of the app's stream.
    Ended { orderly: bool },
    /// Bytes that are not HTTP.
    Failed(Failure),
}

impl FromHttp1 {
    /// The answer as hyper sends it, with the rest of it behind.
    pub(in crate::inbound::http2) fn into_response(
        mut self: Box<Self>,
        head: Box<ResponseHead>,
        length: usize,
    ) -> Response<Answer> {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::from_u16(head.status()).unwrap_or(StatusCode::BAD_GATEWAY);
        *response.headers_mut() = response_headers(&head, self.outbox.filled());
        self.outbox.consume(length);
        let limits =
            h1::Limits { head_bytes: self.call.port.limits.head_bytes, fields: self.call.port.limits.head_fields };
        let decoder = BodyDecoder::new(head.body(), &limits);
        self.length = match head.body() {
            h1::Body::Length(length) => Some(length),
            h1::Body::Empty => Some(0),
            h1::Body::Chunked | h1::Body::UntilClose => None,
        };
        self.reusable = head.keep_alive() && head.body() != h1::Body::UntilClose;
        self.keep_alive = head.keep_alive_timeout();
        self.call.record.responded(head.status());
        self.call.worker().response_heads.give(head);
        self.bound = self.tries.deadline().filter(|_| !self.call.grpc);
        if is_event_stream(response.headers()) {
            self.bound = None;
            self.call.record.stream("sse");
        }
        let over = decoder.is_done();
        self.decoder = Some(decoder);
        if over {
            self.finish();
        }
        response.map(|()| Answer::Http1(self))
    }

    pub(in crate::inbound::http2) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        if self.over {
            return Poll::Ready(None);
        }
        if self.push_upload(cx).is_err() {
            return self
                .broken(Failure::new(Cause::ClientDisconnected, "the caller broke off within the request body"));
        }
        match self.poll_content(cx) {
            Poll::Ready(Ok(frame)) => Poll::Ready(frame.map(Ok)),
            Poll::Ready(Err(failure)) => self.broken(failure),
            Poll::Pending => {
                self.interval.poll(cx, &mut self.deadline, &mut self.call.record);
                match poll_bound(cx, self.bound, &mut self.deadline) {
                    Poll::Ready(failure) => self.broken(failure),
                    Poll::Pending => Poll::Pending,
                }
            }
        }
    }

    /// The next frame: what was read already and what the app has sent since, in one. What comes behind it waits in `next`.
    fn poll_content(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame<Bytes>>, Failure>> {
        let worker = self.call.worker().clone();
        let mut data = Vec::new();
        if self.next.is_none() && !self.outbox.is_empty() {
            // Where all of it is here, exactly: what fills its memory becomes a frame without more of it.
            let here = self.outbox.filled().len() as u64;
            data.reserve_exact(
                self.length.map_or(0, |length| if length <= here { length as usize } else { room(length) }),
            );
            let mut outbox = std::mem::take(&mut self.outbox);
            outbox.consume(self.decode(outbox.filled(), &mut data));
            worker.buffers.release(&mut outbox);
            self.outbox = outbox;
        }
        while self.next.is_none() && self.outbox.is_empty() && data.len() < GATHERED {
            let before = data.len();
            match self.poll_read(cx, &mut data) {
                Poll::Ready(Ok(n)) if n > 0 && data.len() == before => {}
                Poll::Ready(Ok(n)) if n > 0 => break,
                Poll::Ready(ended) => self.next = Some(Next::Ended { orderly: ended.is_ok() }),
                Poll::Pending if data.is_empty() => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        if data.is_empty() {
            // Never without: what is read becomes content, or is behind it. Were it so, the answer would not pass for whole.
            let without = || Next::Failed(Failure::new(Cause::Internal, "neither content nor its end"));
            let next = self.next.take().unwrap_or_else(without);
            return Poll::Ready(self.follow(next));
        }
        self.call.record.sent(data.len() as u64);
        if let Some(Next::Over(None)) = self.next {
            self.finish();
        }
        Poll::Ready(Ok(Some(Frame::data(data.into()))))
    }

    /// Reads once, much at a time, so that a large body takes few system calls; how many bytes. Content goes behind `data`: straight
    /// there, where a length says how much follows.
    fn poll_read(&mut self, cx: &mut Context<'_>, data: &mut Vec<u8>) -> Poll<io::Result<usize>> {
        let Some(app) = self.app.as_mut() else { return Poll::Ready(Ok(0)) };
        let Some(remaining) = self.decoder.as_ref().and_then(BodyDecoder::remaining) else {
            let worker = self.call.worker().clone();
            let scratch = &mut **worker.scratch.borrow_mut();
            let n = ready!(app.poll_read_slice(cx, scratch))?;
            let used = self.decode(&scratch[..n], data);
            self.outbox.extend(&scratch[used..n]);
            return Poll::Ready(Ok(n));
        };
        let before = data.len();
        data.reserve_exact(room(remaining));
        let io: &mut Io = app;
        let n = ready!(pin!(io.read_buf(data)).poll(cx))?;
        let kept = self.length_of_content(&data[before..]);
        self.outbox.extend(&data[before + kept..]);
        data.truncate(before + kept);
        Poll::Ready(Ok(n))
    }

    /// How many of these bytes are content that has a length: all, or the first. Notes its end.
    fn length_of_content(&mut self, bytes: &[u8]) -> usize {
        let Some(decoder) = &mut self.decoder else { return 0 };
        match decoder.decode(bytes) {
            Ok(step) => {
                if decoder.is_done() {
                    self.next = Some(Next::Over(None));
                }
                step.consumed
            }
            Err(e) => {
                self.next = Some(Next::Failed(Failure::new(Cause::AppProtocol, e.reason())));
                0
            }
        }
    }

    /// Puts the content in `bytes` behind `data`; how many bytes were used. Notes what comes next where content does not.
    fn decode(&mut self, bytes: &[u8], data: &mut Vec<u8>) -> usize {
        let mut used = 0;
        while let Some(decoder) = self.decoder.as_mut().filter(|_| used < bytes.len() && self.next.is_none()) {
            match decoder.decode(&bytes[used..]) {
                Ok(step) => {
                    if let Piece::Data(range) = step.piece {
                        data.extend_from_slice(&bytes[used..][range]);
                    }
                    used += step.consumed;
                    if decoder.is_done() {
                        self.next = Some(Next::Over(trailers_of(decoder)));
                    }
                }
                Err(e) => self.next = Some(Next::Failed(Failure::new(Cause::AppProtocol, e.reason()))),
            }
        }
        used
    }

    /// What comes behind the content.
    fn follow(&mut self, next: Next) -> Result<Option<Frame<Bytes>>, Failure> {
        match next {
            Next::Failed(failure) => Err(failure),
            Next::Over(trailers) => {
                self.finish();
                Ok(trailers.map(Frame::trailers))
            }
            Next::Ended { orderly }
                if orderly && self.decoder.as_mut().is_some_and(|decoder| decoder.at_eof().is_ok()) =>
            {
                self.finish();
                Ok(None)
            }
            Next::Ended { .. } => {
                Err(Failure::new(Cause::AppBroken, "the app closed the connection within its answer"))
            }
        }
    }

    fn broken(&mut self, failure: Failure) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        self.call.record.fail(&failure);
        self.over = true;
        self.app = None;
        Poll::Ready(Some(Err(BrokenOff(failure.cause))))
    }

    /// The answer is read to its end: its connection may serve another request.
    fn finish(&mut self) {
        self.over = true;
        self.call.record.finished();
        let clean = self.reusable && self.outbox.is_empty() && self.upload_state == UploadState::Done;
        if let (Some(app), Some(attempt)) = (self.app.take().filter(|_| clean), &self.attempt) {
            self.call.worker().apps.put(&attempt.to, app, self.keep_alive, self.call.worker().now());
        }
        let memory = self.upload.take_memory();
        self.call.worker().give_memory(memory);
    }

    pub(in crate::inbound::http2) fn stream(&self) -> &Stream {
        &self.call.stream
    }

    pub(in crate::inbound::http2) fn is_over(&self) -> bool {
        self.over
    }

    pub(in crate::inbound::http2) fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::new, SizeHint::with_exact)
    }
}

fn trailers_of(decoder: &BodyDecoder) -> Option<HeaderMap> {
    let mut trailers = HeaderMap::new();
    for field in decoder.trailers() {
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(field.name), HeaderValue::from_bytes(field.value)) {
            trailers.append(name, value);
        }
    }
    (!trailers.is_empty()).then_some(trailers)
}
