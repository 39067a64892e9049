//! HTTP/2 to the app, by prior knowledge or agreed on in TLS: one connection per worker and app, shared by all streams.

use std::cell::RefCell;
use std::future::Future;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioIo, TokioTimer};
use identity::Alpn;
use model::{Cause, Failure, Permit};

use super::connect;
use super::upload::Upload;
use crate::config::{Port, Upstream};
use crate::worker::Worker;

/// An answer's head, and how it was come by.
pub(crate) struct Sent {
    pub(crate) response: Response<Incoming>,
    /// On a connection that was there already.
    pub(crate) reused: bool,
    /// The request was sent twice.
    pub(crate) retried: bool,
}

/// A worker's HTTP/2 connections to apps.
#[derive(Debug, Default)]
pub(crate) struct Clients {
    clients: RefCell<Vec<(Upstream, SendRequest<Upload>)>>,
}

impl Clients {
    /// Sends a request, and once more on a new connection where a kept one fails and that is safe: the request was not
    /// sent, or the app says that it did not look at it, or it has no body and may be repeated (RFC 9110, 9.2.2). The
    /// answer's head, or why there is none.
    pub(crate) async fn send(
        &self,
        _permit: &Permit,
        worker: &Worker,
        port: &Port,
        mut request: Request<Upload>,
    ) -> Result<Sent, Failure> {
        let mut retried = false;
        loop {
            let (mut client, reused) = self.client(worker, port).await?;
            worker.telemetry.app_connection(reused);
            let repeats = reused && !retried;
            let spare = if repeats { again(&request) } else { None };
            let mut e = match client.try_send_request(request).await {
                Ok(response) => return Ok(Sent { response, reused, retried }),
                Err(e) => e,
            };
            self.forget(&port.upstream);
            let unsent = e.take_message();
            let e = e.into_error();
            let spare = spare.filter(|spare| was_refused(&e) || (spare.method().is_idempotent() && was_cut(&e)));
            request = match unsent.filter(|_| repeats).or(spare) {
                Some(request) => request,
                None => return Err(failed(&e)),
            };
            retried = true;
        }
    }

    async fn client(&self, worker: &Worker, port: &Port) -> Result<(SendRequest<Upload>, bool), Failure> {
        let kept =
            self.clients.borrow().iter().find(|(kept, _)| *kept == port.upstream).map(|(_, client)| client.clone());
        if let Some(mut client) = kept
            && client.ready().await.is_ok()
        {
            return Ok((client, true));
        }
        self.forget(&port.upstream);
        let io = connect(worker, port, Alpn::Http2).await?;
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
        clients.retain(|(kept, _)| *kept != port.upstream);
        clients.push((port.upstream.clone(), client.clone()));
        Ok((client, false))
    }

    fn forget(&self, upstream: &Upstream) {
        self.clients
            .borrow_mut()
            .retain(|(kept, client)| kept != upstream || (!client.is_closed() && client.is_ready()));
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

/// The request once more, where nothing of it is used up.
fn again(request: &Request<Upload>) -> Option<Request<Upload>> {
    let body = request.body().again()?;
    let mut spare = Request::new(body);
    *spare.method_mut() = request.method().clone();
    *spare.uri_mut() = request.uri().clone();
    *spare.version_mut() = request.version();
    *spare.headers_mut() = request.headers().clone();
    *spare.extensions_mut() = request.extensions().clone();
    Some(spare)
}

fn h2_error(e: &hyper::Error) -> Option<&h2::Error> {
    std::error::Error::source(e)?.downcast_ref()
}

/// Whether the app says that it did nothing with the request (RFC 9113, 8.7).
fn was_refused(e: &hyper::Error) -> bool {
    h2_error(e).is_some_and(|e| e.is_remote() && e.reason() == Some(h2::Reason::REFUSED_STREAM))
}

/// Whether the connection ended under the request.
fn was_cut(e: &hyper::Error) -> bool {
    let io = std::error::Error::source(e).is_some_and(<dyn std::error::Error>::is::<std::io::Error>);
    let cut = |e: &h2::Error| e.is_io() || e.is_go_away();
    io || e.is_closed() || e.is_canceled() || e.is_incomplete_message() || h2_error(e).is_some_and(cut)
}

/// Why an HTTP/2 app gave no answer.
fn failed(e: &hyper::Error) -> Failure {
    if e.is_user() || e.is_body_write_aborted() {
        return Failure::new(Cause::ClientDisconnected, "the caller broke off within the request body");
    }
    if was_cut(e) {
        return Failure::new(Cause::AppClosed, "the app closed the connection");
    }
    match h2_error(e) {
        Some(e) if e.is_remote() => Failure::new(Cause::AppClosed, format!("the app reset the stream: {e}")),
        Some(e) => Failure::new(Cause::AppProtocol, e.to_string()),
        None => Failure::new(Cause::AppProtocol, e.to_string()),
    }
}

/// Runs hyper's tasks on this worker.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LocalExec;

impl<F: Future<Output: 'static> + 'static> hyper::rt::Executor<F> for LocalExec {
    fn execute(&self, task: F) {
        tokio::task::spawn_local(task);
    }
}
