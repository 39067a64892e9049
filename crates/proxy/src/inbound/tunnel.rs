//! Upgraded connections and opaque ports: bytes both ways until both sides have ended.

use std::task::Poll;

use model::{Cause, Failure};
use net::{Buffer, Deadline};
use telemetry::Record;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::inbound::caller::Caller;
use crate::inbound::interval::Interval;
use crate::worker::Worker;

/// An upgraded connection was allowed as a request, and is one until it ends.
pub(super) fn for_good(_: &mut Record) -> Result<(), Failure> {
    Ok(())
}

/// Carries bytes between an HTTP/1 or opaque caller and the app; what was read from either already goes first.
/// `still_allowed` is asked with every wake, and cuts the connection with the failure it gives.
pub(super) async fn carry(
    caller: &mut Caller,
    app: &mut (impl AsyncRead + AsyncWrite + Unpin),
    outbox: &mut Buffer,
    record: &mut Record,
    still_allowed: impl FnMut(&mut Record) -> Result<(), Failure>,
) {
    let worker = caller.worker.clone();
    let early = (drain(&mut caller.inbox, &worker), drain(outbox, &worker));
    let whole =
        between(&worker, &mut caller.io, app, (&early.0, &early.1), &mut caller.deadline, record, still_allowed).await;
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
    mut still_allowed: impl FnMut(&mut Record) -> Result<(), Failure>,
) -> bool {
    let mut interval = Interval::from(worker.now());
    let mut denied = None;
    let mut counted = net::Carried::default();
    let (carried, result) = net::tunnel(caller, app, early, &worker.scratch, |cx, carried| {
        record.received(carried.forth - counted.forth);
        record.sent(carried.back - counted.back);
        counted = carried;
        interval.poll(cx, deadline, record);
        match still_allowed(record) {
            Ok(()) => Poll::Pending,
            Err(failure) => {
                denied = Some(failure);
                Poll::Ready(())
            }
        }
    })
    .await;
    record.received(carried.forth - counted.forth);
    record.sent(carried.back - counted.back);
    if let Some(failure) = denied {
        record.fail(&failure);
        return false;
    }
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
