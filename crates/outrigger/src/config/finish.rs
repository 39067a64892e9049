//! From keys to finished types: defaults, and what keys mean together.

use std::net::{Ipv6Addr, SocketAddr};
use std::num::NonZeroU8;
use std::sync::Arc;
use std::time::Duration;

use geo::{AddressPolicy, Proxies, Trust};
use proxy::config::{GeoHeaders, Port, Protocol, ProxyProtocol, Routes, Snapshot, Upstream};

use super::error::Wrong;
use super::tree::{Kind, Value};
use super::{Admin, Config, Drain, Overrides, de, interception, limits, outbound, probes, raw, security};

/// Keys of the design that this version does not have yet: refused by name, not as unknown.
const NOT_YET: &[&str] = &["tracing", "metrics.app"];

/// Makes a configuration of a tree, or says all that is wrong with it.
pub(super) fn finish(tree: &Value, overrides: &Overrides) -> Result<Config, Vec<Wrong>> {
    refuse_what_is_not_there(tree)?;
    let file: raw::File = de::from_value(tree).map_err(|wrong| vec![wrong])?;
    let mut wrongs = Vec::new();
    let mut check = |key: &str, problem: Option<String>| {
        if let Some(message) = problem {
            wrongs.push(locate(tree, key, message));
        }
    };
    let workers = overrides.workers.or(file.runtime.workers).unwrap_or(1);
    check("version", (file.version != Some(1)).then(|| "found another version, expected 1".into()));
    check("runtime.workers", (!(1..=256).contains(&workers)).then(|| format!("found {workers}, expected 1 to 256")));
    let max_series = file.metrics.max_series.unwrap_or(2000);
    check("metrics.max_series", (max_series < 500).then(|| format!("found {max_series}, expected at least 500")));
    let public = overrides.public.or(file.admin.public.map(|a| a.0)).unwrap_or(([0, 0, 0, 0], 6191).into());
    let private = overrides.private.or(file.admin.private.map(|a| a.0)).unwrap_or(([127, 0, 0, 1], 6192).into());
    check(
        "admin.private",
        (!private.ip().is_loopback()).then(|| {
            format!("found {private}, expected a loopback address: what is served there is for this pod alone")
        }),
    );
    check(
        "admin.private",
        (private.port() == public.port())
            .then(|| format!("found port {}, expected another than admin.public's", private.port())),
    );
    let app_probes = probes::app_probes(&file.admin.app_probes, &mut check);
    let telemetry = telemetry_settings(&file, overrides, max_series);
    if let telemetry::Output::File { rotate: Some(rotate), .. } = &telemetry.access_log.output {
        check(
            "access_log.output.rotate.size",
            (rotate.size < 64 * 1024).then(|| format!("found {} bytes, expected at least 64KiB", rotate.size)),
        );
    }
    if let telemetry::AddressPrivacy::Prefixes { ipv4, ipv6 } = telemetry.privacy.client_address {
        check("privacy.client_address.ipv4_prefix", (ipv4 > 32).then(|| format!("found {ipv4}, expected 0 to 32")));
        check("privacy.client_address.ipv6_prefix", (ipv6 > 128).then(|| format!("found {ipv6}, expected 0 to 128")));
    }
    let geo = geo::GeoSettings {
        databases: file.geo.databases.iter().map(Into::into).collect(),
        max_age: file.geo.max_age.map(|age| age.0),
    };
    let identity = security::identity(&file.identity, &mut check);
    let transparent = file.mode == Some(raw::Mode::Transparent);
    let redirects = transparent || tree.get("interception").is_some();
    let interception =
        interception::settings(&file.interception, [public.port(), private.port()], redirects, &mut check);
    let dns = outbound::dns(&file.outbound.dns, &mut check);
    let around = Around {
        geo: &file.geo,
        admin: [public.port(), private.port()],
        has_identity: identity.source != identity::Source::None,
        transparent: transparent.then_some(&interception),
    };
    let mut ports = ports(tree, &around, &mut wrongs);
    let mut check = |key: &str, problem: Option<String>| {
        wrongs.extend(problem.map(|message| locate(tree, key, message)));
    };
    let mut routes = Routes { intercepted: transparent, ..Routes::default() };
    for (index, port) in ports.iter().enumerate() {
        if let (true, Upstream::App(addrs)) = (transparent, &port.upstream) {
            routes.app_ports.extend(addrs.iter().map(|addr| (addr.port(), index)));
        }
    }
    // An app that calls itself comes back by one of these.
    let explicit = ports.iter().filter(|_| !transparent);
    routes.inbound_ports = explicit.flat_map(|port| &port.listen).map(SocketAddr::port).collect();
    outbound::add(&file.outbound, &around, &mut ports, &mut routes, &mut check);
    routes.own_ports = ports.iter().flat_map(|port| &port.listen).map(SocketAddr::port).collect();
    routes.own_ports.extend(around.admin);
    if !wrongs.is_empty() {
        return Err(wrongs);
    }
    Ok(Config {
        snapshot: Snapshot { ports, routes },
        telemetry,
        geo,
        identity,
        interception,
        dns,
        workers,
        drain: Drain {
            delay: file.runtime.drain.delay.map_or(Duration::from_secs(5), |t| t.0),
            deadline: file.runtime.drain.deadline.map_or(Duration::from_secs(20), |t| t.0),
        },
        admin: Admin { public, private, app_probes },
        files: Vec::new(),
        shown: tree.to_json(),
    })
}

