use super::*;
use crate::settings::tests::everything;
use crate::{Finding, Settings};

#[test]
fn the_default_redirects_all_but_the_proxy_and_the_namespace_itself() {
    let expected = r#"add table inet outrigger
delete table inet outrigger
table inet outrigger {
	chain inbound {
		type nat hook prerouting priority -100; policy accept;
		meta l4proto != tcp return comment "only TCP"
		tcp flags & (fin | syn | rst | ack) != syn return comment "open before the rules were"
		iifname "lo" return comment "from this namespace itself"
		fib daddr type != local return comment "forwarded to another"
		tcp dport { 6140, 6143, 6191-6192 } return comment "the proxy's own ports"
		meta l4proto tcp redirect to :6143 comment "to the app"
	}
	chain outbound {
		type nat hook output priority -100; policy accept;
		meta l4proto != tcp return comment "only TCP"
		tcp flags & (fin | syn | rst | ack) != syn return comment "open before the rules were"
		meta skuid 6102 return comment "the proxy's own"
		oifname "lo" return comment "to this namespace itself"
		ip6 daddr fe80::/10 return comment "of no meaning without its interface"
		meta l4proto tcp redirect to :6140 comment "from the app"
	}
}
"#;
    assert_eq!(Rules::new(&Settings::default()).unwrap().nft(), expected);
}

#[test]
fn every_list_has_its_rule() {
    let expected = r#"add table inet outrigger
delete table inet outrigger
table inet outrigger {
	chain inbound {
		type nat hook prerouting priority -100; policy accept;
		meta l4proto != tcp return comment "only TCP"
		tcp flags & (fin | syn | rst | ack) != syn return comment "open before the rules were"
		iifname "lo" return comment "from this namespace itself"
		fib daddr type != local return comment "forwarded to another"
		tcp dport 7001-7004 return comment "the proxy's own ports"
		tcp dport 22 return comment "excluded ports"
		tcp dport { 80, 8000-8100 } redirect to :7002 comment "to the app"
	}
	chain outbound {
		type nat hook output priority -100; policy accept;
		meta l4proto != tcp return comment "only TCP"
		tcp flags & (fin | syn | rst | ack) != syn return comment "open before the rules were"
		meta skuid 1000660000 return comment "the proxy's own"
		oifname "lo" return comment "to this namespace itself"
		ip6 daddr fe80::/10 return comment "of no meaning without its interface"
		tcp dport { 25, 5432-5433 } return comment "excluded ports"
		ip daddr 10.96.0.1/32 return comment "excluded networks"
		ip6 daddr { fd00:96::/64, fd00:97::1/128 } return comment "excluded networks"
		ip daddr { 10.0.0.0/8, 198.18.0.0/15 } tcp dport 1-1024 redirect to :7001 comment "from the app"
		ip6 daddr fd00::/8 tcp dport 1-1024 redirect to :7001 comment "from the app"
	}
}
"#;
    assert_eq!(Rules::new(&everything()).unwrap().nft(), expected);
}

