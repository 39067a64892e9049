//! HTTP/1 from the caller: one request after the other, each forwarded to its end before the next is looked at.

mod connect;
mod exchange;
mod forward;
mod heads;
mod http2;
mod proxy;
mod pump;
mod slot;

use std::sync::Arc;
use std::time::Duration;

use h1::{ErrorKind, Method, RequestHead};
use model::{Cause, Direction, Failure};
use telemetry::{Limit, Record};
use tokio::time::Instant;

use crate::config::Port;
use crate::inbound::caller::{Awaited, Caller, NoBytes};
use crate::inbound::{disconnected, refusal, stages};
use crate::outbound::{self, Route};
pub(crate) use slot::Slot;

/// What becomes of the caller's connection after a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// It waits for another request.
    KeepAlive,
    /// It is closed.
    Close,
    /// It is closed once the caller had time to read our answer: bytes it still sends would make the kernel reset the
    /// connection, and the answer would be lost.
    Linger,
}

/// Serves requests until the connection ends. While it waits for the next, all it holds is the caller: what a request needs
/// is taken for its length.
pub(super) async fn serve(mut caller: Box<Caller>) {
    loop {
        let port = caller.worker.port(caller.port);
        if caller.inbox.is_empty() && !wait_for_request(&mut caller, &port).await {
            return caller.io.say_goodbye();
        }
        let next;
        (caller, next) = slot::run(caller).await;
        match next {
            Next::KeepAlive => {}
            Next::Close => return caller.io.say_goodbye(),
            Next::Linger => return Box::pin(caller.linger()).await,
        }
    }
}

/// Waits for a request's first byte; `false` where the connection ended, or was idle too long.
async fn wait_for_request(caller: &mut Caller, port: &Port) -> bool {
    let age_left = caller.retires.map(|retires| retires.saturating_duration_since(caller.worker.now()));
    let within = age_left.map_or(port.timeouts.idle, |left| left.min(port.timeouts.idle));
    match caller.read(within, Awaited::Next).await {
        Ok(()) => true,
        Err(why) => {
            if matches!(why, NoBytes::Expired) {
                let old = within < port.timeouts.idle;
                caller.worker.telemetry.limit_hit(if old { Limit::Age } else { Limit::Idle });
            }
            false
        }
    }
}

/// One request, whose first bytes are there, to its end.
async fn one(mut caller: Box<Caller>) -> (Box<Caller>, Next) {
    let next = serve_one(&mut caller).await;
    (caller, next)
}

async fn serve_one(caller: &mut Caller) -> Next {
    let worker = caller.worker.clone();
    // Taken now, not before the wait: what was reloaded meanwhile holds.
    let port = &worker.port(caller.port);
    let mut head = worker.request_heads.take().unwrap_or_default();
    head.reset();
    match read_head(caller, port, &mut head).await {
        Ok((length, record)) => request(caller, port, head, length, record).await,
        Err((failure, mut record)) => refuse(caller, &failure, &mut record, false, true).await,
    }
}

/// Reads until a request head is complete: its length, and the record that began with its first byte.
async fn read_head(
    caller: &mut Caller,
    port: &Port,
    head: &mut RequestHead,
) -> Result<(usize, Record), (Failure, Record)> {
    let limits = h1::Limits { head_bytes: port.limits.head_bytes, fields: port.limits.head_fields };
    let record = Record::begin(&caller.worker.telemetry, caller.port, caller.who.peer, stages::client_of(&caller.who));
    let expires = caller.worker.now() + port.timeouts.head;
    loop {
        match head.parse(caller.inbox.filled(), &limits) {
            Ok(Some(length)) => return Ok((length, record)),
            Ok(None) => {}
            Err(e) => {
                count_limit(caller, e.kind());
                return Err((malformed(e), record));
            }
        }
        let failure = match caller.read(expires.saturating_duration_since(Instant::now()), Awaited::Rest).await {
            Ok(()) => continue,
            Err(NoBytes::Expired) => {
                caller.worker.telemetry.limit_hit(Limit::HeadTimeout);
                Failure::new(Cause::RequestTimeout, "the request head did not arrive in time")
            }
            Err(NoBytes::Failed(e)) => disconnected(&e),
            Err(NoBytes::Ended | NoBytes::Closing) => {
                Failure::new(Cause::ClientDisconnected, "the caller closed within the request head")
            }
        };
        return Err((failure, record));
    }
}

fn count_limit(caller: &Caller, kind: ErrorKind) {
    match kind {
        ErrorKind::HeadTooLarge | ErrorKind::TargetTooLong => caller.worker.telemetry.limit_hit(Limit::HeadBytes),
        ErrorKind::TooManyFields => caller.worker.telemetry.limit_hit(Limit::HeadFields),
        _ => {}
    }
}

