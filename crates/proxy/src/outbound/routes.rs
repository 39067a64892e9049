//! Services by the names and networks they go by.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use model::Networks;

/// Where calls go that have no listener of their own, and connections that were redirected here.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    /// Ports of the app by their number, each with its place among the ports: connections that were redirected from there.
    pub app_ports: HashMap<u16, usize>,
    /// Services by what the app calls them.
    pub destinations: Destinations,
    /// What becomes of calls to anybody else.
    pub unmatched: Unmatched,
    /// Ports of the proxy's own: never a destination.
    pub own_ports: Vec<u16>,
    /// Those of them that take what comes to the app: called by an app that calls itself.
    pub inbound_ports: Vec<u16>,
    /// Link-local networks that may be called, where an app asks for them by name or address; metadata services are there.
    pub link_local: Networks,
    /// Connections are redirected here: those of the proxy's own could come back.
    pub intercepted: bool,
    /// Hosts of services that are called over mutual TLS and known by name only: nobody there is called in plaintext.
    pub mesh_hosts: Vec<Box<str>>,
    /// Ports of others at which nobody is called before the app has said a word.
    pub client_first: Vec<u16>,
}

/// What becomes of calls to nobody that is configured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unmatched {
    /// They go where they were meant to, as they are.
    #[default]
    Passthrough,
    /// They are refused.
    Deny,
}

/// Services by host and by network.
#[derive(Clone, Debug, Default)]
pub struct Destinations {
    hosts: HashMap<Box<str>, Vec<(Option<u16>, usize)>>,
    networks: Vec<(Networks, Option<u16>, usize)>,
}

impl Destinations {
    /// Adds a host, in any case, and a port where only that is meant; `service` is its place among the ports.
    pub fn add_host(&mut self, host: &str, port: Option<u16>, service: usize) {
        let entries = self.hosts.entry(host.trim_end_matches('.').to_ascii_lowercase().into()).or_default();
        entries.push((port, service));
        // A host with its port is looked for before the host alone.
        entries.sort_by_key(|(port, _)| port.is_none());
    }

    /// Adds networks, and a port where only that is meant.
    pub fn add_networks(&mut self, networks: Networks, port: Option<u16>, service: usize) {
        self.networks.push((networks, port, service));
    }

    /// The service that goes by this name.
    pub(crate) fn by_host(&self, host: &str, port: u16) -> Option<usize> {
        let host = host.trim_end_matches('.');
        let fits = |entries: &Vec<(Option<u16>, usize)>| {
            entries.iter().find(|(only, _)| only.is_none_or(|only| only == port)).map(|(_, service)| *service)
        };
        match host.bytes().any(|b| b.is_ascii_uppercase()) {
            true => self.hosts.get(host.to_ascii_lowercase().as_str()).and_then(fits),
            false => self.hosts.get(host).and_then(fits),
        }
    }

    /// The service this address belongs to: the first that names it.
    pub(crate) fn by_address(&self, addr: SocketAddr) -> Option<usize> {
        let fits = |(networks, port, _): &&(Networks, Option<u16>, usize)| {
            port.is_none_or(|port| port == addr.port()) && networks.contain(addr.ip())
        };
        self.networks.iter().find(fits).map(|(_, _, service)| *service)
    }
}

/// A share of a service's requests that goes to another.
#[derive(Clone, Debug, PartialEq)]
pub struct Split {
    /// The other service's place among the ports.
    pub to: usize,
    /// Which requests.
    pub which: Share,
}

/// Which requests go elsewhere.
#[derive(Clone, Debug, PartialEq)]
pub enum Share {
    /// So many of all, 0 to 1, drawn one by one.
    Of(f64),
    /// Those with this field, in lower case, and exactly this value.
    Field(Box<str>, Box<str>),
}

/// Addresses of one link: metadata services of clouds are there, which give credentials to whoever asks.
pub(crate) fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local() || ip.segments()[..2] == [0xfd00, 0x0ec2],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_with_its_port_is_found_before_the_host_alone_and_case_and_last_dot_do_not_matter() {
        let mut destinations = Destinations::default();
        destinations.add_host("Payments.shop", None, 1);
        destinations.add_host("payments.shop", Some(8080), 2);
        destinations.add_host("db", Some(5432), 3);
        for (host, port, expected) in [
            ("payments.shop", 80, Some(1)),
            ("PAYMENTS.shop", 8080, Some(2)),
            ("payments.shop.", 443, Some(1)),
            ("db", 5432, Some(3)),
            ("db", 80, None),
            ("shop", 80, None),
            ("a.payments.shop", 80, None),
        ] {
            assert_eq!(destinations.by_host(host, port), expected, "{host}:{port}");
        }
    }

    #[test]
    fn an_address_belongs_to_the_first_service_that_names_it() {
        let mut destinations = Destinations::default();
        let networks = |network: &str| Networks::new([network.parse().unwrap()]);
        destinations.add_networks(networks("198.18.0.0/16"), Some(5432), 1);
        destinations.add_networks(networks("198.18.0.0/15"), None, 2);
        destinations.add_networks(networks("fd00::/8"), None, 3);
        for (addr, expected) in [
            ("198.18.0.9:5432", Some(1)),
            ("198.18.0.9:80", Some(2)),
            ("198.19.0.9:5432", Some(2)),
            ("[fd00::1]:1", Some(3)),
            ("192.0.2.1:80", None),
        ] {
            assert_eq!(destinations.by_address(addr.parse().unwrap()), expected, "{addr}");
        }
    }

    #[test]
    fn metadata_services_are_link_local() {
        for (ip, expected) in [
            ("169.254.169.254", true),
            ("fe80::1", true),
            ("fd00:ec2::254", true),
            ("10.0.0.1", false),
            ("fd00::1", false),
        ] {
            assert_eq!(is_link_local(ip.parse().unwrap()), expected, "{ip}");
        }
    }
}
