//! Ports whose bytes nobody looks at: the app's own TLS, or any protocol over TCP.

use std::sync::Arc;

use identity::Alpn;
use model::{Direction, Facts, Failure};
use net::Buffer;
use telemetry::Record;

use crate::app::{self, Link};
use crate::config::Port;
use crate::inbound::caller::{Caller, Who};
use crate::inbound::{intercept, stages, tunnel};
use crate::outbound::Route;
use crate::tries::{Target, Tries, Try, Why};
use crate::worker::Worker;

/// What is known before the first byte is carried.
#[derive(Default)]
pub(super) struct Begun {
    /// What the caller's TLS asks for.
    pub(super) hello: Option<net::ClientHello>,
    /// A connection to whoever is called, and what was read from it.
    pub(super) called: Option<(Link, Buffer)>,
}

/// Carries bytes both ways until both sides have ended; half-close passes through, and there is no idle timeout. A policy
/// that comes to deny the caller cuts the connection.
pub(super) async fn serve(mut caller: Box<Caller>, port: Arc<Port>, begun: Begun) {
    let worker = caller.worker.clone();
    let server_name = begun.hello.as_ref().and_then(|hello| hello.server_name.as_deref());
    let routed = intercept::route(&mut caller, &port, server_name);
    let mut record = Record::begin(&worker.telemetry, caller.port, caller.who.peer, stages::client_of(&caller.who));
    record.opaque();
    let admitted = match &routed {
        Ok(route) => admit(&worker, &route.port, &caller.who, &mut record),
        Err(failure) => admit(&worker, &port, &caller.who, &mut record).and(Err(failure.clone())),
    };
    if let Some(hello) = &begun.hello {
        record.alpn(&hello.alpn);
        hello.server_name.iter().for_each(|name| record.server_name(name));
    }
    let connected = match (admitted, routed, begun.called) {
        (Err(failure), ..) | (_, Err(failure), _) => Err(failure),
        (Ok(()), Ok(Route { target: Target::Addrs(_) | Target::Peer(..), port, .. }), Some((link, read))) => {
            if port.direction == Direction::Outbound {
                record.upstream(link.addr, link.mtls);
            }
            Ok((link, read, None, port))
        }
        (Ok(()), Ok(route), _) => {
            let connected = connect(&worker, &route.port, route.target, &mut record).await;
            connected.map(|(link, tries)| (link, Buffer::default(), Some(tries), route.port))
        }
    };
    match connected {
        Ok((mut app, mut read, _until_the_end, mut judged)) => {
            record.stream("tcp");
            let (who, index) = (caller.who.clone(), caller.port);
            let still_allowed = |record: &mut Record| {
                let now = worker.port(index);
                if Arc::ptr_eq(&now, &judged) {
                    return Ok(());
                }
                judged = now;
                admit(&worker, &judged, &who, record)
            };
            tunnel::carry(&mut caller, &mut app, &mut read, &mut record, still_allowed).await;
        }
        Err(failure) => {
            // A caller of an opaque protocol can be told nothing; a reset at least is not mistaken for an orderly end.
            caller.io.reset_on_close();
            record.fail(&failure);
        }
    }
}

/// Connects to the app, or to an endpoint of the service that takes us; what it holds counts until the connection ends.
pub(super) async fn connect(
    worker: &Worker,
    port: &Port,
    target: Target,
    record: &mut Record,
) -> Result<(Link, (Tries, Try)), Failure> {
    let mut tries = Tries::begin(port, target, true)?;
    loop {
        let attempt = tries.next(worker, port).await?;
        let connecting = app::connect(worker, port, &attempt.to, Alpn::Opaque);
        let failure = match attempt.connecting(connecting).await {
            Ok(link) => {
                tries.connected(&attempt);
                tries.went((link.addr, link.mtls));
                tries.tell(record);
                return Ok((link, (tries, attempt)));
            }
            Err(failure) => failure,
        };
        let again = tries.again(&attempt, Why::of(&failure), true);
        drop(attempt);
        tries.tell(record);
        if !again {
            return Err(failure);
        }
        tries.pause(worker).await;
    }
}

/// Whether this caller's bytes would be carried, without a word to anybody.
pub(super) fn is_admitted(worker: &Worker, port: &Port, who: &Who) -> bool {
    let client = stages::client_of(who);
    let place = worker.lookup.borrow_mut().place(client.ip);
    let identity = who.identity();
    let facts = Facts { direction: port.direction, head: None, peer: who.peer, identity, client, place: &place };
    port.policy.authorize(&facts).is_ok()
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
