//! From keys to finished types: the services that the app calls.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use identity::Expected;
use model::{Direction, Networks, Policy};
use proxy::Cluster;
use proxy::config::{
    self, Breaker, GeoHeaders, Limits, Outliers, Port, Protocol, ProxyProtocol, Retry, RetryOn, Routes, Service,
    Source, Split, Timeouts, Tls, Unmatched, Upstream,
};

use super::finish::{Around, protocol};
use super::units::RetryReason;
use super::{limits, raw};

/// Adds every service behind the app's ports, and the listener for calls to anybody; `routes` then leads to them.
pub(super) fn add(
    raw: &raw::Outbound,
    around: &Around<'_>,
    ports: &mut Vec<Arc<Port>>,
    routes: &mut Routes,
    check: &mut dyn FnMut(&str, Option<String>),
) {
    let first = ports.len();
    for (i, service) in raw.services.iter().enumerate() {
        let mut check = |key: &str, problem| check(&format!("outbound.services[{i}].{key}"), problem);
        let index = ports.len();
        let mut port = one(service, around, ports, &mut check);
        port.splits = splits(&service.split, &raw.services, first, i, &mut check);
        for host in &service.hosts {
            let (host, port) = host_of(host);
            routes.destinations.add_host(host, port, index);
        }
        if !service.networks.is_empty() {
            let networks = Networks::new(service.networks.iter().map(|network| network.0));
            routes.destinations.add_networks(networks, service.port, index);
        }
        ports.push(Arc::new(port));
    }
    if raw.unmatched == Some(raw::Unmatched::Deny) {
        routes.unmatched = Unmatched::Deny;
    }
    routes.client_first = raw.client_first_ports.clone();
    let by_name =
        |service: &&raw::Service| service.tls.mode == Some(raw::ServiceTlsMode::Mtls) && !service.hosts.is_empty();
    let names = raw.services.iter().filter(by_name).flat_map(|service| &service.hosts);
    routes.mesh_hosts = names.map(|host| host_of(host).0.into()).collect();
    routes.link_local = Networks::new(raw.link_local.iter().map(|network| network.0));
    if let Some(port) = for_anybody(raw, around, ports, check) {
        ports.push(Arc::new(port));
    }
}

/// As long as anybody's patience.
const UNBOUND: Duration = Duration::from_secs(86_400);

/// A host, and the port where only that is meant.
fn host_of(host: &str) -> (&str, Option<u16>) {
    let port = host.rsplit_once(':').and_then(|(host, port)| Some((host, Some(port.parse().ok()?))));
    port.unwrap_or((host, None))
}

