//! What is recorded, how, and where to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

/// Everything that can be told to telemetry; reloads whole.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The log of requests.
    pub access_log: AccessLog,
    /// What of a caller may be recorded.
    pub privacy: Privacy,
    /// Series of all metrics together; what goes beyond is summed up as `overflow`.
    pub max_series: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { access_log: AccessLog::default(), privacy: Privacy::default(), max_series: 2000 }
    }
}

/// The log of requests, one line each.
#[derive(Clone, Debug, PartialEq)]
pub struct AccessLog {
    /// How a line is written.
    pub format: Format,
    /// Where lines go.
    pub output: Output,
    /// The share of successful requests that get a line, 0 to 1. Errors always do.
    pub sample_success: f64,
    /// Paths whose successful requests get no line: exact, or all that begin so where it ends with `*`.
    pub exclude_paths: Vec<String>,
}

impl Default for AccessLog {
    fn default() -> Self {
        Self { format: Format::Json, output: Output::Stdout, sample_success: 1.0, exclude_paths: Vec::new() }
    }
}

impl AccessLog {
    /// Whether a filter names this path.
    pub fn excludes(&self, path: &[u8]) -> bool {
        self.exclude_paths.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(prefix) => path.starts_with(prefix.as_bytes()),
            None => path == pattern.as_bytes(),
        })
    }
}

/// How a line is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// A JSON object with OpenTelemetry's names.
    #[default]
    Json,
    /// A JSON object after the Elastic Common Schema.
    Ecs,
    /// NCSA combined, then country and duration.
    Text,
}

/// Where lines go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Output {
    /// Standard output.
    #[default]
    Stdout,
    /// A file, appended to; it is opened anew when another process moved it away.
    File {
        /// Its path.
        path: PathBuf,
        /// Rotation of our own.
        rotate: Option<Rotate>,
    },
}

/// Rotation by size: `file` becomes `file.1`, that `file.2`, and so on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotate {
    /// Bytes a file may have.
    pub size: u64,
    /// Old files kept.
    pub keep: u32,
}

/// What of a caller may be recorded, in log, traces and pages alike.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Privacy {
    /// Client and peer addresses.
    pub client_address: AddressPrivacy,
    /// Query strings, those of referrers included.
    pub query: QueryPrivacy,
}

/// How much of an address is recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AddressPrivacy {
    /// All of it.
    #[default]
    Full,
    /// Nothing.
    Omit,
    /// So many leading bits; the rest is zero.
    Prefixes {
        /// 0 to 32.
        ipv4: u8,
        /// 0 to 128.
        ipv6: u8,
    },
}

/// Whether query strings are recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QueryPrivacy {
    /// They are not: they carry tokens and names.
    #[default]
    Omit,
    /// They are.
    Full,
}

impl Privacy {
    /// What may be told of an address; nothing where it is to be omitted.
    pub fn address(&self, ip: IpAddr) -> Option<IpAddr> {
        match (self.client_address, ip) {
            (AddressPrivacy::Full, _) => Some(ip),
            (AddressPrivacy::Omit, _) => None,
            (AddressPrivacy::Prefixes { ipv4, .. }, IpAddr::V4(v4)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(ipv4.min(32))).unwrap_or(0);
                Some(Ipv4Addr::from(u32::from(v4) & mask).into())
            }
            (AddressPrivacy::Prefixes { ipv6, .. }, IpAddr::V6(v6)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(ipv6.min(128))).unwrap_or(0);
                Some(Ipv6Addr::from(u128::from(v6) & mask).into())
            }
        }
    }

    /// Whether a port may be told: beside a shortened address it would tell callers apart again.
    pub fn port(&self) -> bool {
        self.client_address == AddressPrivacy::Full
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_shortened_to_their_prefix() {
        let prefixes =
            |ipv4, ipv6| Privacy { client_address: AddressPrivacy::Prefixes { ipv4, ipv6 }, ..Privacy::default() };
        for (privacy, ip, told) in [
            (prefixes(24, 48), "198.51.100.77", Some("198.51.100.0")),
            (prefixes(0, 0), "198.51.100.77", Some("0.0.0.0")),
            (prefixes(32, 128), "198.51.100.77", Some("198.51.100.77")),
            (prefixes(24, 48), "2001:db8:1:2::3", Some("2001:db8:1::")),
            (prefixes(24, 0), "2001:db8:1:2::3", Some("::")),
            (Privacy { client_address: AddressPrivacy::Omit, ..Privacy::default() }, "198.51.100.77", None),
            (Privacy::default(), "198.51.100.77", Some("198.51.100.77")),
        ] {
            assert_eq!(privacy.address(ip.parse().unwrap()), told.map(|t| t.parse().unwrap()), "{ip}");
        }
    }

    #[test]
    fn path_filters_are_exact_or_prefixes() {
        let log = AccessLog { exclude_paths: vec!["/healthz".into(), "/static/*".into()], ..AccessLog::default() };
        for (path, excluded) in
            [("/healthz", true), ("/healthz/", false), ("/static/a", true), ("/static", false), ("/", false)]
        {
            assert_eq!(log.excludes(path.as_bytes()), excluded, "{path}");
        }
    }
}