/// Keys of later versions.
fn refuse_what_is_not_there(tree: &Value) -> Result<(), Vec<Wrong>> {
    let mut wrongs = Vec::new();
    for path in NOT_YET {
        if find(tree, path).is_some() {
            wrongs.push(locate(tree, path, "this is not available in this version".into()));
        }
    }
    if wrongs.is_empty() { Ok(()) } else { Err(wrongs) }
}

fn find<'t>(tree: &'t Value, path: &str) -> Option<&'t Value> {
    path.split('.').try_fold(tree, |value, key| value.get(key))
}

/// Puts a message at the deepest place of its path that was written.
fn locate(tree: &Value, path: &str, message: String) -> Wrong {
    let mut at = tree.at;
    let mut value = Some(tree);
    for step in path.split('.') {
        let Some(here) = value else { break };
        let (key, index) = step.split_once('[').map_or((step, None), |(key, index)| (key, Some(index)));
        at = here.at_key(key);
        value = here.get(key);
        if let Some(index) = index {
            let item = value.and_then(|list| list.item(index.trim_end_matches(']').parse().ok()?));
            at = item.map_or(at, |item| item.at);
            value = item;
        }
    }
    Wrong { at: Some(at), path: path.to_owned(), message }
}

fn telemetry_settings(file: &raw::File, overrides: &Overrides, max_series: usize) -> telemetry::Settings {
    let log = &file.access_log;
    let format = overrides.log_format.unwrap_or(match log.format {
        None | Some(raw::LogFormat::Json) => telemetry::Format::Json,
        Some(raw::LogFormat::Ecs) => telemetry::Format::Ecs,
        Some(raw::LogFormat::Text) => telemetry::Format::Text,
    });
    let output = match &log.output {
        None | Some(raw::LogOutput::Stdout) => telemetry::Output::Stdout,
        Some(raw::LogOutput::File(file)) => telemetry::Output::File {
            path: (&file.file).into(),
            rotate: file.rotate.map(|rotate| telemetry::Rotate { size: rotate.size.0, keep: rotate.keep }),
        },
    };
    let client_address = match file.privacy.client_address {
        None | Some(raw::AddressPrivacy::Full) => telemetry::AddressPrivacy::Full,
        Some(raw::AddressPrivacy::Omit) => telemetry::AddressPrivacy::Omit,
        Some(raw::AddressPrivacy::Prefixes(p)) => {
            telemetry::AddressPrivacy::Prefixes { ipv4: p.ipv4_prefix, ipv6: p.ipv6_prefix }
        }
    };
    let query = match file.privacy.query {
        None | Some(raw::QueryPrivacy::Omit) => telemetry::QueryPrivacy::Omit,
        Some(raw::QueryPrivacy::Full) => telemetry::QueryPrivacy::Full,
    };
    telemetry::Settings {
        access_log: telemetry::AccessLog {
            format,
            output,
            sample_success: log.sample.success.map_or(1.0, |share| share.0),
            exclude_paths: log.sample.exclude_paths.clone(),
        },
        privacy: telemetry::Privacy { client_address, query },
        max_series,
    }
}

/// What a port must fit in with.
pub(super) struct Around<'f> {
    geo: &'f raw::Geo,
    admin: [u16; 2],
    pub(super) has_identity: bool,
    /// With `mode: transparent`: where redirected connections arrive.
    pub(super) transparent: Option<&'f redirect::Settings>,
}