/// The listener for calls to anybody: by `Host`, as an HTTP proxy, or redirected here.
fn for_anybody(
    raw: &raw::Outbound,
    around: &Around<'_>,
    before: &[Arc<Port>],
    check: &mut dyn FnMut(&str, Option<String>),
) -> Option<Port> {
    let listen = match (raw.listen, around.transparent) {
        (Some(_), Some(_)) => {
            let message = "found with mode: transparent, where interception.outbound_port is it: leave it out";
            check("outbound.listen", Some(message.into()));
            return None;
        }
        (Some(listen), None) => {
            check_listen(listen.0, before, "outbound.listen", check);
            vec![listen.0]
        }
        (None, Some(interception)) => {
            let port = interception.outbound_port;
            vec![(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()]
        }
        (None, None) => return None,
    };
    let named = before.iter().any(|port| &*port.name == "outbound");
    check("outbound.services", named.then(|| "found a service named outbound, which is the name of the rest".into()));
    let transparent = around.transparent.is_some();
    // Nobody asked for bounds on what is not ours: they are the app's and the kernel's business.
    let timeouts = Timeouts {
        connect: Duration::from_secs(30),
        response: None,
        body: UNBOUND,
        write: UNBOUND,
        ..Timeouts::default()
    };
    let mut port = port("outbound", listen, Upstream::Meant, timeouts);
    port.limits = Limits { head_bytes: 256 * 1024, head_fields: 1000, ..Limits::default() };
    (port.intercepts, port.detects) = (transparent, transparent);
    port.server_first = raw.server_first.unwrap_or(true);
    Some(port)
}

fn port(name: &str, listen: Vec<SocketAddr>, upstream: Upstream, timeouts: Timeouts) -> Port {
    Port {
        name: name.into(),
        listen,
        intercepts: false,
        direction: Direction::Outbound,
        upstream,
        splits: Vec::new(),
        protocol: Protocol::Auto,
        detects: false,
        server_first: false,
        proxy_protocol: ProxyProtocol::Disabled,
        tls: Tls::Disabled,
        address: geo::AddressPolicy::default(),
        geo_headers: GeoHeaders::default(),
        policy: Policy::default(),
        rate_limits: Vec::new(),
        limits: Limits::default(),
        timeouts,
    }
}

/// Who is asked for names.
pub(super) fn dns(raw: &raw::Dns, check: &mut dyn FnMut(&str, Option<String>)) -> net::dns::Settings {
    let defaults = net::dns::Settings::default();
    let timeout = raw.timeout.map_or(defaults.timeout, |time| time.0);
    check(
        "outbound.dns.timeout",
        timeout.is_zero().then(|| "found no time at all, expected a duration such as 2s".into()),
    );
    let attempts = raw.attempts.unwrap_or(defaults.attempts);
    check(
        "outbound.dns.attempts",
        (!(1..=10).contains(&attempts)).then(|| format!("found {attempts}, expected 1 to 10")),
    );
    net::dns::Settings { servers: raw.servers.iter().map(|addr| addr.0).collect(), timeout, attempts }
}

/// Shares of a service's requests that go to others; `first` is the first service's place among the ports.
fn splits(
    raw: &[raw::Split],
    services: &[raw::Service],
    first: usize,
    this: usize,
    check: &mut dyn FnMut(&str, Option<String>),
) -> Vec<Split> {
    let mut splits = Vec::new();
    for (i, split) in raw.iter().enumerate() {
        let other = services.iter().position(|service| service.name == split.service).filter(|other| *other != this);
        let key = format!("split[{i}]");
        let which = match (&split.share, &split.header) {
            (Some(share), None) => Some(config::Share::Of(share.0)),
            (None, Some(field)) => {
                Some(config::Share::Field(field.name.to_ascii_lowercase().into(), field.value.as_str().into()))
            }
            _ => None,
        };
        check(&key, which.is_none().then(|| "expected either share or header".into()));
        let unknown = || format!("found \"{}\", expected the name of another service", split.service);
        check(&format!("{key}.service"), other.is_none().then(unknown));
        splits.extend(other.zip(which).map(|(other, which)| Split { to: first + other, which }));
    }
    let sum: f64 = raw.iter().filter_map(|split| Some(split.share?.0)).sum();
    check(
        "split",
        (sum > 1.0 + 1e-9).then(|| format!("found shares of {:.0}% together, expected at most 100%", sum * 100.0)),
    );
    splits
}

/// Whether a listener of the app's own may be there.
fn check_listen(listen: SocketAddr, before: &[Arc<Port>], key: &str, check: &mut dyn FnMut(&str, Option<String>)) {
    check(
        key,
        (!listen.ip().is_loopback()).then(|| {
            format!("found {listen}, expected a loopback address: what is called there is for this pod alone")
        }),
    );
    let taken = before
        .iter()
        .flat_map(|port| &port.listen)
        .any(|other| other.port() == listen.port() && (other.ip() == listen.ip() || other.ip().is_unspecified()));
    check(key, taken.then(|| format!("found {listen}, where another port listens already")));
}

fn one(
    raw: &raw::Service,
    around: &Around<'_>,
    before: &[Arc<Port>],
    check: &mut dyn FnMut(&str, Option<String>),
) -> Port {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    let sane = !raw.name.is_empty() && raw.name.len() <= 64 && raw.name.bytes().all(legal);
    check("name", (!sane).then(|| format!("found \"{}\", expected 1 to 64 of a-z A-Z 0-9 - _ .", raw.name)));
    let twice = before.iter().any(|port| *port.name == *raw.name);
    check("name", twice.then(|| format!("found \"{}\" a second time, expected a name of its own", raw.name)));
    let listen = raw.listen.map(|addr| addr.0);
    if let Some(listen) = listen {
        check_listen(listen, before, "listen", check);
    }
    let nowhere = listen.is_none() && raw.hosts.is_empty() && raw.networks.is_empty();
    check("listen", nowhere.then(|| "found neither listen nor hosts nor networks: nobody could call it".into()));
    let in_vain = around.transparent.is_none() && !raw.networks.is_empty();
    check(
        "networks",
        in_vain.then(|| "found without mode: transparent, which alone knows whom a call was meant for".into()),
    );
    check(
        "port",
        (raw.port.is_some() && raw.networks.is_empty()).then(|| "found without networks, which alone use it".into()),
    );
    let source = source(&raw.endpoints, listen, around.transparent.is_some(), check);
    let odd = raw.hosts.iter().find(|host| host.parse::<axum::http::uri::Authority>().is_err() || host.contains('@'));
    check("hosts", odd.map(|host| format!("found \"{host}\", expected a host with an optional port")));
    let tls_of_its_own = raw.protocol == Some(raw::Protocol::Tls);
    check(
        "protocol",
        tls_of_its_own.then(|| "found tls, expected tcp: the app's own TLS passes through as it is".into()),
    );
    let unseen = raw.protocol == Some(raw::Protocol::Tcp) && raw.split.iter().any(|split| split.header.is_some());
    check("split", unseen.then(|| "found a header with protocol: tcp, where nobody looks for one".into()));
    let service = Service {
        source,
        expected: expected(&raw.tls, around.has_identity, check),
        host: raw.hosts.first().map(|host| host.as_str().into()),
        retry: retry(&raw.retry, check),
        breaker: breaker(&raw.circuit_breaker, check),
        outliers: outliers(&raw.outlier_detection, check),
        subset: subset(raw.endpoints.subset, check),
    };
    // There is one way so far; the key is there to say which.
    let (None | Some(raw::Balance::P2cEwma)) = raw.balance;
    let timeouts = limits::service_timeouts(&raw.timeouts, check);
    let upstream = Upstream::Service(Cluster::new(service));
    let protocol = raw.protocol.map_or(Protocol::Auto, protocol);
    Port { protocol, ..port(&raw.name, listen.into_iter().collect(), upstream, timeouts) }
}

/// Where a service's endpoints are learnt: exactly one way.
fn source(
    raw: &raw::Endpoints,
    listen: Option<SocketAddr>,
    transparent: bool,
    check: &mut dyn FnMut(&str, Option<String>),
) -> Source {
    let addrs: Vec<_> = raw.fixed.iter().map(|addr| addr.0).collect();
    let ways = [!addrs.is_empty(), raw.dns.is_some(), raw.srv.is_some(), raw.original_dst];
    let ways = ways.iter().filter(|way| **way).count();
    check(
        "endpoints",
        (ways != 1).then(|| format!("found {ways} of static, dns, srv and original_dst, expected one of them")),
    );
    let vain = raw.original_dst && !transparent;
    check("endpoints.original_dst", vain.then(|| "found without mode: transparent, which alone knows it".into()));
    let own = addrs.iter().find(|addr| Some(**addr) == listen);
    check(
        "endpoints.static",
        own.map(|addr| format!("found {addr}, where the outrigger itself listens for this service")),
    );
    let port = raw.port.unwrap_or_default();
    let needs_port = raw.dns.is_some() && port == 0;
    check("endpoints.port", needs_port.then(|| "found none, expected the port of the addresses that dns gives".into()));
    let odd_port = raw.dns.is_none() && raw.port.is_some();
    check("endpoints.port", odd_port.then(|| "found without dns, which alone uses it".into()));
    for (key, name) in [("endpoints.dns", &raw.dns), ("endpoints.srv", &raw.srv)] {
        let odd = name.as_ref().filter(|name| !is_name(name));
        check(
            key,
            odd.map(|name| format!("found \"{name}\", expected a name such as payments.shop.svc.cluster.local")),
        );
    }
    match (&raw.dns, &raw.srv) {
        _ if raw.original_dst => Source::OriginalDst,
        (Some(name), _) => Source::Dns { name: name.clone(), port },
        (None, Some(name)) => Source::Srv { name: name.clone() },
        (None, None) => Source::Static(addrs),
    }
}

/// Whether a text can be asked for in DNS (RFC 1035, 2.3.4; underscores as in SRV, RFC 2782).
fn is_name(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len()) && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    name.len() <= 253 && name.strip_suffix('.').unwrap_or(name).split('.').all(label)
}

