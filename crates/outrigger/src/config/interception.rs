//! From keys to finished types: what is redirected, and where it is taken.

use ipnet::IpNet;
use redirect::{Choice, PortRange, Rules, Settings, SettingsError};

use super::raw;

/// What `outrigger init` is to redirect. Rules that could not work are a fault only where they are `wanted`.
pub(super) fn settings(
    raw: &raw::Interception,
    admin: [u16; 2],
    wanted: bool,
    check: &mut dyn FnMut(&str, Option<String>),
) -> Settings {
    let defaults = Settings::default();
    let settings = Settings {
        inbound_port: raw.inbound_port.unwrap_or(defaults.inbound_port),
        outbound_port: raw.outbound_port.unwrap_or(defaults.outbound_port),
        admin_ports: admin.to_vec(),
        proxy_uid: raw.uid.unwrap_or(defaults.proxy_uid),
        inbound_ports: ports(&raw.inbound_ports),
        outbound_ports: ports(&raw.outbound_ports),
        outbound_networks: networks(&raw.outbound_networks),
    };
    if let (true, Err(e)) = (wanted, Rules::new(&settings)) {
        let key = match e {
            SettingsError::Root | SettingsError::NoUser => "interception.uid",
            SettingsError::OwnPort(_) => "interception.inbound_ports",
            SettingsError::NoPort | SettingsError::PortTwice(_) => "interception",
        };
        check(key, Some(e.to_string()));
    }
    settings
}

fn ports(raw: &raw::Choice<super::units::Ports>) -> Choice<PortRange> {
    let all = |list: &[super::units::Ports]| list.iter().map(|ports| ports.0).collect();
    Choice { include: all(&raw.include), exclude: all(&raw.exclude) }
}

fn networks(raw: &raw::Choice<super::units::Cidr>) -> Choice<IpNet> {
    let all = |list: &[super::units::Cidr]| list.iter().map(|network| network.0).collect();
    Choice { include: all(&raw.include), exclude: all(&raw.exclude) }
}
