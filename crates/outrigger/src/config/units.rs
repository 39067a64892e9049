//! Values with units, as people write them.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Error, Visitor};

/// Reads a type from a text or a number by one function, and says what was expected where it does not fit.
macro_rules! written_as {
    ($type:ident, $expected:literal, $schema:tt) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Written;
                impl Visitor<'_> for Written {
                    type Value = $type;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($expected)
                    }
                    fn visit_str<E: Error>(self, text: &str) -> Result<$type, E> {
                        $type::parse(text).map_err(|_| E::invalid_value(serde::de::Unexpected::Str(text), &self))
                    }
                    fn visit_u64<E: Error>(self, number: u64) -> Result<$type, E> {
                        $type::parse(&number.to_string())
                            .map_err(|_| E::invalid_value(serde::de::Unexpected::Unsigned(number), &self))
                    }
                }
                deserializer.deserialize_any(Written)
            }
        }

        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    };
}

/// Bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub u64);

impl Size {
    fn parse(text: &str) -> Result<Self, String> {
        let (number, unit) = split(text)?;
        let factor: u64 = match unit {
            "" | "B" => 1,
            "kB" => 1000,
            "KiB" => 1 << 10,
            "MB" => 1_000_000,
            "MiB" => 1 << 20,
            "GB" => 1_000_000_000,
            "GiB" => 1 << 30,
            _ => return Err("unit".into()),
        };
        number.checked_mul(factor).map(Self).ok_or_else(|| "too large".into())
    }
}

written_as!(Size, "a size such as 32KiB", {"type": ["string", "integer"], "pattern": "^[0-9]+(B|kB|KiB|MB|MiB|GB|GiB)?$", "minimum": 0});

/// A duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time(pub Duration);

impl Time {
    fn parse(text: &str) -> Result<Self, String> {
        let (number, unit) = split(text)?;
        let seconds = |factor: u64| number.checked_mul(factor).map(Duration::from_secs).ok_or("too large");
        Ok(Self(match unit {
            "ms" => Duration::from_millis(number),
            "s" => seconds(1)?,
            "m" => seconds(60)?,
            "h" => seconds(3600)?,
            "d" => seconds(86_400)?,
            _ => return Err("unit".into()),
        }))
    }
}

written_as!(Time, "a duration such as 10s", {"type": "string", "pattern": "^[0-9]+(ms|s|m|h|d)$"});

/// A share, 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share(pub f64);

impl Share {
    fn parse(text: &str) -> Result<Self, String> {
        let percent = text.strip_suffix('%').ok_or("unit")?;
        let number: f64 = percent.parse().map_err(|_| "number")?;
        let digits = percent.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        if digits && (0.0..=100.0).contains(&number) { Ok(Self(number / 100.0)) } else { Err("range".into()) }
    }
}

written_as!(Share, "a share such as 25%, from 0% to 100%", {"type": "string", "pattern": "^[0-9.]+%$"});

/// A port, or several in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports(pub redirect::PortRange);

impl Ports {
    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map(Self).map_err(|e: redirect::PortRangeError| e.to_string())
    }
}

written_as!(Ports, "a port such as 80, or several such as 8000-8100", {"type": ["string", "integer"], "pattern": "^[0-9]+(-[0-9]+)?$", "minimum": 1, "maximum": 65535});

/// Times per second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate(pub f64);

impl Rate {
    fn parse(text: &str) -> Result<Self, String> {
        let (number, unit) = split(text)?;
        let seconds = match unit {
            "/s" => 1.0,
            "/m" => 60.0,
            "/h" => 3600.0,
            _ => return Err("unit".into()),
        };
        Ok(Self(number as f64 / seconds))
    }
}

written_as!(Rate, "a rate such as 10/s", {"type": "string", "pattern": "^[0-9]+/(s|m|h)$"});

/// What is worth another try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // Each is the configuration's own word.
pub enum RetryReason {
    ConnectFailure,
    Reset,
    Timeout,
    ServerErrors,
    Status(u16),
}

