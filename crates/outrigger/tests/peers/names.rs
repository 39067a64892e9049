//! Services by name, where the name server is empty, fickle, silent or long-winded.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use crate::PATIENCE;
use crate::name_server::{NameServer, Says, many};
use crate::pods::Pods;
use crate::web::Caller;

/// An outrigger in pod `p` with a port of localhost for each service, by its name, and the name server in pod `q`.
fn config(services: &[(&str, &str, u16)], extra: &str) -> String {
    let services: Vec<_> = services
        .iter()
        .map(|(name, dns, listen)| {
            format!("{{name: {name}, listen: '127.0.0.1:{listen}', endpoints: {{dns: {dns}, port: 8080}}}}")
        })
        .collect();
    format!(
        "version: 1\ninbound: {{ports: [{{listen: 6143, app: 8080}}]}}\noutbound: {{{extra} services: [{}]}}\n",
        services.join(", ")
    )
}

fn servers(number: u8) -> String {
    format!("dns: {{servers: ['198.18.{number}.2:53'], timeout: 300ms, attempts: 1}},")
}

/// Asks again and again, all of which must be answered, until something is the case; who answered.
fn call_until(pods: &Pods, port: u16, done: impl Fn() -> bool + Sync) -> HashSet<String> {
    pods.enter('p', || {
        let mut caller = Caller::new(([127, 0, 0, 1], port).into(), PATIENCE).unwrap();
        let begun = Instant::now();
        let mut heard = HashSet::new();
        while !done() {
            assert!(begun.elapsed() < PATIENCE, "waited in vain");
            let (status, body) = caller.get("shop", "/").unwrap();
            assert_eq!(status, 200, "{body}");
            heard.insert(body);
            std::thread::sleep(Duration::from_millis(3));
        }
        heard
    })
}

#[test]
fn a_name_that_is_empty_fickle_failing_or_unanswered_loses_no_call() {
    let Some(mut pods) = Pods::new(71, "pqz") else { return };
    let (q, z) = ("198.18.71.2", "198.18.71.3");
    let names = NameServer::new(&mut pods, 'q');
    pods.web('q', "0.0.0.0:8080");
    pods.web('z', "0.0.0.0:8080");
    pods.outrigger('p', &config(&[("shop", "shop.test", 9001), ("idle", "idle.test", 9002)], &servers(71)));
    let more = |than: usize| {
        let (before, names) = (names.times_asked("shop.test"), names.clone());
        move || names.times_asked("shop.test") >= before + than
    };
    names.say_address("shop.test", q);
    let only = |who: &str| HashSet::from([format!("{who} answers")]);
    assert_eq!(call_until(&pods, 9001, more(2)), only("q"));
    // No address at all: what was known stays in use.
    names.say("shop.test", Says::Addresses(vec![]));
    assert_eq!(call_until(&pods, 9001, more(1)), only("q"));
    // Another address from here on: all calls go there.
    names.say_address("shop.test", z);
    call_until(&pods, 9001, more(2));
    assert_eq!(call_until(&pods, 9001, more(1)), only("z"));
    // One and the other in turn.
    names.say("shop.test", Says::InTurn([q.parse().unwrap(), z.parse().unwrap()]));
    assert_eq!(call_until(&pods, 9001, more(4)).len(), 2);
    // It fails, and it is silent.
    names.say("shop.test", Says::Failure);
    call_until(&pods, 9001, more(1));
    names.say("shop.test", Says::Silence);
    call_until(&pods, 9001, more(1));
    // And is heard again.
    names.say_address("shop.test", q);
    call_until(&pods, 9001, more(2));
    assert_eq!(call_until(&pods, 9001, more(1)), only("q"));
    assert!(pods.value('p', "outrigger_upstream_resolutions_total{service=\"shop\",result=\"failed\"}") >= 3.0);
    assert_eq!(names.times_asked("idle.test"), 0, "nobody called it");
    assert!(pods.metric('p', "outrigger_upstream_unbalanced{service=\"shop\"} 1"));
}

