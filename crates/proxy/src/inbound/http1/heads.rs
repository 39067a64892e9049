//! Heads rewritten: what came in, with the stages' edits, becomes what goes out. Lines that stay are copied as they are.

use h1::{Body, Field, RequestHead, ResponseHead, Role, Version};
use model::{Edits, FieldName, Head, Scheme};

use super::pump::Recode;
use crate::outbound::Route;

/// The facts of a parsed request head that came in plaintext or through TLS.
pub(super) fn facts<'b>(request: &RequestHead, bytes: &'b [u8], scheme: Scheme) -> Head<'b> {
    let version = match request.version() {
        Version::Http10 => model::Version::Http10,
        Version::Http11 => model::Version::Http11,
    };
    let method = request.method_str(bytes);
    let (path, query) = request.path_and_query(bytes);
    let mut head = Head::new(version, scheme, method, request.authority(bytes), path);
    head.query = query;
    for field in request.fields(bytes) {
        if let Some(name) = FieldName::of(field.name) {
            head.add(name, field.value);
        }
    }
    head
}

/// The request as the app gets it: HTTP/1.1 in origin-form, end-to-end fields only, edits applied.
pub(super) fn write_request(
    out: &mut Vec<u8>,
    request: &RequestHead,
    bytes: &[u8],
    facts: &Head<'_>,
    edits: &Edits,
    route: &Route,
) {
    let port = &route.port;
    out.extend_from_slice(facts.method.as_bytes());
    out.push(b' ');
    out.extend_from_slice(facts.path.as_bytes());
    if let Some(query) = facts.query {
        out.push(b'?');
        out.extend_from_slice(query.as_bytes());
    }
    out.extend_from_slice(b" HTTP/1.1\r\nhost: ");
    match facts.authority {
        // HTTP/1.0 need not name a host, HTTP/1.1 must (RFC 9112, 3.2).
        "" => out.extend_from_slice(port.host(&route.default_host()).as_bytes()),
        authority => out.extend_from_slice(port.host(authority).as_bytes()),
    }
    out.extend_from_slice(b"\r\n");
    let edited = edits.removes_any(facts.fields);
    copy_fields(out, bytes, request.fields(bytes), |field| match field.role {
        Role::HopByHop | Role::Host => false,
        Role::Expect => request.expects_continue(),
        _ => !(edited && FieldName::of(field.name).is_some_and(|name| edits.removes(name))),
    });
    for (name, value) in edits.added() {
        h1::encode::field(out, name.as_bytes(), value);
    }
    if request.body() == Body::Chunked {
        out.extend_from_slice(b"transfer-encoding: chunked\r\n");
    }
    if let Some(protocol) = upgrade(request, bytes) {
        out.extend_from_slice(b"connection: upgrade\r\n");
        h1::encode::field(out, b"upgrade", protocol);
    }
    out.extend_from_slice(b"\r\n");
}

/// The upgrade a caller asks for and may have. `h2c` is not passed on: the app would switch to bytes we have not read
/// (and HTTP/2 has no such upgrade any more, RFC 9113, 3.1).
pub(super) fn upgrade<'b>(request: &RequestHead, bytes: &'b [u8]) -> Option<&'b [u8]> {
    let offered = request.upgrade(bytes)?;
    let h2c = offered.split(|&b| b == b',').any(|one| one.trim_ascii().eq_ignore_ascii_case(b"h2c"));
    (!h2c).then_some(offered)
}

/// How an answer goes back to the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Return {
    /// How the body is framed towards the caller.
    pub(super) recode: Recode,
    /// Whether the end of the connection is the end of the body.
    pub(super) until_close: bool,
    /// Whether the caller's connection closes after the answer.
    pub(super) close: bool,
    /// Whether the caller speaks HTTP/1.0 and is to keep its connection, which it must be told.
    pub(super) keep_http10: bool,
}

