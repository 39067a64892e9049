//! What every request goes through before it is forwarded, whatever engine read it: whose address, where is it, may it
//! pass, and what the app is told.

use std::io::Write;
use std::sync::Arc;

use geo::Resolved;
use model::{Cause, ClientAddr, Direction, Edits, Facts, Failure, FieldName, FieldSet, Head, Permit, Place, Policy};
use telemetry::Record;

use crate::config::{GeoHeaders, Port, RateLimit, Tls, Upstream};
use crate::inbound::caller::Who;
use crate::worker::Worker;

/// Headers only this proxy may tell the app. Outside requests that carry them are lying.
const OURS: FieldSet = FieldSet::of(&[FieldName::XForwardedClientCert, FieldName::XClientGeo, FieldName::XOutrigger]);
/// Headers that speak for a client. `X-Forwarded-For` and `-Proto` are replaced or continued; the others go unless the
/// peer may be believed.
const FORWARDING: FieldSet = FieldSet::of(&[
    FieldName::XForwardedFor,
    FieldName::XForwardedProto,
    FieldName::XForwardedOther,
    FieldName::Forwarded,
    FieldName::XRealIp,
]);
const CONTINUED: FieldSet = FieldSet::of(&[FieldName::XForwardedFor, FieldName::XForwardedProto]);
const TRACE: FieldSet = FieldSet::of(&[FieldName::Traceparent, FieldName::Tracestate]);

/// Takes a request through the stages; `edits` then says what is to change in its head.
pub(crate) fn admit(
    worker: &Worker,
    port: &Port,
    who: &Who,
    head: &Head<'_>,
    record: &mut Record,
    edits: &mut Edits,
) -> Result<Permit, Failure> {
    edits.clear();
    if port.direction == Direction::Outbound {
        return admit_outbound(worker, port, who, head, record, edits);
    }
    let resolved = geo::client_address(
        &port.address,
        who.peer,
        who.proxied,
        who.identity(),
        &head.x_forwarded_for,
        &head.forwarded,
    );
    let place = worker.lookup.borrow_mut().place(resolved.client.ip);
    let facts = Facts {
        direction: port.direction,
        head: Some(head),
        peer: who.peer,
        identity: who.identity(),
        client: resolved.client,
        place: &place,
    };
    record.facts(&facts);
    if !who.tls && !takes_plaintext(&port.tls, head) {
        return Err(Failure::new(Cause::TlsRequired, "plaintext where only TLS is taken"));
    }
    let permit = authorize(&port.policy, &facts, record)?;
    check_rates(&port.rate_limits, &facts, record)?;
    edits.remove(OURS);
    tell_peer(who, edits);
    tell_forwarding(&resolved, head, edits);
    tell_trace(head, record, edits);
    // One of the mesh has proven who it is, and its outrigger has made or kept the ID.
    tell_request_id(worker, resolved.trusted_peer || who.proven.is_some(), head, record, edits);
    tell_place(port.geo_headers, &place, edits);
    Ok(permit)
}

/// A call of the app's own on its way out: what only the mesh may see is not for the app to claim, nor for strangers to get.
fn admit_outbound(
    worker: &Worker,
    port: &Port,
    who: &Who,
    head: &Head<'_>,
    record: &mut Record,
    edits: &mut Edits,
) -> Result<Permit, Failure> {
    let client = client_of(who);
    let place = Place { scope: model::Scope::of(client.ip), ..Place::default() };
    let facts = Facts {
        direction: Direction::Outbound,
        head: Some(head),
        peer: who.peer,
        identity: None,
        client,
        place: &place,
    };
    record.facts(&facts);
    let permit = authorize(&port.policy, &facts, record)?;
    edits.remove(OURS);
    if who.meant.is_none() {
        // Said to us, as the app's proxy (RFC 9110, 11.7.2); whoever was called has no use for it.
        edits.remove(FieldSet::of(&[FieldName::ProxyAuthorization]));
    }
    tell_trace(head, record, edits);
    match port.upstream {
        // What is not ours goes as it is.
        Upstream::Meant => note_request_id(head, record),
        _ => tell_request_id(worker, true, head, record, edits),
    }
    Ok(permit)
}

