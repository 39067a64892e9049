//! What the rules decide, compared with what the settings say, in as few words as possible.

use std::net::IpAddr;

use ipnet::IpNet;
use proptest::prelude::*;

use super::*;
use crate::Choice;

/// The first packet of a TCP connection, or a later one.
#[derive(Clone, Copy, Debug)]
struct Packet {
    direction: Direction,
    first: bool,
    loopback: bool,
    local: bool,
    uid: u32,
    to: IpAddr,
    port: u16,
}

/// What netfilter does with it, given rules.
fn decide(rules: &Rules, packet: Packet) -> Verdict {
    let fits = |when: &Match| match when {
        Match::Open => !packet.first,
        Match::Loopback => packet.loopback,
        Match::NotLocal => !packet.local,
        Match::User(uid) => packet.uid == *uid,
        Match::Ports(ranges) => ranges.iter().any(|range| (range.first()..=range.last()).contains(&packet.port)),
        Match::Networks4(all) => all.iter().any(|network| IpNet::V4(*network).contains(&packet.to)),
        Match::Networks6(all) => all.iter().any(|network| IpNet::V6(*network).contains(&packet.to)),
    };
    let decisive = rules.of(packet.direction).iter().find(|rule| rule.when.iter().all(fits));
    decisive.map_or(Verdict::LeaveAlone, |rule| rule.then)
}

/// What is asked for.
fn expected(settings: &Settings, packet: Packet) -> Verdict {
    let has = |ranges: &[PortRange]| ranges.iter().any(|r| (r.first()..=r.last()).contains(&packet.port));
    let covers = |networks: &[IpNet]| networks.iter().any(|network| network.contains(&packet.to));
    let port_chosen = |ports: &Choice<PortRange>| {
        (ports.include.is_empty() || has(&ports.include)) && !has(&ports.exclude) && packet.first && !packet.loopback
    };
    match packet.direction {
        Direction::Inbound => {
            let own = settings.own_ports().any(|port| port == packet.port);
            if port_chosen(&settings.inbound_ports) && packet.local && !own {
                return Verdict::Redirect(settings.inbound_port);
            }
        }
        Direction::Outbound => {
            let networks = &settings.outbound_networks;
            let link_local: IpNet = "fe80::/10".parse().unwrap();
            let chosen = (networks.include.is_empty() || covers(&networks.include)) && !covers(&networks.exclude);
            if port_chosen(&settings.outbound_ports)
                && chosen
                && packet.uid != settings.proxy_uid
                && !link_local.contains(&packet.to)
            {
                return Verdict::Redirect(settings.outbound_port);
            }
        }
    }
    Verdict::LeaveAlone
}

fn ports() -> impl Strategy<Value = Choice<PortRange>> {
    let range = prop_oneof![(1..30u16, 0..5u16).prop_map(|(first, more)| (first, first + more)), Just((1, 65535))];
    let ranges = || prop::collection::vec(range.clone().prop_map(|(a, b)| PortRange::new(a, b).unwrap()), 0..4);
    (ranges(), ranges()).prop_map(|(include, exclude)| Choice { include, exclude })
}

fn networks() -> impl Strategy<Value = Choice<IpNet>> {
    let network = prop::sample::select(vec![
        "10.0.0.0/8",
        "10.1.0.0/16",
        "10.1.2.3/32",
        "11.0.0.0/8",
        "0.0.0.0/0",
        "::/0",
        "fd00::/8",
        "fd00:1::/32",
        "fd00::1/128",
    ]);
    let networks = move || prop::collection::vec(network.clone().prop_map(|n| n.parse().unwrap()), 0..4);
    (networks(), networks()).prop_map(|(include, exclude)| Choice { include, exclude })
}

fn settings() -> impl Strategy<Value = Settings> {
    (ports(), ports(), networks(), 1..3u32)
        .prop_map(|(inbound_ports, outbound_ports, outbound_networks, proxy_uid)| Settings {
            inbound_port: 40,
            outbound_port: 20,
            admin_ports: vec![10, 11],
            inbound_ports,
            outbound_ports,
            outbound_networks,
            proxy_uid,
        })
        .prop_filter("names an own port", |settings| settings.check().is_ok())
}

fn packet() -> impl Strategy<Value = Packet> {
    let to = prop::sample::select(vec![
        "10.1.2.3",
        "10.1.9.9",
        "10.9.9.9",
        "11.1.1.1",
        "192.0.2.1",
        "fd00::1",
        "fd00:1::9",
        "fd99::1",
        "2001:db8::1",
        "fe80::1",
    ]);
    let direction = prop_oneof![Just(Direction::Inbound), Just(Direction::Outbound)];
    let mostly = || prop::bool::weighted(0.8);
    (direction, mostly(), mostly(), mostly(), 1..4u32, to, 1..45u16).prop_map(
        |(direction, first, not_loopback, local, uid, to, port)| Packet {
            direction,
            first,
            loopback: !not_loopback,
            local,
            uid,
            to: to.parse().unwrap(),
            port,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(4000) })]

    #[test]
    fn the_rules_decide_as_the_settings_ask(settings in settings(), packet in packet()) {
        let rules = Rules::new(&settings).unwrap();
        prop_assert_eq!(decide(&rules, packet), expected(&settings, packet), "{:?}", rules);
    }
}

#[test]
fn mapped_networks_are_ipv4_and_neighbours_become_one() {
    let of = |list: &[&str]| networks_of(list);
    for (given, expected) in [
        (&["::ffff:10.0.0.0/104"][..], "10.0.0.0/8"),
        (&["10.0.0.7/8", "10.1.0.0/16"], "10.0.0.0/8"),
        (&["10.0.0.0/9", "10.128.0.0/9"], "10.0.0.0/8"),
        (&["fd00::/9", "10.0.0.1/32", "fd80::/9"], "10.0.0.1/32 fd00::/8"),
        (&["::/0"], "::/0"),
        (&[], ""),
    ] {
        assert_eq!(of(given), expected, "{given:?}");
    }
}

fn networks_of(list: &[&str]) -> String {
    let parsed: Vec<IpNet> = list.iter().map(|network| network.parse().unwrap()).collect();
    let texts = super::networks(&parsed).flat_map(|networks| match networks {
        Match::Networks4(all) => all.iter().map(ToString::to_string).collect::<Vec<_>>(),
        Match::Networks6(all) => all.iter().map(ToString::to_string).collect(),
        other => panic!("{other:?}"),
    });
    texts.collect::<Vec<_>>().join(" ")
}
