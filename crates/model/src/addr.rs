//! Addresses by the role they play, so that no two can be confused.

use std::fmt;
use std::io::Write;
use std::net::{IpAddr, SocketAddr};

/// The other end of the socket we hold: the direct peer, who may be a load balancer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PeerAddr(SocketAddr);

impl PeerAddr {
    /// Takes a socket's address as the kernel gave it; an IPv4-mapped IPv6 address becomes the IPv4 address it stands for
    /// (RFC 4291, 2.5.5.2), so that one host has one spelling whatever the listener's family.
    pub fn new(addr: SocketAddr) -> Self {
        Self(SocketAddr::new(canonical_ip(addr.ip()), addr.port()))
    }

    /// The peer's address, never IPv4-mapped.
    pub fn ip(&self) -> IpAddr {
        self.0.ip()
    }

    /// The peer's port.
    pub fn port(&self) -> u16 {
        self.0.port()
    }
}

impl fmt::Display for PeerAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Appends an address in its usual spelling: each request's stands in its log line and in what the app is told, and the standard
/// library takes its time for padding that nobody asks for.
pub fn write_ip(out: &mut Vec<u8>, ip: IpAddr) {
    let IpAddr::V4(ip) = ip else {
        // Writing into memory does not fail.
        return drop(write!(out, "{ip}"));
    };
    // `255.255.255.255.`, gathered before it is appended.
    let (mut text, mut end) = ([0; 16], 0);
    for octet in ip.octets() {
        let (digits, length) = &OCTETS[usize::from(octet)];
        text[end..end + 4].copy_from_slice(digits);
        end += usize::from(*length);
    }
    out.extend_from_slice(&text[..end - 1]);
}

/// The decimal digits of each byte and a dot, and how many these are.
static OCTETS: [([u8; 4], u8); 256] = {
    let mut octets = [([b'.'; 4], 0); 256];
    let mut octet = 0;
    while octet < 256 {
        let (digits, length) = &mut octets[octet];
        let mut divisor = if octet >= 100 {
            100
        } else if octet >= 10 {
            10
        } else {
            1
        };
        while divisor > 0 {
            digits[*length as usize] = b'0' + (octet / divisor % 10) as u8;
            *length += 1;
            divisor /= 10;
        }
        *length += 1;
        octet += 1;
    }
    octets
};

/// Appends an address and its port as the standard library spells them, for the same reason.
pub fn write_socket_addr(out: &mut Vec<u8>, addr: SocketAddr) {
    let SocketAddr::V4(addr) = addr else {
        return drop(write!(out, "{addr}"));
    };
    write_ip(out, IpAddr::V4(*addr.ip()));
    out.push(b':');
    let port = addr.port();
    let digits = [port / 10_000, port / 1000 % 10, port / 100 % 10, port / 10 % 10, port % 10];
    let leading = digits.iter().take(4).take_while(|digit| **digit == 0).count();
    out.extend(digits[leading..].iter().map(|digit| b'0' + *digit as u8));
}

/// Whom we hold to be the caller: the peer, or whoever a trusted party named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientAddr {
    /// The caller's address, never IPv4-mapped and without a zone.
    pub ip: IpAddr,
    /// The caller's port, where whoever named the caller gave one.
    pub port: Option<u16>,
    /// Who told us.
    pub source: AddressSource,
}

impl ClientAddr {
    /// The peer itself: what we know when nobody is trusted to speak for another.
    pub fn from_peer(peer: PeerAddr) -> Self {
        Self { ip: peer.ip(), port: Some(peer.port()), source: AddressSource::Socket }
    }
}

/// Where a client address was learnt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AddressSource {
    /// The socket's other end.
    Socket,
    /// A PROXY protocol header from a trusted source.
    ProxyProtocol,
    /// `X-Forwarded-For` of a trusted hop.
    XForwardedFor,
    /// `Forwarded` (RFC 7239) of a trusted hop.
    Forwarded,
}

impl AddressSource {
    /// The name used in logs: `socket`, `proxy_protocol`, `x_forwarded_for` or `forwarded`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Socket => "socket",
            Self::ProxyProtocol => "proxy_protocol",
            Self::XForwardedFor => "x_forwarded_for",
            Self::Forwarded => "forwarded",
        }
    }
}

/// Which way traffic flows, as the app sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Towards the app.
    Inbound,
    /// From the app.
    Outbound,
}

impl Direction {
    /// `inbound` or `outbound`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        }
    }
}

/// An IPv4-mapped IPv6 address as the IPv4 address it stands for (RFC 4291, 2.5.5.2); any other as it is.
pub fn canonical_ip(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(ip, IpAddr::V4),
        IpAddr::V4(_) => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_written_as_the_standard_library_does() {
        let octets = (0..=255).map(|octet: u8| IpAddr::from([octet, 255 - octet, octet / 2, octet.wrapping_mul(7)]));
        let others = ["::1", "2001:db8::7", "::ffff:192.0.2.7"].map(|ip| ip.parse().unwrap());
        for ip in octets.chain(others) {
            let mut out = Vec::new();
            write_ip(&mut out, ip);
            assert_eq!(out, ip.to_string().as_bytes());
        }
    }

    #[test]
    fn a_socket_address_is_written_as_the_standard_library_does() {
        let ports = [0, 1, 9, 10, 99, 100, 999, 1000, 9999, 10_000, 65_535];
        let v4 = ports.map(|port| SocketAddr::from(([192, 0, 2, 7], port)));
        let v6 = ["[2001:db8::7]:443", "[fe80::1%3]:80"].map(|addr| addr.parse().unwrap());
        for addr in v4.into_iter().chain(v6) {
            let mut out = Vec::new();
            write_socket_addr(&mut out, addr);
            assert_eq!(out, addr.to_string().as_bytes());
        }
    }

    #[test]
    fn an_ipv4_mapped_peer_is_its_ipv4_address() {
        let peer = PeerAddr::new("[::ffff:192.0.2.7]:443".parse().unwrap());
        assert_eq!(peer.to_string(), "192.0.2.7:443");
        assert_eq!(ClientAddr::from_peer(peer).ip, IpAddr::from([192, 0, 2, 7]));
    }

    #[test]
    fn an_ipv4_compatible_address_is_not_taken_for_ipv4() {
        let ip: IpAddr = "::192.0.2.7".parse().unwrap();
        assert_eq!(canonical_ip(ip), ip);
    }
}