impl RetryReason {
    fn parse(text: &str) -> Result<Self, String> {
        Ok(match text {
            "connect_failure" => Self::ConnectFailure,
            "reset" => Self::Reset,
            "timeout" => Self::Timeout,
            "5xx" => Self::ServerErrors,
            status => match status.parse() {
                Ok(status) if (500..600).contains(&status) => Self::Status(status),
                _ => return Err("reason".into()),
            },
        })
    }
}

written_as!(RetryReason, "connect_failure, reset, timeout, 5xx, or a status such as 503", {"type": ["string", "integer"], "pattern": "^(connect_failure|reset|timeout|5xx|5[0-9][0-9])$", "minimum": 500, "maximum": 599});

/// A number and what follows it.
fn split(text: &str) -> Result<(u64, &str), String> {
    let end = text.bytes().position(|b| !b.is_ascii_digit()).unwrap_or(text.len());
    let number = text[..end].parse().map_err(|_| "number")?;
    Ok((number, &text[end..]))
}

/// Where to listen: a port on every address, or an address with a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenAddr(pub SocketAddr);

impl ListenAddr {
    /// Reads `6143` or `127.0.0.1:6143`.
    ///
    /// # Errors
    /// What was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let addr = match text.parse::<u16>() {
            Ok(port) => SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port),
            Err(_) => text
                .parse()
                .map_err(|_| "expected a port such as 6143, or an address with a port such as 127.0.0.1:6143")?,
        };
        if addr.port() == 0 { Err("expected a port from 1 to 65535".into()) } else { Ok(Self(addr)) }
    }
}

written_as!(ListenAddr, "a port such as 6143, or an address with a port such as 127.0.0.1:6143", {"type": ["string", "integer"], "minimum": 1, "maximum": 65535});

/// Where the app listens: a port of localhost, in both families, or an address with a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppAddrs(pub Vec<SocketAddr>);

impl AppAddrs {
    /// Reads `8080` or `10.0.0.5:8080`.
    ///
    /// # Errors
    /// What was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let addrs: Vec<SocketAddr> = match text.parse::<u16>() {
            // Apps told to listen on "localhost" take one family or the other.
            Ok(port) => [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()]
                .map(|ip| SocketAddr::new(ip, port))
                .to_vec(),
            Err(_) => vec![
                text.parse()
                    .map_err(|_| "expected a port such as 8080, or an address with a port such as 127.0.0.1:8080")?,
            ],
        };
        let usable = addrs.iter().all(|addr| addr.port() != 0 && !addr.ip().is_unspecified());
        if usable { Ok(Self(addrs)) } else { Err("expected an address and a port that can be connected to".into()) }
    }
}

written_as!(AppAddrs, "a port such as 8080, or an address with a port such as 127.0.0.1:8080", {"type": ["string", "integer"], "minimum": 1, "maximum": 65535});

/// An address with a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addr(pub SocketAddr);

impl Addr {
    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map(Self).map_err(|_| "address".into())
    }
}

written_as!(Addr, "an address with a port such as 127.0.0.1:6192", {"type": "string"});

/// A network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr(pub ipnet::IpNet);

impl Cidr {
    fn parse(text: &str) -> Result<Self, String> {
        let net: ipnet::IpNet = match text.parse::<IpAddr>() {
            Ok(ip) => ip.into(),
            Err(_) => text.parse().map_err(|_| "network")?,
        };
        // 10.1.2.3/8 is a slip of the pen, one way or the other.
        if net.addr() == net.network() { Ok(Self(net)) } else { Err("host bits".into()) }
    }
}

written_as!(Cidr, "a network such as 10.20.0.0/24, without bits set behind its prefix", {"type": "string"});

/// SPIFFE IDs by pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identities(pub model::IdentityPattern);

impl Identities {
    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map(Self).map_err(|e: model::IdentityPatternError| e.to_string())
    }
}

written_as!(Identities, "a SPIFFE ID such as spiffe://prod.example.org/ns/shop/sa/payments, or one ending in /*", {"type": "string", "pattern": "^spiffe://"});

