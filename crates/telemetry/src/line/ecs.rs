//! `ecs`: the Elastic Common Schema 8, dotted keys.

use model::{Direction, Scope, Version};

use super::object::{Object, key};
use super::{Event, Moment, Text, referer};
use crate::record::Data;
use crate::settings::{Privacy, QueryPrivacy};

pub(super) fn write(out: &mut Vec<u8>, privacy: &Privacy, moment: &Moment<'_>, event: Event, data: &Data, port: &str) {
    let mut line = Object::begin(out, "@timestamp", |out| moment.clock.write_iso(out, moment.millis));
    line.word(key!("ecs.version"), "8.11.0");
    line.word(key!("event.kind"), "event");
    line.word(key!("event.category"), if data.is_http() { "web" } else { "network" });
    line.word(
        key!("event.type"),
        match event {
            Event::Start => "start",
            Event::Interval => "info",
            _ => "end",
        },
    );
    line.word(key!("event.outcome"), if data.is_error() { "failure" } else { "success" });
    let nanos = u64::try_from(moment.took.as_nanos()).unwrap_or(u64::MAX);
    line.number(key!("event.duration"), Some(nanos));
    line.address(key!("client.ip"), privacy.address(data.client.ip));
    line.number(key!("client.port"), data.client.port.filter(|_| privacy.port()).map(u64::from));
    line.number(key!("client.bytes"), Some(data.received));
    line.code(key!("client.geo.country_iso_code"), data.country);
    line.text(key!("client.geo.region_iso_code"), data.text(Text::Region));
    line.text(key!("client.geo.city_name"), data.text(Text::City));
    if data.scope != Scope::Global {
        line.word(key!("client.geo.name"), data.scope.as_str());
    }
    line.number(key!("client.as.number"), data.asn.map(u64::from));
    line.text(key!("client.as.organization.name"), data.text(Text::Organization));
    line.address(key!("source.ip"), privacy.address(data.peer_ip()));
    line.text(key!("tls.client.x509.alternative_names"), data.text(Text::Identity));
    line.text(key!("http.request.method"), data.text(Text::Method));
    line.text(key!("url.path"), data.text(Text::Path));
    if privacy.query == QueryPrivacy::Full && data.has_query() {
        line.text(key!("url.query"), data.text(Text::Query));
    }
    line.text(key!("url.domain"), data.text(Text::Authority));
    line.word(key!("http.version"), data.version.map_or("", Version::as_str));
    line.number(key!("http.response.status_code"), data.status_told(event).map(u64::from));
    line.number(key!("http.request.body.bytes"), Some(data.received));
    line.number(key!("http.response.body.bytes"), Some(data.sent));
    line.text(key!("user_agent.original"), data.text(Text::UserAgent));
    line.text(key!("http.request.referrer"), referer(data, privacy));
    line.text(key!("http.request.id"), data.text(Text::RequestId));
    line.hex(key!("trace.id"), data.trace.as_ref().map(|(trace, _)| &trace[..]));
    if let Some(enforced) = data.denied {
        line.word(key!("event.action"), if enforced { "denied" } else { "would_deny" });
        line.text(key!("rule.name"), data.text(Text::Rule));
    }
    match data.direction {
        Direction::Inbound => line.text(key!("observer.ingress.interface.name"), port.as_bytes()),
        Direction::Outbound => {
            line.word(key!("network.direction"), "outbound");
            line.text(key!("observer.egress.interface.name"), port.as_bytes());
        }
    }
    if let Some((addr, mtls)) = data.upstream {
        line.address(key!("destination.ip"), Some(addr.ip()));
        line.number(key!("destination.port"), Some(u64::from(addr.port())));
        line.word(key!("labels.upstream_tls"), if mtls { "mtls" } else { "disabled" });
    }
    line.text(key!("labels.retry_reasons"), data.text(Text::RetryReasons));
    if data.over_budget {
        line.word(key!("labels.retry_refused"), "over_budget");
    }
    line.socket_address(key!("labels.ejected"), data.ejected);
    line.text(key!("labels.ejected_reason"), data.text(Text::EjectedFor));
    line.text(key!("labels.tls_alpn"), data.text(Text::Alpn));
    line.word(key!("error.type"), data.cause.map_or("", model::Cause::label));
    line.text(key!("error.message"), data.text(Text::Detail));
    line.end();
}
