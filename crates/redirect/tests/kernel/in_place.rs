//! Putting rules in place, reading them back, taking them away.

use std::thread;

use proptest::prelude::*;
use redirect::{Choice, Family, Finding, Netfilter, PortRange, Rules, Settings, Tool};

use crate::room::{APP, Pod, Room};
use crate::tools::Tools;

fn default() -> Rules {
    Rules::new(&Settings::default()).unwrap()
}

fn other() -> Rules {
    let exclude = vec!["22".parse().unwrap()];
    let inbound_ports = Choice { include: Vec::new(), exclude };
    Rules::new(&Settings { inbound_ports, ..Settings::default() }).unwrap()
}

/// Everything that is ours and how often it is there, by the tools' own accounts.
fn in_place(room: &Room, tools: &Tools) -> usize {
    let saved = room.enter(|| {
        let list = |command: &str| {
            let script = format!("PATH={}; {command}", tools.directory().display());
            std::process::Command::new("/bin/sh").args(["-c", &script]).output().unwrap().stdout
        };
        match tools.name {
            "nft" => list("nft list ruleset"),
            _ => [list("iptables-save"), list("ip6tables-save")].concat(),
        }
    });
    let saved = String::from_utf8(saved).unwrap();
    saved.lines().filter(|line| line.starts_with("table inet outrigger") || line.contains("-j OUTRIGGER_")).count()
}

#[test]
fn applied_a_hundred_times_in_a_row_and_by_four_at_once_the_rules_are_there_once() {
    for tools in Tools::all() {
        let Some(room) = Room::new() else { return };
        let netfilter = tools.netfilter();
        let once = if tools.name == "nft" { 1 } else { 4 };
        for _ in 0..100 {
            room.enter(|| netfilter.apply(&default())).unwrap();
        }
        assert_eq!(in_place(&room, &tools), once, "{}", tools.name);
        assert_eq!(room.enter(|| netfilter.verify(&default())).unwrap(), [], "{}", tools.name);
        thread::scope(|scope| {
            for worker in 0..4 {
                let (room, netfilter) = (&room, &netfilter);
                scope.spawn(move || {
                    let rules = if worker % 2 == 0 { default() } else { other() };
                    room.enter(|| (0..25).for_each(|_| _ = netfilter.apply(&rules).unwrap()));
                });
            }
        });
        assert_eq!(in_place(&room, &tools), once, "{}", tools.name);
        let verified = [default(), other()].map(|rules| room.enter(|| netfilter.verify(&rules)).unwrap());
        assert!(
            verified.iter().any(Vec::is_empty) && verified != [[], []],
            "{}: one or the other: {verified:?}",
            tools.name
        );
    }
}

#[test]
fn nothing_is_left_after_removal_and_nothing_of_others_is_touched() {
    for tools in Tools::all() {
        let Some(Pod { pod, node }) = Pod::new() else { return };
        let netfilter = tools.netfilter();
        pod.enter(|| netfilter.remove()).unwrap();
        assert_eq!(in_place(&pod, &tools), 0);
        let list = || match tools.name {
            "nft" => pod.sh("nft list ruleset"),
            program => pod
                .sh(&format!("{program} iptables-save; {program} ip6tables-save"))
                .lines()
                .filter(|line| line.contains("OUTRIGGER") || !line.starts_with(['#', ':']))
                .collect(),
        };
        match tools.name {
            "nft" => _ = pod.sh("nft add table inet other; nft add chain inet other outbound"),
            program => {
                _ = pod.sh(&format!(
                    "{program} iptables -t nat -A OUTPUT -d 127.0.0.11 -j ACCEPT; {program} ip6tables -t nat -N OTHER"
                ));
            }
        }
        let before = list();
        pod.enter(|| netfilter.apply(&default())).unwrap();
        assert_ne!(list(), before);
        assert_eq!(pod.call(APP, "198.18.0.2:80").as_deref(), Some("outbound for 198.18.0.2:80"));
        for _ in 0..2 {
            pod.enter(|| netfilter.remove()).unwrap();
            assert_eq!(list(), before, "{}", tools.name);
            assert_eq!(pod.enter(|| netfilter.verify(&default())).unwrap(), [Finding::Missing]);
        }
        assert_eq!(pod.call(APP, "198.18.0.2:80").as_deref(), Some("world for 198.18.0.2:80"));
        assert_eq!(node.call(0, "[fd00:18::1]:8080").as_deref(), Some("app for [fd00:18::1]:8080"));
    }
}

