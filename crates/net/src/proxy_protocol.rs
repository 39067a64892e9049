//! The header a TCP load balancer puts before a connection to say whose it is: PROXY protocol versions 1 and 2
//! (<https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt>). Pure: bytes in, answer out.
//!
//! Strict, since whoever can make us misread a header can be anybody: one spelling per address and port, lengths checked to
//! the byte. Only the first header of a connection is one; what follows it belongs to the caller.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use model::canonical_ip;

/// The longest header of version 1, its line end included.
pub const MAX_V1_BYTES: usize = 107;

/// The longest header of version 2. The protocol would allow 64 KiB of additions; load balancers send some dozens of bytes.
pub const MAX_V2_BYTES: usize = V2_FIXED_BYTES + 2048;

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// The socket's own addresses count: the sender speaks for itself (a health check), or the caller has no IP address
    /// (`UNKNOWN`, unspecified or Unix families).
    Local,
    /// The connection is relayed for another. Addresses are never IPv4-mapped.
    Proxied {
        /// Who connected to the sender.
        source: SocketAddr,
        /// Where the sender was reached.
        destination: SocketAddr,
    },
}

/// Why bytes are no PROXY header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyProtocolError {
    /// Neither signature.
    NoHeader,
    /// Version 1: no CRLF within [`MAX_V1_BYTES`].
    NoLineEnd,
    /// Version 1: a control or non-ASCII byte, CR and LF elsewhere than at the end included.
    IllegalByte,
    /// Version 1: other than `PROXY`, a protocol, two addresses and two ports, parted by single spaces.
    Fields,
    /// Version 1: the protocol is none of `TCP4`, `TCP6` and `UNKNOWN`.
    Protocol,
    /// Version 1: an address that is not of the protocol's family, or not in its one spelling.
    Address,
    /// Version 1: a port that is not 0 to 65535 without leading zeros.
    Port,
    /// Version 2: another version, or a command other than LOCAL and PROXY.
    Command,
    /// Version 2: a family or transport that is not defined, or not of a stream.
    Family,
    /// Version 2: longer than [`MAX_V2_BYTES`].
    TooLong,
    /// Version 2: too short for its family's addresses.
    TooShort,
    /// Version 2: an addition (TLV) that goes beyond the header, or a checksum of the wrong length or given twice.
    Addition,
    /// Version 2: the CRC-32C does not match.
    Checksum,
}

impl ProxyProtocolError {
    /// What is wrong, as the end of a sentence that begins with "the PROXY header ...".
    pub fn reason(self) -> &'static str {
        match self {
            Self::NoHeader => "is missing",
            Self::NoLineEnd => "does not end within 107 bytes",
            Self::IllegalByte => "has an illegal byte",
            Self::Fields => "has too few or too many fields",
            Self::Protocol => "names a protocol other than TCP4, TCP6 and UNKNOWN",
            Self::Address => "has a malformed address",
            Self::Port => "has a malformed port",
            Self::Command => "has an unknown version or command",
            Self::Family => "has an address family that is unknown or not of a stream",
            Self::TooLong => "is too long",
            Self::TooShort => "is too short for its addresses",
            Self::Addition => "has a malformed addition",
            Self::Checksum => "has a wrong checksum",
        }
    }
}

impl fmt::Display for ProxyProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the PROXY header {}", self.reason())
    }
}

impl std::error::Error for ProxyProtocolError {}

/// Reads the header that `buf` begins with; gives it and its length in bytes, or `None` while bytes are missing that may
/// still make it one. Bytes after the header are not looked at.
///
/// # Errors
/// As soon as no further bytes could make a legal header of it.
pub fn parse(buf: &[u8]) -> Result<Option<(Header, usize)>, ProxyProtocolError> {
    match could_be(buf) {
        None => Ok(None),
        Some(false) => Err(ProxyProtocolError::NoHeader),
        Some(true) if buf.starts_with(V1_SIGNATURE) => parse_v1(buf),
        Some(true) => parse_v2(buf),
    }
}

