//! SPIFFE IDs (the SPIFFE ID standard, section 2).

use std::borrow::Borrow;
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
        trust_domain.parse::<TrustDomain>()?;
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

/// A trust domain such as `prod.example.org`: 1 to 255 of `a-z 0-9 . - _` (the SPIFFE ID standard, 2.1).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrustDomain(Box<str>);

impl TrustDomain {
    /// Its name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TrustDomain {
    type Err = SpiffeIdError;

    fn from_str(s: &str) -> Result<Self, SpiffeIdError> {
        let byte = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_');
        if s.is_empty() || s.len() > MAX_TRUST_DOMAIN_BYTES || !s.bytes().all(byte) {
            return Err(SpiffeIdError("has a trust domain that is not 1 to 255 of a-z 0-9 . - _"));
        }
        Ok(Self(s.into()))
    }
}

impl Borrow<str> for TrustDomain {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// SPIFFE IDs by pattern: one, such as `spiffe://prod.example.org/ns/ingress/sa/nginx`, or with `/*` at the end all whose
/// path goes on from there by one or more segments.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct IdentityPattern {
    id: SpiffeId,
    below: bool,
}

impl IdentityPattern {
    /// Whether the pattern covers this ID.
    pub fn matches(&self, id: &SpiffeId) -> bool {
        if !self.below {
            return self.id == *id;
        }
        self.id.trust_domain() == id.trust_domain()
            && id.path().strip_prefix(self.id.path()).is_some_and(|rest| rest.starts_with('/'))
    }
}

impl FromStr for IdentityPattern {
    type Err = IdentityPatternError;

    fn from_str(text: &str) -> Result<Self, IdentityPatternError> {
        let (id, below) = match text.strip_suffix("/*") {
            Some(id) => (id, true),
            None => (text, false),
        };
        Ok(Self { id: id.parse().map_err(IdentityPatternError)?, below })
    }
}

impl fmt::Display for IdentityPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.id, if self.below { "/*" } else { "" })
    }
}

/// Why a text is no pattern of SPIFFE IDs; reads on from "the SPIFFE ID ...".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdentityPatternError(SpiffeIdError);

impl fmt::Display for IdentityPatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for IdentityPatternError {}

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

    #[test]
    fn a_pattern_covers_one_identity_or_all_below_a_path() {
        for (pattern, id, expected) in [
            ("spiffe://a/ns/x/sa/y", "spiffe://a/ns/x/sa/y", true),
            ("spiffe://a/ns/x/sa/y", "spiffe://a/ns/x/sa/yz", false),
            ("spiffe://a/ns/x/sa/y", "spiffe://b/ns/x/sa/y", false),
            ("spiffe://a/ns/x/*", "spiffe://a/ns/x/sa/y", true),
            ("spiffe://a/ns/x/*", "spiffe://a/ns/x", false),
            ("spiffe://a/ns/x/*", "spiffe://a/ns/xy/sa/y", false),
            ("spiffe://a/ns/x/*", "spiffe://ab/ns/x/y", false),
            ("spiffe://a/*", "spiffe://a/x", true),
            ("spiffe://a/*", "spiffe://a", false),
            ("spiffe://a", "spiffe://a", true),
        ] {
            let parsed: IdentityPattern = pattern.parse().unwrap();
            assert_eq!(parsed.to_string(), pattern);
            assert_eq!(parsed.matches(&id.parse().unwrap()), expected, "{pattern} {id}");
        }
    }

    #[test]
    fn a_star_stands_for_whole_segments_at_the_end_only() {
        for bad in ["", "*", "spiffe://*", "spiffe://a/x*", "spiffe://a/*/y", "spiffe://a/**", "spiffe://a/x/*/*"] {
            assert!(bad.parse::<IdentityPattern>().is_err(), "{bad}");
        }
    }
}
