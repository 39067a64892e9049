//! HTTP/1 from the caller to an app that speaks HTTP/2. The request body goes through a channel of one slot: a frame is
//! read from the caller when the last one was taken.

use std::cell::{Cell, RefCell};
use std::future::{pending, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use h1::{Body, BodyDecoder, Limits, Method, Piece, RequestHead, Version};
use http::{HeaderMap, HeaderName, HeaderValue, Response, header};
use http_body::{Body as _, Frame};
use hyper::body::Incoming;
use model::{Cause, Failure};
use telemetry::{Limit, Record};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::forward::Request;
use super::heads::Return;
use super::pump::Recode;
use super::{Next, malformed, refuse};
use crate::app::http2::Sent;
use crate::app::upload::{Aborted, Upload};
use crate::config::Port;
use crate::inbound::caller::Caller;
use crate::inbound::interval::Interval;
use crate::inbound::{disconnected, is_event_stream};
use crate::tries::Tries;

/// How long a caller that ended its side may still be waiting for its answer.
const GRACE: Duration = Duration::from_secs(1);

/// Forwards one request and brings its answer back.
pub(super) async fn forward(caller: &mut Caller, port: &Port, request: Request, record: &mut Record) -> Next {
    let is_head = request.method == Method::Head;
    let mut tries = match Tries::begin(port, request.target.clone(), request.is_idempotent()) {
        Ok(tries) => tries,
        Err(failure) => return refuse(caller, &failure, record, is_head, true).await,
    };
    let (frames, slot) = mpsc::channel(1);
    let has_body = !matches!(request.body, Body::Empty | Body::Length(0));
    let upload = if has_body { Upload::channel(slot, tries.replayed()) } else { Upload::none() };
    let progress = upload.progress();
    let outgoing = match outgoing(&request.head, upload) {
        Ok(outgoing) => outgoing,
        Err(failure) => return refuse(caller, &failure, record, is_head, true).await,
    };
    let worker = caller.worker.clone();
    let fed = Cell::new(false);
    let limits = Limits { head_bytes: port.limits.head_bytes, fields: port.limits.head_fields };
    let decoder = BodyDecoder::new(request.body, &limits);
    let exchange = RefCell::new((caller, record));
    let outcome = {
        let mut feeding = pin!(async {
            tokio::select! {
                failure = feed(&exchange, decoder, frames, &fed) => failure,
                never = tell_intervals(&exchange) => never,
            }
        });
        let answered = {
            let sending = worker.apps.http2.send(&request.permit, &worker, port, &mut tries, outgoing);
            tokio::select! {
                answered = progress.bound(&worker, &port.timeouts, sending) => answered,
                failure = &mut feeding => Err(failure),
            }
        };
        if answered.as_ref().is_err_and(|failure: &Failure| failure.cause == Cause::AppTimeout) {
            tries.out_of_patience();
        }
        tries.tell(exchange.borrow_mut().1);
        match answered {
            Ok(sent) => {
                let keep_alive = request.keep_alive && fed.get() && !exchange.borrow().0.is_leaving();
                let back = returning(&sent.response, request.version, is_head, keep_alive);
                note(&exchange, &sent);
                let _until_the_end = sent.guard;
                let streams = is_stream(&sent.response);
                let given = tokio::select! {
                    given = give(&exchange, sent.response, back, is_head, port.timeouts.write) => given,
                    failure = &mut feeding => Err(failure),
                    () = expired(tries.deadline().filter(|_| !streams)) => {
                        Err(Failure::new(Cause::AppTimeout, "not answered within the request's timeout"))
                    }
                };
                Ok((given, back))
            }
            Err(failure) => Err(failure),
        }
    };
    let (caller, record) = exchange.into_inner();
    match outcome {
        Err(failure) => refuse(caller, &failure, record, is_head, !fed.get() || !request.keep_alive).await,
        Ok((Err(failure), back)) => {
            record.fail(&failure);
            if back.until_close {
                caller.io.reset_on_close();
            }
            Next::Close
        }
        Ok((Ok(()), back)) => {
            record.finished();
            match (back.close, fed.get()) {
                (false, _) => Next::KeepAlive,
                (true, true) => Next::Close,
                (true, false) => Next::Linger,
            }
        }
    }
}

pub(super) fn note(exchange: &RefCell<(&mut Caller, &mut Record)>, sent: &Sent) {
    let record = &mut exchange.borrow_mut().1;
    record.app(sent.reused);
    record.responded(sent.response.status().as_u16());
}

/// Writes the lines of a request that lives long.
async fn tell_intervals<T>(exchange: &RefCell<(&mut Caller, &mut Record)>) -> T {
    let mut interval = Interval::from(Instant::now());
    loop {
        tokio::time::sleep_until(interval.due()).await;
        interval.tell(exchange.borrow_mut().1);
    }
}

/// The head written for HTTP/1.1, read back as HTTP/2's: one place decides what the app is told.
pub(super) fn outgoing(head: &[u8], upload: Upload) -> Result<http::Request<Upload>, Failure> {
    let internal = || Failure::new(Cause::Internal, "a head of our own making does not parse");
    let mut parsed = RequestHead::new();
    let generous = Limits { head_bytes: usize::MAX, fields: usize::MAX };
    parsed.parse(head, &generous).ok().flatten().ok_or_else(internal)?;
    let mut request = http::Request::new(upload);
    *request.method_mut() = parsed.method_str(head).parse().map_err(|_| internal())?;
    *request.uri_mut() = http::Uri::builder()
        .scheme("http")
        .authority(parsed.authority(head))
        .path_and_query(parsed.target(head))
        .build()
        .map_err(|_| Failure::new(Cause::BadRequest, "the target or host cannot be said in HTTP/2"))?;
    *request.version_mut() = http::Version::HTTP_2;
    if let Some(protocol) = parsed.upgrade(head).and_then(|protocol| HeaderValue::from_bytes(protocol).ok()) {
        request.headers_mut().insert(header::UPGRADE, protocol);
    }
    for field in parsed.fields(head) {
        let drop = matches!(field.role, h1::Role::HopByHop | h1::Role::Host | h1::Role::Expect);
        if let (false, Ok(name), Ok(value)) =
            (drop, HeaderName::from_bytes(field.name), HeaderValue::from_bytes(field.value))
        {
            request.headers_mut().append(name, value);
        }
    }
    Ok(request)
}

/// Hands the request body on, frame by frame, then watches for the caller to go away. Ends only with a failure.
async fn feed(
    exchange: &RefCell<(&mut Caller, &mut Record)>,
    mut decoder: BodyDecoder,
    frames: mpsc::Sender<Result<Frame<Bytes>, Aborted>>,
    fed: &Cell<bool>,
) -> Failure {
    while !decoder.is_done() {
        let step = {
            let (caller, record) = &mut *exchange.borrow_mut();
            decode(caller, record, &mut decoder)
        };
        let failure = match step {
            Ok(Some(frame)) => {
                // An app that answers early stops taking frames: the rest is nobody's any more.
                if frames.send(Ok(frame)).await.is_err() {
                    return pending().await;
                }
                continue;
            }
            Ok(None) if decoder.is_done() => break,
            Ok(None) => match poll_fn(|cx| exchange.borrow_mut().0.poll_fill(cx)).await {
                Ok(n) if n > 0 => continue,
                Ok(_) => Failure::new(Cause::ClientDisconnected, "the caller closed within the request body"),
                Err(e) => disconnected(&e),
            },
            Err(failure) => failure,
        };
        let _ = frames.send(Err(Aborted)).await;
        return failure;
    }
    let trailers = trailers(&decoder);
    if !trailers.is_empty() {
        let _ = frames.send(Ok(Frame::trailers(trailers))).await;
    }
    drop(frames);
    fed.set(true);
    watch(exchange).await
}

/// The next frame of what was read; `None` where more is needed, or the body is over.
fn decode(
    caller: &mut Caller,
    record: &mut Record,
    decoder: &mut BodyDecoder,
) -> Result<Option<Frame<Bytes>>, Failure> {
    while !caller.inbox.is_empty() && !decoder.is_done() {
        let bytes = caller.inbox.filled();
        let step = decoder.decode(bytes).map_err(malformed)?;
        let data = match step.piece {
            Piece::Data(range) => Some(Bytes::copy_from_slice(&bytes[range])),
            Piece::End | Piece::NeedMore => None,
        };
        caller.inbox.consume(step.consumed);
        caller.worker.buffers.release(&mut caller.inbox);
        if let Some(data) = data {
            record.received(data.len() as u64);
            return Ok(Some(Frame::data(data)));
        }
    }
    Ok(None)
}

fn trailers(decoder: &BodyDecoder) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    for field in decoder.trailers() {
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(field.name), HeaderValue::from_bytes(field.value)) {
            trailers.append(name, value);
        }
    }
    trailers
}

