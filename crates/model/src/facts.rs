//! What a stage may look at, and how it answers. No type here names an HTTP engine.

use crate::{ClientAddr, Direction, FieldName, FieldSet, PeerAddr, Place, SpiffeId};

/// The values of one header field, a line each, in the order received. The usual two need no memory of their own.
#[derive(Clone, Debug, Default)]
pub struct FieldLines<'a> {
    few: [&'a [u8]; 2],
    count: usize,
    /// All of them, once there are more than a few.
    many: Vec<&'a [u8]>,
}

impl<'a> FieldLines<'a> {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a line's value.
    pub fn push(&mut self, value: &'a [u8]) {
        match self.few.get_mut(self.count) {
            Some(place) => *place = value,
            None if self.many.is_empty() => {
                self.many.extend(self.few);
                self.many.push(value);
            }
            None => self.many.push(value),
        }
        self.count += 1;
    }
}

impl<'a> std::ops::Deref for FieldLines<'a> {
    type Target = [&'a [u8]];

    fn deref(&self) -> &Self::Target {
        if self.many.is_empty() { &self.few[..self.count] } else { &self.many }
    }
}

/// A request head as an engine read it.
#[derive(Clone, Debug)]
pub struct Head<'a> {
    /// The HTTP version the request came in.
    pub version: Version,
    /// Whether the request came over TLS.
    pub scheme: Scheme,
    /// The method, a token (RFC 9110, 9.1).
    pub method: &'a str,
    /// Host and optional port as sent; empty where HTTP/1.0 sent none.
    pub authority: &'a str,
    /// The path as sent, without the query: `/...`, or `*` for `OPTIONS *`.
    pub path: &'a str,
    /// What follows the first `?`.
    pub query: Option<&'a str>,
    /// Every `X-Forwarded-For` line.
    pub x_forwarded_for: FieldLines<'a>,
    /// Every `Forwarded` line (RFC 7239).
    pub forwarded: FieldLines<'a>,
    /// `X-Forwarded-Proto`, where it came exactly once.
    pub x_forwarded_proto: Option<&'a [u8]>,
    /// `traceparent` (W3C Trace Context), where it came exactly once: several are as good as none.
    pub traceparent: Option<&'a [u8]>,
    /// `X-Request-ID`, where it came exactly once.
    pub x_request_id: Option<&'a [u8]>,
    /// The first `User-Agent`.
    pub user_agent: Option<&'a [u8]>,
    /// The first `Referer`.
    pub referer: Option<&'a [u8]>,
    /// The first `Content-Type`.
    pub content_type: Option<&'a [u8]>,
    /// Which known fields it has, whatever came of them.
    pub fields: FieldSet,
}

impl<'a> Head<'a> {
    /// A head without fields; the engine adds those it finds with [`Head::add`].
    pub fn new(version: Version, scheme: Scheme, method: &'a str, authority: &'a str, path: &'a str) -> Self {
        Self {
            version,
            scheme,
            method,
            authority,
            path,
            query: None,
            x_forwarded_for: FieldLines::new(),
            forwarded: FieldLines::new(),
            x_forwarded_proto: None,
            traceparent: None,
            x_request_id: None,
            user_agent: None,
            referer: None,
            content_type: None,
            fields: FieldSet::default(),
        }
    }

    /// Notes one field line. A second line of a field that must be single takes the first away.
    pub fn add(&mut self, name: FieldName, value: &'a [u8]) {
        let again = self.fields.contains(name);
        self.fields.insert(name);
        let single = |slot: &mut Option<&'a [u8]>| *slot = if again { None } else { Some(value) };
        match name {
            FieldName::XForwardedFor => self.x_forwarded_for.push(value),
            FieldName::Forwarded => self.forwarded.push(value),
            FieldName::XForwardedProto => single(&mut self.x_forwarded_proto),
            FieldName::Traceparent => single(&mut self.traceparent),
            FieldName::XRequestId => single(&mut self.x_request_id),
            FieldName::UserAgent => drop(self.user_agent.get_or_insert(value)),
            FieldName::Referer => drop(self.referer.get_or_insert(value)),
            FieldName::ContentType => drop(self.content_type.get_or_insert(value)),
            FieldName::XForwardedOther
            | FieldName::XForwardedClientCert
            | FieldName::XRealIp
            | FieldName::XClientGeo
            | FieldName::XOutrigger
            | FieldName::ProxyAuthorization
            | FieldName::Tracestate => {}
        }
    }

    /// Whether this is a gRPC call: HTTP/2 with a content type of `application/grpc`, alone or with a suffix or parameter.
    pub fn is_grpc(&self) -> bool {
        const GRPC: &[u8] = b"application/grpc";
        self.version == Version::Http2
            && self.content_type.is_some_and(|t| {
                t.get(..GRPC.len()).is_some_and(|start| start.eq_ignore_ascii_case(GRPC))
                    && matches!(t.get(GRPC.len()), None | Some(b'+' | b';' | b' '))
            })
    }
}