#[test]
fn a_dry_run_prints_what_would_be_applied_and_applies_nothing() {
    for tools in Tools::all() {
        let Some(room) = Room::new() else { return };
        let netfilter = tools.netfilter();
        let printed = room.enter(|| netfilter.dry_run(&default())).unwrap();
        let (rules, flags) = (default(), "--noflush -w 10");
        let expected = match tools.name {
            "nft" => format!("# nft -f -\n{}", rules.nft()),
            _ => format!(
                "# iptables-restore {flags}\n{}# ip6tables-restore {flags}\n{}",
                rules.iptables(Family::V4),
                rules.iptables(Family::V6)
            ),
        };
        assert_eq!(printed, expected);
        assert_eq!(in_place(&room, &tools), 0);
        if tools.name == "nft" {
            assert_eq!(room.enter_as(APP, || netfilter.dry_run(&rules)).unwrap(), expected, "anybody may look");
        }
        // Where they are in place already, jumps are not doubled.
        room.enter(|| netfilter.apply(&rules)).unwrap();
        let again = room.enter(|| netfilter.dry_run(&rules)).unwrap();
        assert!(!again.contains("-A OUTPUT"), "{again}");
    }
}

#[test]
fn what_another_changed_is_found_and_put_right() {
    let Some(tools) = Tools::nft() else { return };
    let Some(room) = Room::new() else { return };
    let netfilter = tools.netfilter();
    for (change, expected) in [
        ("nft insert rule inet outrigger outbound accept", &["foreign"][..]),
        ("nft flush chain inet outrigger inbound", &["missing_rule"; 6]),
        ("nft delete chain inet outrigger inbound", &["missing_chain"]),
        ("nft add chain inet outrigger more", &["foreign"]),
        ("nft add set inet outrigger more '{ type ipv4_addr; elements = { 10.0.0.1 }; }'", &["foreign"]),
        ("nft add table inet outrigger '{ flags dormant; }'", &["foreign"]),
        ("nft delete table inet outrigger", &["missing"]),
        ("nft flush ruleset", &["missing"]),
    ] {
        room.enter(|| netfilter.apply(&default())).unwrap();
        assert_eq!(room.enter(|| netfilter.verify(&default())).unwrap(), []);
        room.sh(change);
        let findings = room.enter(|| netfilter.verify(&default())).unwrap();
        let names: Vec<&str> = findings.iter().map(Finding::name).collect();
        assert_eq!(names, expected, "{change}: {findings:?}");
    }
    room.enter(|| netfilter.apply(&other())).unwrap();
    let found = room.enter(|| netfilter.verify(&default())).unwrap();
    assert_eq!(found.len(), 1, "rules made from other settings: {found:?}");
    assert_eq!(
        found[0].to_string(),
        "`tcp dport 22 return comment \"excluded ports\"` in chain inbound is not ours: \
         `outrigger init` puts that right"
    );
}