/// Asks the policy, and has its denial told.
pub(crate) fn authorize(policy: &Policy, facts: &Facts<'_>, record: &mut Record) -> Result<Permit, Failure> {
    match policy.authorize(facts) {
        Ok((permit, denial)) => {
            if let Some(denial) = denial {
                record.denied(&denial.rule, false);
            }
            Ok(permit)
        }
        Err(denial) => {
            record.denied(&denial.rule, true);
            // The rule is for log and metric; the caller learns only that it is not allowed.
            Err(Failure::new(Cause::Denied, ""))
        }
    }
}

/// Takes the request's worth of every rate limit that counts it; the first that has none left refuses it.
fn check_rates(limits: &[Arc<RateLimit>], facts: &Facts<'_>, record: &mut Record) -> Result<(), Failure> {
    for limit in limits {
        if let Err(wait) = limit.take(facts) {
            record.denied(&limit.name, true);
            return Err(Failure::new(Cause::RateLimited, format!("again in {} s", wait.as_secs() + 1)));
        }
    }
    Ok(())
}

/// Whether a request may come in plaintext: a probe of a listed path may under strict mutual TLS, and only as it is listed.
fn takes_plaintext(tls: &Tls, head: &Head<'_>) -> bool {
    match tls {
        Tls::Disabled | Tls::Permissive => true,
        Tls::Strict { plaintext_paths } => {
            matches!(head.method, "GET" | "HEAD") && plaintext_paths.iter().any(|path| path == head.path)
        }
        Tls::Server(_) => false,
    }
}

/// `x-forwarded-client-cert` in Envoy's format: the one caller whose proof we saw. What came in was somebody's claim.
fn tell_peer(who: &Who, edits: &mut Edits) {
    if let Some(proven) = &who.proven {
        edits.set("x-forwarded-client-cert", |value| value.extend_from_slice(proven.forwarded.as_bytes()));
    }
}

/// `X-Forwarded-For` and `X-Forwarded-Proto`: continued behind a trusted peer, else begun with what we know ourselves.
fn tell_forwarding(resolved: &Resolved, head: &Head<'_>, edits: &mut Edits) {
    let believed = resolved.trusted_peer;
    edits.remove(if believed { CONTINUED } else { FORWARDING });
    edits.set("x-forwarded-for", |value| {
        if believed {
            for line in head.x_forwarded_for.iter() {
                value.extend_from_slice(line);
                value.extend_from_slice(b", ");
            }
        }
        model::write_ip(value, resolved.nearest.ip);
    });
    let told = head.x_forwarded_proto.filter(|proto| believed && matches!(*proto, b"http" | b"https"));
    edits.set("x-forwarded-proto", |value| value.extend_from_slice(told.unwrap_or(head.scheme.as_str().as_bytes())));
}

/// W3C Trace Context: a valid `traceparent` passes as it is and is logged; an invalid one is dropped with its
/// `tracestate`. None is invented: this hop records no span, and flags made up here would decide the app's sampling.
fn tell_trace(head: &Head<'_>, record: &mut Record, edits: &mut Edits) {
    match head.traceparent.and_then(parse_traceparent) {
        Some((trace_id, parent_id)) => record.trace(trace_id, parent_id),
        None => edits.remove(TRACE),
    }
}

/// `X-Request-ID`: a trusted peer's is kept if it is sane, any other replaced by a random UUID.
fn tell_request_id(worker: &Worker, believed: bool, head: &Head<'_>, record: &mut Record, edits: &mut Edits) {
    let sane = |id: &&[u8]| !id.is_empty() && id.len() <= 128 && id.iter().all(u8::is_ascii_graphic);
    if let Some(id) = head.x_request_id.filter(|_| believed).filter(sane) {
        return record.request_id(id);
    }
    edits.remove(FieldSet::of(&[FieldName::XRequestId]));
    let id = uuid_v4(worker.random.borrow_mut().u128(..));
    edits.set("x-request-id", |value| value.extend_from_slice(&id));
    record.request_id(&id);
}

