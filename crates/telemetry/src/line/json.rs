//! `json`: OpenTelemetry's attribute names, flat.

use model::{AddressSource, Direction, Scheme, Scope, Version};

use super::object::{Object, key};
use super::{Event, Moment, Text, referer};
use crate::record::Data;
use crate::settings::{Privacy, QueryPrivacy};

pub(super) fn write(out: &mut Vec<u8>, privacy: &Privacy, moment: &Moment<'_>, event: Event, data: &Data, port: &str) {
    let mut line = Object::begin(out, "timestamp", |out| moment.clock.write_iso(out, moment.millis));
    let ended = matches!(event, Event::Request | Event::End);
    if event != Event::Request {
        line.word(key!("outrigger.event"), event.as_str());
        line.word(key!("outrigger.stream"), data.stream.unwrap_or_default());
    }
    line.address(key!("client.address"), privacy.address(data.client.ip));
    line.number(key!("client.port"), data.client.port.filter(|_| privacy.port()).map(u64::from));
    if data.client.source != AddressSource::Socket {
        line.word(key!("outrigger.client.source"), data.client.source.as_str());
        line.address(key!("network.peer.address"), privacy.address(data.peer_ip()));
    }
    line.code(key!("geo.country.iso_code"), data.country);
    line.text(key!("geo.region.iso_code"), data.text(Text::Region));
    line.text(key!("geo.locality.name"), data.text(Text::City));
    if data.scope != Scope::Global {
        line.word(key!("geo.scope"), data.scope.as_str());
    }
    line.number(key!("as.number"), data.asn.map(u64::from));
    line.text(key!("as.organization.name"), data.text(Text::Organization));
    line.text(key!("outrigger.peer.identity"), data.text(Text::Identity));
    line.text(key!("http.request.method"), data.text(Text::Method));
    line.text(key!("url.path"), data.text(Text::Path));
    if privacy.query == QueryPrivacy::Full && data.has_query() {
        line.text(key!("url.query"), data.text(Text::Query));
    }
    if data.version.is_some() {
        line.word(
            key!("url.scheme"),
            match data.scheme {
                Scheme::Http => "http",
                Scheme::Https => "https",
            },
        );
    }
    line.text(key!("server.address"), data.text(Text::Authority));
    line.word(key!("network.protocol.version"), data.version.map_or("", Version::as_str));
    line.number(key!("http.response.status_code"), data.status_told(event).map(u64::from));
    line.number(key!("http.request.body.size"), Some(data.received));
    line.number(key!("http.response.body.size"), Some(data.sent));
    line.seconds(key!("http.server.request.duration"), ended.then_some(moment.took));
    line.seconds(key!("outrigger.time_to_first_byte"), data.first_byte);
    line.text(key!("user_agent.original"), data.text(Text::UserAgent));
    line.text(key!("http.request.header.referer"), referer(data, privacy));
    line.text(key!("outrigger.request_id"), data.text(Text::RequestId));
    line.hex(key!("trace_id"), data.trace.as_ref().map(|(trace, _)| &trace[..]));
    line.hex(key!("parent_span_id"), data.trace.as_ref().map(|(_, parent)| &parent[..]));
    if let Some(enforced) = data.denied {
        line.word(key!("outrigger.authorization.result"), if enforced { "denied" } else { "would_deny" });
        line.text(key!("outrigger.authorization.rule"), data.text(Text::Rule));
    }
    if data.direction == Direction::Outbound {
        line.word(key!("network.io.direction"), "transmit");
    }
    line.text(key!("outrigger.port"), port.as_bytes());
    line.text(key!("outrigger.app.connection"), data.text(Text::App));
    if let Some((addr, mtls)) = data.upstream {
        line.socket_address(key!("outrigger.upstream.address"), Some(addr));
        line.word(key!("outrigger.upstream.tls"), if mtls { "mtls" } else { "disabled" });
    }
    line.number(key!("outrigger.retries"), (data.retries > 0).then_some(u64::from(data.retries)));
    line.text(key!("outrigger.retry.reasons"), data.text(Text::RetryReasons));
    if data.over_budget {
        line.word(key!("outrigger.retry.refused"), "over_budget");
    }
    line.socket_address(key!("outrigger.ejected"), data.ejected);
    line.text(key!("outrigger.ejected.reason"), data.text(Text::EjectedFor));
    line.text(key!("outrigger.tls.alpn"), data.text(Text::Alpn));
    line.word(key!("error.type"), data.cause.map_or("", model::Cause::label));
    line.text(key!("outrigger.error.detail"), data.text(Text::Detail));
    line.end();
}
