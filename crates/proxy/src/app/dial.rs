//! New connections: over mutual TLS where that is what the service is, and to nobody but who is expected.

use std::io;

use identity::{Alpn, Expected};
use model::{Cause, Failure, TlsFault};
use net::{Deadline, Io};
use rustls::ClientConnection;
use rustls::pki_types::ServerName;
use tokio::time::Instant;

use super::Link;
use crate::cluster::Cluster;
use crate::config::Port;
use crate::handshake::{self, Fault, failed};
use crate::tries::Destination;
use crate::worker::Worker;

/// Connects to where a try goes, for one protocol.
pub(crate) async fn connect(worker: &Worker, port: &Port, to: &Destination, alpn: Alpn) -> Result<Link, Failure> {
    let intercepted = worker.snapshot().routes.intercepted;
    let service = to.service();
    let place = service.map(Cluster::connection).transpose()?;
    let _waiting = service.map(Cluster::wait).transpose()?;
    let (mut io, addr) = net::dial(to.addrs(), port.timeouts.connect).await.map_err(|e| unreachable(&e))?;
    let dialled = match intercepted {
        true => io.local_addr().ok().map(|addr| worker.shared.dialled(addr)),
        false => None,
    };
    // Where connections are redirected, an endpoint with an address of ours is the app itself, before which no outrigger is.
    let is_app = intercepted && net::is_local(addr.ip());
    if let Some(expected) = to.expected().filter(|_| !is_app) {
        let proven = Box::pin(prove(worker, port, to, expected, &mut io, alpn)).await;
        worker.telemetry.upstream_handshake(proven.as_ref().copied().map_err(|(fault, _)| *fault));
        proven.map_err(|(fault, detail)| Failure::new(Cause::UpstreamTls, format!("{}: {detail}", fault.label())))?;
    }
    Ok(Link { io, _place: place, _dialled: dialled })
}

/// Proves who we are and has the other end prove who it is.
async fn prove(
    worker: &Worker,
    port: &Port,
    to: &Destination,
    expected: &Expected,
    io: &mut Io,
    alpn: Alpn,
) -> Result<(), Fault> {
    let config = worker.shared.identity.client(alpn, expected);
    let config = config.map_err(|e| (TlsFault::OwnIdentity, e.to_string().into()))?;
    let connection = ClientConnection::new(config, server_name(to)).map_err(failed)?;
    let mut deadline = Deadline::new();
    deadline.set(Some(Instant::now() + port.timeouts.handshake));
    handshake::finish(worker, io, connection.into(), &[], &mut deadline).await?;
    let agreed = io.session().and_then(|session| session.alpn_protocol());
    if alpn == Alpn::Http2 && agreed != Some(b"h2") {
        return Err((TlsFault::NothingInCommon, "the other end does not speak HTTP/2".into()));
    }
    Ok(())
}

/// The name sent along (RFC 6066, 3): for whoever serves several. Who the other end is is for its identity to say.
fn server_name(to: &Destination) -> ServerName<'static> {
    let host = to.service().and_then(|service| service.settings.host.as_deref());
    let host = host.map(|host| host.split(':').next().unwrap_or(host).to_owned());
    let addr = to.addrs().first().map_or([0, 0, 0, 0].into(), std::net::SocketAddr::ip);
    host.and_then(|host| ServerName::try_from(host).ok()).unwrap_or_else(|| ServerName::from(addr))
}

/// Why nobody was reached.
fn unreachable(e: &io::Error) -> Failure {
    match e.kind() {
        io::ErrorKind::TimedOut => Failure::new(Cause::AppConnectTimeout, "no answer to the connection attempt"),
        io::ErrorKind::ConnectionRefused => Failure::new(Cause::AppUnreachable, "connection refused"),
        _ => Failure::new(Cause::AppUnreachable, e.to_string()),
    }
}
