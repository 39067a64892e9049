//! HTTP/2 from the caller: hyper speaks the protocol; each stream goes through the same stages as an HTTP/1 request.

mod answer;
mod connect;
mod heads;
mod stall;
mod to_http1;
mod to_http2;
mod upload;

use std::cell::Cell;
use std::convert::Infallible;
use std::future::{Future, poll_fn, ready};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt;
use http::{Method, Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use model::{Cause, Failure, Fault};
use net::Deadline;
use telemetry::{Limit, Record};
use tokio::time::Instant;

use crate::app::http2::{CONNECTION_WINDOW, SEND_BUFFER, STREAM_WINDOW};
use crate::config::{Port, Protocol};
use crate::inbound::caller::{Caller, Who};
use crate::inbound::stages;
use crate::lifecycle::Phase;
use crate::linger::{Lingering, RequestBody};
use crate::outbound;
use crate::tries::Target;
use crate::worker::Worker;
use answer::Answer;
use stall::Watch;

/// What the streams of one connection share.
struct Connection {
    worker: Rc<Worker>,
    port: usize,
    who: Who,
    /// Requests whose answer is not sent to its end.
    open: Cell<usize>,
    /// When the last of them ended.
    quiet_since: Cell<Instant>,
    /// The stream that the library is about to start a task for.
    starting: Cell<Option<Rc<Watch>>>,
    write_timeout: Duration,
    lingering: Rc<Lingering>,
}

/// One open stream, counted until dropped.
struct Stream {
    connection: Rc<Connection>,
    watch: Rc<Watch>,
}

impl Stream {
    fn open(connection: &Rc<Connection>, limit: u32) -> Self {
        let open = connection.open.get() + 1;
        connection.open.set(open);
        if open + connection.lingering.streams() >= limit as usize {
            connection.worker.telemetry.limit_hit(Limit::Streams);
        }
        let watch = Rc::<Watch>::default();
        connection.starting.set(Some(watch.clone()));
        Self { connection: connection.clone(), watch }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let connection = &self.connection;
        connection.open.set(connection.open.get() - 1);
        connection.quiet_since.set(connection.worker.now());
    }
}

/// Runs the library's tasks on this worker: one per stream, each watched, and those that carry upgraded streams.
#[derive(Clone)]
struct Tasks(Rc<Connection>);

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for Tasks {
    fn execute(&self, task: F) {
        let Self(connection) = self;
        // The library starts a stream's task right after it has called the service.
        match connection.starting.take() {
            Some(watch) => {
                let telemetry = connection.worker.telemetry.clone();
                let patience = (watch, connection.write_timeout, connection.lingering.clone());
                tokio::task::spawn_local(stall::watched(task, patience, telemetry))
            }
            None => tokio::task::spawn_local(task),
        };
    }
}

/// How long a caller that was told to go may stay with no request open: it may owe an answer to our last ping, not read, or still upload
/// what nobody wants.
const LEAVE_WITHIN: Duration = Duration::from_secs(5);

/// Serves streams until the connection ends: at the caller's wish, after an idle time, or because the sidecar leaves.
pub(super) async fn serve(caller: Box<Caller>, port: Arc<Port>) {
    let Caller { worker, port: index, io, inbox, mut deadline, who, retires, .. } = *caller;
    let connection = Rc::new(Connection {
        worker: worker.clone(),
        port: index,
        who,
        open: Cell::new(0),
        quiet_since: Cell::new(Instant::now()),
        starting: Cell::default(),
        write_timeout: port.timeouts.write,
        lingering: Rc::new(Lingering::new(port.limits.streams as usize)),
    });
    let service = {
        let (connection, limit) = (connection.clone(), port.limits.streams);
        service_fn(move |request: Request<Incoming>| {
            let request = request.map(|body| RequestBody::new(body, connection.lingering.clone()));
            handle(Stream::open(&connection, limit), request)
        })
    };
    let (corked, cork) = net::cork(inbox, io);
    let serving = http2::Builder::new(Tasks(connection.clone()))
        .timer(TokioTimer::new())
        .enable_connect_protocol()
        .max_concurrent_streams(port.limits.streams)
        .max_header_list_size(u32::try_from(port.limits.head_bytes).unwrap_or(u32::MAX))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .serve_connection(TokioIo::new(corked), service);
    let mut serving = pin!(serving);
    let mut leaving = false;
    let well = poll_fn(|cx| {
        loop {
            // The library flushes after each answer; all that it writes in one turn is sent at once.
            cork.lend(&worker.buffers);
            let served = serving.as_mut().poll(cx);
            let sent = cork.poll_send(cx, &worker.buffers);
            match (served, sent) {
                (Poll::Ready(served), _) => return Poll::Ready(served.is_ok()),
                (Poll::Pending, Poll::Ready(Err(_))) => return Poll::Ready(false),
                (Poll::Pending, _) => {}
            }
            let patience = if leaving { LEAVE_WITHIN } else { port.timeouts.idle };
            let until = retires.filter(|_| !leaving);
            let idle = poll_idle(cx, &connection, patience, until, &mut deadline);
            if leaving && idle {
                return Poll::Ready(true);
            }
            let old = until.is_some_and(|until| until <= Instant::now());
            if leaving || !(idle || old || worker.phase() >= Phase::Draining) {
                return Poll::Pending;
            }
            if old {
                worker.telemetry.limit_hit(Limit::Age);
                connection.quiet_since.set(Instant::now());
            } else if idle {
                worker.telemetry.limit_hit(Limit::Idle);
                connection.quiet_since.set(Instant::now());
            }
            leaving = true;
            serving.as_mut().graceful_shutdown();
        }
    })
    .await;
    if !well {
        worker.telemetry.http2_error(Fault::Client);
    }
}

/// Whether no stream was open for so long; wakes the connection no later than `until`.
fn poll_idle(
    cx: &mut Context<'_>,
    connection: &Connection,
    patience: Duration,
    until: Option<Instant>,
    deadline: &mut Deadline,
) -> bool {
    let busy = connection.open.get() > 0;
    let since = if busy { Instant::now() } else { connection.quiet_since.get() };
    let idle_at = since + patience;
    deadline.set(Some(until.map_or(idle_at, |until| until.min(idle_at))));
    deadline.poll_expired(cx).is_ready() && idle_at <= Instant::now()
}

/// What the library makes a task of for each stream; in a box, or the moves on the way there would copy the whole of it.
type Handling = Pin<Box<dyn Future<Output = Result<Response<Answer>, Infallible>>>>;

/// One request: through the stages at once, then to the app in the protocol it speaks.
fn handle(stream: Stream, request: Request<RequestBody>) -> Handling {
    let connection = stream.connection.clone();
    let worker = &connection.worker;
    let port = worker.port(connection.port);
    let client = stages::client_of(&connection.who);
    let mut record = Record::begin(&worker.telemetry, connection.port, connection.who.peer, client);
    let is_head = request.method() == Method::HEAD;
    let admitted = {
        let edits = &mut *worker.edits.borrow_mut();
        heads::facts(&request, &port, connection.who.scheme()).and_then(|head| {
            let value = |name: &str| request.headers().get(name).map(http::HeaderValue::as_bytes);
            let from = (&port, connection.port);
            let route = outbound::of_request(worker, from, &connection.who, head.authority, value);
            let rules = route.as_ref().map_or(&port, |route| &route.port);
            if let Ok(route) = &route
                && route.index != connection.port
            {
                record.assign(route.index);
            }
            let permit = stages::admit(worker, rules, &connection.who, &head, &mut record, edits)?;
            let upgrade = heads::check_method(&request)?;
            let route = route?;
            let rules = &route.port;
            // Who calls a redirected port without TLS knows what the app behind it speaks.
            let known = connection.who.meant.is_some() && !connection.who.tls;
            let keeps = head.is_grpc() || rules.keeps_version() || known;
            let to_http2 = rules.protocol == Protocol::H2c || (rules.protocol == Protocol::Auto && keeps);
            let outgoing = match to_http2 {
                true => Outgoing::Http2(heads::edited(&request, &head, edits)),
                false => Outgoing::Http1(heads::write_http1(worker, &request, &head, upgrade, edits, rules)),
            };
            Ok((permit, route, head.is_grpc(), upgrade.is_some(), outgoing))
        })
    };
    let (permit, route, grpc, upgrade, outgoing) = match admitted {
        Ok(admitted) => admitted,
        Err(failure) => return Box::pin(ready(Ok(answer::refuse(&failure, record, is_head, stream)))),
    };
    let call = Call { stream, record, port: route.port, target: route.target, permit, grpc };
    match (outgoing, upgrade) {
        (Outgoing::Http1(head), false) => settled(to_http1::forward(call, request, head), is_head),
        (Outgoing::Http1(head), true) => settled(connect::to_http1(call, request, head), is_head),
        (Outgoing::Http2(headers), false) => settled(to_http2::forward(call, request, headers), is_head),
        (Outgoing::Http2(headers), true) => settled(connect::to_http2(call, request, headers), is_head),
    }
}

/// A failed call is answered in the app's stead.
fn settled(answered: impl Future<Output = Answered> + 'static, is_head: bool) -> Handling {
    Box::pin(answered.map(move |answered| {
        let refuse = |(failure, call): (Failure, Call)| answer::refuse(&failure, call.record, is_head, call.stream);
        Ok(answered.unwrap_or_else(refuse))
    }))
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
    target: Target,
    permit: model::Permit,
    grpc: bool,
}

impl Call {
    fn worker(&self) -> &Rc<Worker> {
        &self.stream.connection.worker
    }
}

/// A failed call keeps its record, so that the answer in the app's stead is logged as one.
type Answered = Result<Response<Answer>, (Failure, Call)>;

/// Ready once the whole answer has taken too long; wakes the stream no later than that.
fn poll_bound(cx: &mut Context<'_>, bound: Option<Instant>, deadline: &mut Deadline) -> Poll<Failure> {
    let Some(bound) = bound else { return Poll::Pending };
    if bound > Instant::now() {
        deadline.set(Some(deadline.at().map_or(bound, |at| at.min(bound))));
        if deadline.poll_expired(cx).is_pending() || bound > Instant::now() {
            return Poll::Pending;
        }
    }
    Poll::Ready(Failure::new(Cause::AppTimeout, "not answered within the request's timeout"))
}

/// Whether an answer is an event stream, which lives long by design.
pub(super) fn is_event_stream(headers: &http::HeaderMap) -> bool {
    headers.get(http::header::CONTENT_TYPE).is_some_and(|value| crate::inbound::is_event_stream(value.as_bytes()))
}