/// A request ID of the app's own making, for the log.
fn note_request_id(head: &Head<'_>, record: &mut Record) {
    if let Some(id) = head.x_request_id {
        record.request_id(id);
    }
}

/// `x-client-geo-*` as configured; an absent header says that it is not known.
fn tell_place(told: GeoHeaders, place: &Place, edits: &mut Edits) {
    if let Some(country) = place.country.filter(|_| told.country) {
        edits.set("x-client-geo-country", |value| value.extend_from_slice(country.as_str().as_bytes()));
    }
    let texts = [("x-client-geo-region", told.region, &place.region), ("x-client-geo-city", told.city, &place.city)];
    for (name, wanted, text) in texts {
        if let Some(text) = text.as_deref().filter(|_| wanted) {
            edits.set(name, |value| value.extend(text.bytes().filter(|b| !b.is_ascii_control())));
        }
    }
    if let Some(asn) = place.asn.filter(|_| told.asn) {
        edits.set("x-client-geo-asn", |value| drop(write!(value, "{asn}")));
    }
}

/// `version-traceid-parentid-flags` (W3C Trace Context, 3.2): ids in lower-case hex and not all zero. Versions to come may
/// say more behind a further `-`.
fn parse_traceparent(value: &[u8]) -> Option<([u8; 16], [u8; 8])> {
    let version = hex::<1>(value.get(..2)?)?;
    let dashes = [2, 35, 52].iter().all(|&i| value.get(i) == Some(&b'-'));
    let trace_id = hex::<16>(value.get(3..35)?)?;
    let parent_id = hex::<8>(value.get(36..52)?)?;
    hex::<1>(value.get(53..55)?)?;
    let length = match version {
        [0xff] => return None,
        [0] => value.len() == 55,
        _ => value.len() == 55 || value.get(55) == Some(&b'-'),
    };
    (dashes && length && trace_id != [0; 16] && parent_id != [0; 8]).then_some((trace_id, parent_id))
}

fn hex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let nibble = |b: u8| match b {
        b'0'..=b'9' => Some(b - b'0'),
        b'a'..=b'f' => Some(b - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Some(bytes)
}

/// A random UUID (RFC 9562, 5.4) in its usual spelling.
fn uuid_v4(random: u128) -> [u8; 36] {
    let bits = random & !(0xf << 76 | 0x3 << 62) | 0x4 << 76 | 0x2 << 62;
    // Where each byte's two digits stand; between them dashes.
    const PLACES: [usize; 16] = [0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34];
    let mut text = [b'-'; 36];
    for (byte, place) in bits.to_be_bytes().into_iter().zip(PLACES) {
        let digit = |nibble: u8| b"0123456789abcdef"[usize::from(nibble)];
        (text[place], text[place + 1]) = (digit(byte >> 4), digit(byte & 0xf));
    }
    text
}

/// The client as the connection alone tells: where a request never got as far as a head, or the port carries no HTTP.
pub(crate) fn client_of(who: &Who) -> ClientAddr {
    match who.proxied {
        Some(source) => ClientAddr {
            ip: model::canonical_ip(source.ip()),
            port: Some(source.port()),
            source: model::AddressSource::ProxyProtocol,
        },
        None => ClientAddr::from_peer(who.peer),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_is_believed_only_in_its_exact_form() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let (trace_id, parent_id) = parse_traceparent(good.as_bytes()).unwrap();
        assert_eq!((trace_id[0], trace_id[15], parent_id[7]), (0x4b, 0x36, 0xb7));
        let later = "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more";
        assert!(parse_traceparent(later.as_bytes()).is_some());
        for bad in [
            "",
            "00",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0g",
            "00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01x",
        ] {
            assert_eq!(parse_traceparent(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn a_request_id_is_a_version_4_uuid() {
        assert_eq!(&uuid_v4(0), b"00000000-0000-4000-8000-000000000000");
        assert_eq!(&uuid_v4(u128::MAX), b"ffffffff-ffff-4fff-bfff-ffffffffffff");
    }
}