/// Waits for the caller to go away; a next request of its waits in the inbox.
async fn watch(exchange: &RefCell<(&mut Caller, &mut Record)>) -> Failure {
    let has_more = !exchange.borrow().0.inbox.is_empty();
    let read = if has_more { Ok(1) } else { poll_fn(|cx| exchange.borrow_mut().0.poll_fill(cx)).await };
    match read {
        Ok(0) => {
            tokio::time::sleep(GRACE).await;
            Failure::new(Cause::ClientDisconnected, "the caller closed the connection")
        }
        Ok(_) => pending().await,
        Err(e) => disconnected(&e),
    }
}

/// How an HTTP/2 answer is framed for an HTTP/1 caller.
pub(super) fn returning(response: &Response<Incoming>, version: Version, is_head: bool, keep_alive: bool) -> Return {
    let status = response.status();
    let bodiless = is_head || status == 204 || status == 304;
    let body = match response.body().size_hint().exact() {
        _ if bodiless => Body::Empty,
        Some(length) => Body::Length(length),
        None => Body::Chunked,
    };
    Return::of(body, version, keep_alive)
}

/// Sends the answer, frame by frame.
pub(super) async fn give(
    exchange: &RefCell<(&mut Caller, &mut Record)>,
    response: Response<Incoming>,
    back: Return,
    is_head: bool,
    patience: Duration,
) -> Result<(), Failure> {
    let mut out = Vec::with_capacity(1024);
    write_head(&mut out, &response, back, is_head);
    if is_stream(&response) {
        exchange.borrow_mut().1.stream("sse");
    }
    let mut body = response.into_body();
    let mut trailers = HeaderMap::new();
    loop {
        // What is there already goes out in one write with what came before.
        let frame = poll_fn(|cx| match Pin::new(&mut body).poll_frame(cx) {
            Poll::Pending if !out.is_empty() => Poll::Ready(None),
            other => other.map(Some),
        });
        match frame.await {
            None => write(exchange, &mut out, patience).await?,
            Some(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) if data.is_empty() => {}
                Ok(data) => {
                    exchange.borrow_mut().1.sent(data.len() as u64);
                    let chunked = back.recode == Recode::Chunked;
                    if chunked {
                        h1::encode::chunk_header(&mut out, data.len());
                    }
                    out.extend_from_slice(&data);
                    if chunked {
                        out.extend_from_slice(b"\r\n");
                    }
                    if out.len() > 32 * 1024 {
                        write(exchange, &mut out, patience).await?;
                    }
                }
                Err(frame) => trailers = frame.into_trailers().unwrap_or_default(),
            },
            Some(Some(Err(e))) => return Err(Failure::new(Cause::AppBroken, e.to_string())),
            Some(None) => break,
        }
    }
    if back.recode == Recode::Chunked {
        let fields = trailers.iter().filter(|(name, _)| h1::is_trailer_name(name.as_str().as_bytes()));
        h1::encode::last_chunk(&mut out, fields.map(|(n, v)| (n.as_str().as_bytes(), v.as_bytes())));
    }
    write(exchange, &mut out, patience).await
}

