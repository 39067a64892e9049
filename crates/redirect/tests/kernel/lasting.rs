//! Connections that are open, or being opened, while rules are put in place.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use redirect::{Rules, Settings};

use crate::room::{APP, PATIENCE, Pod, Room};
use crate::tools::Tools;

/// Packets that netfilter took in and did not give out again, in the kernel's own counting: on the way in, between
/// arrival and delivery; on the way out, between request and transmission (counted since Linux 6.8).
fn lost(room: &Room) -> u64 {
    let snmp = room.sh("cat /proc/net/snmp");
    let mut lines = snmp.lines().filter(|line| line.starts_with("Ip:")).map(|line| line.split(' '));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let v4: Vec<(&str, u64)> = names.zip(values).skip(1).map(|(name, value)| (name, value.parse().unwrap())).collect();
    let snmp = room.sh("cat /proc/net/snmp6");
    let v6: Vec<(&str, u64)> = snmp
        .lines()
        .filter_map(|line| line.split_once(char::is_whitespace))
        .map(|(n, v)| (n, v.trim().parse().unwrap()))
        .collect();
    let missing = |counters: &[(&str, u64)], before: &str, after: &str| {
        let value = |wanted: &str| counters.iter().find_map(|(name, value)| (*name == wanted).then_some(*value));
        value(before).zip(value(after)).map_or(0, |(before, after)| before.abs_diff(after))
    };
    // IPv6 does not deliver all the multicast it receives.
    missing(&v4, "InReceives", "InDelivers")
        + missing(&v4, "OutRequests", "OutTransmits")
        + missing(&v6, "Ip6OutRequests", "Ip6OutTransmits")
}

/// Opens connections until told to end; how many, all of which were answered by this one.
fn call_on(room: &Room, uid: u32, to: &str, by: &str, end: &AtomicBool) -> u32 {
    let expected = format!("{by} for {to}");
    let mut calls = 0;
    while !end.load(Ordering::Relaxed) {
        assert_eq!(room.call(uid, to).as_ref(), Some(&expected), "call {calls}");
        calls += 1;
    }
    calls
}

#[test]
fn no_connection_and_no_packet_is_lost_while_rules_are_applied_a_hundred_times() {
    for tools in Tools::all() {
        let Some(Pod { pod, node }) = Pod::new() else { return };
        let (netfilter, rules) = (tools.netfilter(), Rules::new(&Settings::default()).unwrap());
        pod.enter(|| netfilter.apply(&rules)).unwrap();
        let mut open = [
            node.open(0, "198.18.0.1:8080").unwrap(),
            node.open(0, "[fd00:18::1]:8080").unwrap(),
            pod.open(APP, "198.18.0.2:80").unwrap(),
            pod.open(APP, "[fd00:18::2]:80").unwrap(),
        ];
        open.iter_mut().for_each(|call| assert!(call.hear().unwrap().contains("bound for")));
        let end = AtomicBool::new(false);
        let calls: u32 = thread::scope(|scope| {
            let (pod, node, end) = (&pod, &node, &end);
            let inbound = scope.spawn(move || call_on(node, 0, "198.18.0.1:8080", "inbound", end));
            let outbound = scope.spawn(move || call_on(pod, APP, "[fd00:18::2]:80", "outbound", end));
            for round in 0..100 {
                pod.enter(|| netfilter.apply(&rules)).unwrap();
                for call in &mut open {
                    call.say(&format!("round {round}")).unwrap();
                    assert_eq!(call.hear().unwrap(), format!("round {round}"), "{}", tools.name);
                }
            }
            end.store(true, Ordering::Relaxed);
            inbound.join().unwrap() + outbound.join().unwrap()
        });
        let begun = Instant::now();
        // The last ones may be under way still.
        while lost(&pod) > 0 {
            assert!(begun.elapsed() < PATIENCE, "{}: {} packets lost during {calls} calls", tools.name, lost(&pod));
        }
        eprintln!("{}: {calls} connections opened during 100 applications, none lost", tools.name);
    }
}

#[test]
fn connections_that_were_open_before_stay_with_whom_they_reached() {
    for tools in Tools::all() {
        let Some(Pod { pod, node }) = Pod::new() else { return };
        let mut open = [
            node.open(0, "198.18.0.1:8080").unwrap(),
            node.open(0, "[fd00:18::1]:8080").unwrap(),
            pod.open(APP, "198.18.0.2:80").unwrap(),
            pod.open(APP, "[fd00:18::2]:80").unwrap(),
        ];
        open.iter_mut().for_each(|call| assert!(!call.hear().unwrap().contains("bound for")));
        pod.enter(|| tools.netfilter().apply(&Rules::new(&Settings::default()).unwrap())).unwrap();
        for call in &mut open {
            call.say("still there?").unwrap();
            assert_eq!(call.hear().unwrap(), "still there?", "{}", tools.name);
        }
        assert_eq!(node.call(0, "198.18.0.1:8080").as_deref(), Some("inbound for 198.18.0.1:8080"));
    }
}