/// All that a decision about a request may look at, so that the decision is a pure function.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// Which way the request goes.
    pub direction: Direction,
    /// What was asked; nothing that could be read on an opaque connection.
    pub head: Option<&'a Head<'a>>,
    /// The socket's other end.
    pub peer: PeerAddr,
    /// The identity the peer proved by mutual TLS.
    pub identity: Option<&'a SpiffeId>,
    /// Whom we hold to be the caller.
    pub client: ClientAddr,
    /// Where the caller is.
    pub place: &'a Place,
}

/// What the stages want changed in the head before it goes on: fields to drop and fields to set. Reused from request to
/// request; [`Edits::clear`] keeps the memory.
#[derive(Debug, Default)]
pub struct Edits {
    removed: FieldSet,
    values: Vec<u8>,
    set: Vec<(&'static str, usize, usize)>,
}

impl Edits {
    /// Forgets every edit.
    pub fn clear(&mut self) {
        self.removed = FieldSet::default();
        self.values.clear();
        self.set.clear();
    }

    /// Drops every line of these fields as received.
    pub fn remove(&mut self, names: FieldSet) {
        self.removed = self.removed.union(names);
    }

    /// Whether lines of this field are to be dropped.
    pub fn removes(&self, name: FieldName) -> bool {
        self.removed.contains(name)
    }

    /// Whether lines of any of these fields are to be dropped.
    pub fn removes_any(&self, names: FieldSet) -> bool {
        self.removed.overlaps(names)
    }

    /// Adds a field line; `write` appends its value. The name is in lower case and the value must be a legal field value
    /// (RFC 9110, 5.5): what `write` copies from a request was checked by the engine that read it.
    pub fn set(&mut self, name: &'static str, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.values.len();
        write(&mut self.values);
        self.set.push((name, start, self.values.len()));
    }

    /// The field lines to add, in the order they were set.
    pub fn added(&self) -> impl Iterator<Item = (&'static str, &[u8])> {
        self.set.iter().map(|&(name, start, end)| (name, &self.values[start..end]))
    }
}

/// An HTTP version, by what it means on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1.
    Http11,
    /// HTTP/2.
    Http2,
}

impl Version {
    /// OpenTelemetry's `network.protocol.version`: `1.0`, `1.1` or `2`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http10 => "1.0",
            Self::Http11 => "1.1",
            Self::Http2 => "2",
        }
    }
}

/// Whether the caller's connection was encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Plaintext.
    Http,
    /// TLS.
    Https,
}

impl Scheme {
    /// `http` or `https`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(version: Version, content_type: &'static [u8]) -> Head<'static> {
        let mut head = Head::new(version, Scheme::Http, "POST", "a", "/");
        head.add(FieldName::ContentType, content_type);
        head
    }

    #[test]
    fn grpc_is_known_by_version_and_content_type() {
        for (content_type, grpc) in [
            (&b"application/grpc"[..], true),
            (b"application/grpc+proto", true),
            (b"Application/gRPC; charset=utf-8", true),
            (b"application/grpc-web", false),
            (b"application/json", false),
            (b"", false),
        ] {
            assert_eq!(head(Version::Http2, content_type).is_grpc(), grpc);
            assert!(!head(Version::Http11, content_type).is_grpc());
        }
    }

    #[test]
    fn a_field_that_must_be_single_counts_for_nothing_when_repeated() {
        let mut head = Head::new(Version::Http11, Scheme::Http, "GET", "a", "/");
        for value in [&b"one"[..], b"two", b"three"] {
            head.add(FieldName::XRequestId, value);
            head.add(FieldName::XForwardedFor, value);
            head.add(FieldName::UserAgent, value);
        }
        assert_eq!(head.x_request_id, None);
        assert_eq!(head.x_forwarded_for.len(), 3);
        assert_eq!(head.user_agent, Some(&b"one"[..]));
        assert!(head.fields.contains(FieldName::XRequestId) && !head.fields.contains(FieldName::Referer));
    }

    #[test]
    fn edits_come_back_in_order_and_are_gone_after_clear() {
        let mut edits = Edits::default();
        edits.remove(FieldSet::of(&[FieldName::Forwarded]));
        edits.set("x-forwarded-for", |v| v.extend_from_slice(b"192.0.2.1"));
        edits.set("x-forwarded-proto", |v| v.extend_from_slice(b"http"));
        assert!(edits.removes(FieldName::Forwarded) && !edits.removes(FieldName::XForwardedFor));
        assert!(edits.removes_any(FieldSet::of(&[FieldName::Referer, FieldName::Forwarded])));
        assert!(!edits.removes_any(FieldSet::of(&[FieldName::Referer, FieldName::XForwardedFor])));
        let added: Vec<_> = edits.added().collect();
        assert_eq!(added, [("x-forwarded-for", &b"192.0.2.1"[..]), ("x-forwarded-proto", b"http")]);
        edits.clear();
        assert_eq!(edits.added().count(), 0);
        assert!(!edits.removes(FieldName::Forwarded));
    }
}
