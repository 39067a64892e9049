//! Where an address is.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Where an address is, as far as the geo database says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// What kind of address it is; only a [`Scope::Global`] one can have a country.
    pub scope: Scope,
    /// ISO 3166-1 alpha-2 country code.
    pub country: Option<Code>,
    /// ISO 3166-2 subdivision code without the country's prefix, such as `BY`.
    pub region: Option<Box<str>>,
    /// City name in English.
    pub city: Option<Box<str>>,
    /// Autonomous system number.
    pub asn: Option<u32>,
    /// The autonomous system's organization.
    pub organization: Option<Box<str>>,
}

/// A two-letter code in upper case.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Code([u8; 2]);

impl Code {
    /// From two ASCII letters in any case; anything else is no code.
    pub fn new(letters: [u8; 2]) -> Option<Self> {
        let upper = letters.map(|b| b.to_ascii_uppercase());
        upper.iter().all(u8::is_ascii_uppercase).then_some(Self(upper))
    }

    /// The code, two upper-case ASCII letters.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("??")
    }
}

impl FromStr for Code {
    type Err = ();

    fn from_str(s: &str) -> Result<Self, ()> {
        <[u8; 2]>::try_from(s.as_bytes()).ok().and_then(Self::new).ok_or(())
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What kind of address it is, after IANA's special-purpose registries (RFC 6890).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Reachable on the public Internet.
    #[default]
    Global,
    /// RFC 1918, or an IPv6 unique local address (RFC 4193).
    Private,
    /// This host.
    Loopback,
    /// One link (RFC 3927, RFC 4291).
    LinkLocal,
    /// Shared address space behind a carrier's NAT (RFC 6598).
    Cgnat,
    /// Multicast.
    Multicast,
    /// Anything else no caller on the Internet can have: documentation, benchmarking, unspecified, future use.
    Reserved,
}

impl Scope {
    /// The scope of an address. Addresses that carry an IPv4 address within (6to4, Teredo, NAT64) are judged by their own
    /// prefix alone.
    pub fn of(ip: IpAddr) -> Self {
        match crate::canonical_ip(ip) {
            IpAddr::V4(v4) => Self::of_v4(v4),
            IpAddr::V6(v6) => Self::of_v6(v6),
        }
    }

    /// The name used in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Global => "global",
            Self::Private => "private",
            Self::Loopback => "loopback",
            Self::LinkLocal => "link_local",
            Self::Cgnat => "cgnat",
            Self::Multicast => "multicast",
            Self::Reserved => "reserved",
        }
    }

    fn of_v4(ip: Ipv4Addr) -> Self {
        match ip.octets() {
            [127, ..] => Self::Loopback,
            [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => Self::Private,
            [169, 254, ..] => Self::LinkLocal,
            [100, 64..=127, ..] => Self::Cgnat,
            [224..=239, ..] => Self::Multicast,
            // "This network", protocol assignments, documentation, 6to4 relays, benchmarking, future use and broadcast.
            [0, ..]
            | [192, 0, 0 | 2, _]
            | [192, 88, 99, _]
            | [198, 18..=19, ..]
            | [198, 51, 100, _]
            | [203, 0, 113, _]
            | [240..=255, ..] => Self::Reserved,
            _ => Self::Global,
        }
    }

    fn of_v6(ip: Ipv6Addr) -> Self {
        match ip.segments() {
            [0, 0, 0, 0, 0, 0, 0, 1] => Self::Loopback,
            [0xfc00..=0xfdff, ..] => Self::Private,
            [0xfe80..=0xfebf, ..] => Self::LinkLocal,
            [0xff00..=0xffff, ..] => Self::Multicast,
            // NAT64's well-known prefix: a real caller behind a translator.
            [0x64, 0xff9b, 0, 0, 0, 0, ..] => Self::Global,
            // Documentation (RFC 3849, RFC 9637), benchmarking (RFC 5180), ORCHID (RFC 4843, RFC 7343).
            [0x2001, 0xdb8, ..] | [0x3fff, 0..=0x0fff, ..] | [0x2001, 2, 0, ..] | [0x2001, 0x10..=0x2f, ..] => {
                Self::Reserved
            }
            [0x2000..=0x3fff, ..] => Self::Global,
            _ => Self::Reserved,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_follow_the_registries() {
        for (ip, scope) in [
            ("8.8.8.8", Scope::Global),
            ("::ffff:8.8.8.8", Scope::Global),
            ("::ffff:10.0.0.1", Scope::Private),
            ("10.255.255.255", Scope::Private),
            ("11.0.0.0", Scope::Global),
            ("172.15.255.255", Scope::Global),
            ("172.16.0.0", Scope::Private),
            ("172.31.255.255", Scope::Private),
            ("172.32.0.0", Scope::Global),
            ("192.168.1.1", Scope::Private),
            ("127.9.9.9", Scope::Loopback),
            ("169.254.169.254", Scope::LinkLocal),
            ("100.63.255.255", Scope::Global),
            ("100.64.0.0", Scope::Cgnat),
            ("100.127.255.255", Scope::Cgnat),
            ("224.0.0.1", Scope::Multicast),
            ("0.0.0.0", Scope::Reserved),
            ("255.255.255.255", Scope::Reserved),
            ("192.0.2.1", Scope::Reserved),
            ("198.18.0.1", Scope::Reserved),
            ("203.0.113.9", Scope::Reserved),
            ("::", Scope::Reserved),
            ("::1", Scope::Loopback),
            ("fd00::1", Scope::Private),
            ("fe80::1", Scope::LinkLocal),
            ("ff02::1", Scope::Multicast),
            ("2001:db8::1", Scope::Reserved),
            ("3fff::1", Scope::Reserved),
            ("2606:4700:4700::1111", Scope::Global),
            ("2001:4860:4860::8888", Scope::Global),
            ("64:ff9b::808:808", Scope::Global),
            ("4000::1", Scope::Reserved),
        ] {
            assert_eq!(Scope::of(ip.parse().unwrap()), scope, "{ip}");
        }
    }

    #[test]
    fn a_code_is_two_letters() {
        assert_eq!("no".parse::<Code>().unwrap().as_str(), "NO");
        for bad in ["", "N", "NOR", "N1", "ÖO", "--"] {
            assert!(bad.parse::<Code>().is_err(), "{bad}");
        }
    }
}
