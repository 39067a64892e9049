//! Upgraded connections and opaque ports: bytes both ways until both sides have ended.

use std::task::Poll;

use model::{Cause, Failure};
use net::{Buffer, Deadline};
use telemetry::Record;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::inbound::caller::Caller;
use crate::inbound::interval::Interval;
use crate::worker::Worker;

/// Carries bytes between an HTTP/1 or opaque caller and the app; what was read from either already goes first.
pub(super) async fn carry(
    caller: &mut Caller,
    app: &mut (impl AsyncRead + AsyncWrite + Unpin),
    outbox: &mut Buffer,
    record: &mut Record,
) {
    let worker = caller.worker.clone();
    let early = (drain(&mut caller.inbox, &worker), drain(outbox, &worker));
    let whole = between(&worker, &mut caller.io, app, (&early.0, &early.1), &mut caller.deadline, record).await;
    if !whole {
        caller.io.reset_on_close();
    }
}

/// Carries bytes between any two streams; whether both ended in an orderly way.
pub(super) async fn between(
    worker: &Worker,
    caller: &mut (impl AsyncRead + AsyncWrite + Unpin),
    app: &mut (impl AsyncRead + AsyncWrite + Unpin),
    early: (&[u8], &[u8]),
    deadline: &mut Deadline,
    record: &mut Record,
) -> bool {
    let mut interval = Interval::new();
    let mut counted = net::Carried::default();
    let (carried, result) = net::tunnel(caller, app, early, &worker.scratch, |cx, carried| {
        record.received(carried.forth - counted.forth);
        record.sent(carried.back - counted.back);
        counted = carried;
        interval.poll(cx, deadline, record);
        Poll::Pending
    })
    .await;
    record.received(carried.forth - counted.forth);
    record.sent(carried.back - counted.back);
    match result {
        Ok(()) | Err(None) => {
            record.finished();
            true
        }
        Err(Some(e)) => {
            record.fail(&Failure::new(Cause::ClientDisconnected, e.to_string()));
            false
        }
    }
}

fn drain(buffer: &mut Buffer, worker: &Worker) -> Vec<u8> {
    let bytes = buffer.filled().to_vec();
    buffer.consume(bytes.len());
    worker.buffers.release(buffer);
    bytes
}
