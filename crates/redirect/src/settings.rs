//! What to redirect and what to leave alone, as asked for.

use std::fmt;
use std::str::FromStr;

use ipnet::IpNet;

/// What to redirect, to where, and what to leave alone. The default redirects everything that can be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where the proxy takes what comes to the app.
    pub inbound_port: u16,
    /// Where the proxy takes what the app sends.
    pub outbound_port: u16,
    /// The proxy's other ports: probes, metrics, status.
    pub admin_ports: Vec<u16>,
    /// The user the proxy runs as, in the user namespace that the network namespace belongs to.
    pub proxy_uid: u32,
    /// Which of the namespace's ports are redirected for callers. The proxy's own never are.
    pub inbound_ports: Choice<PortRange>,
    /// Which ports the app calls are redirected.
    pub outbound_ports: Choice<PortRange>,
    /// Which networks the app calls are redirected. A network of IPv4-mapped addresses is the IPv4 network it stands
    /// for. Naming networks of one family only to be included leaves out the other.
    pub outbound_networks: Choice<IpNet>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            inbound_port: 6143,
            outbound_port: 6140,
            admin_ports: vec![6191, 6192],
            proxy_uid: 6102,
            inbound_ports: Choice::default(),
            outbound_ports: Choice::default(),
            outbound_networks: Choice::default(),
        }
    }
}

impl Settings {
    /// The ports the proxy listens on.
    pub(crate) fn own_ports(&self) -> impl Iterator<Item = u16> {
        [self.inbound_port, self.outbound_port].into_iter().chain(self.admin_ports.iter().copied())
    }

    /// What of this could not work, or not as meant.
    pub(crate) fn check(&self) -> Result<(), SettingsError> {
        if self.own_ports().any(|port| port == 0) {
            return Err(SettingsError::NoPort);
        }
        let mut own: Vec<u16> = self.own_ports().collect();
        own.sort_unstable();
        if let Some(pair) = own.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(SettingsError::PortTwice(pair[0]));
        }
        let included = |port: &u16| self.inbound_ports.include.contains(&PortRange { first: *port, last: *port });
        if let Some(port) = self.own_ports().find(included) {
            return Err(SettingsError::OwnPort(port));
        }
        match self.proxy_uid {
            0 => Err(SettingsError::Root),
            u32::MAX => Err(SettingsError::NoUser),
            _ => Ok(()),
        }
    }
}

/// Some of all: those included, or all where none is named, without those excluded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice<T> {
    /// Only these; all, where empty.
    pub include: Vec<T>,
    /// Not these, included or not.
    pub exclude: Vec<T>,
}

impl<T> Default for Choice<T> {
    fn default() -> Self {
        Self { include: Vec::new(), exclude: Vec::new() }
    }
}

/// Ports from first to last, both included; never port 0. Written `80` or `8000-8100`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// None where that would be an empty range, or hold port 0.
    pub fn new(first: u16, last: u16) -> Option<Self> {
        (first > 0 && first <= last).then_some(Self { first, last })
    }

    /// The first port.
    pub fn first(self) -> u16 {
        self.first
    }

    /// The last port, the first one's equal where there is one only.
    pub fn last(self) -> u16 {
        self.last
    }

    /// The same ports in as few ranges as possible, in order.
    pub(crate) fn merge(mut ranges: Vec<Self>) -> Vec<Self> {
        ranges.sort_unstable();
        let mut merged: Vec<Self> = Vec::with_capacity(ranges.len());
        for range in ranges {
            match merged.last_mut() {
                Some(last) if u32::from(range.first) <= u32::from(last.last) + 1 => {
                    last.last = last.last.max(range.last);
                }
                _ => merged.push(range),
            }
        }
        merged
    }
}

impl FromStr for PortRange {
    type Err = PortRangeError;

    fn from_str(text: &str) -> Result<Self, PortRangeError> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        // `parse` would take a sign.
        let port = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten();
        port(first).zip(port(last)).and_then(|(first, last)| Self::new(first, last)).ok_or(PortRangeError)
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.first)?;
        if self.last > self.first {
            write!(f, "-{}", self.last)?;
        }
        Ok(())
    }
}

/// A text is no port and no range of ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRangeError;

impl fmt::Display for PortRangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("expected a port from 1 to 65535, or two with a hyphen between, the lower first")
    }
}

impl std::error::Error for PortRangeError {}

