//! `text`: NCSA combined with the proven identity for a user, then country (or scope), seconds, the cause of a failure, and
//! where a call of the app's own went.

use std::io::Write;

use model::{Scope, Version};

use super::object::seconds;
use super::{Moment, Text, escape, referer};
use crate::record::Data;
use crate::settings::{Privacy, QueryPrivacy};

pub(super) fn write(out: &mut Vec<u8>, privacy: &Privacy, moment: &Moment<'_>, data: &Data) {
    match privacy.address(data.client.ip) {
        Some(ip) => model::write_ip(out, ip),
        None => out.push(b'-'),
    }
    out.extend_from_slice(b" - ");
    // Who has proven to be calling stands where the format has the user.
    let identity = data.text(Text::Identity);
    escape::text(out, if identity.is_empty() { b"-" } else { identity });
    out.extend_from_slice(b" [");
    moment.clock.write_ncsa(out);
    out.extend_from_slice(b"] \"");
    if let Some(version) = data.version {
        escape::text(out, data.text(Text::Method));
        out.push(b' ');
        escape::text(out, data.text(Text::Path));
        if privacy.query == QueryPrivacy::Full && data.has_query() {
            out.push(b'?');
            escape::text(out, data.text(Text::Query));
        }
        let name = match version {
            Version::Http10 => " HTTP/1.0",
            Version::Http11 => " HTTP/1.1",
            Version::Http2 => " HTTP/2",
        };
        out.extend_from_slice(name.as_bytes());
    } else {
        out.push(b'-');
    }
    out.extend_from_slice(b"\" ");
    let mut digits = itoa::Buffer::new();
    out.extend_from_slice(digits.format(data.status()).as_bytes());
    out.push(b' ');
    out.extend_from_slice(digits.format(data.sent).as_bytes());
    for value in [referer(data, privacy), data.text(Text::UserAgent)] {
        out.extend_from_slice(b" \"");
        escape::text(out, if value.is_empty() { b"-" } else { value });
        out.push(b'"');
    }
    out.push(b' ');
    let place = match (&data.country, data.scope) {
        (Some(code), _) => code.as_str(),
        (None, Scope::Global) => "-",
        (None, scope) => scope.as_str(),
    };
    out.extend_from_slice(place.as_bytes());
    out.push(b' ');
    seconds(out, moment.took);
    out.push(b' ');
    out.extend_from_slice(data.cause.map_or("-", model::Cause::label).as_bytes());
    if let Some((addr, mtls)) = data.upstream {
        // Writing into memory does not fail.
        let _ = write!(out, " {addr} {}", if mtls { "mtls" } else { "disabled" });
    }
}
