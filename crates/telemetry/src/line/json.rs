//! `json`: OpenTelemetry's attribute names, flat.

use model::{AddressSource, Direction, Scheme, Scope, Version};

use super::object::Object;
use super::{Event, Moment, Text, referer};
use crate::record::Data;
use crate::settings::{Privacy, QueryPrivacy};

pub(super) fn write(out: &mut Vec<u8>, privacy: &Privacy, moment: &Moment<'_>, event: Event, data: &Data, port: &str) {
    let mut line = Object::begin(out, "timestamp", |out| moment.clock.write_iso(out, moment.millis));
    let ended = matches!(event, Event::Request | Event::End);
    if event != Event::Request {
        line.text("outrigger.event", event.as_str().as_bytes());
        line.text("outrigger.stream", data.stream.unwrap_or_default().as_bytes());
    }
    line.display("client.address", privacy.address(data.client.ip));
    line.number("client.port", data.client.port.filter(|_| privacy.port()).map(u64::from));
    if data.client.source != AddressSource::Socket {
        line.text("outrigger.client.source", data.client.source.as_str().as_bytes());
        line.display("network.peer.address", privacy.address(data.peer_ip()));
    }
    line.text("geo.country.iso_code", data.country.as_ref().map_or(b"", |code| code.as_str().as_bytes()));
    line.text("geo.region.iso_code", data.text(Text::Region));
    line.text("geo.locality.name", data.text(Text::City));
    if data.scope != Scope::Global {
        line.text("geo.scope", data.scope.as_str().as_bytes());
    }
    line.number("as.number", data.asn.map(u64::from));
    line.text("as.organization.name", data.text(Text::Organization));
    line.text("outrigger.peer.identity", data.text(Text::Identity));
    line.text("http.request.method", data.text(Text::Method));
    line.text("url.path", data.text(Text::Path));
    if privacy.query == QueryPrivacy::Full && data.has_query() {
        line.text("url.query", data.text(Text::Query));
    }
    if data.version.is_some() {
        line.text(
            "url.scheme",
            match data.scheme {
                Scheme::Http => b"http",
                Scheme::Https => b"https",
            },
        );
    }
    line.text("server.address", data.text(Text::Authority));
    line.text("network.protocol.version", data.version.map_or("", Version::as_str).as_bytes());
    line.number("http.response.status_code", data.status_told(event).map(u64::from));
    line.number("http.request.body.size", Some(data.received));
    line.number("http.response.body.size", Some(data.sent));
    line.seconds("http.server.request.duration", ended.then_some(moment.took));
    line.seconds("outrigger.time_to_first_byte", data.first_byte);
    line.text("user_agent.original", data.text(Text::UserAgent));
    line.text("http.request.header.referer", referer(data, privacy));
    line.text("outrigger.request_id", data.text(Text::RequestId));
    line.hex("trace_id", data.trace.as_ref().map(|(trace, _)| &trace[..]));
    line.hex("parent_span_id", data.trace.as_ref().map(|(_, parent)| &parent[..]));
    if let Some(enforced) = data.denied {
        line.text("outrigger.authorization.result", if enforced { b"denied" } else { b"would_deny" });
        line.text("outrigger.authorization.rule", data.text(Text::Rule));
    }
    if data.direction == Direction::Outbound {
        line.text("network.io.direction", b"transmit");
    }
    line.text("outrigger.port", port.as_bytes());
    line.text("outrigger.app.connection", data.text(Text::App));
    if let Some((addr, mtls)) = data.upstream {
        line.display("outrigger.upstream.address", Some(addr));
        line.text("outrigger.upstream.tls", if mtls { b"mtls" } else { b"disabled" });
    }
    line.number("outrigger.retries", (data.retries > 0).then_some(u64::from(data.retries)));
    line.text("outrigger.retry.reasons", data.text(Text::RetryReasons));
    if data.over_budget {
        line.text("outrigger.retry.refused", b"over_budget");
    }
    line.display("outrigger.ejected", data.ejected);
    line.text("outrigger.ejected.reason", data.text(Text::EjectedFor));
    line.text("outrigger.tls.alpn", data.text(Text::Alpn));
    line.text("error.type", data.cause.map_or("", model::Cause::label).as_bytes());
    line.text("outrigger.error.detail", data.text(Text::Detail));
    line.end();
}
