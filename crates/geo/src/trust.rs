//! Whom we believe when they speak for another.

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU8;
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net};
use model::{SpiffeId, SpiffeIdError};

/// Who may name the caller. The default is nobody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Trust {
    /// Nobody: the socket's other end is the caller.
    #[default]
    Nobody,
    /// Those listed.
    Proxies(Proxies),
    /// Exactly this many proxies stand between the caller and us, whatever their addresses. Only safe where nobody can
    /// reach us around any of them.
    Hops(NonZeroU8),
}

impl Trust {
    /// Whether the party at the other end of this connection is trusted. An identity is what it proved by mutual TLS.
    pub(crate) fn covers_peer(&self, ip: IpAddr, identity: Option<&SpiffeId>) -> bool {
        match self {
            Self::Nobody => false,
            Self::Hops(_) => true,
            Self::Proxies(proxies) => proxies.contain(ip) || identity.is_some_and(|id| proxies.identify(id)),
        }
    }
}

/// Proxies by the networks they are in, and by the identities they prove. A hop further away can't prove an identity to us:
/// it is known by its address only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    networks: Vec<IpNet>,
    identities: Vec<IdentityPattern>,
}

impl Proxies {
    /// A network of IPv4-mapped addresses is taken for the IPv4 network it stands for, as addresses are
    /// ([`model::canonical_ip`]). An IPv6 network contains no IPv4 address, `::/0` included.
    pub fn new(
        networks: impl IntoIterator<Item = IpNet>,
        identities: impl IntoIterator<Item = IdentityPattern>,
    ) -> Self {
        Self {
            networks: networks.into_iter().map(canonical_network).collect(),
            identities: identities.into_iter().collect(),
        }
    }

    /// Whether the address is in one of the networks.
    pub(crate) fn contain(&self, ip: IpAddr) -> bool {
        self.networks.iter().any(|network| network.contains(&ip))
    }

    fn identify(&self, id: &SpiffeId) -> bool {
        self.identities.iter().any(|pattern| pattern.matches(id))
    }
}

fn canonical_network(network: IpNet) -> IpNet {
    if let IpNet::V6(v6) = network
        && let Some(v4) = v6.addr().to_ipv4_mapped()
        && let Some(prefix) = v6.prefix_len().checked_sub(96)
        && let Ok(v4) = Ipv4Net::new(v4, prefix)
    {
        return IpNet::V4(v4);
    }
    network
}

/// SPIFFE IDs by pattern: one, such as `spiffe://prod.example.org/ns/ingress/sa/nginx`, or with `/*` at the end all whose
/// path goes on from there by one or more segments.
#[derive(Clone, Debug, PartialEq, Eq)]
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

    #[test]
    fn a_mapped_network_is_its_ipv4_network_and_families_stay_apart() {
        let proxies = |network: &str| Proxies::new([network.parse().unwrap()], []);
        for (network, ip, expected) in [
            ("::ffff:10.0.0.0/104", "10.1.2.3", true),
            ("::ffff:10.0.0.0/104", "11.1.2.3", false),
            ("10.0.0.0/8", "10.255.255.255", true),
            ("10.0.0.7/8", "10.9.9.9", true),
            ("::/0", "10.1.2.3", false),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("2001:db8::/32", "2001:db8:ffff::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
        ] {
            assert_eq!(proxies(network).contain(ip.parse().unwrap()), expected, "{network} {ip}");
        }
    }
}
