//! Redirected connections: whom they were meant for, and what they carry where nothing is declared.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use identity::Alpn;
use model::{Cause, Direction, Failure};
use net::{Buffer, Guess, guess, guess_towards_app};
use telemetry::Limit;
use tokio::time::Instant;

use crate::app::{self, Link};
use crate::config::{Port, Protocol, Source, Tls, Upstream};
use crate::inbound::caller::Caller;
use crate::inbound::{disconnected, opaque};
use crate::lifecycle::Phase;
use crate::outbound::{self, Routes, Unmatched, is_link_local, split_authority};
use crate::tries::{Destination, Target};
use crate::worker::Worker;

/// Notes whom a connection was meant for, and finds the port by whose rules it is served.
///
/// # Errors
/// It may not come this way, or is one of our own that came back.
pub(super) fn settle(caller: &mut Caller, port: Arc<Port>) -> Result<Arc<Port>, Failure> {
    let snapshot = caller.worker.snapshot();
    let routes = &snapshot.routes;
    let here = caller.io.local_addr().map_err(|e| disconnected(&e))?;
    let here = std::net::SocketAddr::new(model::canonical_ip(here.ip()), here.port());
    let meant = caller.io.original_dst().filter(|meant| *meant != here);
    let denied = |detail: String| Err(Failure::new(Cause::DestinationDenied, detail));
    let Some(meant) = meant else {
        return match port.direction {
            // Called at the listener itself: as a proxy, or with a host that says who is meant.
            Direction::Outbound if caller.who.peer.ip().is_loopback() => Ok(port),
            Direction::Outbound => denied(format!("{} is not of this pod", caller.who.peer)),
            Direction::Inbound => denied("called at the outrigger's port, not redirected there from the app's".into()),
        };
    };
    if routes.own_ports.contains(&meant.port()) && (port.direction == Direction::Inbound || net::is_local(meant.ip())) {
        return Err(Failure::new(Cause::Loop, format!("{meant} is the outrigger itself")));
    }
    if port.direction == Direction::Inbound && is_link_local(meant.ip()) {
        return denied(format!("{meant} is link-local"));
    }
    caller.who.meant = Some(meant);
    outbound::check_loop(&caller.worker, &caller.who)?;
    let declared = match port.direction {
        Direction::Inbound => routes.app_ports.get(&meant.port()).copied(),
        // What is declared to be bytes is not looked at, whoever speaks first.
        Direction::Outbound => routes
            .destinations
            .by_address(meant)
            .filter(|service| matches!(snapshot.ports[*service].protocol, Protocol::Tcp | Protocol::Tls)),
    };
    match declared {
        Some(index) => {
            caller.assign(index)?;
            Ok(snapshot.ports[index].clone())
        }
        None => Ok(port),
    }
}

/// Who spoke first, and what.
pub(super) enum First {
    /// The caller: its bytes are in the inbox. Whoever it calls may have been dialled meanwhile.
    Caller(Guess, Option<(Destination, Link)>),
    /// Whoever is called: the connection, and what was read from it.
    Called(Link, Buffer),
    /// The connection is over, without a byte from anybody.
    Over,
}

/// How long a caller may be silent before whoever it calls is dialled, for servers that speak first.
const SILENCE: Duration = Duration::from_millis(2);
/// How long a caller of the app's own may leave open what it speaks: then it is nothing known.
const UNDECIDED: Duration = Duration::from_secs(1);

/// Waits until somebody speaks. Where the caller does not, and whoever is called may be the one to begin, dials it.
///
/// # Errors
/// The connection failed, or what the caller speaks did not become clear in time.
pub(super) async fn first(caller: &mut Caller, port: &Arc<Port>) -> Result<First, Failure> {
    let mut dialled = None;
    if caller.inbox.is_empty() {
        let to = may_begin(caller, port);
        let denied = is_denied(caller, port);
        let since = Instant::now();
        let mut waiting = Waiting { dialling: None, called: None, to, denied, since, port: port.clone() };
        match poll_fn(|cx| waiting.poll(cx, caller)).await? {
            Spoke::Caller => {}
            Spoke::Called(link, bytes) => {
                caller.worker.telemetry.detected("server_first");
                return Ok(First::Called(*link, bytes));
            }
            Spoke::Nobody => return Ok(First::Over),
        }
        dialled = waiting.to.zip(waiting.called.map(|(link, _)| link));
    }
    let guessed = undecided(caller, port).await?;
    caller.worker.telemetry.detected(match guessed {
        Guess::Http1 => "http1",
        Guess::Http2 => "http2",
        Guess::Tls => "tls",
        Guess::Opaque => "opaque",
    });
    Ok(First::Caller(guessed, dialled))
}

