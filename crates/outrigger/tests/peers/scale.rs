//! What a service of ten endpoints costs, and one of ten thousand.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::Duration;

use crate::web::{Caller, talk};
use crate::{Outrigger, PATIENCE, free, pods::answer};

/// An app at every address of loopback, and its port.
fn everywhere() -> u16 {
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            std::thread::spawn(move || talk(&stream, &|_: &str| answer("200 OK", "hello")));
        }
    });
    port
}

/// An outrigger whose one service has so many endpoints, and its port.
fn calling(name: &str, app: u16, endpoints: u32) -> (Outrigger, u16) {
    let [listen] = free();
    let list: Vec<_> = (0..endpoints).map(|i| format!("'{}:{app}'", Ipv4Addr::from(0x7f01_0000 + i))).collect();
    let extra = format!(
        "outbound: {{services: [{{name: shop, listen: '127.0.0.1:{listen}', endpoints: {{static: [{}]}}}}]}}",
        list.join(", ")
    );
    (Outrigger::start(name, app, &extra), listen)
}

/// Processor time of all its threads so far.
fn cpu(outrigger: &Outrigger) -> Duration {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", outrigger.child.id())).unwrap();
    let nanoseconds = |task: std::fs::DirEntry| -> u64 {
        let text = std::fs::read_to_string(task.path().join("schedstat")).unwrap();
        text.split(' ').next().unwrap().parse().unwrap()
    };
    Duration::from_nanos(tasks.flatten().map(nanoseconds).sum())
}

/// Memory of its own, MiB: pages of the program come and go.
fn resident(outrigger: &Outrigger) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{}/status", outrigger.child.id())).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
}

#[test]
fn a_request_costs_the_same_among_ten_endpoints_and_ten_thousand() {
    const REQUESTS: u32 = 2000;
    let app = everywhere();
    let (few, few_port) = calling("few", app, 10);
    let (many, many_port) = calling("many", app, 10_000);
    let idle = [&few, &many].map(resident);
    let connect = |port: u16| Caller::new(SocketAddr::from(([127, 0, 0, 1], port)), PATIENCE).unwrap();
    let mut callers = [connect(few_port), connect(many_port)];
    let mut spend = |which: usize, requests: u32| {
        let outrigger = [&few, &many][which];
        let before = cpu(outrigger);
        for _ in 0..requests {
            assert_eq!(callers[which].get("shop", "/").unwrap(), (200, "hello".into()));
        }
        (cpu(outrigger) - before) / requests
    };
    // Until all that are used are connected to.
    for which in [0, 1] {
        spend(which, 3000);
    }
    let mut ratios: Vec<f64> = Vec::new();
    let mut costs = Vec::new();
    for _ in 0..5 {
        let (ten, thousands) = (spend(0, REQUESTS), spend(1, REQUESTS));
        ratios.push(thousands.as_secs_f64() / ten.as_secs_f64());
        costs.push((ten, thousands));
    }
    ratios.sort_by(f64::total_cmp);
    let used = [&few, &many].map(resident);
    println!("CPU per request among 10 and among 10,000: {costs:?}; ratios {ratios:.2?}");
    println!("resident, MiB: idle {idle:.1?}, after 13,000 requests {used:.1?}");
    // One is what it should be; what another connection's cold memory costs, and a busy machine, is in the rest.
    assert!(ratios[2] < 1.4, "{ratios:?}");
    // A list is a list, and 200 endpoints in use are 190 more connections.
    assert!(idle[1] - idle[0] < 8.0 && used[1] - used[0] < 16.0, "{idle:?} {used:?}");
}