/// Whether `buf` begins with the signature of either version; `None` while it is too short to say.
pub fn could_be(buf: &[u8]) -> Option<bool> {
    let signatures = [V1_SIGNATURE, V2_SIGNATURE];
    if signatures.iter().any(|signature| buf.starts_with(signature)) {
        return Some(true);
    }
    if signatures.iter().any(|signature| signature.starts_with(buf)) { None } else { Some(false) }
}

const V1_SIGNATURE: &[u8] = b"PROXY ";
const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, command, family, length.
const V2_FIXED_BYTES: usize = 16;

type Parsed = Result<Option<(Header, usize)>, ProxyProtocolError>;

/// `PROXY TCP4 192.0.2.1 198.51.100.1 4711 443` and CRLF.
fn parse_v1(buf: &[u8]) -> Parsed {
    let line = &buf[..buf.len().min(MAX_V1_BYTES)];
    let printable = line.iter().position(|b| !matches!(b, b' '..=b'~')).unwrap_or(line.len());
    let (text, end) = line.split_at(printable);
    match end {
        [b'\r', b'\n', ..] => {}
        [] | [b'\r'] if buf.len() >= MAX_V1_BYTES => return Err(ProxyProtocolError::NoLineEnd),
        [] | [b'\r'] => return Ok(None),
        _ => return Err(ProxyProtocolError::IllegalByte),
    }
    let text = std::str::from_utf8(&text[V1_SIGNATURE.len()..]).map_err(|_| ProxyProtocolError::IllegalByte)?;
    let (protocol, rest) = text.split_once(' ').map_or((text, None), |(protocol, rest)| (protocol, Some(rest)));
    let header = match protocol {
        // What follows has to be ignored (2.1).
        "UNKNOWN" => Header::Local,
        "TCP4" => v1_addresses::<Ipv4Addr>(rest)?,
        "TCP6" => v1_addresses::<Ipv6Addr>(rest)?,
        _ => return Err(ProxyProtocolError::Protocol),
    };
    Ok(Some((header, printable + 2)))
}

fn v1_addresses<A: FromStr + Into<IpAddr>>(fields: Option<&str>) -> Result<Header, ProxyProtocolError> {
    let mut fields = fields.ok_or(ProxyProtocolError::Fields)?.split(' ');
    let mut next = || fields.next().ok_or(ProxyProtocolError::Fields);
    let (source, destination, source_port, destination_port) = (next()?, next()?, next()?, next()?);
    if fields.next().is_some() {
        return Err(ProxyProtocolError::Fields);
    }
    let address = |text: &str| text.parse::<A>().map(Into::into).map_err(|_| ProxyProtocolError::Address);
    let (source, destination) = (address(source)?, address(destination)?);
    Ok(proxied((source, v1_port(source_port)?), (destination, v1_port(destination_port)?)))
}

fn v1_port(text: &str) -> Result<u16, ProxyProtocolError> {
    let one_spelling = text == "0" || text.starts_with(|first: char| matches!(first, '1'..='9'));
    text.parse().ok().filter(|_| one_spelling).ok_or(ProxyProtocolError::Port)
}