impl Return {
    /// Decides how to send an answer of this framing to a caller of this version.
    pub(super) fn of(body: Body, caller: Version, keep_alive: bool) -> Self {
        let chunks = caller == Version::Http11;
        let unknown_length = matches!(body, Body::Chunked | Body::UntilClose);
        let until_close = unknown_length && !chunks;
        let close = until_close || !keep_alive;
        Self {
            recode: if unknown_length && chunks { Recode::Chunked } else { Recode::Plain },
            until_close,
            close,
            keep_http10: !close && caller == Version::Http10,
        }
    }

    /// What the caller is told of framing and of its connection.
    pub(super) fn write_fields(self, out: &mut Vec<u8>) {
        if self.recode == Recode::Chunked {
            out.extend_from_slice(b"transfer-encoding: chunked\r\n");
        }
        if self.close {
            out.extend_from_slice(b"connection: close\r\n");
        } else if self.keep_http10 {
            out.extend_from_slice(b"connection: keep-alive\r\n");
        }
    }
}

/// The final answer's head as the caller gets it.
pub(super) fn write_response(out: &mut Vec<u8>, response: &ResponseHead, bytes: &[u8], back: Return) {
    h1::encode::status_line(out, response.status(), Some(response.reason(bytes)));
    copy_fields(out, bytes, response.fields(bytes), |field| field.role != Role::HopByHop);
    back.write_fields(out);
    out.extend_from_slice(b"\r\n");
}

/// An informational answer, or the one that switches protocols, as the caller gets it.
pub(super) fn write_informational(out: &mut Vec<u8>, response: &ResponseHead, bytes: &[u8]) {
    h1::encode::status_line(out, response.status(), Some(response.reason(bytes)));
    copy_fields(out, bytes, response.fields(bytes), |field| {
        field.role != Role::HopByHop && field.role != Role::ContentLength
    });
    if let Some(protocol) = response.upgrade(bytes).filter(|_| response.status() == 101) {
        out.extend_from_slice(b"connection: upgrade\r\n");
        h1::encode::field(out, b"upgrade", protocol);
    }
    out.extend_from_slice(b"\r\n");
}

/// Copies the lines to keep, neighbours in one go.
fn copy_fields<'b>(
    out: &mut Vec<u8>,
    bytes: &'b [u8],
    fields: impl Iterator<Item = Field<'b>>,
    mut keep: impl FnMut(&Field<'b>) -> bool,
) {
    let mut kept = 0..0;
    for field in fields {
        if keep(&field) {
            if field.start != kept.end {
                out.extend_from_slice(&bytes[kept]);
                kept = field.start..field.end;
            }
            kept.end = field.end;
        }
    }
    out.extend_from_slice(&bytes[kept]);
}

/// Whether an answer is an event stream, which lives long by design.
pub(super) fn is_event_stream(response: &ResponseHead, bytes: &[u8]) -> bool {
    response
        .fields(bytes)
        .any(|field| field.name.eq_ignore_ascii_case(b"content-type") && crate::inbound::is_event_stream(field.value))
}

#[cfg(test)]
mod tests {
    #[test]
    fn lines_that_stay_are_copied_wherever_they_stand() {
        use super::*;
        let bytes = b"GET / HTTP/1.1\r\nHost: a\r\nb: 1\r\nC: 2\r\n\r\n";
        let mut head = RequestHead::new();
        head.parse(bytes, &h1::Limits::default()).unwrap().unwrap();
        let copied = |keep: &[&str]| {
            let mut out = Vec::new();
            let kept = |field: &Field<'_>| keep.iter().any(|name| name.as_bytes() == field.name);
            copy_fields(&mut out, bytes, head.fields(bytes), kept);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(copied(&["Host", "b", "C"]), "Host: a\r\nb: 1\r\nC: 2\r\n");
        assert_eq!(copied(&["b", "C"]), "b: 1\r\nC: 2\r\n");
        assert_eq!(copied(&["Host", "C"]), "Host: a\r\nC: 2\r\n");
        assert_eq!(copied(&["Host", "b"]), "Host: a\r\nb: 1\r\n");
        assert_eq!(copied(&["b"]), "b: 1\r\n");
        assert_eq!(copied(&[]), "");
    }
}
