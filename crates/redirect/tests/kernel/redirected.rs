//! What is redirected, and what is left alone.

use std::net::UdpSocket;
use std::time::Duration;

use redirect::{Choice, Rules, Settings};

use crate::room::{APP, PROXY, Pod, Room};
use crate::tools::Tools;

/// Calls one after the other: who calls, whom, and who answers for whom. `POD` and `NODE` stand for both families'
/// addresses.
fn assert_calls(context: &str, calls: &[(&Room, u32, &str, &str)]) {
    for (pod, node) in [("198.18.0.1", "198.18.0.2"), ("[fd00:18::1]", "[fd00:18::2]")] {
        for (room, uid, to, expected) in calls {
            let put = |text: &str| text.replace("POD", pod).replace("NODE", node);
            let (to, expected) = (put(to), put(expected));
            let answer = room.call(*uid, &to).unwrap_or_else(|| "nobody".to_owned());
            assert_eq!(answer, expected, "{context}: user {uid} calls {to}");
        }
    }
}

#[test]
fn callers_and_calls_meet_the_proxy_which_knows_whom_they_meant() {
    for tools in Tools::all() {
        let Some(Pod { pod, node }) = Pod::new() else { return };
        pod.enter(|| tools.netfilter().apply(&Rules::new(&Settings::default()).unwrap())).unwrap();
        assert_calls(
            tools.name,
            &[
                (&node, 0, "POD:8080", "inbound for POD:8080"),
                (&node, 0, "POD:9999", "inbound for POD:9999"),
                (&node, PROXY, "POD:8080", "inbound for POD:8080"),
                (&pod, APP, "NODE:80", "outbound for NODE:80"),
                (&pod, 0, "NODE:443", "outbound for NODE:443"),
                // The proxy itself is known by its user.
                (&pod, PROXY, "NODE:80", "world for NODE:80"),
                // Its own ports are reached as they are.
                (&node, 0, "POD:6191", "admin for POD:6191"),
                (&node, 0, "POD:6143", "inbound for POD:6143"),
                (&node, 0, "POD:6140", "nobody"),
            ],
        );
    }
}

#[test]
fn within_the_namespace_nothing_is_redirected() {
    for tools in Tools::all() {
        let Some(Pod { pod, .. }) = Pod::new() else { return };
        pod.enter(|| tools.netfilter().apply(&Rules::new(&Settings::default()).unwrap())).unwrap();
        assert_calls(
            tools.name,
            &[
                (&pod, APP, "127.0.0.1:8080", "app for 127.0.0.1:8080"),
                (&pod, APP, "[::1]:8080", "app for [::1]:8080"),
                (&pod, APP, "127.0.0.1:6140", "outbound for 127.0.0.1:6140"),
                // The app calls itself by its own address, and the proxy dials whom a caller meant to reach.
                (&pod, APP, "POD:8080", "app for POD:8080"),
                (&pod, PROXY, "POD:8080", "app for POD:8080"),
            ],
        );
    }
}