fn parse_v2(buf: &[u8]) -> Parsed {
    let is_proxied = match buf.get(12) {
        None => return Ok(None),
        Some(0x20) => false,
        Some(0x21) => true,
        Some(_) => return Err(ProxyProtocolError::Command),
    };
    let family = match buf.get(13) {
        None => return Ok(None),
        // A local header's family and addresses have to be ignored, whatever they are (2.2).
        Some(_) if !is_proxied => Family::None(0),
        Some(0x00) => Family::None(0),
        Some(0x11) => Family::Ipv4,
        Some(0x21) => Family::Ipv6,
        Some(0x31) => Family::None(216),
        Some(_) => return Err(ProxyProtocolError::Family),
    };
    let Some(&[upper, lower]) = buf.get(14..V2_FIXED_BYTES).and_then(<[u8]>::first_chunk) else {
        // The upper byte alone may tell already.
        let at_least = buf.get(14).map_or(0, |&upper| usize::from(upper) << 8);
        return if V2_FIXED_BYTES + at_least > MAX_V2_BYTES { Err(ProxyProtocolError::TooLong) } else { Ok(None) };
    };
    let end = V2_FIXED_BYTES + usize::from(u16::from_be_bytes([upper, lower]));
    if end > MAX_V2_BYTES {
        return Err(ProxyProtocolError::TooLong);
    }
    if end < V2_FIXED_BYTES + family.bytes() {
        return Err(ProxyProtocolError::TooShort);
    }
    let Some(header) = buf.get(..end) else { return Ok(None) };
    if !is_proxied {
        return Ok(Some((Header::Local, end)));
    }
    let (addresses, additions) = header[V2_FIXED_BYTES..].split_at(family.bytes());
    check_additions(header, additions)?;
    Ok(Some((family.addresses(addresses).unwrap_or(Header::Local), end)))
}

/// What a version 2 header's addresses are.
enum Family {
    Ipv4,
    Ipv6,
    /// None that is an IP address, in so many bytes.
    None(usize),
}

impl Family {
    fn bytes(&self) -> usize {
        match self {
            Self::Ipv4 => 12,
            Self::Ipv6 => 36,
            Self::None(bytes) => *bytes,
        }
    }

    /// Reads both addresses and then both ports; `None` for a family without.
    fn addresses(&self, bytes: &[u8]) -> Option<Header> {
        let (source, destination, ports) = match self {
            Self::Ipv4 => {
                let (source, rest) = bytes.split_first_chunk::<4>()?;
                let (destination, ports) = rest.split_first_chunk::<4>()?;
                (IpAddr::from(*source), IpAddr::from(*destination), ports)
            }
            Self::Ipv6 => {
                let (source, rest) = bytes.split_first_chunk::<16>()?;
                let (destination, ports) = rest.split_first_chunk::<16>()?;
                (IpAddr::from(*source), IpAddr::from(*destination), ports)
            }
            Self::None(_) => return None,
        };
        let (source_port, destination_port) = ports.split_first_chunk::<2>()?;
        let source_port = u16::from_be_bytes(*source_port);
        let destination_port = u16::from_be_bytes(*destination_port.first_chunk()?);
        Some(proxied((source, source_port), (destination, destination_port)))
    }
}

/// Goes through the additions (TLVs) to the header's last byte, and compares the checksum where there is one (2.2.3).
fn check_additions(header: &[u8], mut additions: &[u8]) -> Result<(), ProxyProtocolError> {
    const CRC32C: u8 = 0x03;
    let mut checksum = None;
    while let Some((&kind, rest)) = additions.split_first() {
        let (length, rest) = rest.split_first_chunk::<2>().ok_or(ProxyProtocolError::Addition)?;
        let length = usize::from(u16::from_be_bytes(*length));
        let (value, rest) = rest.split_at_checked(length).ok_or(ProxyProtocolError::Addition)?;
        if kind == CRC32C {
            let at = header.len() - rest.len() - length;
            let value = <[u8; 4]>::try_from(value).map_err(|_| ProxyProtocolError::Addition)?;
            if checksum.replace((at, u32::from_be_bytes(value))).is_some() {
                return Err(ProxyProtocolError::Addition);
            }
        }
        additions = rest;
    }
    match checksum {
        Some((at, expected)) if crc32c_without(header, at) != expected => Err(ProxyProtocolError::Checksum),
        _ => Ok(()),
    }
}

/// CRC-32C (RFC 3720, appendix B.4) of the header with the four bytes of the checksum itself, at `at`, as zeros.
fn crc32c_without(header: &[u8], at: usize) -> u32 {
    let bytes = header.iter().enumerate().map(|(position, &b)| if (at..at + 4).contains(&position) { 0 } else { b });
    // Bit by bit: some hundred bytes once per connection are not worth a table.
    !bytes.fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 })
    })
}