/// A trust domain.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Domain(pub model::TrustDomain);

impl Domain {
    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map(Self).map_err(|e: model::SpiffeIdError| e.to_string())
    }
}

written_as!(Domain, "a trust domain such as prod.example.org, in lower case", {"type": "string", "pattern": "^[a-z0-9._-]{1,255}$"});

/// Paths by pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths(pub model::PathPattern);

impl Paths {
    fn parse(text: &str) -> Result<Self, String> {
        model::PathPattern::new(text).map(Self).map_err(Into::into)
    }
}

written_as!(Paths, "a path such as /login, or /api/* for it and all below; nothing escaped, no //, no dot segments, no ;", {"type": "string", "pattern": "^(/|\\*$)"});

/// Hosts by pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hosts(pub model::HostPattern);

impl Hosts {
    fn parse(text: &str) -> Result<Self, String> {
        model::HostPattern::new(text).map(Self).map_err(Into::into)
    }
}

written_as!(Hosts, "a host without a port such as login.example.org, or *.example.org for all below", {"type": "string"});

/// A country.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Country(pub model::Code);

impl Country {
    fn parse(text: &str) -> Result<Self, String> {
        let code: model::Code = text.parse().map_err(|()| "letters")?;
        // "no" without quotes is Norway here, not a truth value; lower case is a slip all the same.
        if code.as_str() == text { Ok(Self(code)) } else { Err("case".into()) }
    }
}

written_as!(Country, "an ISO 3166-1 country code of two capital letters, such as NO", {"type": "string", "pattern": "^[A-Z]{2}$"});

/// A method.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MethodName(pub Box<str>);

impl MethodName {
    fn parse(text: &str) -> Result<Self, String> {
        let token = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
        if !text.is_empty() && text.bytes().all(token) { Ok(Self(text.into())) } else { Err("token".into()) }
    }
}

written_as!(MethodName, "a method in capitals, such as GET", {"type": "string", "pattern": "^[A-Z0-9_-]+$"});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_read_as_people_write_them() {
        for (text, bytes) in
            [("0", Some(0)), ("32KiB", Some(32_768)), ("10kB", Some(10_000)), ("1MiB", Some(1 << 20)), ("5", Some(5))]
        {
            assert_eq!(Size::parse(text).ok().map(|s| s.0), bytes, "{text}");
        }
        for bad in ["", "KiB", "1.5MiB", "-1", "1 KiB", "1kib", "99999999999999GiB", "1e3"] {
            assert!(Size::parse(bad).is_err(), "{bad}");
        }
        for (text, millis) in [("250ms", 250), ("5s", 5000), ("1m", 60_000), ("2h", 7_200_000), ("30d", 2_592_000_000)]
        {
            assert_eq!(Time::parse(text).unwrap().0, Duration::from_millis(millis), "{text}");
        }
        for bad in ["", "5", "s", "5 s", "5sec", "1.5s", "-5s", "99999999999999999d"] {
            assert!(Time::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(Share::parse("12.5%"), Ok(Share(0.125)));
        for bad in ["", "%", "1", "101%", "-1%", "NaN%", "inf%", "1e1%"] {
            assert!(Share::parse(bad).is_err(), "{bad}");
        }
        assert!(
            Cidr::parse("10.0.0.0/8").is_ok()
                && Cidr::parse("10.0.0.1").is_ok()
                && Cidr::parse("2001:db8::/32").is_ok()
        );
        assert!(Cidr::parse("10.0.0.1/8").is_err() && Cidr::parse("10/8").is_err());
        assert_eq!(AppAddrs::parse("80").unwrap().0.len(), 2);
        assert!(
            AppAddrs::parse("0.0.0.0:80").is_err() && AppAddrs::parse("0").is_err() && AppAddrs::parse("a:80").is_err()
        );
        assert_eq!(ListenAddr::parse("80").unwrap().0.to_string(), "[::]:80");
    }
}