#[test]
fn names_are_looked_for_as_resolv_conf_says() {
    let Some(mut pods) = Pods::new(72, "pqz") else { return };
    let names = NameServer::new(&mut pods, 'q');
    pods.web('q', "0.0.0.0:8080");
    let services = [("short", "shop", 9001), ("longer", "shop.there", 9002), ("whole", "shop.there.", 9003)];
    for (side, ndots) in [('p', 5), ('z', 1)] {
        std::fs::create_dir_all(pods.home(side)).unwrap();
        let search = "search here.svc.test svc.test";
        let text = format!("nameserver 198.18.72.2\n{search}\noptions ndots:{ndots}\n");
        std::fs::write(pods.home(side).join("resolv.conf"), text).unwrap();
        pods.outrigger(side, &config(&services, ""));
    }
    names.say_address("shop.here.svc.test", "198.18.72.2");
    names.say_address("shop.there.svc.test", "198.18.72.2");
    names.say_address("shop.there", "198.18.72.2");
    for (side, port, expected) in [
        ('p', 9001, &["shop.here.svc.test"][..]),
        ('p', 9002, &["shop.there.here.svc.test", "shop.there.svc.test"]),
        ('p', 9003, &["shop.there"]),
        ('z', 9001, &["shop.here.svc.test"]),
        ('z', 9002, &["shop.there"]),
        ('z', 9003, &["shop.there"]),
    ] {
        let before = names.asked().len();
        assert_eq!(pods.get(side, &format!("http://127.0.0.1:{port}/")), "q answers");
        let mut asked = names.asked().split_off(before);
        // What has been asked for before may be asked for again by now.
        asked.dedup();
        assert!(expected.iter().all(|name| asked.iter().any(|asked| asked == name)), "{side} {port}: {asked:?}");
        assert_eq!(
            asked.iter().find(|asked| expected.contains(&asked.as_str())).map(String::as_str),
            Some(expected[0])
        );
    }
}

#[test]
fn four_thousand_addresses_take_no_more_than_what_is_used_of_them() {
    let Some(mut pods) = Pods::new(73, "pq") else { return };
    // The whole of a network is pod q.
    pods.sh('q', "ip route add local 198.19.0.0/16 dev lo");
    pods.sh('p', "ip route add 198.19.0.0/16 via 198.18.73.2");
    let names = NameServer::new(&mut pods, 'q');
    pods.web('q', "0.0.0.0:8080");
    names.say_address("one.test", "198.19.0.0");
    names.say("many.test", Says::Addresses(many(4000)));
    pods.outrigger('p', &config(&[("one", "one.test", 9001), ("many", "many.test", 9002)], &servers(73)));
    let called = |port| {
        pods.enter('p', || {
            let mut caller = Caller::new(([127, 0, 0, 1], port).into(), PATIENCE).unwrap();
            for _ in 0..1000 {
                assert_eq!(caller.get("shop", "/").unwrap(), (200, "q answers".into()));
            }
        });
        pods.value('p', "process_resident_memory_bytes") / 1e6
    };
    let (one, all) = (called(9001), called(9002));
    println!("after 1,000 calls: {one:.1} MB with one address, {all:.1} MB with 4,000");
    let status = pods.status('p');
    let many = status["upstreams"].as_object().map_or_else(
        || status["upstreams"].as_array().unwrap().iter().find(|u| u["name"] == "many").unwrap().clone(),
        |upstreams| upstreams["many"].clone(),
    );
    assert_eq!(many["endpoints_known"], 4000, "{many}");
    assert!(many["endpoints"].as_array().unwrap().len() <= 200, "{many}");
    pods.until("calls spread over many", |pods| {
        let log = pods.log('p');
        let went = log.iter().filter(|line| line["outrigger.port"] == "many");
        went.map(|line| line["outrigger.upstream.address"].to_string()).collect::<HashSet<_>>().len() > 100
    });
    assert!(all - one < 8.0, "{one} MB, then {all} MB");
}
