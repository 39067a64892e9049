//! New connections: over mutual TLS where that is what the upstream is, and to nobody but who is expected.

use std::io;

use identity::Alpn;
use model::{Cause, Failure, TlsFault};
use net::{Deadline, Io};
use rustls::ClientConnection;
use rustls::pki_types::ServerName;
use tokio::time::Instant;

use crate::config::Port;
use crate::handshake::{self, Fault, failed};
use crate::worker::Worker;

/// Connects to a port's upstream for one protocol.
pub(crate) async fn connect(worker: &Worker, port: &Port, alpn: Alpn) -> Result<Io, Failure> {
    let mut io = net::dial(&port.upstream.addrs, port.timeouts.connect).await.map_err(|e| unreachable(&e))?;
    if port.upstream.expected.is_some() {
        let proven = Box::pin(prove(worker, port, &mut io, alpn)).await;
        worker.telemetry.upstream_handshake(proven.as_ref().copied().map_err(|(fault, _)| *fault));
        proven.map_err(|(fault, detail)| Failure::new(Cause::UpstreamTls, format!("{}: {detail}", fault.label())))?;
    }
    Ok(io)
}

/// Proves who we are and has the other end prove who it is.
async fn prove(worker: &Worker, port: &Port, io: &mut Io, alpn: Alpn) -> Result<(), Fault> {
    let Some(expected) = &port.upstream.expected else { return Ok(()) };
    let config = worker.shared.identity.client(alpn, expected);
    let config = config.map_err(|e| (TlsFault::OwnIdentity, e.to_string().into()))?;
    let connection = ClientConnection::new(config, server_name(port)).map_err(failed)?;
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
fn server_name(port: &Port) -> ServerName<'static> {
    let host = port.upstream.host.as_deref().map(|host| host.split(':').next().unwrap_or(host).to_owned());
    let addr = port.upstream.addrs.first().map_or([0, 0, 0, 0].into(), std::net::SocketAddr::ip);
    host.and_then(|host| ServerName::try_from(host).ok()).unwrap_or_else(|| ServerName::from(addr))
}

/// Why the upstream could not be reached.
fn unreachable(e: &io::Error) -> Failure {
    match e.kind() {
        io::ErrorKind::TimedOut => Failure::new(Cause::AppConnectTimeout, "no answer to the connection attempt"),
        io::ErrorKind::ConnectionRefused => Failure::new(Cause::AppUnreachable, "connection refused"),
        _ => Failure::new(Cause::AppUnreachable, e.to_string()),
    }
}