fn subset(raw: Option<usize>, check: &mut dyn FnMut(&str, Option<String>)) -> usize {
    check("endpoints.subset", (raw == Some(0)).then(|| "found 0, expected at least 1".into()));
    raw.unwrap_or(Service::SUBSET)
}

fn retry(raw: &raw::Retry, check: &mut dyn FnMut(&str, Option<String>)) -> Retry {
    let defaults = Retry::default();
    let attempts = raw.attempts.unwrap_or(defaults.attempts);
    check("retry.attempts", (attempts > 10).then(|| format!("found {attempts}, expected 0 to 10")));
    let on = raw.on.as_ref().map(|reasons| {
        let mut on = RetryOn::default();
        for reason in reasons {
            match reason {
                RetryReason::ConnectFailure => on.connect_failure = true,
                RetryReason::Reset => on.reset = true,
                RetryReason::Timeout => on.timeout = true,
                RetryReason::ServerErrors => on.server_errors = true,
                RetryReason::Status(status) => on.statuses.push(*status),
            }
        }
        on
    });
    Retry {
        attempts,
        on: on.unwrap_or(defaults.on),
        all_methods: raw.methods == Some(raw::RetryMethods::All),
        budget_share: raw.budget.share.map_or(defaults.budget_share, |share| share.0),
        budget_floor: raw.budget.floor.map_or(defaults.budget_floor, |rate| rate.0),
    }
}

