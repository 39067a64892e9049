//! HTTP/2 from the caller: hyper speaks the protocol; each stream goes through the same stages as an HTTP/1 request.

mod answer;
mod connect;
mod heads;
mod to_http1;
mod to_http2;

use std::cell::Cell;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use http::{Method, Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use model::{Failure, Fault};
use net::Deadline;
use telemetry::{Limit, Record};
use tokio::time::Instant;

use crate::app::http2::{CONNECTION_WINDOW, LocalExec, SEND_BUFFER, STREAM_WINDOW};
use crate::config::{Port, Protocol};
use crate::inbound::caller::{Caller, Who};
use crate::inbound::stages;
use crate::lifecycle::Phase;
use crate::worker::Worker;
use answer::Answer;

/// What the streams of one connection share.
struct Connection {
    worker: Rc<Worker>,
    port: usize,
    who: Who,
    /// Requests whose answer is not sent to its end.
    open: Cell<usize>,
    /// When the last of them ended.
    quiet_since: Cell<Instant>,
}

/// One open stream, counted until dropped.
struct Stream(Rc<Connection>);

impl Stream {
    fn open(connection: &Rc<Connection>) -> Self {
        connection.open.set(connection.open.get() + 1);
        Self(connection.clone())
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get() - 1);
        self.0.quiet_since.set(Instant::now());
    }
}

/// Serves streams until the connection ends: at the caller's wish, after an idle time, or because the sidecar leaves.
pub(super) async fn serve(caller: Caller, port: Arc<Port>) {
    let Caller { worker, port: index, io, inbox, mut deadline, who } = caller;
    let connection = Rc::new(Connection {
        worker: worker.clone(),
        port: index,
        who,
        open: Cell::new(0),
        quiet_since: Cell::new(Instant::now()),
    });
    let service = {
        let connection = connection.clone();
        service_fn(move |request| handle(Stream::open(&connection), request))
    };
    let serving = http2::Builder::new(LocalExec)
        .timer(TokioTimer::new())
        .enable_connect_protocol()
        .max_concurrent_streams(port.limits.streams)
        .max_header_list_size(u32::try_from(port.limits.head_bytes).unwrap_or(u32::MAX))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .serve_connection(TokioIo::new(net::Replay::new(inbox, io)), service);
    let mut serving = pin!(serving);
    let mut leaving = false;
    let result = poll_fn(|cx| {
        if let Poll::Ready(result) = serving.as_mut().poll(cx) {
            return Poll::Ready(result);
        }
        let idle = poll_idle(cx, &connection, &port, &mut deadline);
        if !leaving && (idle || worker.phase() >= Phase::Draining) {
            if idle {
                worker.telemetry.limit_hit(Limit::Idle);
            }
            leaving = true;
            serving.as_mut().graceful_shutdown();
            return serving.as_mut().poll(cx);
        }
        Poll::Pending
    })
    .await;
    if result.is_err() {
        worker.telemetry.http2_error(Fault::Client);
    }
}

/// Whether no stream was open for the whole idle timeout.
fn poll_idle(cx: &mut std::task::Context<'_>, connection: &Connection, port: &Port, deadline: &mut Deadline) -> bool {
    let busy = connection.open.get() > 0;
    let since = if busy { Instant::now() } else { connection.quiet_since.get() };
    deadline.set(Some(since + port.timeouts.idle));
    deadline.poll_expired(cx).is_ready()
}

/// One request: through the stages, and to the app in the protocol it speaks.
async fn handle(stream: Stream, request: Request<Incoming>) -> Result<Response<Answer>, Infallible> {
    let connection = stream.0.clone();
    let worker = &connection.worker;
    let port = worker.port(connection.port);
    let client = stages::client_of(&connection.who);
    let mut record = Record::begin(&worker.telemetry, connection.port, connection.who.peer, client);
    let is_head = request.method() == Method::HEAD;
    let admitted = {
        let edits = &mut *worker.edits.borrow_mut();
        heads::facts(&request, &port).and_then(|head| {
            let permit = stages::admit(worker, &port, &connection.who, &head, &mut record, edits)?;
            let upgrade = heads::check_method(&request)?;
            let to_http2 = port.protocol == Protocol::H2c || (port.protocol == Protocol::Auto && head.is_grpc());
            let outgoing = match to_http2 {
                true => Outgoing::Http2(heads::edited(&request, &head, edits)),
                false => Outgoing::Http1(heads::write_http1(worker, &request, &head, upgrade, edits)),
            };
            Ok((permit, head.is_grpc(), upgrade.is_some(), outgoing))
        })
    };
    let (permit, grpc, upgrade, outgoing) = match admitted {
        Ok(admitted) => admitted,
        Err(failure) => return Ok(answer::refuse(&failure, record, is_head, stream)),
    };
    let call = Call { stream, record, port, permit, grpc };
    let answered = match (outgoing, upgrade) {
        (Outgoing::Http1(head), false) => to_http1::forward(call, request, head).await,
        (Outgoing::Http1(head), true) => connect::to_http1(call, request, head).await,
        (Outgoing::Http2(headers), false) => to_http2::forward(call, request, headers).await,
        (Outgoing::Http2(headers), true) => connect::to_http2(call, request, headers).await,
    };
    Ok(answered.unwrap_or_else(|(failure, call)| answer::refuse(&failure, call.record, is_head, call.stream)))
}

/// The head as the app gets it, in the protocol it speaks.
enum Outgoing {
    Http1(Vec<u8>),
    Http2(http::HeaderMap),
}

/// A request under way, with all that must live until its answer is sent.
struct Call {
    stream: Stream,
    record: Record,
    port: Arc<Port>,
    permit: model::Permit,
    grpc: bool,
}

impl Call {
    fn worker(&self) -> &Rc<Worker> {
        &self.stream.0.worker
    }
}

/// A failed call keeps its record, so that the answer in the app's stead is logged as one.
type Answered = Result<Response<Answer>, (Failure, Call)>;
