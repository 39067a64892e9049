//! The rules as data: per direction, what is left alone and what is then redirected; the first rule that fits decides.
//! Asked of TCP only. Pure.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use model::{Direction, canonical_network};

use crate::settings::{PortRange, Settings, SettingsError};

/// What netfilter is to do with TCP connections. Made from [`Settings`], and finished: nothing is checked later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    inbound: Vec<Rule>,
    outbound: Vec<Rule>,
}

/// A family of addresses. iptables keeps rules for each apart; nftables needs no difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// IPv4
    V4,
    /// IPv6
    V6,
}

/// What to do with connections that fit all of `when`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) when: Vec<Match>,
    pub(crate) then: Verdict,
    /// For those who read the rules: becomes a comment.
    pub(crate) why: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Match {
    /// The packet is not a connection's first.
    Open,
    /// It arrived by loopback (inbound), or leaves by it (outbound).
    Loopback,
    /// It is for an address of another namespace.
    NotLocal,
    /// The socket belongs to this user.
    User(u32),
    /// To one of these ports: at least one, in order, apart.
    Ports(Vec<PortRange>),
    /// To one of these networks: at least one, in order, apart.
    Networks4(Vec<Ipv4Net>),
    /// The same for IPv6.
    Networks6(Vec<Ipv6Net>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// To where it was meant to go; no other rule of ours is asked.
    LeaveAlone,
    /// To this port of this namespace.
    Redirect(u16),
}

impl Rules {
    /// The rules that do what the settings ask for.
    ///
    /// # Errors
    /// What of the settings could not work, or not as meant.
    pub fn new(settings: &Settings) -> Result<Self, SettingsError> {
        settings.check()?;
        Ok(Self { inbound: inbound(settings), outbound: outbound(settings) })
    }

    pub(crate) fn of(&self, direction: Direction) -> &[Rule] {
        match direction {
            Direction::Inbound => &self.inbound,
            Direction::Outbound => &self.outbound,
        }
    }
}

impl Family {
    /// The name people know it by: `IPv4` or `IPv6`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }
}

impl Rule {
    fn leave_alone(when: Match, why: &'static str) -> Self {
        Self { when: vec![when], then: Verdict::LeaveAlone, why }
    }
}

fn inbound(settings: &Settings) -> Vec<Rule> {
    let own = settings.own_ports().filter_map(|port| PortRange::new(port, port)).collect();
    let mut rules = vec![
        Rule::leave_alone(Match::Open, "open before the rules were"),
        Rule::leave_alone(Match::Loopback, "from this namespace itself"),
        // Else a namespace that routes (a host with containers) would have the proxy answer for all behind it.
        Rule::leave_alone(Match::NotLocal, "forwarded to another"),
        Rule::leave_alone(Match::Ports(PortRange::merge(own)), "the proxy's own ports"),
    ];
    rules.extend(ports(&settings.inbound_ports.exclude).map(|ports| Rule::leave_alone(ports, "excluded ports")));
    rules.push(Rule {
        when: ports(&settings.inbound_ports.include).into_iter().collect(),
        then: Verdict::Redirect(settings.inbound_port),
        why: "to the app",
    });
    rules
}

fn outbound(settings: &Settings) -> Vec<Rule> {
    let link_local = Ipv6Net::new_assert([0xfe80, 0, 0, 0, 0, 0, 0, 0].into(), 10);
    let mut rules = vec![
        Rule::leave_alone(Match::Open, "open before the rules were"),
        Rule::leave_alone(Match::User(settings.proxy_uid), "the proxy's own"),
        // This also covers the namespace's other addresses, to which packets go by the same interface.
        Rule::leave_alone(Match::Loopback, "to this namespace itself"),
        // The kernel tells an original destination without its interface: the proxy could not dial it.
        Rule::leave_alone(Match::Networks6(vec![link_local]), "of no meaning without its interface"),
    ];
    rules.extend(ports(&settings.outbound_ports.exclude).map(|ports| Rule::leave_alone(ports, "excluded ports")));
    rules.extend(
        networks(&settings.outbound_networks.exclude).map(|networks| Rule::leave_alone(networks, "excluded networks")),
    );
    let included_networks: Vec<Match> = networks(&settings.outbound_networks.include).collect();
    let included_ports = ports(&settings.outbound_ports.include);
    let redirect = |networks: Option<Match>| Rule {
        when: networks.into_iter().chain(included_ports.clone()).collect(),
        then: Verdict::Redirect(settings.outbound_port),
        why: "from the app",
    };
    if included_networks.is_empty() {
        rules.push(redirect(None));
    } else {
        rules.extend(included_networks.into_iter().map(|networks| redirect(Some(networks))));
    }
    rules
}

fn ports(ranges: &[PortRange]) -> Option<Match> {
    (!ranges.is_empty()).then(|| Match::Ports(PortRange::merge(ranges.to_vec())))
}

/// The networks of each family that has any, in as few as possible.
fn networks(networks: &[IpNet]) -> impl Iterator<Item = Match> + use<> {
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    for network in networks {
        match canonical_network(*network) {
            IpNet::V4(network) => v4.push(network),
            IpNet::V6(network) => v6.push(network),
        }
    }
    let v4 = (!v4.is_empty()).then(|| Match::Networks4(Ipv4Net::aggregate(&v4)));
    let v6 = (!v6.is_empty()).then(|| Match::Networks6(Ipv6Net::aggregate(&v6)));
    v4.into_iter().chain(v6)
}

#[cfg(test)]
mod tests;
