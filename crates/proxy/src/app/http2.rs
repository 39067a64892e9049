//! HTTP/2 to the app, without TLS and by prior knowledge: one connection per worker and app, shared by all streams.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioIo, TokioTimer};
use model::{Cause, Failure, Permit};
use tokio::sync::mpsc;

use super::unreachable;
use crate::config::Port;
use crate::worker::Worker;

/// The request bodies an HTTP/2 app is sent.
#[derive(Debug)]
pub(crate) enum Upload {
    /// An HTTP/2 caller's, frame by frame, its bytes counted.
    Caller(Incoming, Rc<Cell<u64>>),
    /// An HTTP/1 caller's, through a channel of one slot.
    Channel(mpsc::Receiver<Result<Frame<Bytes>, Aborted>>),
    /// None.
    Empty,
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

impl http_body::Body for Upload {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match &mut *self {
            Self::Caller(incoming, received) => {
                let frame = std::task::ready!(std::pin::Pin::new(incoming).poll_frame(cx));
                if let Some(Ok(data)) = frame.as_ref().map(|frame| frame.as_ref().map(Frame::data_ref)) {
                    received.set(received.get() + data.map_or(0, |data| data.len() as u64));
                }
                std::task::Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
            }
            Self::Channel(frames) => frames.poll_recv(cx).map_err(Into::into),
            Self::Empty => std::task::Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Caller(incoming, _) => incoming.is_end_stream(),
            Self::Channel(_) => false,
            Self::Empty => true,
        }
    }

    fn size_hint(&self) -> http_body::SizeHint {
        match self {
            Self::Caller(incoming, _) => incoming.size_hint(),
            Self::Channel(_) => http_body::SizeHint::new(),
            Self::Empty => http_body::SizeHint::with_exact(0),
        }
    }
}

/// A worker's HTTP/2 connections to apps.
#[derive(Debug, Default)]
pub(crate) struct Clients {
    clients: RefCell<Vec<(Vec<SocketAddr>, SendRequest<Upload>)>>,
}

impl Clients {
    /// Sends a request, once more on a new connection where the old one ended before it was sent at all. The answer's
    /// head, or why there is none.
    pub(crate) async fn send(
        &self,
        _permit: &Permit,
        worker: &Worker,
        port: &Port,
        mut request: Request<Upload>,
    ) -> Result<(Response<Incoming>, bool), Failure> {
        for first in [true, false] {
            let (mut client, reused) = self.client(worker, port).await?;
            worker.telemetry.app_connection(reused);
            match client.try_send_request(request).await {
                Ok(response) => return Ok((response, reused)),
                Err(mut e) => {
                    self.forget(&port.app);
                    match e.take_message().filter(|_| first && reused) {
                        Some(unsent) => request = unsent,
                        None => return Err(failed(&e.into_error())),
                    }
                }
            }
        }
        Err(Failure::new(Cause::AppClosed, "the app closed two connections before taking the request"))
    }

    async fn client(&self, worker: &Worker, port: &Port) -> Result<(SendRequest<Upload>, bool), Failure> {
        let kept = self.clients.borrow().iter().find(|(addrs, _)| *addrs == port.app).map(|(_, client)| client.clone());
        if let Some(mut client) = kept
            && client.ready().await.is_ok()
        {
            return Ok((client, true));
        }
        self.forget(&port.app);
        let io = net::dial(&port.app, port.timeouts.connect).await.map_err(|e| unreachable(&e))?;
        let (client, connection) = http2::Builder::new(LocalExec)
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buf_size(SEND_BUFFER)
            .max_header_list_size(u32::try_from(port.limits.head_bytes).unwrap_or(u32::MAX))
            .handshake(TokioIo::new(io))
            .await
            .map_err(|e| failed(&e))?;
        let telemetry = worker.telemetry.clone();
        tokio::task::spawn_local(async move {
            if connection.await.is_err() {
                telemetry.http2_error(model::Fault::App);
            }
        });
        let mut clients = self.clients.borrow_mut();
        clients.retain(|(addrs, _)| *addrs != port.app);
        clients.push((port.app.clone(), client.clone()));
        Ok((client, false))
    }

    fn forget(&self, addrs: &[SocketAddr]) {
        self.clients.borrow_mut().retain(|(kept, client)| kept != addrs || (!client.is_closed() && client.is_ready()));
    }

    /// Drops connections the app has closed.
    pub(super) fn sweep(&self) {
        self.clients.borrow_mut().retain(|(_, client)| !client.is_closed());
    }
}

/// Bytes one stream, and one connection, may have under way before the reader takes them: what a stalled reader costs.
pub(crate) const STREAM_WINDOW: u32 = 256 * 1024;
pub(crate) const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Bytes a stream may have waiting to be written.
pub(crate) const SEND_BUFFER: usize = 64 * 1024;

/// Why an HTTP/2 app gave no answer.
fn failed(e: &hyper::Error) -> Failure {
    if e.is_user() || e.is_body_write_aborted() {
        return Failure::new(Cause::ClientDisconnected, "the caller broke off within the request body");
    }
    if e.is_closed() || e.is_canceled() || e.is_incomplete_message() {
        return Failure::new(Cause::AppClosed, "the app closed the connection");
    }
    // The library's own words stand one level down: "http2 error" says too little.
    let detail = std::error::Error::source(e).map_or_else(|| e.to_string(), ToString::to_string);
    let cause =
        if detail.contains("stream") || detail.contains("broken pipe") { Cause::AppClosed } else { Cause::AppProtocol };
    Failure::new(cause, detail)
}

/// Runs hyper's tasks on this worker.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LocalExec;

impl<F: Future<Output: 'static> + 'static> hyper::rt::Executor<F> for LocalExec {
    fn execute(&self, task: F) {
        tokio::task::spawn_local(task);
    }
}
