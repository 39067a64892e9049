//! HTTP/1 to the app: send, repeat where that is safe, and bring the answer back.

use h1::{Body, Method, RequestHead, ResponseHead, Version};
use model::{Cause, Edits, Failure, Head, Permit};
use telemetry::Record;

use super::exchange::{Exchange, NoAnswer};
use super::heads::{self, Return};
use super::pump::{Pump, Recode};
use super::{Next, connect, http2, refuse};
use crate::app::Reuse;
use crate::config::{Port, Protocol};
use crate::inbound::caller::Caller;
use crate::inbound::tunnel;
use crate::outbound::Route;
use crate::tries::{Target, Tries, Why};
use crate::worker::Worker;

/// Informational answers passed on per request; an app that sends more is not going to answer.
const MAX_INFORMATIONAL: usize = 16;

/// A request ready to be sent: admitted, its head written, its body still with the caller.
pub(super) struct Request {
    pub(super) target: Target,
    pub(super) permit: Permit,
    pub(super) method: Method,
    pub(super) version: Version,
    pub(super) keep_alive: bool,
    pub(super) body: Body,
    wants_upgrade: bool,
    pub(super) head: Vec<u8>,
}

impl Request {
    pub(super) fn new(
        permit: Permit,
        head: &RequestHead,
        (bytes, facts): (&[u8], &Head<'_>),
        edits: &Edits,
        route: &Route,
        worker: &Worker,
    ) -> Self {
        let mut out = worker.take_memory();
        heads::write_request(&mut out, head, bytes, facts, edits, route);
        Self {
            target: route.target.clone(),
            permit,
            method: head.method(),
            version: head.version(),
            keep_alive: head.keep_alive(),
            body: head.body(),
            wants_upgrade: heads::upgrade(head, bytes).is_some(),
            head: out,
        }
    }

    /// Whether the same request twice is as good as once (RFC 9110, 9.2.2).
    pub(super) fn is_idempotent(&self) -> bool {
        matches!(self.method, Method::Get | Method::Head | Method::Put | Method::Delete | Method::Options)
    }
}

/// Forwards one request and brings its answer back.
pub(super) async fn forward(caller: &mut Caller, port: &Port, request: Request, record: &mut Record) -> Next {
    match port.protocol {
        Protocol::H2c if request.wants_upgrade => {
            return Box::pin(connect::upgrade(caller, port, request, record)).await;
        }
        Protocol::H2c => return Box::pin(http2::forward(caller, port, request, record)).await,
        _ => {}
    }
    let idempotent = request.is_idempotent();
    let Request { target, permit, method, version, keep_alive, body, wants_upgrade, head } = request;
    let worker = caller.worker.clone();
    let limits = h1::Limits { head_bytes: port.limits.head_bytes, fields: port.limits.head_fields };
    let recode = if body == Body::Chunked { Recode::Chunked } else { Recode::Plain };
    let mut tries = match Tries::begin(port, target, idempotent) {
        Ok(tries) => tries,
        Err(failure) => return refuse_whole(caller, &failure, record, method, body, keep_alive).await,
    };
    let mut pump = Pump::new(head, body, &limits, recode).keeping(tries.replayed());
    let mut reuse = if idempotent { Reuse::Any } else { Reuse::Fresh };
    let mut response = worker.response_heads.take().unwrap_or_default();
    response.reset();
    loop {
        let (attempt, taken) = match worker.apps.take(&permit, &worker, port, &mut tries, reuse).await {
            Ok(taken) => taken,
            Err(failure) => {
                tries.tell(record);
                return refuse_whole(caller, &failure, record, method, body, keep_alive).await;
            }
        };
        record.app(taken.reused);
        let mut exchange = Exchange::new(caller, port, record, (&mut tries, &attempt), taken.link, &mut pump, method);
        let answer = Answer { version, keep_alive, wants_upgrade };
        let fetched = answer.fetch(&mut exchange, &mut response).await;
        let whole = exchange.request.is_whole();
        let (failure, why) = match fetched {
            Ok(length) => {
                let status = response.status();
                exchange.tries.answered(&attempt, status);
                if !exchange.tries.again(&attempt, Why::Status(status), whole) {
                    let (next, reusable) = answer.give(&mut exchange, response, length).await;
                    if let Some(kept_for) = reusable {
                        worker.apps.put(&attempt.to, exchange.app, kept_for, worker.now());
                    }
                    worker.give_memory(pump.into_memory());
                    return next;
                }
                (None, Why::Status(status))
            }
            Err(NoAnswer::Closed(detail)) => {
                let why = if taken.reused { Why::Stale } else { Why::Reset };
                (Some(Failure::new(Cause::AppClosed, detail)), why)
            }
            Err(NoAnswer::Failed(failure)) => {
                let why = Why::of(&failure);
                (Some(failure), why)
            }
        };
        if let Some(failure) = failure
            && !exchange.tries.again(&attempt, why, whole)
        {
            return give_up(&mut exchange, &failure, keep_alive).await;
        }
        drop((exchange.app, attempt));
        pump.rewind();
        response.reset();
        // Where one kept connection had ended meanwhile, another may have.
        reuse = if matches!(why, Why::Stale) { Reuse::No } else { reuse };
        tries.pause(&worker).await;
    }
}

/// Answers in the app's stead when the request was not even sent.
async fn refuse_whole(
    caller: &mut Caller,
    failure: &Failure,
    record: &mut Record,
    method: Method,
    body: Body,
    keep_alive: bool,
) -> Next {
    let unread = !matches!(body, Body::Empty | Body::Length(0));
    refuse(caller, failure, record, method == Method::Head, unread || !keep_alive).await
}

/// Answers in the app's stead when it has not answered.
async fn give_up(exchange: &mut Exchange<'_>, failure: &Failure, keep_alive: bool) -> Next {
    exchange.tries.tell(exchange.record);
    let close = !exchange.request.is_read() || !keep_alive;
    refuse(exchange.caller, failure, exchange.record, exchange.method == Method::Head, close).await
}

/// How to answer the caller.
#[derive(Clone, Copy)]
struct Answer {
    version: Version,
    keep_alive: bool,
    wants_upgrade: bool,
}

impl Answer {
    /// Waits for the final answer's head, passing informational ones on.
    async fn fetch(self, exchange: &mut Exchange<'_>, response: &mut ResponseHead) -> Result<usize, NoAnswer> {
        let fail = |detail: &'static str| Err(NoAnswer::Failed(Failure::new(Cause::AppProtocol, detail)));
        for _ in 0..=MAX_INFORMATIONAL {
            let length = exchange.answer_head(response).await?;
            match response.status() {
                101 if self.wants_upgrade && response.upgrade(&exchange.outbox.filled()[..length]).is_some() => {
                    return Ok(length);
                }
                101 => return fail("the app switches protocols, which it was not asked to"),
                100..=199 => {
                    if self.version == Version::Http11 {
                        let mut out = exchange.caller.worker.take_memory();
                        heads::write_informational(&mut out, response, exchange.outbox.filled());
                        exchange.outbox.consume(length);
                        let limits = h1::Limits::default();
                        let mut pump = Pump::new(out, Body::Empty, &limits, Recode::Plain);
                        exchange.answer_body(&mut pump).await.map_err(NoAnswer::Failed)?;
                        exchange.caller.worker.give_memory(pump.into_memory());
                    } else {
                        exchange.outbox.consume(length);
                    }
                    response.reset();
                }
                _ => return Ok(length),
            }
        }
        fail("the app sends informational answers without end")
    }