fn breaker(raw: &raw::CircuitBreaker, check: &mut dyn FnMut(&str, Option<String>)) -> Breaker {
    let defaults = Breaker::default();
    let mut bound = |key: &str, given: Option<usize>, default| {
        let zero = given == Some(0);
        check(&format!("circuit_breaker.{key}"), zero.then(|| "found 0, expected at least 1".into()));
        given.unwrap_or(default)
    };
    Breaker {
        connections: bound("connections", raw.connections, defaults.connections),
        pending: bound("pending", raw.pending, defaults.pending),
        requests: bound("requests", raw.requests, defaults.requests),
    }
}

fn outliers(raw: &raw::OutlierDetection, check: &mut dyn FnMut(&str, Option<String>)) -> Outliers {
    let defaults = Outliers::default();
    let base = raw.base_ejection.map_or(defaults.base, |time| time.0);
    check(
        "outlier_detection.base_ejection",
        base.is_zero().then(|| "found no time at all, expected one such as 30s".into()),
    );
    Outliers {
        consecutive: raw.consecutive_5xx.unwrap_or(defaults.consecutive),
        base,
        max_ejected: raw.max_ejected.map_or(defaults.max_ejected, |share| share.0),
    }
}

fn expected(
    raw: &raw::ServiceTls,
    has_identity: bool,
    check: &mut dyn FnMut(&str, Option<String>),
) -> Option<Expected> {
    if raw.mode != Some(raw::ServiceTlsMode::Mtls) {
        check("tls.expect", raw.expect.is_some().then(|| "found without mode: mtls, which alone uses it".into()));
        return None;
    }
    check("tls.mode", (!has_identity).then(|| "mutual TLS needs an identity, and identity.source is none".into()));
    check(
        "tls.expect",
        raw.expect.is_none().then(|| {
            "found no key \"expect\", which mode: mtls requires: the SPIFFE ID of whoever must be there".into()
        }),
    );
    raw.expect.as_ref().map(|pattern| Expected::OneOf(vec![pattern.0.clone()]))
}