#[test]
fn spellings_that_mean_the_same_are_the_same() {
    for (a, b) in [
        ("tcp  dport  80 return", "tcp dport { 80 } return"),
        ("tcp dport { 80, 443 } return", "tcp dport {443,80} return"),
        ("tcp dport { 80-81, 82 } return", "tcp dport 80-82 return"),
        ("ip daddr { 11.0.0.0/8, 12.0.0.0/8 } return", "ip daddr 11.0.0.0-12.255.255.255 return"),
        ("ip daddr { 10.1.2.3/32 } return", "ip daddr 10.1.2.3 return"),
        ("ip daddr 0.0.0.0/0 return", "ip daddr 0.0.0.0-255.255.255.255 return"),
        ("ip6 daddr ::/0 return", "ip6 daddr { ::/1, 8000::/1 } return"),
        ("ip6 daddr fd00::1/128 tcp dport { 1, 2 } return", "ip6 daddr fd00::1 tcp dport 1-2 return"),
        ("tcp flags & (fin | syn | rst | ack) != syn return", "tcp flags != syn / fin,syn,rst,ack return"),
    ] {
        assert_eq!(canonical(a), canonical(b));
    }
    for (a, b) in [
        ("tcp dport 80 return", "tcp dport 81 return"),
        ("tcp dport 80 return", "tcp dport != 80 return"),
        ("tcp dport 80 return", "tcp sport 80 return"),
        ("tcp dport 80 return", "tcp dport @ports return"),
        ("ip daddr ::/0 return", "ip6 daddr ::/0 return"),
        ("ip daddr 10.0.0.0/8 return", "ip saddr 10.0.0.0/8 return"),
        ("fib daddr type local return", "fib daddr type != local return"),
        ("tcp dport 80 return comment \"a\"", "tcp dport 80 return comment \"b\""),
        ("tcp dport 80 return", "tcp dport 80 accept"),
    ] {
        assert_ne!(canonical(a), canonical(b));
    }
}

/// A change to a text, and what is then found.
type Case = (&'static [(&'static str, &'static str)], &'static str);

#[test]
fn every_change_to_the_table_is_found_and_named() {
    let text = Rules::new(&everything()).unwrap().nft();
    let listed = text.split_once("outrigger\ntable").map(|(_, table)| format!("table{table}")).unwrap();
    let cases: [Case; 8] = [
        (&[], ""),
        // As nft may list it.
        (&[("7001-7004", "{ 7001, 7002,\n\t\t\t\t7003, 7004 }"), ("\tchain outbound", "\n\tchain outbound")], ""),
        (
            &[("\t\ttcp dport 22 return comment \"excluded ports\"\n", "")],
            "chain inbound lacks the rule `tcp dport 22 return comment \"excluded ports\"`",
        ),
        (
            &[("\t\ttcp dport 22 return", "\t\taccept\n\t\ttcp dport 22 return")],
            "`accept` in chain inbound is not ours",
        ),
        (
            &[("skuid 1000660000", "skuid 0")],
            "chain outbound lacks the rule `meta skuid 1000660000 return comment \"the proxy's own\"`\n\
             `meta skuid 0 return comment \"the proxy's own\"` in chain outbound is not ours",
        ),
        (
            &[("chain outbound", "chain other")],
            "chain outbound is missing\n\
             `type nat hook output priority -100; policy accept;` in chain other is not ours",
        ),
        (&[("\tchain inbound", "\tflags dormant\n\tchain inbound")], "`flags dormant` in table is not ours"),
        (
            &[(
                "\tchain inbound",
                "\tset x {\n\t\ttype ipv4_addr\n\t\telements = { 1.2.3.4,\n\t\t\t5.6.7.8 }\n\t}\n\tchain inbound",
            )],
            "`type ipv4_addr` in set x is not ours",
        ),
    ];
    for (changes, expected) in cases {
        let found = changes.iter().fold(listed.clone(), |text, (from, to)| {
            assert!(text.contains(from), "{from}");
            text.replace(from, to)
        });
        let findings = Listing::of_nft(&text).differences(&Listing::of_nft(&found));
        let told: Vec<String> = findings
            .iter()
            .map(|finding| finding.to_string().replace(": `outrigger init` puts that right", ""))
            .collect();
        assert_eq!(told.join("\n"), *expected, "{changes:?}");
    }
}

#[test]
fn rules_in_another_order_are_found() {
    let text = Rules::new(&Settings::default()).unwrap().nft();
    let mut lines: Vec<&str> = text.lines().collect();
    let at = lines.iter().position(|line| line.contains("skuid")).unwrap();
    lines.swap(at, at + 1);
    let findings = Listing::of_nft(&text).differences(&Listing::of_nft(&lines.join("\n")));
    assert_eq!(findings, [Finding::Reordered { chain: "chain outbound".to_owned() }]);
}