#[test]
fn with_iptables_too_and_a_family_that_is_missing() {
    for program in ["xtables-nft-multi", "xtables-legacy-multi"] {
        let Some(tools) = Tools::iptables(program) else { continue };
        let Some(room) = Room::new() else { return };
        let netfilter = tools.netfilter();
        assert_eq!(room.enter(|| netfilter.verify(&default())).unwrap(), [Finding::Missing]);
        for (change, expected) in [
            ("iptables -t nat -I OUTRIGGER_OUTBOUND -j ACCEPT", &["foreign"][..]),
            ("ip6tables -t nat -D OUTPUT -p tcp -j OUTRIGGER_OUTBOUND", &["missing_rule"]),
            ("ip6tables -t nat -F; MULTI ip6tables -t nat -X", &["missing_family"]),
            (
                "iptables -t nat -F PREROUTING; MULTI iptables -t nat -F OUTRIGGER_INBOUND; \
                 MULTI iptables -t nat -X OUTRIGGER_INBOUND",
                &["missing_chain", "missing_rule"],
            ),
        ] {
            assert_eq!(room.enter(|| netfilter.apply(&default())).unwrap(), Tool::Iptables);
            assert_eq!(room.enter(|| netfilter.verify(&default())).unwrap(), []);
            room.sh(&format!("{program} {}", change.replace("MULTI", program)));
            let findings = room.enter(|| netfilter.verify(&default())).unwrap();
            let names: Vec<&str> = findings.iter().map(Finding::name).collect();
            assert_eq!(names, expected, "{program} {change}: {findings:?}");
        }
    }
}

#[test]
fn where_nft_is_installed_later_what_iptables_did_is_taken_over() {
    let Some(nft) = Tools::nft() else { return };
    for program in ["xtables-nft-multi", "xtables-legacy-multi"] {
        let Some(iptables) = Tools::iptables(program) else { continue };
        let Some(room) = Room::new() else { return };
        let both: Netfilter = nft.and(&iptables);
        room.enter(|| iptables.netfilter().apply(&default())).unwrap();
        assert_eq!(room.enter(|| both.verify(&default())).unwrap(), [], "by whichever they are in place");
        room.enter(|| nft.netfilter().apply(&default())).unwrap();
        let left = [Finding::LeftOver(Family::V4), Finding::LeftOver(Family::V6)];
        assert_eq!(room.enter(|| both.verify(&default())).unwrap(), left);
        assert_eq!(room.enter(|| both.apply(&default())).unwrap(), Tool::Nft);
        assert_eq!((in_place(&room, &nft), in_place(&room, &iptables)), (1, 0));
        assert_eq!(room.enter(|| both.verify(&default())).unwrap(), []);
        room.enter(|| iptables.netfilter().apply(&default())).unwrap();
        room.enter(|| both.remove()).unwrap();
        assert_eq!((in_place(&room, &nft), in_place(&room, &iptables)), (0, 0));
    }
}

fn settings() -> impl Strategy<Value = Settings> {
    let range =
        (1..=65535u16, 0..300u16).prop_map(|(first, more)| PortRange::new(first, first.saturating_add(more)).unwrap());
    let ports = move || {
        let ranges = || prop::collection::vec(range.clone(), 0..6);
        (ranges(), ranges()).prop_map(|(include, exclude)| Choice { include, exclude })
    };
    let v4 = (any::<[u8; 4]>(), 0..=32u8).prop_map(|(ip, prefix)| ipnet::IpNet::new(ip.into(), prefix).unwrap());
    let v6 = (any::<[u8; 16]>(), 0..=128u8).prop_map(|(ip, prefix)| ipnet::IpNet::new(ip.into(), prefix).unwrap());
    let network = prop_oneof![v4, v6];
    let networks = prop::collection::vec(network, 0..6);
    let networks = (networks.clone(), networks).prop_map(|(include, exclude)| Choice { include, exclude });
    (ports(), ports(), networks, 1..u32::MAX).prop_map(
        |(inbound_ports, outbound_ports, outbound_networks, proxy_uid)| Settings {
            inbound_ports,
            outbound_ports,
            outbound_networks,
            proxy_uid,
            ..Settings::default()
        },
    )
}

#[test]
fn whatever_the_settings_the_tools_take_the_rules_and_list_them_so_that_they_are_known_again() {
    for tools in Tools::all() {
        let Some(room) = Room::new() else { return };
        let netfilter = tools.netfilter();
        let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(48) };
        proptest!(config, |(settings in settings())| {
            let rules = Rules::new(&settings).unwrap();
            room.enter(|| netfilter.apply(&rules)).unwrap();
            prop_assert_eq!(room.enter(|| netfilter.verify(&rules)).unwrap(), []);
        });
    }
}
