//! Where one call of the app's goes: to a service by name or address, to whom it was meant for, or nowhere.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use model::{Cause, Direction, Failure};

use super::routes::{Routes, Share, Unmatched, is_link_local};
use crate::config::{Port, Snapshot, Source, Upstream};
use crate::inbound::Who;
use crate::tries::Target;
use crate::worker::Worker;

/// The port by whose rules a call goes on, its place among the ports, and where it goes.
pub(crate) struct Route {
    pub(crate) port: Arc<Port>,
    pub(crate) index: usize,
    pub(crate) target: Target,
}

impl Route {
    /// The host of a request that names none, as HTTP/1.0 may.
    pub(crate) fn default_host(&self) -> String {
        match &self.target {
            Target::Addrs(addrs) => addrs[0].to_string(),
            Target::Named(host, port) => format!("{host}:{port}"),
            Target::Peer(..) | Target::Service(_) => self.port.name.to_string(),
        }
    }
}

/// Where a request goes that names `authority`; `field` gives the first value of one of its fields.
///
/// # Errors
/// Nobody may be called there, or not in this way.
pub(crate) fn of_request<'r>(
    worker: &Worker,
    (port, index): (&Arc<Port>, usize),
    who: &Who,
    authority: &str,
    field: impl Fn(&str) -> Option<&'r [u8]>,
) -> Result<Route, Failure> {
    if port.direction == Direction::Inbound {
        return Ok(Route { port: port.clone(), index, target: who.target(port)? });
    }
    check_loop(worker, who)?;
    let snapshot = worker.snapshot();
    let called = match &port.upstream {
        Upstream::Service(_) | Upstream::App(_) => index,
        Upstream::Meant => {
            let (host, number) = split_authority(authority, who.meant.map_or(80, |meant| meant.port()));
            let service = snapshot.routes.destinations.by_host(host, number);
            let service = service.or_else(|| snapshot.routes.destinations.by_address(who.meant?));
            match service {
                Some(service) => service,
                None => return stranger(&snapshot.routes, (port, index), who, host, number),
            }
        }
    };
    let index = split(worker, &snapshot, called, field);
    let port = snapshot.ports[index].clone();
    let target = who.target(&port)?;
    Ok(Route { port, index, target })
}

/// Where bytes go that nobody looks at: by the name that TLS asks for, or by the address they were meant for.
///
/// # Errors
/// Nobody may be called there.
pub(crate) fn of_bytes(
    worker: &Worker,
    (port, index): (&Arc<Port>, usize),
    who: &Who,
    server_name: Option<&str>,
) -> Result<Route, Failure> {
    if port.direction == Direction::Inbound {
        return Ok(Route { port: port.clone(), index, target: who.target(port)? });
    }
    check_loop(worker, who)?;
    let snapshot = worker.snapshot();
    let destinations = &snapshot.routes.destinations;
    let called = match (&port.upstream, who.meant) {
        (Upstream::Meant, Some(meant)) => {
            let named = server_name.and_then(|name| destinations.by_host(name, meant.port()));
            named.or_else(|| destinations.by_address(meant)).ok_or(meant)
        }
        _ => Ok(index),
    };
    match called {
        Ok(called) => {
            // There is no field to go by, but a share of connections is one of requests.
            let index = split(worker, &snapshot, called, |_| None);
            let port = snapshot.ports[index].clone();
            let target = who.target(&port)?;
            Ok(Route { port, index, target })
        }
        Err(meant) => stranger(&snapshot.routes, (port, index), who, server_name.unwrap_or_default(), meant.port()),
    }
}

/// A connection that was redirected and is one of our own would come back for ever.
///
/// # Errors
/// It is.
pub(crate) fn check_loop(worker: &Worker, who: &Who) -> Result<(), Failure> {
    match who.meant {
        Some(meant) if worker.shared.is_ours((who.peer.ip(), who.peer.port()).into(), meant) => Err(Failure::new(
            Cause::Loop,
            format!("a connection of the outrigger's own to {meant} was redirected to it: is its user left alone?"),
        )),
        _ => Ok(()),
    }
}

/// Somebody who is not configured.
fn stranger(
    routes: &Routes,
    (port, index): (&Arc<Port>, usize),
    who: &Who,
    host: &str,
    number: u16,
) -> Result<Route, Failure> {
    if routes.unmatched == Unmatched::Deny {
        let whom = match who.meant {
            Some(meant) if host.is_empty() => meant.to_string(),
            _ => format!("{host}:{number}"),
        };
        return Err(denied(format!("{whom} is no service of outbound.services, and outbound.unmatched is deny")));
    }
    let target = match who.meant {
        Some(_) => who.target(port)?,
        None if host.is_empty() => return Err(Failure::new(Cause::BadRequest, "no host is named")),
        None => Target::Named(host.into(), number),
    };
    Ok(Route { port: port.clone(), index, target })
}