/// Reads until it is clear what the caller speaks.
async fn undecided(caller: &mut Caller, port: &Port) -> Result<Guess, Failure> {
    let outbound = port.direction == Direction::Outbound;
    let patience = if outbound { UNDECIDED } else { port.timeouts.head };
    caller.deadline.set(Some(Instant::now() + patience));
    loop {
        let bytes = caller.inbox.filled();
        match if outbound { guess(bytes) } else { guess_towards_app(bytes) } {
            // Asked of another proxy, which is to have it as it is.
            Some(Guess::Http1)
                if outbound
                    && caller.who.meant.is_some()
                    && is_for_a_proxy(&caller.worker.snapshot().routes, bytes) =>
            {
                return Ok(Guess::Opaque);
            }
            Some(guessed) => return Ok(guessed),
            None => {}
        }
        let read = poll_fn(|cx| match caller.poll_fill(cx) {
            Poll::Ready(read) => Poll::Ready(Some(read)),
            Poll::Pending => caller.deadline.poll_expired(cx).map(|()| None),
        });
        match read.await {
            Some(Ok(n)) if n > 0 => {}
            // Whatever it was, it is all there is: bytes, to be carried as such.
            Some(Ok(_)) => return Ok(Guess::Opaque),
            Some(Err(e)) => return Err(disconnected(&e)),
            None => {
                caller.worker.telemetry.detected("timeout");
                caller.worker.telemetry.limit_hit(Limit::HeadTimeout);
                // Towards the app, what may be HTTP is not let through as anything else.
                return match outbound {
                    true => Ok(Guess::Opaque),
                    false => Err(Failure::new(Cause::RequestTimeout, "the first bytes did not arrive in time")),
                };
            }
        }
    }
}

/// Whether a request names a whole URL, or asks for a tunnel (RFC 9112, 3.2), to somebody who is no service: those are called as
/// configured, and nobody of the mesh in plaintext. Whose URL it is, the first bytes may not tell yet.
fn is_for_a_proxy(routes: &Routes, bytes: &[u8]) -> bool {
    let line = bytes.trim_ascii_start();
    if let Some(rest) = line.strip_prefix(b"CONNECT ") {
        let authority = rest.split(|b| *b == b' ').next().unwrap_or_default();
        let (host, port) = split_authority(std::str::from_utf8(authority).unwrap_or_default(), 443);
        return routes.destinations.by_host(host, port).is_none();
    }
    let target = line.iter().position(|b| *b == b' ').and_then(|space| line.get(space + 1));
    !matches!(target, Some(b'/' | b'*')) && routes.mesh_hosts.is_empty()
}

/// Whether nobody may be called there whose name the caller's first bytes do not tell.
fn is_denied(caller: &Caller, port: &Port) -> bool {
    let snapshot = caller.worker.snapshot();
    let destinations = &snapshot.routes.destinations;
    port.direction == Direction::Outbound
        && snapshot.routes.unmatched == Unmatched::Deny
        && caller.who.meant.is_some_and(|meant| destinations.by_address(meant).is_none())
}

