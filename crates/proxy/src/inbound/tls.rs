//! TLS from the caller: told from plaintext by its first byte, ended here, and the caller's proof taken down.

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;

use identity::Alpn;
use model::{Cause, Failure, TlsFault};
use net::{Agreed, Detected, Handshake};
use rustls::ServerConfig;
use telemetry::{Limit, Record};
use tokio::time::Instant;

use crate::config::{Port, Protocol, Tls};
use crate::handshake::{self, Fault, failed};
use crate::inbound::caller::{Awaited, Caller, NoBytes, Proven};
use crate::inbound::{disconnected, stages};
use crate::worker::{OpenPeer, Worker};

/// The first byte of every ClientHello: a record of content type handshake (RFC 8446, 5.1). No request begins with it.
const HANDSHAKE_RECORD: u8 = 0x16;

/// What is known of a connection once TLS is out of the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begun {
    /// Nothing agreed on: the bytes must tell.
    Open,
    /// What the handshake agreed on.
    Agreed(Detected),
    /// It agreed on bytes that nobody looks at.
    Opaque,
    /// The connection is over, and told about.
    Over,
}

/// Ends the caller's TLS, where the port takes TLS and the caller speaks it.
pub(super) async fn terminate(caller: &mut Caller, port: &Port) -> Begun {
    if matches!(port.tls, Tls::Disabled) {
        return Begun::Open;
    }
    match first_byte(caller, port).await {
        Ok(Some(HANDSHAKE_RECORD)) => {}
        Ok(Some(_)) if opaque(port) && !matches!(port.tls, Tls::Permissive) => {
            fail(caller, Cause::TlsRequired, "plaintext where only TLS is taken".into());
            caller.io.reset_on_close();
            return Begun::Over;
        }
        Ok(Some(_)) => return Begun::Open,
        // A load balancer's bare health check connects and closes.
        Ok(None) => return Begun::Over,
        Err(failure) => {
            caller.worker.telemetry.connection_failed(caller.port, &failure);
            return Begun::Over;
        }
    }
    let ended = handshake(caller, port).await;
    caller.worker.telemetry.handshake(ended.as_ref().map(|_| ()).map_err(|(fault, _)| *fault));
    match ended {
        Ok(agreed) => agreed,
        Err((fault, detail)) => {
            fail(caller, Cause::TlsHandshake, format!("{}: {detail}", fault.label()).into());
            // The alert is the last thing sent; what the caller still sends must not make the kernel reset it away.
            caller.io.leave_tls();
            caller.linger().await;
            Begun::Over
        }
    }
}

fn opaque(port: &Port) -> bool {
    port.protocol == Protocol::Tcp
}

/// Waits for the first byte. `None` where the connection ended in silence.
async fn first_byte(caller: &mut Caller, port: &Port) -> Result<Option<u8>, Failure> {
    if caller.inbox.is_empty() {
        match caller.read(port.timeouts.idle, Awaited::First).await {
            Ok(()) => {}
            Err(NoBytes::Failed(e)) => return Err(disconnected(&e)),
            Err(NoBytes::Ended | NoBytes::Closing | NoBytes::Expired) => return Ok(None),
        }
    }
    Ok(caller.inbox.filled().first().copied())
}

/// A line in the log for a connection that never had a request.
fn fail(caller: &Caller, cause: Cause, detail: Cow<'static, str>) {
    let client = stages::client_of(&caller.who);
    let mut record = Record::begin(&caller.worker.telemetry, caller.port, caller.who.peer, client);
    record.opaque();
    record.place(&caller.worker.lookup.borrow_mut().place(client.ip));
    record.fail(&Failure::new(cause, detail));
}

/// The handshake, and what it proved.
async fn handshake(caller: &mut Caller, port: &Port) -> Result<Begun, Fault> {
    let worker = caller.worker.clone();
    let Some(_one_of_many) = worker.shared.begin_handshake(port.limits.handshakes) else {
        worker.telemetry.limit_hit(Limit::Handshakes);
        return Err((TlsFault::Limit, "limits.handshakes is reached".into()));
    };
    let config = config(&worker, port)?;
    let connection = Handshake::server(config).map_err(failed)?;
    caller.deadline.set(Some(Instant::now() + port.timeouts.handshake));
    let read = std::mem::take(&mut caller.inbox);
    let Caller { io, deadline, .. } = caller;
    let ended = handshake::finish(&worker, io, connection, read.filled(), deadline).await;
    match ended {
        Ok(agreed) => Ok(proven(caller, port, &agreed)),
        Err((TlsFault::Timeout, detail)) => {
            worker.telemetry.limit_hit(Limit::HandshakeTimeout);
            Err((TlsFault::Timeout, detail))
        }
        Err(fault) => Err(fault),
    }
}

fn config(worker: &Rc<Worker>, port: &Port) -> Result<Arc<ServerConfig>, Fault> {
    match &port.tls {
        Tls::Server(pair) => Ok(pair.server()),
        _ => {
            let alpn = match (opaque(port), port.detects) {
                (true, _) => Alpn::Opaque,
                (false, true) => Alpn::Any,
                (false, false) => Alpn::Http,
            };
            worker.shared.identity.server(alpn).map_err(|e| (TlsFault::OwnIdentity, e.to_string().into()))
        }
    }
}

/// Takes down what the handshake proved and agreed on.
fn proven(caller: &mut Caller, port: &Port, agreed: &Agreed) -> Begun {
    let worker = caller.worker.clone();
    let begun = match agreed.alpn.as_deref() {
        Some(b"h2") => Begun::Agreed(Detected::Http2),
        Some(b"http/1.1") => Begun::Agreed(Detected::Http1),
        Some(b"outrigger-tcp/1") => Begun::Opaque,
        _ => Begun::Open,
    };
    caller.who.tls = true;
    if let Some(peer) = identity::peer(&agreed.peer_certificates) {
        let own = worker.shared.identity.id();
        let own = own.as_ref().map_or("", |id| id.as_str());
        // A SPIFFE ID has no character that would need quoting here.
        let forwarded = format!("By={own};Hash={};URI={}", peer.hash, peer.id).into();
        caller.who.proven =
            Some(Rc::new(Proven { _open: OpenPeer::new(&worker.shared, &peer.id), id: peer.id, forwarded }));
        let age = port.timeouts.max_age.mul_f64(0.9 + 0.2 * worker.random.borrow_mut().f64());
        caller.retires = Some(Instant::now() + age);
    }
    begun
}
