//! Networks as addresses are: one spelling each.

use ipnet::{IpNet, Ipv4Net};

/// A network of IPv4-mapped addresses as the IPv4 network it stands for, as [`canonical_ip`](crate::canonical_ip) has
/// addresses; any other as it is.
pub fn canonical_network(network: IpNet) -> IpNet {
    if let IpNet::V6(v6) = network
        && let Some(v4) = v6.addr().to_ipv4_mapped()
        && let Some(prefix) = v6.prefix_len().checked_sub(96)
        && let Ok(v4) = Ipv4Net::new(v4, prefix)
    {
        return IpNet::V4(v4);
    }
    network
}
