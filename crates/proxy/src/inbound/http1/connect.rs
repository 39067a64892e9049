//! An upgrade asked for in HTTP/1.1 before an app that speaks HTTP/2: extended CONNECT (RFC 8441) is its `101`.

use std::cell::RefCell;

use http::{HeaderValue, Response, header};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use model::{Cause, Failure};
use net::Buffer;
use telemetry::Record;

use super::forward::Request;
use super::http2::{give, note, outgoing, returning, write};
use super::{Next, refuse};
use crate::app::upload::Upload;
use crate::config::Port;
use crate::inbound::caller::Caller;
use crate::inbound::{tunnel, websocket};
use crate::tries::Tries;

/// Asks the app to switch protocols, and carries bytes both ways once it has.
pub(super) async fn upgrade(caller: &mut Caller, port: &Port, request: Request, record: &mut Record) -> Next {
    let mut outgoing = match outgoing(&request.head, Upload::none()) {
        Ok(outgoing) => outgoing,
        Err(failure) => return refuse(caller, &failure, record, false, true).await,
    };
    let protocol = outgoing.headers_mut().remove(header::UPGRADE);
    let protocol = protocol.as_ref().and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    *outgoing.method_mut() = http::Method::CONNECT;
    outgoing.extensions_mut().insert(hyper::ext::Protocol::from(protocol.as_str()));
    let key = outgoing.headers_mut().remove(header::SEC_WEBSOCKET_KEY);
    let worker = caller.worker.clone();
    let progress = outgoing.body().progress();
    let mut tries = match Tries::begin(port, request.target.clone(), false) {
        Ok(tries) => tries,
        Err(failure) => return refuse(caller, &failure, record, false, true).await,
    };
    let sending = worker.apps.http2.send(&request.permit, &worker, port, &mut tries, outgoing);
    let sent = progress.bound(&worker, &port.timeouts, sending).await;
    tries.tell(record);
    let sent = match sent {
        Ok(sent) => sent,
        Err(failure) => return refuse(caller, &failure, record, false, !request.keep_alive).await,
    };
    let leaving = caller.is_leaving();
    let exchange = RefCell::new((caller, record));
    note(&exchange, &sent);
    if !sent.response.status().is_success() {
        let back = returning(&sent.response, request.version, false, request.keep_alive && !leaving);
        let given = give(&exchange, sent.response, back, false, port.timeouts.write).await;
        let (_, record) = exchange.into_inner();
        return match given {
            Ok(()) if back.close => Next::Close,
            Ok(()) => {
                record.finished();
                Next::KeepAlive
            }
            Err(failure) => {
                record.fail(&failure);
                Next::Close
            }
        };
    }
    let mut out = Vec::with_capacity(256);
    write_switching(&mut out, &sent.response, &protocol, key.as_ref());
    let written = write(&exchange, &mut out, port.timeouts.write).await;
    let (caller, record) = exchange.into_inner();
    record.responded(101);
    record.stream(if protocol.eq_ignore_ascii_case("websocket") { "websocket" } else { "upgrade" });
    match (written, hyper::upgrade::on(sent.response).await) {
        (Ok(()), Ok(app)) => {
            tunnel::carry(caller, &mut TokioIo::new(app), &mut Buffer::default(), record, tunnel::for_good).await;
        }
        (Err(failure), _) => record.fail(&failure),
        (_, Err(e)) => record.fail(&Failure::new(Cause::AppBroken, e.to_string())),
    }
    Next::Close
}

fn write_switching(out: &mut Vec<u8>, response: &Response<Incoming>, protocol: &str, key: Option<&HeaderValue>) {
    h1::encode::status_line(out, 101, None);
    for (name, value) in response.headers() {
        h1::encode::field(out, name.as_str().as_bytes(), value.as_bytes());
    }
    out.extend_from_slice(b"connection: upgrade\r\n");
    h1::encode::field(out, b"upgrade", protocol.as_bytes());
    if let Some(key) = key.filter(|_| protocol.eq_ignore_ascii_case("websocket")) {
        h1::encode::field(out, b"sec-websocket-accept", websocket::accept(key.as_bytes()).as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}