fn is_stream(response: &Response<Incoming>) -> bool {
    response.headers().get(header::CONTENT_TYPE).is_some_and(|value| is_event_stream(value.as_bytes()))
}

/// Ready once that is past; never where there is no such bound.
async fn expired(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => pending().await,
    }
}

fn write_head(out: &mut Vec<u8>, response: &Response<Incoming>, back: Return, is_head: bool) {
    h1::encode::status_line(out, response.status().as_u16(), None);
    for (name, value) in response.headers() {
        h1::encode::field(out, name.as_str().as_bytes(), value.as_bytes());
    }
    let known = response
        .body()
        .size_hint()
        .exact()
        .filter(|_| !is_head && response.status() != 204 && response.status() != 304);
    if let Some(length) = known.filter(|_| !response.headers().contains_key("content-length")) {
        let mut text = itoa::Buffer::new();
        h1::encode::field(out, b"content-length", text.format(length).as_bytes());
    }
    back.write_fields(out);
    out.extend_from_slice(b"\r\n");
}

pub(super) async fn write(
    exchange: &RefCell<(&mut Caller, &mut Record)>,
    out: &mut Vec<u8>,
    patience: Duration,
) -> Result<(), Failure> {
    let mut sent = 0;
    while sent < out.len() {
        let written = poll_fn(|cx| exchange.borrow_mut().0.io.poll_write_slice(cx, &out[sent..]));
        match timeout(patience, written).await {
            Ok(Ok(n)) => sent += n,
            Ok(Err(e)) => return Err(disconnected(&e)),
            Err(_) => return Err(stopped_reading(exchange)),
        }
    }
    out.clear();
    let sent = poll_fn(|cx| exchange.borrow_mut().0.io.poll_sent(cx));
    match timeout(patience, sent).await {
        Ok(sent) => sent.map_err(|e| disconnected(&e)),
        Err(_) => Err(stopped_reading(exchange)),
    }
}

fn stopped_reading(exchange: &RefCell<(&mut Caller, &mut Record)>) -> Failure {
    exchange.borrow().0.worker.telemetry.limit_hit(Limit::Write);
    Failure::new(Cause::ClientDisconnected, "the caller stopped reading the answer")
}