/// Whoever is called, where it may be dialled before the caller has said a word: nothing is required of the caller that its
/// bytes would have to show, and nobody of the mesh is called, nor anybody of whom it is configured that the app speaks first.
fn may_begin(caller: &Caller, port: &Arc<Port>) -> Option<Destination> {
    let proven = caller.who.tls || !matches!(port.tls, Tls::Strict { .. } | Tls::Server(_));
    let allowed = port.server_first && proven;
    let meant = caller.who.meant.filter(|_| allowed)?;
    let worker = &caller.worker;
    if port.direction == Direction::Outbound {
        let snapshot = worker.snapshot();
        if snapshot.routes.client_first.contains(&meant.port()) || !matches!(port.upstream, Upstream::Meant) {
            return None;
        }
        if let Some(service) = snapshot.routes.destinations.by_address(meant) {
            let cluster = snapshot.ports[service].upstream.service()?;
            let as_meant = cluster.settings.source == Source::OriginalDst && cluster.settings.expected.is_none();
            return as_meant.then(|| Destination::Endpoint(cluster.clone(), meant));
        }
        if snapshot.routes.unmatched == Unmatched::Deny {
            return None;
        }
    }
    if !opaque::is_admitted(worker, port, &caller.who) || outbound::check_loop(worker, &caller.who).is_err() {
        return None;
    }
    match caller.who.target(port).ok()? {
        Target::Addrs(addrs) => Some(Destination::Addrs(addrs)),
        _ => None,
    }
}

type Dialling = Pin<Box<dyn Future<Output = Result<Option<Link>, Failure>>>>;

enum Spoke {
    Caller,
    Called(Box<Link>, Buffer),
    Nobody,
}

/// Waiting for either side's first byte.
struct Waiting {
    to: Option<Destination>,
    /// Nobody may be called there, unless the first bytes tell a name.
    denied: bool,
    dialling: Option<Dialling>,
    called: Option<(Link, Buffer)>,
    since: Instant,
    port: Arc<Port>,
}