/// Why no rules can be made from settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SettingsError {
    /// One of the proxy's ports is 0.
    NoPort,
    /// Two of the proxy's ports are this one.
    PortTwice(u16),
    /// This port is to be redirected to the proxy, and is the proxy's own.
    OwnPort(u16),
    /// The proxy would run as root.
    Root,
    /// That is no user.
    NoUser,
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPort => f.write_str("port 0 is none: give each of the proxy's ports a number"),
            Self::PortTwice(port) => write!(f, "port {port} is given twice: each of the proxy's ports needs its own"),
            Self::OwnPort(port) => write!(
                f,
                "port {port} is the proxy's own and can't be redirected to it: \
                 leave it out of the included inbound ports"
            ),
            Self::Root => f.write_str(
                "user id 0 can't be left out of the redirect, or all that root sends would go around the proxy: \
                 run the proxy as a user of its own, such as 6102",
            ),
            Self::NoUser => {
                write!(f, "user id {} is reserved: run the proxy as a user of its own, such as 6102", u32::MAX)
            }
        }
    }
}

impl std::error::Error for SettingsError {}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Settings in which no list is empty and nothing is as by default.
    pub(crate) fn everything() -> Settings {
        fn all<T: FromStr<Err: fmt::Debug>>(texts: &[&str]) -> Vec<T> {
            texts.iter().map(|text| text.parse().unwrap()).collect()
        }
        Settings {
            inbound_port: 7002,
            outbound_port: 7001,
            admin_ports: vec![7003, 7004],
            proxy_uid: 1_000_660_000,
            inbound_ports: Choice { include: all(&["8000-8100", "80"]), exclude: all(&["22"]) },
            outbound_ports: Choice { include: all(&["1-1024"]), exclude: all(&["5433", "5432", "25"]) },
            outbound_networks: Choice {
                include: all(&["10.0.0.0/8", "198.18.0.0/16", "198.19.0.0/16", "fd00::/8"]),
                exclude: all(&["10.96.0.1/32", "fd00:97::1/128", "fd00:96::/64"]),
            },
        }
    }

    #[test]
    fn ports_are_read_as_written_and_nothing_else_is() {
        for (text, first, last) in [("80", 80, 80), ("8000-8100", 8000, 8100), ("1-65535", 1, 65535), ("7-7", 7, 7)] {
            assert_eq!(text.parse(), Ok(PortRange { first, last }), "{text}");
        }
        for bad in ["", "0", "0-5", "65536", "9-8", "80-", "-80", "+80", "80:90", "80, 90", " 80", "http", "1-2-3"] {
            assert_eq!(bad.parse::<PortRange>(), Err(PortRangeError), "{bad}");
        }
    }

    #[test]
    fn ranges_that_touch_become_one() {
        for (ranges, expected) in [
            ("", ""),
            ("80", "80"),
            ("443 80", "80 443"),
            ("80 80", "80"),
            ("80 81", "80-81"),
            ("1-10 5-7 11 13", "1-11 13"),
            ("65535 1-65534", "1-65535"),
        ] {
            let parsed = ranges.split_whitespace().map(|range| range.parse().unwrap()).collect();
            let merged: Vec<String> = PortRange::merge(parsed).iter().map(ToString::to_string).collect();
            assert_eq!(merged.join(" "), expected, "{ranges}");
        }
    }

    #[test]
    fn settings_that_could_not_work_are_refused() {
        let with = |change: fn(&mut Settings)| {
            let mut settings = Settings::default();
            change(&mut settings);
            settings.check()
        };
        assert_eq!(with(|_| {}), Ok(()));
        assert_eq!(with(|s| s.inbound_ports.include = vec!["1-65535".parse().unwrap()]), Ok(()));
        for (refused, expected) in [
            (with(|s| s.inbound_port = 0), SettingsError::NoPort),
            (with(|s| s.admin_ports = vec![0]), SettingsError::NoPort),
            (with(|s| s.inbound_port = 6140), SettingsError::PortTwice(6140)),
            (with(|s| s.admin_ports = vec![6191, 6143]), SettingsError::PortTwice(6143)),
            (with(|s| s.inbound_ports.include = vec!["6191".parse().unwrap()]), SettingsError::OwnPort(6191)),
            (with(|s| s.proxy_uid = 0), SettingsError::Root),
            (with(|s| s.proxy_uid = u32::MAX), SettingsError::NoUser),
        ] {
            assert_eq!(refused, Err(expected));
        }
    }
}
