//! Extended CONNECT (RFC 8441): WebSocket, or any other protocol, within one HTTP/2 stream.

use http::{HeaderMap, Request, Response, header};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use model::{Cause, Failure};
use net::Deadline;
use tokio::io::{AsyncRead, AsyncWrite};

use super::answer::Answer;
use super::heads::response_headers;
use super::to_http1::FromHttp1;
use super::to_http2::FromHttp2;
use super::upload;
use super::{Answered, Call};
use crate::app::Reuse;
use crate::app::upload::Upload;
use crate::inbound::tunnel;
use crate::linger::RequestBody;
use crate::supervise;
use crate::tries::Tries;

/// To an app that speaks HTTP/1.1: its `101 Switching Protocols` is the stream's `200`.
pub(super) async fn to_http1(call: Call, mut request: Request<RequestBody>, head: Vec<u8>) -> Answered {
    let upgrade = hyper::upgrade::on(&mut request);
    let protocol = protocol_of(&request);
    let mut exchange = FromHttp1::begin(call, false, |_| upload::Upload::new(head, request, 0))?;
    if let Err(failure) = exchange.connect(Reuse::Fresh).await {
        return Err(exchange.told(failure));
    }
    let (answer, length) = match exchange.answer_head(h1::Method::Get).await {
        Ok(answer) => answer,
        Err(no_answer) => return Err(exchange.failed(no_answer)),
    };
    exchange.answered(answer.status());
    if answer.status() != 101 {
        return Ok(exchange.into_response(answer, length));
    }
    let mut headers = response_headers(&answer, exchange.head_bytes());
    headers.remove(header::SEC_WEBSOCKET_ACCEPT);
    exchange.consume(length);
    let (call, app, outbox, tries) = exchange.into_parts();
    let Some(app) = app else {
        return Err((Failure::new(Cause::AppClosed, "the app closed the connection"), call));
    };
    let early = outbox.filled().to_vec();
    Ok(switch((call, tries), protocol, headers, upgrade, async move { Some((app, early)) }))
}

/// To an app that speaks HTTP/2 and has extended CONNECT enabled: stream to stream.
pub(super) async fn to_http2(mut call: Call, mut request: Request<RequestBody>, headers: HeaderMap) -> Answered {
    let upgrade = hyper::upgrade::on(&mut request);
    let protocol = protocol_of(&request);
    let (mut parts, _none) = request.into_parts();
    parts.headers = headers;
    let outgoing = Request::from_parts(parts, Upload::none());
    let progress = outgoing.body().progress();
    let worker = call.worker().clone();
    let mut tries = match Tries::begin(&call.port, call.target.clone(), false) {
        Ok(tries) => tries,
        Err(failure) => return Err((failure, call)),
    };
    let sent = worker.apps.http2.send(&call.permit, &worker, &call.port, &mut tries, outgoing).await;
    tries.tell(&mut call.record);
    let sent = match sent {
        Ok(sent) => sent,
        Err(failure) => return Err((failure, call)),
    };
    if !sent.response.status().is_success() {
        return Ok(FromHttp2::respond(call, tries, sent, progress));
    }
    call.record.app(sent.reused);
    let mut response = sent.response;
    let headers = std::mem::take(response.headers_mut());
    let app = hyper::upgrade::on(response);
    let guards = (tries, sent.guard);
    Ok(switch(
        (call, guards),
        protocol,
        headers,
        upgrade,
        async move { Some((TokioIo::new(app.await.ok()?), Vec::new())) },
    ))
}

fn protocol_of(request: &Request<RequestBody>) -> &'static str {
    let protocol = request.extensions().get::<hyper::ext::Protocol>().map(hyper::ext::Protocol::as_str);
    if protocol.is_some_and(|p| p.eq_ignore_ascii_case("websocket")) { "websocket" } else { "upgrade" }
}

/// Answers that the protocol is switched, and carries bytes in a task of its own from then on.
fn switch<A, G: 'static>(
    (mut call, until_the_end): (Call, G),
    protocol: &'static str,
    headers: HeaderMap,
    upgrade: OnUpgrade,
    app: impl Future<Output = Option<(A, Vec<u8>)>> + 'static,
) -> Response<Answer>
where
    A: AsyncRead + AsyncWrite + Unpin + 'static,
{
    call.record.responded(200);
    call.record.stream(protocol);
    let (worker, port) = (call.worker().clone(), call.stream.connection.port);
    supervise::spawn(&worker.clone(), port, move || async move {
        let _until_the_end = until_the_end;
        let (Some((mut app, early)), Ok(caller)) = (app.await, upgrade.await) else {
            return call
                .record
                .fail(&Failure::new(Cause::ClientDisconnected, "the stream ended before it was switched"));
        };
        let mut caller = TokioIo::new(caller);
        let early = (&b""[..], &early[..]);
        tunnel::between(
            &worker,
            &mut caller,
            &mut app,
            early,
            &mut Deadline::new(),
            &mut call.record,
            tunnel::for_good,
        )
        .await;
    });
    let mut response = Response::new(Answer::Tunnel);
    *response.headers_mut() = headers;
    response
}