impl Waiting {
    fn poll(&mut self, cx: &mut Context<'_>, caller: &mut Caller) -> Poll<Result<Spoke, Failure>> {
        match caller.poll_fill(cx) {
            Poll::Ready(Ok(0)) => return Poll::Ready(Ok(self.ended())),
            Poll::Ready(Ok(_)) => return Poll::Ready(Ok(Spoke::Caller)),
            Poll::Ready(Err(e)) => return Poll::Ready(Err(disconnected(&e))),
            Poll::Pending => {}
        }
        if let Poll::Ready(spoke) = self.poll_called(cx, caller) {
            return Poll::Ready(spoke);
        }
        if caller.worker.phase() >= Phase::Closing && self.since.elapsed() > Duration::from_secs(1) {
            return Poll::Ready(Ok(Spoke::Nobody));
        }
        // How long the app keeps a connection of its own is its business; from others, one that nobody uses is closed.
        let patience = match (self.port.direction, self.denied) {
            (Direction::Outbound, false) => None,
            (Direction::Outbound, true) => Some(self.port.timeouts.head),
            (Direction::Inbound, _) => Some(self.port.timeouts.idle),
        };
        caller.deadline.set(patience.map(|patience| self.since + patience));
        match caller.deadline.poll_expired(cx) {
            Poll::Ready(()) if self.denied => Poll::Ready(Err(Failure::new(
                Cause::DestinationDenied,
                "nobody there is a service of outbound.services, the app did not say whom it calls, and outbound.unmatched is deny",
            ))),
            Poll::Ready(()) => {
                caller.worker.telemetry.limit_hit(Limit::Idle);
                Poll::Ready(Ok(Spoke::Nobody))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    /// The caller has nothing to say at all. Whoever it called may have: then its end is passed on, and the answer back.
    fn ended(&mut self) -> Spoke {
        match (self.called.take(), self.port.direction, &self.to) {
            (Some((link, bytes)), ..) => Spoke::Called(link.into(), bytes),
            (None, Direction::Outbound, Some(_)) => Spoke::Caller,
            // A bare health check connects and closes.
            _ => Spoke::Nobody,
        }
    }

    /// Dials after a silence, and listens to whoever was dialled.
    fn poll_called(&mut self, cx: &mut Context<'_>, caller: &mut Caller) -> Poll<Result<Spoke, Failure>> {
        loop {
            if let Some((link, bytes)) = &mut self.called {
                let read = match link.poll_read_buffer(cx, bytes) {
                    Poll::Ready(read) => read,
                    Poll::Pending => return Poll::Pending,
                };
                let Some((link, bytes)) = self.called.take() else { return Poll::Pending };
                return Poll::Ready(match read {
                    Ok(n) if n > 0 => Ok(Spoke::Called(link.into(), bytes)),
                    // It ends, or breaks off, without a word: so does what it was dialled for.
                    Ok(_) => Ok(Spoke::Called(link.into(), Buffer::default())),
                    Err(e) => Err(Failure::new(Cause::AppClosed, e.to_string())),
                });
            }
            if let Some(dialling) = &mut self.dialling {
                match dialling.as_mut().poll(cx) {
                    Poll::Ready(Ok(Some(link))) => self.called = Some((link, Buffer::default())),
                    Poll::Ready(Ok(None)) => self.to = None,
                    Poll::Ready(Err(failure)) => return Poll::Ready(Err(failure)),
                    Poll::Pending => return Poll::Pending,
                }
                self.dialling = None;
                continue;
            }
            let Some(to) = &self.to else { return Poll::Pending };
            // The runtime's timer rounds up to its next millisecond but one.
            caller.deadline.set(Some(self.since + SILENCE - Duration::from_millis(1)));
            if caller.deadline.poll_expired(cx).is_pending() {
                return Poll::Pending;
            }
            // One of our own may have come back before it was known to be ours.
            outbound::check_loop(&caller.worker, &caller.who)?;
            caller.worker.telemetry.detected("wait");
            self.dialling = Some(dial(caller.worker.clone(), self.port.clone(), to.clone()));
        }
    }
}

/// Dials, but nobody who may be called over mutual TLS alone: none where that cannot be told.
fn dial(worker: Rc<Worker>, port: Arc<Port>, to: Destination) -> Dialling {
    Box::pin(async move {
        let snapshot = worker.snapshot();
        let hosts = &snapshot.routes.mesh_hosts;
        if port.direction == Direction::Outbound && !hosts.is_empty() {
            let strangers = &worker.shared.strangers;
            if strangers.may_be(&worker, hosts, to.addrs()[0], port.timeouts.connect).await {
                return Ok(None);
            }
        }
        app::connect(&worker, &port, &to, Alpn::Opaque).await.map(Some)
    })
}

/// What a caller's TLS asks for, as far as its first bytes tell; waits for a whole ClientHello, but not for long.
pub(super) async fn client_hello(caller: &mut Caller) -> Option<net::ClientHello> {
    caller.deadline.set(Some(Instant::now() + UNDECIDED));
    loop {
        match net::client_hello(caller.inbox.filled()) {
            net::Hello::Whole(hello) => return Some(hello),
            net::Hello::Unreadable => return None,
            net::Hello::Incomplete => {}
        }
        let read = poll_fn(|cx| match caller.poll_fill(cx) {
            Poll::Ready(read) => Poll::Ready(read.ok().filter(|n| *n > 0)),
            Poll::Pending => caller.deadline.poll_expired(cx).map(|()| None),
        });
        read.await?;
    }
}

/// The route of bytes nobody looks at, the connection assigned to the port whose they are.
///
/// # Errors
/// Nobody may be called there, or the port has as many connections as it may.
pub(super) fn route(
    caller: &mut Caller,
    port: &Arc<Port>,
    server_name: Option<&str>,
) -> Result<outbound::Route, Failure> {
    let worker = caller.worker.clone();
    let route = outbound::of_bytes(&worker, (port, caller.port), &caller.who, server_name)?;
    if route.index != caller.port {
        caller.assign(route.index)?;
    }
    Ok(route)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_of_another_proxy_is_told_from_calls_of_services() {
        let mut routes = Routes::default();
        routes.destinations.add_host("pay.shop", None, 0);
        for (mesh, first, expected) in [
            (false, &b"GET http://far.test/ HTTP/1.1\r\n"[..], true),
            (false, b"CONNECT far.test:443 HTTP/1.1\r\n", true),
            (false, b"GET / HTTP/1.1\r\n", false),
            (false, b"OPTIONS * HTTP/1.1\r\n", false),
            (false, b"CONNECT PAY.shop:443 HTTP/1.1\r\n", false),
            (true, b"GET http://pay.shop/ HTTP/1.1\r\n", false),
            (true, b"CONNECT far.test:443 HTTP/1.1\r\n", true),
        ] {
            routes.mesh_hosts = if mesh { vec!["pay.shop".into()] } else { Vec::new() };
            assert_eq!(is_for_a_proxy(&routes, first), expected, "{mesh} {}", String::from_utf8_lossy(first));
        }
    }
}