/// Every port with the keys of `inbound` behind its own.
fn ports(tree: &Value, around: &Around<'_>, wrongs: &mut Vec<Wrong>) -> Vec<Arc<Port>> {
    let nothing = Value { at: tree.at, kind: Kind::Map(Vec::new()) };
    let inbound = match (tree.get("inbound"), around.transparent) {
        (Some(inbound), _) => inbound,
        (None, Some(_)) => &nothing,
        (None, None) => {
            wrongs.push(locate(tree, "inbound", "found no ports, expected inbound.ports with at least one".into()));
            return Vec::new();
        }
    };
    if let Err(wrong) = de::from_value::<raw::Inbound>(inbound) {
        wrongs.push(wrong.under("inbound"));
        return Vec::new();
    }
    let mut defaults = inbound.clone();
    let written = match defaults.take("ports").map(|ports| ports.kind) {
        Some(Kind::List(ports)) if !ports.is_empty() => ports,
        _ if around.transparent.is_some() => Vec::new(),
        _ => {
            wrongs.push(locate(tree, "inbound.ports", "found no ports, expected at least one".into()));
            return Vec::new();
        }
    };
    let mut ports: Vec<Arc<Port>> = Vec::new();
    let mut add = |path: &str, whole: &Value| {
        let found = de::from_value::<raw::Port>(whole).map_err(|wrong| vec![wrong]);
        match found.and_then(|raw| port(&raw, whole, around, &ports)) {
            Ok(port) => ports.push(Arc::new(port)),
            Err(list) => wrongs.extend(list.into_iter().map(|wrong| wrong.under(path))),
        }
    };
    for (i, written) in written.into_iter().enumerate() {
        add(&format!("inbound.ports[{i}]"), &written.or(&defaults));
    }
    if around.transparent.is_some() {
        // Ports of the app that are not listed, by the keys that hold for all.
        add("inbound", &defaults);
    }
    ports
}

/// One port, checked against those before it.
fn port(raw: &raw::Port, tree: &Value, around: &Around<'_>, before: &[Arc<Port>]) -> Result<Port, Vec<Wrong>> {
    let missing = |key: &str| vec![Wrong::new(format!("found no key \"{key}\", which is required")).at(tree.at)];
    // Where connections are redirected, one listener takes those to every port; only what is listed has an `app`.
    let unlisted = around.transparent.filter(|_| raw.app.is_none());
    let listen = match (raw.listen, around.transparent) {
        (None, Some(_)) => unlisted.map(|settings| (Ipv6Addr::UNSPECIFIED, settings.inbound_port).into()),
        (Some(_), Some(_)) => {
            let message = "found with mode: transparent, where one listener takes what is redirected: leave it out";
            return Err(vec![locate(tree, "listen", message.into())]);
        }
        (listen, None) => Some(listen.ok_or_else(|| missing("listen"))?.0),
    };
    let app = match &raw.app {
        Some(app) => app.0.clone(),
        None if unlisted.is_some() && raw.name.is_none() => Vec::new(),
        None => return Err(missing("app")),
    };
    let mut wrongs = Vec::new();
    let mut check =
        |key: &str, problem: Option<String>| wrongs.extend(problem.map(|message| locate(tree, key, message)));
    let default_name = match (unlisted, listen) {
        (Some(_), _) => "inbound".to_owned(),
        (None, Some(listen)) => listen.port().to_string(),
        (None, None) => app.first().map_or(0, SocketAddr::port).to_string(),
    };
    let name = raw.name.clone().unwrap_or(default_name);
    let legal =
        !name.is_empty() && name.len() <= 64 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    check("name", (!legal).then(|| format!("found \"{name}\", expected 1 to 64 of a-z A-Z 0-9 - _ .")));
    check(
        "name",
        before
            .iter()
            .any(|port| *port.name == *name)
            .then(|| format!("found \"{name}\" a second time, expected a name of its own")),
    );
    if let Some(listen) = listen {
        check_listen(listen, &app, around, before, &mut check);
    }
    let same_app =
        |port: &Arc<Port>| matches!(&port.upstream, Upstream::App(addrs) if addrs[0].port() == app[0].port());
    let twice = around.transparent.is_some() && !app.is_empty() && before.iter().any(same_app);
    check("app", twice.then(|| "found a second time, expected each of the app's ports once".into()));
    let address = address(raw, &mut check);
    let proxy_protocol = match raw.proxy_protocol {
        None | Some(raw::ProxyProtocol::Disabled) => ProxyProtocol::Disabled,
        Some(raw::ProxyProtocol::Optional) => ProxyProtocol::Optional,
        Some(raw::ProxyProtocol::Required) => ProxyProtocol::Required,
    };
    let nobody = proxy_protocol != ProxyProtocol::Disabled && address.trusted == Trust::Nobody;
    check(
        "proxy_protocol",
        nobody.then(|| "nobody may send a PROXY header: name the load balancer's network in trusted_proxies".into()),
    );
    let limits = limits::limits(raw, &mut check);
    let tls = security::tls(raw, around.has_identity, &mut check);
    let policy = security::policy(raw.authorization.as_ref(), &mut check);
    let rate_limits = security::rate_limits(&raw.rate_limits, &mut check);
    if !wrongs.is_empty() {
        return Err(wrongs);
    }
    Ok(Port {
        name: name.into(),
        listen: listen.into_iter().collect(),
        intercepts: unlisted.is_some(),
        direction: model::Direction::Inbound,
        upstream: if app.is_empty() { Upstream::Meant } else { Upstream::app(app) },
        splits: Vec::new(),
        detects: around.transparent.is_some() && raw.protocol.is_none_or(|p| p == raw::Protocol::Auto),
        server_first: raw.server_first.unwrap_or(true),
        protocol: raw.protocol.map_or(Protocol::Auto, protocol),
        proxy_protocol,
        tls,
        address,
        geo_headers: geo_headers(around.geo),
        policy,
        rate_limits,
        limits,
        timeouts: limits::timeouts(&raw.limits, &raw.timeouts),
    })
}

