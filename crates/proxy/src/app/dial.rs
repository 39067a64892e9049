//! New connections: over mutual TLS where that is what the service is, and to nobody but who is expected.

use std::io;
use std::sync::Arc;

use identity::Alpn;
use model::{Cause, Failure, TlsFault};
use net::{Deadline, Handshake, Io};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::time::Instant;

use super::{Link, Parts};
use crate::cluster::Cluster;
use crate::config::Port;
use crate::handshake::{self, Fault, failed};
use crate::outbound;
use crate::tries::Destination;
use crate::worker::Worker;

/// Connects to where a try goes, for one protocol.
pub(crate) async fn connect(worker: &Worker, port: &Port, to: &Destination, alpn: Alpn) -> Result<Link, Failure> {
    let snapshot = worker.snapshot();
    let intercepted = snapshot.routes.intercepted;
    let service = to.service();
    if let Some(cluster) = service {
        outbound::permitted_endpoint(&snapshot.routes, to.addrs()[0], &cluster.settings.source)?;
    }
    // Before anybody is called: that we have no certificate is no fault of theirs.
    let config = to.expected().map(|expected| worker.shared.identity.client(alpn, expected)).transpose();
    let config = config.map_err(|e| {
        worker.telemetry.upstream_handshake(Err(TlsFault::OwnIdentity));
        Failure::new(Cause::NoIdentity, e.to_string())
    })?;
    let place = service.map(Cluster::connection).transpose()?;
    let _waiting = service.map(Cluster::wait).transpose()?;
    let (mut io, addr) = net::dial(to.addrs(), port.timeouts.connect).await.map_err(|e| unreachable(&e))?;
    let here = io.local_addr().ok();
    let dialled = here.filter(|_| intercepted).map(|here| worker.shared.dialled(here, addr));
    // Where connections are redirected, an endpoint with an address of ours is the app itself, before which no outrigger is;
    // the kernel calls such an address from itself.
    let is_app = intercepted && (addr.ip().is_loopback() || here.is_some_and(|here| here.ip() == addr.ip()));
    let mtls = config.filter(|_| !is_app);
    let is_mtls = mtls.is_some();
    if let Some(config) = mtls {
        let proven = Box::pin(prove(worker, port, to, config, &mut io, alpn)).await;
        worker.telemetry.upstream_handshake(proven.as_ref().copied().map_err(|(fault, _)| *fault));
        proven.map_err(|(fault, detail)| Failure::new(Cause::UpstreamTls, format!("{}: {detail}", fault.label())))?;
    }
    Ok(Link(Box::new(Parts { io, addr, mtls: is_mtls, on_read: None, _place: place, _dialled: dialled })))
}

/// Proves who we are and has the other end prove who it is.
async fn prove(
    worker: &Worker,
    port: &Port,
    to: &Destination,
    config: Arc<ClientConfig>,
    io: &mut Io,
    alpn: Alpn,
) -> Result<(), Fault> {
    let connection = Handshake::client(config, server_name(to)).map_err(failed)?;
    let mut deadline = Deadline::new();
    deadline.set(Some(Instant::now() + port.timeouts.connect.min(port.timeouts.handshake)));
    let agreed = handshake::finish(worker, io, connection, &[], &mut deadline).await?;
    if alpn == Alpn::Http2 && agreed.alpn.as_deref() != Some(b"h2") {
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