/// Takes a parsed request through the stages, and forwards it. Synchronous up to the first byte sent, so that the head is
/// read where it was received.
async fn request(
    caller: &mut Caller,
    port: &Arc<Port>,
    head: Box<RequestHead>,
    length: usize,
    mut record: Record,
) -> Next {
    let worker = caller.worker.clone();
    let admitted = {
        let bytes = caller.inbox.filled();
        let facts = heads::facts(&head, bytes, caller.who.scheme());
        let edits = &mut *worker.edits.borrow_mut();
        let route = route(caller, port, &head, bytes, &facts);
        let rules = route.as_ref().map_or(port, |route| &route.port);
        if let Ok(route) = &route
            && route.index != caller.port
        {
            record.assign(route.index);
        }
        let admitted = stages::admit(&worker, rules, &caller.who, &facts, &mut record, edits);
        admitted.and_then(|permit| Ok((permit, route?))).and_then(|(permit, route)| match head.method() {
            Method::Connect if proxy::is_asked(port, &caller.who) => Ok(Admitted::Connect(route)),
            Method::Connect | Method::Trace => Err(Failure::new(Cause::MethodNotAllowed, "")),
            _ => Ok(Admitted::Request(
                forward::Request::new(permit, &head, (bytes, &facts), edits, &route, &worker),
                route.port,
            )),
        })
    };
    let is_head = head.method() == Method::Head;
    worker.request_heads.give(head);
    caller.inbox.consume(length);
    match admitted {
        Ok(Admitted::Request(request, port)) => {
            worker.buffers.release(&mut caller.inbox);
            forward::forward(caller, &port, request, &mut record).await
        }
        Ok(Admitted::Connect(route)) => Box::pin(proxy::connect(caller, route, &mut record)).await,
        Err(failure) => refuse(caller, &failure, &mut record, is_head, true).await,
    }
}

/// What becomes of an admitted request.
enum Admitted {
    Request(forward::Request, Arc<Port>),
    /// A tunnel, asked of an HTTP proxy.
    Connect(Route),
}

/// Where the request goes.
fn route(
    caller: &Caller,
    port: &Arc<Port>,
    head: &RequestHead,
    bytes: &[u8],
    facts: &model::Head<'_>,
) -> Result<Route, Failure> {
    let value = |name: &str| {
        let mut fields = head.fields(bytes);
        fields.find(|field| field.name.eq_ignore_ascii_case(name.as_bytes())).map(|field| field.value)
    };
    let asks_for_tls =
        || head.target(bytes).as_bytes().get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"https:"));
    if port.direction == Direction::Outbound && head.is_absolute_form() && asks_for_tls() {
        return Err(Failure::new(Cause::NotImplemented, "an https URL asked of a proxy: CONNECT to its host instead"));
    }
    outbound::of_request(&caller.worker, (port, caller.port), &caller.who, facts.authority, value)
}

/// Answers in our own name. Without an answer to give, the connection just ends.
async fn refuse(caller: &mut Caller, failure: &Failure, record: &mut Record, is_head: bool, close: bool) -> Next {
    record.fail(failure);
    if failure.cause == Cause::ClientDisconnected {
        return Next::Close;
    }
    let close = close || caller.is_leaving();
    let mut out = Vec::with_capacity(512);
    refusal::write_http1(&mut out, failure, is_head, close);
    record.responded(failure.cause.status());
    caller.deadline.set(Some(Instant::now() + REFUSAL_PATIENCE));
    let mut sent = 0;
    let written = std::future::poll_fn(|cx| {
        while sent < out.len() {
            match caller.io.poll_write_slice(cx, &out[sent..]) {
                std::task::Poll::Ready(Ok(n)) => sent += n,
                std::task::Poll::Ready(Err(_)) => return std::task::Poll::Ready(false),
                std::task::Poll::Pending => return caller.deadline.poll_expired(cx).map(|()| false),
            }
        }
        caller.io.poll_sent(cx).map(|sent| sent.is_ok())
    });
    match written.await {
        true if close => Next::Linger,
        true => Next::KeepAlive,
        false => Next::Close,
    }
}

/// How long a caller may take to read an answer of some hundred bytes.
const REFUSAL_PATIENCE: Duration = Duration::from_secs(5);
/// What a codec error of the caller's bytes means.
fn malformed(e: h1::Error) -> Failure {
    let cause = match e.kind() {
        ErrorKind::TargetTooLong => Cause::TargetTooLong,
        ErrorKind::HeadTooLarge | ErrorKind::TooManyFields => Cause::HeadTooLarge,
        ErrorKind::NotImplemented => Cause::NotImplemented,
        ErrorKind::ExpectationFailed => Cause::ExpectationFailed,
        ErrorKind::VersionNotSupported => Cause::VersionNotSupported,
        _ => Cause::BadRequest,
    };
    Failure::new(cause, e.reason())
}