fn proxied((source, source_port): (IpAddr, u16), (destination, destination_port): (IpAddr, u16)) -> Header {
    Header::Proxied {
        source: SocketAddr::new(canonical_ip(source), source_port),
        destination: SocketAddr::new(canonical_ip(destination), destination_port),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::ProxyProtocolError::*;
    use super::*;

    fn from(source: &str, destination: &str) -> Header {
        Header::Proxied { source: source.parse().unwrap(), destination: destination.parse().unwrap() }
    }

    /// A header of version 2: command and version, family and transport, then the rest with its length before it.
    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        [V2_SIGNATURE, &[command, family], &(rest.len() as u16).to_be_bytes(), rest].concat()
    }

    fn ipv4_addresses() -> Vec<u8> {
        vec![192, 0, 2, 1, 198, 51, 100, 1, 0x12, 0x67, 0x01, 0xbb]
    }

    fn ipv6_addresses(source: &str) -> Vec<u8> {
        let octets = |ip: &str| ip.parse::<Ipv6Addr>().unwrap().octets();
        [&octets(source)[..], &octets("2001:db8::2"), &[0x12, 0x67, 0x01, 0xbb]].concat()
    }

    fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
        [&[kind], &(value.len() as u16).to_be_bytes()[..], value].concat()
    }

    /// A header with a checksum and something after it.
    fn with_checksum() -> Vec<u8> {
        let mut header =
            v2(0x21, 0x11, &[ipv4_addresses(), tlv(0x05, b"id"), tlv(0x03, &[0; 4]), tlv(0x04, b"")].concat());
        let at = header.len() - 7;
        let checksum = crc32c_without(&header, at);
        header[at..at + 4].copy_from_slice(&checksum.to_be_bytes());
        header
    }

    fn good() -> Vec<(Vec<u8>, Header)> {
        let v4 = from("192.0.2.1:4711", "198.51.100.1:443");
        let v6 = from("[2001:db8::1]:4711", "[2001:db8::2]:443");
        let longest = format!("PROXY UNKNOWN {}\r\n", "x".repeat(MAX_V1_BYTES - 16));
        let full = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
        vec![
            (b"PROXY TCP4 192.0.2.1 198.51.100.1 4711 443\r\n".to_vec(), v4),
            (b"PROXY TCP4 0.0.0.0 255.255.255.255 0 65535\r\n".to_vec(), from("0.0.0.0:0", "255.255.255.255:65535")),
            (b"PROXY TCP6 2001:db8::1 2001:DB8:0:0::2 4711 443\r\n".to_vec(), v6),
            (b"PROXY TCP6 ::ffff:192.0.2.1 ::ffff:198.51.100.1 4711 443\r\n".to_vec(), v4),
            (
                format!("PROXY TCP6 {full} {full} 65535 65535\r\n").into_bytes(),
                from(&format!("[{full}]:65535"), &format!("[{full}]:65535")),
            ),
            (b"PROXY UNKNOWN\r\n".to_vec(), Header::Local),
            (b"PROXY UNKNOWN whatever this says\r\n".to_vec(), Header::Local),
            (longest.into_bytes(), Header::Local),
            (v2(0x21, 0x11, &ipv4_addresses()), v4),
            (v2(0x21, 0x21, &ipv6_addresses("2001:db8::1")), v6),
            (v2(0x21, 0x21, &ipv6_addresses("::ffff:192.0.2.1")), from("192.0.2.1:4711", "[2001:db8::2]:443")),
            (v2(0x21, 0x11, &[ipv4_addresses(), tlv(0x01, b"h2"), tlv(0xee, &[7; 300])].concat()), v4),
            (with_checksum(), v4),
            (v2(0x21, 0x00, &[]), Header::Local),
            (v2(0x21, 0x00, &tlv(0x04, b"xx")), Header::Local),
            (v2(0x21, 0x31, &[0; 216]), Header::Local),
            (v2(0x20, 0x00, &[]), Header::Local),
            (v2(0x20, 0x11, &ipv4_addresses()), Header::Local),
            (v2(0x20, 0xff, b"anything"), Header::Local),
            (v2(0x20, 0x00, &[0; 2048]), Header::Local),
        ]
    }

    #[test]
    fn good_headers_are_read_and_what_follows_is_left() {
        for (bytes, header) in good() {
            assert_eq!(parse(&bytes), Ok(Some((header, bytes.len()))), "{}", bytes.escape_ascii());
            let more = [&bytes[..], b"PROXY TCP4 1.1.1.1 1.1.1.1 1 1\r\n"].concat();
            assert_eq!(parse(&more), Ok(Some((header, bytes.len()))), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn every_part_of_a_good_header_asks_for_more() {
        for (bytes, _) in good() {
            for length in 0..bytes.len() {
                assert_eq!(parse(&bytes[..length]), Ok(None), "{}", bytes[..length].escape_ascii());
            }
        }
    }

    #[test]
    fn bad_headers_of_version_1_are_refused() {
        for (text, error) in [
            ("GET / HTTP/1.1\r\n", NoHeader),
            ("proxy TCP4 192.0.2.1 192.0.2.2 1 2\r\n", NoHeader),
            ("PROXY\r\n", NoHeader),
            ("PROXY\tTCP4", NoHeader),
            ("PROXY \r\n", Protocol),
            ("PROXY  TCP4 192.0.2.1 192.0.2.2 1 2\r\n", Protocol),
            ("PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n", Protocol),
            ("PROXY tcp4 192.0.2.1 192.0.2.2 1 2\r\n", Protocol),
            ("PROXY UNKNOWNS\r\n", Protocol),
            ("PROXY TCP4\r\n", Fields),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n", Fields),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 1 2 3\r\n", Fields),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 1 2 \r\n", Fields),
            ("PROXY TCP4 192.0.2.1  192.0.2.2 1 2\r\n", Fields),
            ("PROXY TCP4 192.0.2.1  192.0.2.2 1\r\n", Address),
            ("PROXY TCP4 2001:db8::1 192.0.2.2 1 2\r\n", Address),
            ("PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n", Address),
            ("PROXY TCP4 192.0.2.01 192.0.2.2 1 2\r\n", Address),
            ("PROXY TCP4 192.0.2 192.0.2.2 1 2\r\n", Address),
            ("PROXY TCP4 0xc0.0.2.1 192.0.2.2 1 2\r\n", Address),
            ("PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n", Address),
            ("PROXY TCP6 [::1] ::1 1 2\r\n", Address),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n", Port),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 +1 2\r\n", Port),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 -1 2\r\n", Port),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 1 65536\r\n", Port),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 00 2\r\n", Port),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n", IllegalByte),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\rX", IllegalByte),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\r\n", IllegalByte),
            ("PROXY TCP4\t192.0.2.1 192.0.2.2 1 2\r\n", IllegalByte),
            ("PROXY UNKNOWN \u{e9}\r\n", IllegalByte),
            ("PROXY UNKNOWN \0\r\n", IllegalByte),
        ] {
            assert_eq!(parse(text.as_bytes()), Err(error), "{text:?}");
        }
    }

    #[test]
    fn a_header_of_version_1_ends_within_its_bound() {
        let endless = format!("PROXY UNKNOWN {}", "x".repeat(200));
        assert_eq!(parse(&endless.as_bytes()[..MAX_V1_BYTES - 1]), Ok(None));
        assert_eq!(parse(&endless.as_bytes()[..MAX_V1_BYTES]), Err(NoLineEnd));
        let one_too_long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(MAX_V1_BYTES - 15));
        assert_eq!(parse(one_too_long.as_bytes()), Err(NoLineEnd));
    }

    #[test]
    fn bad_headers_of_version_2_are_refused_as_early_as_can_be() {
        let fixed = |command, family, length: u16| [V2_SIGNATURE, &[command, family], &length.to_be_bytes()].concat();
        let beyond = [ipv4_addresses(), vec![0x01, 0, 9, 1, 2]].concat();
        let cut = [ipv4_addresses(), vec![0x01, 0]].concat();
        let two_sums = [ipv4_addresses(), tlv(3, &[0; 4]), tlv(3, &[0; 4])].concat();
        let mut wrong_sum = with_checksum();
        wrong_sum[16] ^= 1;
        for (bytes, error) in [
            ([V2_SIGNATURE, &[0x11]].concat(), Command),
            ([V2_SIGNATURE, &[0x22]].concat(), Command),
            ([V2_SIGNATURE, &[0x31]].concat(), Command),
            ([V2_SIGNATURE, &[0x21, 0x12]].concat(), Family),
            ([V2_SIGNATURE, &[0x21, 0x22]].concat(), Family),
            ([V2_SIGNATURE, &[0x21, 0x10]].concat(), Family),
            ([V2_SIGNATURE, &[0x21, 0x01]].concat(), Family),
            ([V2_SIGNATURE, &[0x21, 0x32]].concat(), Family),
            ([V2_SIGNATURE, &[0x21, 0x41]].concat(), Family),
            ([V2_SIGNATURE, &[0x21, 0x11, 0x09]].concat(), TooLong),
            (fixed(0x21, 0x11, 2049), TooLong),
            (fixed(0x20, 0x00, 65535), TooLong),
            (fixed(0x21, 0x11, 11), TooShort),
            (fixed(0x21, 0x21, 35), TooShort),
            (fixed(0x21, 0x31, 215), TooShort),
            (v2(0x21, 0x11, &beyond), Addition),
            (v2(0x21, 0x11, &cut), Addition),
            (v2(0x21, 0x11, &[ipv4_addresses(), tlv(3, &[0; 3])].concat()), Addition),
            (v2(0x21, 0x11, &two_sums), Addition),
            (v2(0x21, 0x11, &[ipv4_addresses(), tlv(3, &[0; 4])].concat()), Checksum),
            (wrong_sum, Checksum),
            (b"\r\n\r\n\0\r\nQUIT\r".to_vec(), NoHeader),
        ] {
            assert_eq!(parse(&bytes), Err(error), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn the_checksum_is_castagnolis() {
        assert_eq!(crc32c_without(b"123456789", 100), 0xe306_9283);
    }

    #[test]
    fn a_signature_is_told_as_soon_as_it_can_be() {
        for (bytes, expected) in [
            (&b""[..], None),
            (b"P", None),
            (b"PR", None),
            (b"PRI * HTTP/2.0\r\n", Some(false)),
            (b"PROXY", None),
            (b"PROXY ", Some(true)),
            (b"PROXYX", Some(false)),
            (b"\r\n\r\n", None),
            (b"\r\nGET", Some(false)),
            (b"\r\n\r\n\0\r\nQUIT\n", Some(true)),
            (b"\x16\x03", Some(false)),
        ] {
            assert_eq!(could_be(bytes), expected, "{}", bytes.escape_ascii());
        }
    }

    proptest! {
        #[test]
        fn an_answer_does_not_change_with_what_follows(
            index in 0..good().len(),
            at in any::<prop::sample::Index>(),
            byte in any::<u8>(),
            tail in proptest::collection::vec(any::<u8>(), 0..64),
        ) {
            // One byte of a good header changed: whatever the answer to a part of it is, it stays.
            let mut bytes = good()[index].0.clone();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            bytes.extend(&tail);
            let mut answer = Ok(None);
            for length in 0..=bytes.len() {
                let now = parse(&bytes[..length]);
                if answer != Ok(None) {
                    prop_assert_eq!(now, answer);
                }
                answer = now;
            }
        }

        #[test]
        fn any_bytes_have_an_answer(tail in proptest::collection::vec(any::<u8>(), 0..2100), v1 in any::<bool>()) {
            let signature = if v1 { V1_SIGNATURE } else { V2_SIGNATURE };
            let bytes = [signature, &tail].concat();
            if let Ok(Some((_, length))) = parse(&bytes) {
                prop_assert!(length <= bytes.len() && length <= MAX_V2_BYTES);
            }
            let _ = parse(&tail);
        }
    }
}