/// Whether a listener's address is free, and not where connections would come back to.
fn check_listen(
    listen: SocketAddr,
    app: &[SocketAddr],
    around: &Around<'_>,
    before: &[Arc<Port>],
    check: &mut impl FnMut(&str, Option<String>),
) {
    let overlaps = |other: SocketAddr| {
        other.port() == listen.port()
            && (other.ip() == listen.ip() || other.ip().is_unspecified() || listen.ip().is_unspecified())
    };
    check(
        "listen",
        before
            .iter()
            .any(|port| port.listen.iter().any(|other| overlaps(*other)))
            .then(|| format!("found {listen}, where another port listens already")),
    );
    check(
        "listen",
        app.iter()
            .any(|app| overlaps(*app))
            .then(|| format!("found {listen}, which is where the app listens: the outrigger would call itself")),
    );
    check(
        "listen",
        around
            .admin
            .contains(&listen.port())
            .then(|| format!("found port {}, expected another than the admin servers'", listen.port())),
    );
}

/// Who may name a client.
fn address(raw: &raw::Port, check: &mut impl FnMut(&str, Option<String>)) -> AddressPolicy {
    let hops = raw.client_address.trusted_hops;
    let both = hops.is_some() && !raw.trusted_proxies.is_empty();
    check(
        "client_address.trusted_hops",
        both.then(|| "found together with trusted_proxies: trust by number of hops, or by network, not both".into()),
    );
    check(
        "client_address.trusted_hops",
        (hops == Some(0)).then(|| "found 0, expected at least 1; leave it out to trust nobody".into()),
    );
    for (i, proxy) in raw.trusted_proxies.iter().enumerate() {
        let one = proxy.cidr.is_some() != proxy.identity.is_some();
        check(&format!("trusted_proxies[{i}]"), (!one).then(|| "expected either cidr or identity".into()));
    }
    let headers = raw.client_address.headers.clone();
    check(
        "client_address.headers",
        headers
            .as_ref()
            .is_some_and(Vec::is_empty)
            .then(|| "found an empty list, expected x-forwarded-for or forwarded".into()),
    );
    let trusted = match hops.and_then(NonZeroU8::new) {
        Some(hops) => Trust::Hops(hops),
        None if raw.trusted_proxies.is_empty() => Trust::Nobody,
        None => Trust::Proxies(Proxies::new(
            raw.trusted_proxies.iter().filter_map(|proxy| Some(proxy.cidr.as_ref()?.0)),
            raw.trusted_proxies.iter().filter_map(|proxy| Some(proxy.identity.as_ref()?.0.clone())),
        )),
    };
    let headers =
        headers.unwrap_or(vec![raw::ForwardingHeader::XForwardedFor]).into_iter().map(|header| match header {
            raw::ForwardingHeader::XForwardedFor => geo::ForwardingHeader::XForwardedFor,
            raw::ForwardingHeader::Forwarded => geo::ForwardingHeader::Forwarded,
        });
    AddressPolicy { trusted, headers: headers.collect() }
}

pub(super) fn protocol(raw: raw::Protocol) -> Protocol {
    match raw {
        raw::Protocol::Auto => Protocol::Auto,
        raw::Protocol::Http1 => Protocol::Http1,
        raw::Protocol::H2c => Protocol::H2c,
        raw::Protocol::Tls => Protocol::Tls,
        raw::Protocol::Tcp => Protocol::Tcp,
    }
}

fn geo_headers(geo: &raw::Geo) -> GeoHeaders {
    let told = |header| geo.headers_to_app.contains(&header);
    GeoHeaders {
        country: told(raw::GeoHeader::Country),
        region: told(raw::GeoHeader::Region),
        city: told(raw::GeoHeader::City),
        asn: told(raw::GeoHeader::Asn),
    }
}
