//! SPIFFE IDs (the SPIFFE ID standard, section 2).

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// A SPIFFE ID such as `spiffe://prod.example.org/ns/shop/sa/payments`: cheap to clone, at most 2,048 bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpiffeId {
    text: Arc<str>,
    trust_domain_end: usize,
}

const SCHEME: &str = "spiffe://";
const MAX_BYTES: usize = 2048;
const MAX_TRUST_DOMAIN_BYTES: usize = 255;

impl SpiffeId {
    /// The trust domain, in lower case.
    pub fn trust_domain(&self) -> &str {
        &self.text[SCHEME.len()..self.trust_domain_end]
    }

    /// The path, empty or beginning with `/`.
    pub fn path(&self) -> &str {
        &self.text[self.trust_domain_end..]
    }

    /// The whole ID.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl FromStr for SpiffeId {
    type Err = SpiffeIdError;

    fn from_str(s: &str) -> Result<Self, SpiffeIdError> {
        if s.len() > MAX_BYTES {
            return Err(SpiffeIdError("is longer than 2,048 bytes"));
        }
        let rest = s.strip_prefix(SCHEME).ok_or(SpiffeIdError("does not begin with spiffe://"))?;
        let (trust_domain, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let domain_byte = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_');
        if trust_domain.is_empty()
            || trust_domain.len() > MAX_TRUST_DOMAIN_BYTES
            || !trust_domain.bytes().all(domain_byte)
        {
            return Err(SpiffeIdError("has a trust domain that is not 1 to 255 of a-z 0-9 . - _"));
        }
        let segment_byte = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
        let segment = |s: &str| !s.is_empty() && s != "." && s != ".." && s.bytes().all(segment_byte);
        if !path.is_empty() && !path[1..].split('/').all(segment) {
            return Err(SpiffeIdError("has an empty, relative or illegal path segment"));
        }
        Ok(Self { text: s.into(), trust_domain_end: SCHEME.len() + trust_domain.len() })
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Why a text is not a SPIFFE ID; reads on from "the SPIFFE ID ...".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpiffeIdError(&'static str);

impl fmt::Display for SpiffeIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for SpiffeIdError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_ids_come_apart() {
        let id: SpiffeId = "spiffe://prod.example.org/ns/shop/sa/payments".parse().unwrap();
        assert_eq!((id.trust_domain(), id.path()), ("prod.example.org", "/ns/shop/sa/payments"));
        let bare: SpiffeId = "spiffe://example".parse().unwrap();
        assert_eq!((bare.trust_domain(), bare.path()), ("example", ""));
    }

    #[test]
    fn bad_ids_are_refused() {
        let long = format!("spiffe://a/{}", "b".repeat(2048));
        for bad in [
            "",
            "spiffe://",
            "SPIFFE://a",
            "https://a/b",
            "spiffe://A/b",
            "spiffe://a/",
            "spiffe://a//b",
            "spiffe://a/./b",
            "spiffe://a/../b",
            "spiffe://a/b/",
            "spiffe://a:80/b",
            "spiffe://u@a/b",
            "spiffe://a/b?c",
            "spiffe://a/b#c",
            "spiffe://a/%41",
            "spiffe:///b",
            "spiffe://a/b c",
            &long,
        ] {
            assert!(bad.parse::<SpiffeId>().is_err(), "{bad}");
        }
    }
}
