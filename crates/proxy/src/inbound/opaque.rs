//! Ports whose bytes nobody looks at: the app's own TLS, or any protocol over TCP.

use net::Buffer;
use telemetry::Record;

use crate::config::Port;
use crate::inbound::caller::Caller;
use crate::inbound::{stages, tunnel};

/// Carries bytes both ways until both sides have ended; half-close passes through, and there is no idle timeout.
pub(super) async fn serve(mut caller: Box<Caller>, port: &Port) {
    let worker = caller.worker.clone();
    let client = stages::client_of(&caller.who);
    let mut record = Record::begin(&worker.telemetry, caller.port, caller.who.peer, client);
    record.place(&worker.lookup.borrow_mut().place(client.ip));
    match net::dial(&port.app, port.timeouts.connect).await {
        Ok(mut app) => {
            record.stream("tcp");
            tunnel::carry(&mut caller, &mut app, &mut Buffer::default(), &mut record).await;
        }
        Err(e) => {
            // A caller of an opaque protocol can be told nothing; a reset at least is not mistaken for an orderly end.
            caller.io.reset_on_close();
            record.fail(&crate::app::unreachable(&e));
        }
    }
}