    /// Sends the final answer, and settles what becomes of both connections: of the app's, for how many seconds it promises to
    /// keep it, where it can serve another request.
    async fn give(
        self,
        exchange: &mut Exchange<'_>,
        response: Box<ResponseHead>,
        length: usize,
    ) -> (Next, Option<Option<u32>>) {
        let status = response.status();
        exchange.request.never_rewind();
        exchange.tries.tell(exchange.record);
        exchange.record.responded(status);
        if status == 101 {
            return (Box::pin(tunnel(exchange, &response, length)).await, None);
        }
        let worker = exchange.caller.worker.clone();
        let keep_alive = self.keep_alive && exchange.request.is_read() && !exchange.caller.is_leaving();
        let back = Return::of(response.body(), self.version, keep_alive);
        let mut out = worker.take_memory();
        heads::write_response(&mut out, &response, exchange.outbox.filled(), back);
        if heads::is_event_stream(&response, exchange.outbox.filled()) {
            exchange.streams = true;
            exchange.record.stream("sse");
        }
        exchange.outbox.consume(length);
        let (framing, kept_for) = (response.body(), response.keep_alive_timeout());
        let app_stays = response.keep_alive() && framing != Body::UntilClose;
        worker.response_heads.give(response);
        let limits =
            h1::Limits { head_bytes: exchange.port.limits.head_bytes, fields: exchange.port.limits.head_fields };
        let mut pump = Pump::new(out, framing, &limits, back.recode).once();
        if let Err(failure) = exchange.answer_body(&mut pump).await {
            exchange.record.fail(&failure);
            if back.until_close {
                // Nothing but a reset tells this caller that the answer is not whole.
                exchange.caller.io.reset_on_close();
            }
            return (Next::Close, None);
        }
        exchange.record.finished();
        worker.give_memory(pump.into_memory());
        let request_over = exchange.request.is_read() && !exchange.request.is_blocked() && !exchange.request_broken;
        let next = match (back.close, request_over) {
            (false, _) => Next::KeepAlive,
            (true, true) => Next::Close,
            (true, false) => Next::Linger,
        };
        // Bytes behind the answer belong to no request of ours: that connection is not to be trusted.
        let reusable = app_stays && request_over && exchange.outbox.is_empty();
        (next, reusable.then_some(kept_for))
    }
}

/// The protocols are switched: from here on bytes pass both ways, unseen.
async fn tunnel(exchange: &mut Exchange<'_>, response: &ResponseHead, length: usize) -> Next {
    let mut head = exchange.caller.worker.take_memory();
    heads::write_informational(&mut head, response, exchange.outbox.filled());
    let websocket = response.upgrade(exchange.outbox.filled()).is_some_and(|p| p.eq_ignore_ascii_case(b"websocket"));
    exchange.record.stream(if websocket { "websocket" } else { "upgrade" });
    exchange.outbox.consume(length);
    let limits = h1::Limits::default();
    let mut pump = Pump::new(head, Body::Empty, &limits, Recode::Plain);
    if let Err(failure) = exchange.answer_body(&mut pump).await {
        exchange.record.fail(&failure);
        return Next::Close;
    }
    let Exchange { caller, app, outbox, record, .. } = exchange;
    tunnel::carry(caller, app, outbox, record, tunnel::for_good).await;
    Next::Close
}
