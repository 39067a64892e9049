//! Ports whose bytes nobody looks at: the app's own TLS, or any protocol over TCP.

use std::sync::Arc;

use identity::Alpn;
use model::{Facts, Failure};
use net::Buffer;
use telemetry::Record;

use crate::app;
use crate::config::Port;
use crate::inbound::caller::{Caller, Who};
use crate::inbound::{stages, tunnel};
use crate::worker::Worker;

/// Carries bytes both ways until both sides have ended; half-close passes through, and there is no idle timeout. A policy
/// that comes to deny the caller cuts the connection.
pub(super) async fn serve(mut caller: Box<Caller>, port: Arc<Port>) {
    let worker = caller.worker.clone();
    let mut record = Record::begin(&worker.telemetry, caller.port, caller.who.peer, stages::client_of(&caller.who));
    record.opaque();
    if let Err(failure) = admit(&worker, &port, &caller.who, &mut record) {
        caller.io.reset_on_close();
        return record.fail(&failure);
    }
    match app::connect(&worker, &port, Alpn::Opaque).await {
        Ok(mut app) => {
            record.stream("tcp");
            let mut judged = port;
            let (who, index) = (caller.who.clone(), caller.port);
            let still_allowed = |record: &mut Record| {
                let now = worker.port(index);
                if Arc::ptr_eq(&now, &judged) {
                    return Ok(());
                }
                judged = now;
                admit(&worker, &judged, &who, record)
            };
            tunnel::carry(&mut caller, &mut app, &mut Buffer::default(), &mut record, still_allowed).await;
        }
        Err(failure) => {
            // A caller of an opaque protocol can be told nothing; a reset at least is not mistaken for an orderly end.
            caller.io.reset_on_close();
            record.fail(&failure);
        }
    }
}

/// May this caller's bytes be carried? Who it is and where from is all there is to go by.
fn admit(worker: &Worker, port: &Port, who: &Who, record: &mut Record) -> Result<(), Failure> {
    let client = stages::client_of(who);
    let place = worker.lookup.borrow_mut().place(client.ip);
    let facts = Facts {
        direction: port.direction,
        head: None,
        peer: who.peer,
        identity: who.identity(),
        client,
        place: &place,
    };
    record.facts(&facts);
    stages::authorize(&port.policy, &facts, record).map(|_permit| ())
}
