//! One entry of a forwarding header: an address, or a word that hides one.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use model::canonical_ip;

/// Whom one entry of a forwarding header names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Node {
    /// An address, never IPv4-mapped and without a zone, and the port where one was given as a number.
    Address(IpAddr, Option<u16>),
    /// `unknown`, an obfuscated identifier (RFC 7239, 6.2 and 6.3), or nobody at all: the hop that wrote it will not or
    /// cannot say.
    Hidden,
}

/// An entry that is none of the forms it may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("malformed entry in a forwarding header")
    }
}

impl std::error::Error for Malformed {}

/// The longest entry worth reading. The longest address is 45 bytes; brackets, zone and port fit, and so do obfuscated
/// identifiers of any sense.
pub(crate) const MAX_BYTES: usize = 128;

/// How an IPv6 address may stand.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ipv6Form {
    /// Only in brackets (RFC 7239, 6).
    Bracketed,
    /// In brackets, or bare and then without a port.
    Any,
}

/// Reads `IPv4`, `IPv4:port`, `[IPv6]`, `[IPv6]:port`, `unknown` or `_obfuscated`, the latter two also with a port, which may
/// itself be obfuscated. Addresses have to be spelt in full: no octal, hexadecimal or shortened IPv4.
pub(crate) fn parse(text: &[u8], form: Ipv6Form) -> Result<Node, Malformed> {
    if text.len() > MAX_BYTES || !text.is_ascii() {
        return Err(Malformed);
    }
    let text = std::str::from_utf8(text).map_err(|_| Malformed)?;
    if let Some(rest) = text.strip_prefix('[') {
        let (inner, after) = rest.split_once(']').ok_or(Malformed)?;
        let port = match after.strip_prefix(':') {
            Some(port) => self::port(port)?,
            None if after.is_empty() => None,
            None => return Err(Malformed),
        };
        return Ok(Node::Address(ipv6(inner).ok_or(Malformed)?, port));
    }
    if form == Ipv6Form::Any
        && let Some(ip) = ipv6(text)
    {
        return Ok(Node::Address(ip, None));
    }
    let (name, port) = match text.split_once(':') {
        Some((name, port)) => (name, self::port(port)?),
        None => (text, None),
    };
    match name.parse::<Ipv4Addr>() {
        Ok(ip) => Ok(Node::Address(IpAddr::V4(ip), port)),
        Err(_) if name.eq_ignore_ascii_case("unknown") || is_obfuscated(name) => Ok(Node::Hidden),
        Err(_) => Err(Malformed),
    }
}

/// `_` and at least one of ALPHA, DIGIT, `.`, `_` and `-` (RFC 7239, 6.3).
fn is_obfuscated(text: &str) -> bool {
    text.strip_prefix('_').is_some_and(|rest| {
        !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
    })
}

/// One to five digits up to 65,535, or an obfuscated port, which is none we can tell.
fn port(text: &str) -> Result<Option<u16>, Malformed> {
    if is_obfuscated(text) {
        return Ok(None);
    }
    let digits = (1..=5).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    if digits { text.parse().map(Some).map_err(|_| Malformed) } else { Err(Malformed) }
}

/// An IPv6 address, its zone (RFC 4007, 11) dropped: it means something on the host that wrote it only.
fn ipv6(text: &str) -> Option<IpAddr> {
    let address = match text.split_once('%') {
        Some((address, zone)) => {
            let zone_byte = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'~');
            if zone.is_empty() || !zone.bytes().all(zone_byte) {
                return None;
            }
            address
        }
        None => text,
    };
    address.parse::<Ipv6Addr>().ok().map(|ip| canonical_ip(IpAddr::V6(ip)))
}

/// Without spaces and tabs around it (OWS, RFC 9110, 5.6.3).
pub(crate) fn trim(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = text {
        text = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(ip: &str, port: Option<u16>) -> Result<Node, Malformed> {
        Ok(Node::Address(ip.parse().unwrap(), port))
    }

    #[test]
    fn entries_are_read_in_every_form_they_may_have() {
        for (text, expected) in [
            ("192.0.2.43", address("192.0.2.43", None)),
            ("192.0.2.43:47011", address("192.0.2.43", Some(47011))),
            ("192.0.2.43:0", address("192.0.2.43", Some(0))),
            ("192.0.2.43:_http", address("192.0.2.43", None)),
            ("[2001:db8::1]", address("2001:db8::1", None)),
            ("[2001:DB8:0::1]:4711", address("2001:db8::1", Some(4711))),
            ("[fe80::1%eth0]:80", address("fe80::1", Some(80))),
            ("[::ffff:192.0.2.7]:80", address("192.0.2.7", Some(80))),
            ("unknown", Ok(Node::Hidden)),
            ("UNKNOWN", Ok(Node::Hidden)),
            ("unknown:80", Ok(Node::Hidden)),
            ("_hidden", Ok(Node::Hidden)),
            ("_SEVKISEK.x-1:_port", Ok(Node::Hidden)),
            ("", Err(Malformed)),
            ("_", Err(Malformed)),
            ("_a b", Err(Malformed)),
            ("localhost", Err(Malformed)),
            ("192.0.2", Err(Malformed)),
            ("192.0.2.256", Err(Malformed)),
            ("192.0.2.043", Err(Malformed)),
            ("0xc0.0.2.1", Err(Malformed)),
            ("3221226027", Err(Malformed)),
            ("192.0.2.43:", Err(Malformed)),
            ("192.0.2.43:65536", Err(Malformed)),
            ("192.0.2.43:+80", Err(Malformed)),
            ("192.0.2.43:000080", Err(Malformed)),
            ("192.0.2.43%eth0", Err(Malformed)),
            ("192.0.2.43 ", Err(Malformed)),
            ("192.0.2.43\u{0}", Err(Malformed)),
            ("[192.0.2.43]", Err(Malformed)),
            ("[2001:db8::1", Err(Malformed)),
            ("[2001:db8::1]x", Err(Malformed)),
            ("[2001:db8::1]:", Err(Malformed)),
            ("[fe80::1%]", Err(Malformed)),
            ("[fe80::1%e/h]", Err(Malformed)),
            ("[]", Err(Malformed)),
            ("１92.0.2.43", Err(Malformed)),
        ] {
            assert_eq!(parse(text.as_bytes(), Ipv6Form::Any), expected, "{text:?}");
            assert_eq!(parse(text.as_bytes(), Ipv6Form::Bracketed), expected, "{text:?}");
        }
        for (text, expected) in [
            ("2001:db8::1", address("2001:db8::1", None)),
            ("fe80::1%eth0", address("fe80::1", None)),
            ("::ffff:192.0.2.7", address("192.0.2.7", None)),
            ("::1", address("::1", None)),
        ] {
            assert_eq!(parse(text.as_bytes(), Ipv6Form::Any), expected, "{text:?}");
            assert_eq!(parse(text.as_bytes(), Ipv6Form::Bracketed), Err(Malformed), "{text:?}");
        }
    }

    #[test]
    fn an_entry_longer_than_any_sense_is_not_read() {
        let long = [b"_".as_slice(), &[b'a'; MAX_BYTES]].concat();
        assert_eq!(parse(&long[..MAX_BYTES], Ipv6Form::Any), Ok(Node::Hidden));
        assert_eq!(parse(&long, Ipv6Form::Any), Err(Malformed));
    }
}
