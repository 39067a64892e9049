//! The header fields a stage may see or edit, by name. Engines classify every field line once.

/// A header field that some stage reads, sets or guards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[allow(missing_docs)] // The names are the fields' own.
pub enum FieldName {
    XForwardedFor,
    XForwardedProto,
    /// Any other `x-forwarded-*`.
    XForwardedOther,
    XForwardedClientCert,
    Forwarded,
    XRealIp,
    XClientGeo,
    XOutrigger,
    Traceparent,
    Tracestate,
    XRequestId,
    ProxyAuthorization,
    UserAgent,
    Referer,
    ContentType,
}

impl FieldName {
    /// Classifies a field name. ASCII case does not count, and `_` counts as `-`: many app servers (CGI, WSGI) read both as
    /// one name, so that a forged `X_Forwarded_For` must be guarded like the real one. Every `x-client-geo-*` is
    /// [`FieldName::XClientGeo`], every `x-outrigger-*` [`FieldName::XOutrigger`].
    pub fn of(name: &[u8]) -> Option<Self> {
        // Most fields begin like none that is known.
        let first = name.first()?.to_ascii_lowercase();
        if !matches!(first, b'x' | b'f' | b't' | b'u' | b'c' | b'r' | b'p') {
            return None;
        }
        match name.len() {
            7 if is(name, b"referer") => Some(Self::Referer),
            9 if is(name, b"forwarded") => Some(Self::Forwarded),
            9 if is(name, b"x-real-ip") => Some(Self::XRealIp),
            10 if is(name, b"user-agent") => Some(Self::UserAgent),
            10 if is(name, b"tracestate") => Some(Self::Tracestate),
            11 if is(name, b"traceparent") => Some(Self::Traceparent),
            12 if is(name, b"x-request-id") => Some(Self::XRequestId),
            12 if is(name, b"content-type") => Some(Self::ContentType),
            15 if is(name, b"x-forwarded-for") => Some(Self::XForwardedFor),
            17 if is(name, b"x-forwarded-proto") => Some(Self::XForwardedProto),
            19 if is(name, b"proxy-authorization") => Some(Self::ProxyAuthorization),
            23 if is(name, b"x-forwarded-client-cert") => Some(Self::XForwardedClientCert),
            _ if first == b'x' => Self::of_family(name),
            _ => None,
        }
    }

    fn of_family(name: &[u8]) -> Option<Self> {
        if begins(name, b"x-forwarded-") {
            Some(Self::XForwardedOther)
        } else if begins(name, b"x-client-geo-") {
            Some(Self::XClientGeo)
        } else if begins(name, b"x-outrigger-") {
            Some(Self::XOutrigger)
        } else {
            None
        }
    }
}

/// Whether a name is this one, ASCII case aside and `_` taken for `-`; `lower` is in lower case.
fn is<const N: usize>(name: &[u8], lower: &[u8; N]) -> bool {
    name.len() == N && name.iter().zip(lower).all(|(&n, &l)| n.to_ascii_lowercase() == l || (n == b'_' && l == b'-'))
}

/// Whether a name begins like this and goes on.
fn begins<const N: usize>(name: &[u8], prefix: &[u8; N]) -> bool {
    name.len() > N && is(&name[..N], prefix)
}

/// A set of [`FieldName`]s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FieldSet(u32);

impl FieldSet {
    /// The set of these names.
    pub const fn of(names: &[FieldName]) -> Self {
        let (mut bits, mut i) = (0, 0);
        while i < names.len() {
            bits |= 1 << names[i] as u8;
            i += 1;
        }
        Self(bits)
    }

    /// Adds one name.
    pub fn insert(&mut self, name: FieldName) {
        self.0 |= 1 << name as u8;
    }

    /// Adds every name of another set.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether the sets have a name in common.
    pub const fn overlaps(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether the name is in the set.
    pub const fn contains(self, name: FieldName) -> bool {
        self.0 & (1 << name as u8) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_in_any_spelling_an_app_might_merge() {
        let table: &[(&[u8], Option<FieldName>)] = &[
            (b"X-Forwarded-For", Some(FieldName::XForwardedFor)),
            (b"x_forwarded_for", Some(FieldName::XForwardedFor)),
            (b"X-Forwarded_FOR", Some(FieldName::XForwardedFor)),
            (b"x-forwarded-proto", Some(FieldName::XForwardedProto)),
            (b"X-FORWARDED-HOST", Some(FieldName::XForwardedOther)),
            (b"x-forwarded-port", Some(FieldName::XForwardedOther)),
            (b"X-Forwarded-Client-Cert", Some(FieldName::XForwardedClientCert)),
            (b"Forwarded", Some(FieldName::Forwarded)),
            (b"X-Real-IP", Some(FieldName::XRealIp)),
            (b"X-Client-Geo-Country", Some(FieldName::XClientGeo)),
            (b"x_client_geo_anything", Some(FieldName::XClientGeo)),
            (b"x-outrigger-error", Some(FieldName::XOutrigger)),
            (b"Traceparent", Some(FieldName::Traceparent)),
            (b"tracestate", Some(FieldName::Tracestate)),
            (b"User-Agent", Some(FieldName::UserAgent)),
            (b"Referer", Some(FieldName::Referer)),
            (b"Proxy-Authorization", Some(FieldName::ProxyAuthorization)),
            (b"content-type", Some(FieldName::ContentType)),
            (b"X-Request-ID", Some(FieldName::XRequestId)),
            (b"x_forwarded_Prefix", Some(FieldName::XForwardedOther)),
            (b"x-forwarded-", None),
            (b"x-client-geo-", None),
            (b"", None),
            (b"host", None),
            (b"cookie", None),
        ];
        for (name, expected) in table {
            assert_eq!(FieldName::of(name), *expected, "{}", String::from_utf8_lossy(name));
        }
    }

    #[test]
    fn a_set_holds_what_was_put_in() {
        let mut set = FieldSet::of(&[FieldName::XForwardedFor, FieldName::ContentType]);
        assert!(set.contains(FieldName::XForwardedFor) && set.contains(FieldName::ContentType));
        assert!(!set.contains(FieldName::Forwarded));
        set.insert(FieldName::Forwarded);
        assert!(set.contains(FieldName::Forwarded));
    }
}
