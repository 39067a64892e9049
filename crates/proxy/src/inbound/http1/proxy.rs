//! An HTTP proxy's `CONNECT` (RFC 9110, 9.3.6): a tunnel to whom the app names.

use model::{Cause, Failure};
use net::Buffer;
use telemetry::Record;

use super::{Next, refuse};
use crate::config::{Port, Protocol, Upstream};
use crate::inbound::caller::{Caller, Who};
use crate::inbound::{opaque, tunnel};
use crate::outbound::Route;

/// Whether the caller may ask for a tunnel: the listener is one for calls to anybody, and nobody was redirected to it.
pub(super) fn is_asked(port: &Port, who: &Who) -> bool {
    matches!(port.upstream, Upstream::Meant) && who.meant.is_none() && port.direction == model::Direction::Outbound
}

/// Opens the tunnel, says so, and carries bytes both ways.
pub(super) async fn connect(caller: &mut Caller, route: Route, record: &mut Record) -> Next {
    let worker = caller.worker.clone();
    let opened = match (route.port.upstream.is_mesh(), route.port.protocol) {
        // What would be sent through the tunnel is for nobody to see, and mutual TLS is not for the app to go around.
        (true, protocol) if protocol != Protocol::Tcp => Err(Failure::new(
            Cause::DestinationDenied,
            "a service of the mesh is called by an http URL, not through CONNECT",
        )),
        _ => opaque::connect(&worker, &route.port, route.target, record).await,
    };
    let (mut app, _until_the_end) = match opened {
        Ok(opened) => opened,
        Err(failure) => return refuse(caller, &failure, record, false, true).await,
    };
    if let Err(failure) = say_established(caller).await {
        record.fail(&failure);
        return Next::Close;
    }
    record.responded(200);
    record.stream("connect");
    tunnel::carry(caller, &mut app, &mut Buffer::default(), record, tunnel::for_good).await;
    Next::Close
}

async fn say_established(caller: &mut Caller) -> Result<(), Failure> {
    const ESTABLISHED: &[u8] = b"HTTP/1.1 200 Connection established\r\n\r\n";
    let mut sent = 0;
    while sent < ESTABLISHED.len() {
        let written = std::future::poll_fn(|cx| caller.io.poll_write_slice(cx, &ESTABLISHED[sent..])).await;
        sent += written.map_err(|e| crate::inbound::disconnected(&e))?;
    }
    Ok(())
}