/// The service's own place, or that of another which gets this one.
fn split<'r>(worker: &Worker, snapshot: &Snapshot, index: usize, field: impl Fn(&str) -> Option<&'r [u8]>) -> usize {
    let splits = &snapshot.ports[index].splits;
    if splits.is_empty() {
        return index;
    }
    let mut lot = worker.random.borrow_mut().f64();
    for split in splits {
        match &split.which {
            Share::Field(name, value) if field(name) == Some(value.as_bytes()) => return split.to,
            Share::Field(..) => {}
            Share::Of(share) if lot < *share => return split.to,
            Share::Of(share) => lot -= share,
        }
    }
    index
}

/// Whether an endpoint of a service may be called: none is the proxy itself, but for the port that takes what comes to the app,
/// which calls itself that way; and none that a name led to is link-local. What the configuration lists is meant.
///
/// # Errors
/// It may not.
pub(crate) fn permitted_endpoint(routes: &Routes, addr: SocketAddr, source: &Source) -> Result<(), Failure> {
    if routes.own_ports.contains(&addr.port()) && !routes.inbound_ports.contains(&addr.port()) && is_own(addr.ip()) {
        return Err(Failure::new(Cause::Loop, format!("{addr} is the outrigger itself")));
    }
    let listed = matches!(source, Source::Static(_)) || routes.link_local.contain(addr.ip());
    if is_link_local(addr.ip()) && !listed {
        return Err(link_local(addr));
    }
    Ok(())
}

/// Whether an address may be called at all.
///
/// # Errors
/// It is the proxy's own, or one that gives secrets to whoever asks.
pub(crate) fn permitted(routes: &Routes, addr: SocketAddr) -> Result<(), Failure> {
    if addr.port() == 0 || addr.ip().is_multicast() {
        return Err(denied(format!("{addr} is no address to call")));
    }
    if is_link_local(addr.ip()) && !routes.link_local.contain(addr.ip()) {
        return Err(link_local(addr));
    }
    if routes.own_ports.contains(&addr.port()) && is_own(addr.ip()) {
        return Err(Failure::new(Cause::Loop, format!("{addr} is the outrigger itself")));
    }
    Ok(())
}

fn link_local(addr: SocketAddr) -> Failure {
    denied(format!("{addr} is link-local, where metadata services are; list it in outbound.link_local"))
}

fn is_own(ip: IpAddr) -> bool {
    ip.is_loopback() || ip.is_unspecified() || net::is_local(ip)
}

fn denied(detail: String) -> Failure {
    Failure::new(Cause::DestinationDenied, detail)
}

/// Host and port of an authority; the host without brackets.
pub(crate) fn split_authority(authority: &str, default: u16) -> (&str, u16) {
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => (host, port.parse().ok()),
        _ => (authority, None),
    };
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    (host, port.unwrap_or(default))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities_are_taken_apart() {
        for (authority, host, port) in [
            ("a", "a", 80),
            ("a:8080", "a", 8080),
            ("[::1]:81", "::1", 81),
            ("[::1]", "::1", 80),
            ("a:", "a:", 80),
            ("", "", 80),
        ] {
            assert_eq!(split_authority(authority, 80), (host, port), "{authority}");
        }
    }

    #[test]
    fn the_proxy_itself_and_metadata_services_are_not_called() {
        let mut routes = Routes { own_ports: vec![6143], ..Routes::default() };
        let cause = |routes: &Routes, addr: &str| permitted(routes, addr.parse().unwrap()).err().map(|e| e.cause);
        for (addr, expected) in [
            ("127.0.0.1:6143", Some(Cause::Loop)),
            ("[::1]:6143", Some(Cause::Loop)),
            ("0.0.0.0:6143", Some(Cause::Loop)),
            ("127.0.0.1:80", None),
            ("192.0.2.1:6143", None),
            ("169.254.169.254:80", Some(Cause::DestinationDenied)),
            ("224.0.0.1:80", Some(Cause::DestinationDenied)),
        ] {
            assert_eq!(cause(&routes, addr), expected, "{addr}");
        }
        for (addr, source, expected) in [
            ("127.0.0.1:9001", Source::OriginalDst, Some(Cause::Loop)),
            ("127.0.0.1:9001", Source::Static(Vec::new()), Some(Cause::Loop)),
            ("127.0.0.1:6143", Source::OriginalDst, None),
            ("169.254.169.254:80", Source::OriginalDst, Some(Cause::DestinationDenied)),
            ("169.254.169.254:80", Source::Static(Vec::new()), None),
            ("192.0.2.1:9001", Source::OriginalDst, None),
        ] {
            let routes = Routes { own_ports: vec![6143, 9001], inbound_ports: vec![6143], ..Routes::default() };
            let found = permitted_endpoint(&routes, addr.parse().unwrap(), &source).err().map(|e| e.cause);
            assert_eq!(found, expected, "{addr} {source:?}");
        }
        routes.link_local = model::Networks::new(["169.254.169.254/32".parse().unwrap()]);
        assert_eq!(cause(&routes, "169.254.169.254:80"), None);
    }
}
