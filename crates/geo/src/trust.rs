//! Whom we believe when they speak for another.

use std::net::IpAddr;
use std::num::NonZeroU8;

use ipnet::IpNet;
use model::{IdentityPattern, Networks, SpiffeId};

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
    networks: Networks,
    identities: Vec<IdentityPattern>,
}

impl Proxies {
    /// A network of IPv4-mapped addresses is taken for the IPv4 network it stands for, as addresses are
    /// ([`model::canonical_ip`]). An IPv6 network contains no IPv4 address, `::/0` included.
    pub fn new(
        networks: impl IntoIterator<Item = IpNet>,
        identities: impl IntoIterator<Item = IdentityPattern>,
    ) -> Self {
        Self { networks: Networks::new(networks), identities: identities.into_iter().collect() }
    }

    /// Whether the address is in one of the networks.
    pub(crate) fn contain(&self, ip: IpAddr) -> bool {
        self.networks.contain(ip)
    }

    fn identify(&self, id: &SpiffeId) -> bool {
        self.identities.iter().any(|pattern| pattern.matches(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
