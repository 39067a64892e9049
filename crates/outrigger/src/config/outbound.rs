//! From keys to finished types: the services that the app calls.

use std::sync::Arc;

use identity::Expected;
use model::{Direction, Policy};
use proxy::config::{GeoHeaders, Limits, Port, Protocol, ProxyProtocol, Tls, Upstream};

use super::finish::protocol;
use super::{limits, raw};

/// Every service, checked against the ports and services before it.
pub(super) fn services(
    raw: &raw::Outbound,
    has_identity: bool,
    before: &mut Vec<Arc<Port>>,
    check: &mut dyn FnMut(&str, Option<String>),
) {
    for (i, service) in raw.services.iter().enumerate() {
        let mut check = |key: &str, problem| check(&format!("outbound.services[{i}].{key}"), problem);
        let port = one(service, has_identity, before, &mut check);
        before.push(Arc::new(port));
    }
}

fn one(
    raw: &raw::Service,
    has_identity: bool,
    before: &[Arc<Port>],
    check: &mut dyn FnMut(&str, Option<String>),
) -> Port {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    let sane = !raw.name.is_empty() && raw.name.len() <= 64 && raw.name.bytes().all(legal);
    check("name", (!sane).then(|| format!("found \"{}\", expected 1 to 64 of a-z A-Z 0-9 - _ .", raw.name)));
    let twice = before.iter().any(|port| *port.name == *raw.name);
    check("name", twice.then(|| format!("found \"{}\" a second time, expected a name of its own", raw.name)));
    let listen = raw.listen.0;
    check(
        "listen",
        (!listen.ip().is_loopback()).then(|| {
            format!("found {listen}, expected a loopback address: what is called there is for this pod alone")
        }),
    );
    let taken = before.iter().any(|port| {
        port.listen.port() == listen.port() && (port.listen.ip() == listen.ip() || port.listen.ip().is_unspecified())
    });
    check("listen", taken.then(|| format!("found {listen}, where another port listens already")));
    let addrs: Vec<_> = raw.endpoints.fixed.iter().map(|addr| addr.0).collect();
    check("endpoints.static", addrs.is_empty().then(|| "found none, expected at least one address".into()));
    let own = addrs.iter().find(|addr| **addr == listen);
    check(
        "endpoints.static",
        own.map(|addr| format!("found {addr}, where the outrigger itself listens for this service")),
    );
    let odd = raw.hosts.iter().find(|host| host.parse::<axum::http::uri::Authority>().is_err() || host.contains('@'));
    check("hosts", odd.map(|host| format!("found \"{host}\", expected a host with an optional port")));
    let tls_of_its_own = raw.protocol == Some(raw::Protocol::Tls);
    check(
        "protocol",
        tls_of_its_own.then(|| "found tls, expected tcp: the app's own TLS passes through as it is".into()),
    );
    Port {
        name: raw.name.as_str().into(),
        listen,
        direction: Direction::Outbound,
        upstream: Upstream {
            addrs,
            expected: expected(&raw.tls, has_identity, check),
            host: raw.hosts.first().map(|host| host.as_str().into()),
        },
        protocol: raw.protocol.map_or(Protocol::Auto, protocol),
        proxy_protocol: ProxyProtocol::Disabled,
        tls: Tls::Disabled,
        address: geo::AddressPolicy::default(),
        geo_headers: GeoHeaders::default(),
        policy: Policy::default(),
        limits: Limits::default(),
        timeouts: limits::timeouts(&raw::Limits::default(), &raw.timeouts),
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
