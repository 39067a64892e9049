//! The request of an HTTP/2 stream on its way to an app that speaks HTTP/1.1.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use http_body::{Body, Frame};
use model::Cause;
use net::Io;

use super::Call;
use crate::linger::RequestBody;

/// The request on its way to the app.
pub(super) struct Upload {
    body: RequestBody,
    chunked: bool,
    unsent: Vec<u8>,
    sent: usize,
    /// Bytes worth keeping, beyond the head's, so that the request can be sent again.
    keeps: usize,
    head: usize,
    /// All that was sent so far is still in `unsent`.
    whole: bool,
    moved: bool,
    over: bool,
}

impl Upload {
    pub(super) fn new(head: Vec<u8>, request: Request<RequestBody>, keeps: usize) -> Self {
        let chunked =
            !request.headers().contains_key(http::header::CONTENT_LENGTH) && request.method() != Method::CONNECT;
        let body = request.into_body();
        let over = body.is_end_stream();
        Self { body, chunked, keeps, head: head.len(), unsent: head, sent: 0, whole: true, moved: true, over }
    }

    /// Whether all that was sent so far is still known, to be sent again.
    pub(super) fn is_whole(&self) -> bool {
        self.whole
    }

    /// Begins again on another connection.
    pub(super) fn rewind(&mut self) {
        debug_assert!(self.whole, "rewound without what was sent first");
        self.sent = 0;
    }

    /// Takes frames from the caller and writes them to the app, as far as both go; ready when all is sent.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, app: &mut Io, call: &mut Call) -> Poll<Result<(), Cause>> {
        loop {
            while self.sent < self.unsent.len() {
                match app.poll_write_slice(cx, &self.unsent[self.sent..]) {
                    Poll::Ready(Ok(n)) => {
                        self.sent += n;
                        self.moved = true;
                    }
                    Poll::Ready(Err(_)) => return Poll::Ready(Err(Cause::AppClosed)),
                    Poll::Pending => return Poll::Pending,
                }
            }
            if self.over {
                return Poll::Ready(Ok(()));
            }
            let frame = match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(frame) => frame,
            };
            let more = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref()).map_or(0, Bytes::len);
            self.whole &= self.keeps > 0 && self.unsent.len() - self.head + more <= self.keeps;
            if !self.whole {
                self.unsent.clear();
                self.sent = 0;
            }
            match frame {
                Some(Ok(frame)) => self.take(frame, call),
                Some(Err(_)) => return Poll::Ready(Err(Cause::ClientDisconnected)),
                None => self.end(&HeaderMap::new()),
            }
        }
    }

    /// Whether bytes moved since the last call.
    pub(super) fn moved(&mut self) -> bool {
        std::mem::take(&mut self.moved)
    }

    /// The memory the head came in, for the next one.
    pub(super) fn take_memory(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.unsent)
    }

    fn take(&mut self, frame: Frame<Bytes>, call: &mut Call) {
        match frame.into_data() {
            Ok(data) if data.is_empty() => {}
            Ok(data) => {
                call.record.received(data.len() as u64);
                if self.chunked {
                    h1::encode::chunk_header(&mut self.unsent, data.len());
                }
                self.unsent.extend_from_slice(&data);
                if self.chunked {
                    self.unsent.extend_from_slice(b"\r\n");
                }
            }
            Err(frame) => {
                if let Ok(trailers) = frame.into_trailers() {
                    self.end(&trailers);
                }
            }
        }
    }

    fn end(&mut self, trailers: &HeaderMap) {
        if self.chunked && !self.over {
            // What HTTP/1.1 must not see in a trailer section would be read as framing or routing there.
            let fields = trailers.iter().filter(|(name, _)| h1::is_trailer_name(name.as_str().as_bytes()));
            h1::encode::last_chunk(&mut self.unsent, fields.map(|(n, v)| (n.as_str().as_bytes(), v.as_bytes())));
        }
        self.over = true;
    }
}