#[test]
fn an_app_that_calls_its_own_service_gets_there() {
    for tools in Tools::all() {
        let Some(Pod { pod, node }) = Pod::new() else { return };
        // As kube-proxy does it on a node.
        node.sh("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv4.conf.all.send_redirects=0
             nft -f - <<END
             table inet service {
                 chain there { type nat hook prerouting priority -100
                     ip daddr 198.19.0.1 tcp dport 80 dnat ip to 198.18.0.1:8080
                     ip6 daddr fd00:19::1 tcp dport 80 dnat ip6 to [fd00:18::1]:8080
                 }
                 chain back { type nat hook postrouting priority 100; ct status dnat masquerade; }
             }
END");
        assert_eq!(pod.call(APP, "198.19.0.1:80").as_deref(), Some("app for 198.18.0.1:8080"), "before any redirect");
        pod.enter(|| tools.netfilter().apply(&Rules::new(&Settings::default()).unwrap())).unwrap();
        for (service, own) in [("198.19.0.1", "198.18.0.1"), ("[fd00:19::1]", "[fd00:18::1]")] {
            let by_service = format!("{service}:80");
            assert_eq!(pod.call(APP, &by_service), Some(format!("outbound for {by_service}")), "{}", tools.name);
            // The proxy, which knows endpoints, dials the pod itself; one that doesn't goes by the node, and meets the
            // pod's inbound side.
            assert_eq!(pod.call(PROXY, &format!("{own}:8080")), Some(format!("app for {own}:8080")));
            assert_eq!(pod.call(PROXY, &by_service), Some(format!("inbound for {own}:8080")));
        }
    }
}

#[test]
fn lists_of_ports_and_networks_hold() {
    let port = |text: &str| text.parse().unwrap();
    let network = |text: &str| text.parse().unwrap();
    for tools in Tools::all() {
        let Some(Pod { pod, node }) = Pod::new() else { return };
        let apply = |change: &dyn Fn(&mut Settings)| {
            let mut settings = Settings::default();
            change(&mut settings);
            let rules = Rules::new(&settings).unwrap();
            pod.enter(|| tools.netfilter().apply(&rules)).unwrap();
            assert_eq!(pod.enter(|| tools.netfilter().verify(&rules)).unwrap(), [], "{}", tools.name);
        };
        apply(&|settings| {
            settings.inbound_ports = Choice { include: vec![port("8000-8081")], exclude: vec![port("8081")] };
            settings.outbound_ports = Choice { include: vec![port("80-443")], exclude: vec![port("443")] };
        });
        assert_calls(
            tools.name,
            &[
                (&node, 0, "POD:8080", "inbound for POD:8080"),
                (&node, 0, "POD:8081", "app for POD:8081"),
                (&node, 0, "POD:9999", "nobody"),
                (&pod, APP, "NODE:80", "outbound for NODE:80"),
                (&pod, APP, "NODE:443", "world for NODE:443"),
                (&pod, APP, "NODE:5432", "world for NODE:5432"),
            ],
        );
        apply(&|settings| settings.outbound_networks.exclude = vec![network("198.18.0.0/15"), network("fd00::/8")]);
        assert_calls(tools.name, &[(&pod, APP, "NODE:80", "world for NODE:80")]);
        apply(&|settings| {
            settings.outbound_networks.include = vec![network("198.18.0.2/32"), network("fd00:18::2/128")];
        });
        assert_calls(tools.name, &[(&pod, APP, "NODE:80", "outbound for NODE:80")]);
        apply(&|settings| settings.outbound_networks.include = vec![network("10.0.0.0/8"), network("2001:db8::/32")]);
        assert_calls(tools.name, &[(&pod, APP, "NODE:80", "world for NODE:80")]);
        // Networks of one family leave out the other.
        apply(&|settings| settings.outbound_networks.include = vec![network("0.0.0.0/0")]);
        assert_eq!(pod.call(APP, "198.18.0.2:80").as_deref(), Some("outbound for 198.18.0.2:80"));
        assert_eq!(pod.call(APP, "[fd00:18::2]:80").as_deref(), Some("world for [fd00:18::2]:80"));
    }
}

#[test]
fn what_is_forwarded_to_others_goes_its_way() {
    for tools in Tools::all() {
        let Some(Pod { pod, node }) = Pod::new() else { return };
        let Some(behind) = Room::new() else { return };
        pod.link(1, &behind);
        pod.sh("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
        behind.sh("ip route add default via 198.18.1.1; ip -6 route add default via fd00:18:1::1");
        node.sh("ip route add 198.18.1.0/24 via 198.18.0.1; ip -6 route add fd00:18:1::/64 via fd00:18::1");
        behind.serve("behind", "[::]:80");
        pod.enter(|| tools.netfilter().apply(&Rules::new(&Settings::default()).unwrap())).unwrap();
        for (to, back) in [("198.18.1.2:80", "198.18.0.2:80"), ("[fd00:18:1::2]:80", "[fd00:18::2]:80")] {
            assert_eq!(node.call(0, to), Some(format!("behind for {to}")), "{}", tools.name);
            assert_eq!(behind.call(0, back), Some(format!("world for {back}")), "{}", tools.name);
        }
    }
}

#[test]
fn udp_and_with_it_dns_is_untouched() {
    for tools in Tools::all() {
        let Some(Pod { pod, node }) = Pod::new() else { return };
        pod.enter(|| tools.netfilter().apply(&Rules::new(&Settings::default()).unwrap())).unwrap();
        for (from, to, at) in [
            (&pod, &node, "198.18.0.2:53"),
            (&pod, &node, "[fd00:18::2]:53"),
            (&node, &pod, "198.18.0.1:53"),
            (&node, &pod, "[fd00:18::1]:53"),
        ] {
            let server = to.enter(|| UdpSocket::bind(at).unwrap());
            let client = from.enter(|| {
                let client = UdpSocket::bind(if at.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" }).unwrap();
                client.send_to(b"?", at).unwrap();
                client
            });
            server.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            let (_, asked_by) = server.recv_from(&mut [0]).unwrap_or_else(|e| panic!("{} {at}: {e}", tools.name));
            assert_eq!(asked_by.port(), client.local_addr().unwrap().port());
        }
    }
}
