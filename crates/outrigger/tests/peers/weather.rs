//! Bad lines: packets that are lost and late, a peer that vanishes, and one that resets whatever reaches it.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crate::PATIENCE;
use crate::pods::{CONFIG, NODE, Pods, answer};
use crate::web::{Caller, Outcome, load, percentile};

/// Joins two pods by a line of its own, `198.19.N.1` to `.2`, on which every packet takes 20 ms and one of twenty is lost,
/// either way. (Of what netem does, this is all that is needed, and kernels without it do as well.)
fn bad_line(pods: &mut Pods, number: u8, [one, other]: [char; 2]) {
    let program = format!(
        "import ctypes,fcntl,heapq,itertools,os,random,select,struct,time
def tun():
    f=os.open('/dev/net/tun',os.O_RDWR); fcntl.ioctl(f,0x400454ca,struct.pack('16sH22x',b'line',0x1001)); return f
a=tun(); assert ctypes.CDLL(None).setns(os.open('{}',0),0)==0; b=tun()
late=[]; n=itertools.count(); random.seed({number})
while True:
    wait=max(0,late[0][0]-time.monotonic()) if late else None
    for f in select.select([a,b],[],[],wait)[0]:
        p=os.read(f,65536)
        if random.random()>=.05: heapq.heappush(late,(time.monotonic()+.02,next(n),b if f==a else a,p))
    while late and late[0][0]<=time.monotonic():
        _,_,f,p=heapq.heappop(late)
        try: os.write(f,p)
        except OSError: pass",
        pods.namespace(other)
    );
    pods.start(one, &["python3", "-c", &program]);
    for (side, host) in [(one, 1), (other, 2)] {
        pods.until("a line", |pods| pods.output(side, &["ip", "link", "show", "line"]).status.success());
        pods.sh(
            side,
            &format!(
                "ip address add 198.19.{number}.{host}/24 dev line
                 ip address add fd00:19:{number}::{host}/64 dev line nodad
                 ip link set line up"
            ),
        );
    }
}

#[test]
fn on_a_line_that_loses_and_delays_packets_every_request_is_answered() {
    if !Path::new("/dev/net/tun").exists() {
        return crate::skip("no /dev/net/tun");
    }
    let Some(mut pods) = Pods::new(81, "ps") else { return };
    bad_line(&mut pods, 81, ['p', 's']);
    let page = "x".repeat(30_000);
    pods.answering('s', "[::]:80", move |_| answer("200 OK", &page));
    pods.init('p', &[]);
    pods.outrigger('p', CONFIG);
    let begun = Instant::now();
    let call = |number: u16| {
        let to: SocketAddr = if number < 10 { "198.19.81.2:80" } else { "[fd00:19:81::2]:80" }.parse().unwrap();
        // Half of them on a connection that is kept, half on ones of their own.
        let mut caller = Caller::new(to, PATIENCE).unwrap();
        for n in 0..10 {
            if n >= 5 {
                caller = Caller::new(to, PATIENCE).unwrap();
            }
            let (status, body) = caller.get("shop", "/").unwrap_or_else(|e| panic!("{to}: {e}"));
            assert_eq!((status, body.len()), (200, 30_000), "{to}");
        }
    };
    pods.enter('p', || {
        std::thread::scope(|scope| {
            for number in 0..20 {
                scope.spawn(move || call(number));
            }
        });
    });
    println!("200 requests at 20 ms and 5 % loss each way: {:?}", begun.elapsed());
    pods.until("200 good lines", |pods| {
        let good = |line: &&serde_json::Value| line["http.response.status_code"] == 200 && line["error.type"].is_null();
        pods.log('p').iter().filter(good).count() == 200
    });
}

/// Two endpoints for one service at a port of localhost.
fn two(number: u8, more: &str) -> Option<Pods> {
    let mut pods = Pods::new(number, "pst")?;
    for side in ['s', 't'] {
        pods.answering(side, "[::]:8080", move |_| {
            // Slow enough for a busy machine's own delays not to look like an endpoint's.
            std::thread::sleep(Duration::from_millis(20));
            answer("200 OK", &format!("{side} answers"))
        });
    }
    pods.outrigger(
        'p',
        &format!(
            "version: 1\ninbound: {{ports: [{{listen: 6143, app: 8080}}]}}\noutbound: {{services: [{{name: shop, \
             listen: '127.0.0.1:9001', endpoints: {{static: ['198.18.{number}.2:8080', '[fd00:18:{number}::3]:8080']}}, {more}}}]}}\n"
        ),
    );
    Some(pods)
}

fn shop() -> SocketAddr {
    ([127, 0, 0, 1], 9001).into()
}

fn all_answered(outcomes: &[Outcome], pods: &Pods) {
    let failed: Vec<_> = outcomes.iter().filter(|outcome| outcome.status != 200).collect();
    let lines: Vec<_> = pods.log('p').into_iter().filter(|line| !line["error.type"].is_null()).take(5).collect();
    assert!(
        failed.is_empty(),
        "{} of {} failed: {:?}\n{lines:#?}",
        failed.len(),
        outcomes.len(),
        &failed[..failed.len().min(5)]
    );
}

#[test]
fn a_peer_that_vanishes_is_left_for_another_and_comes_back() {
    let Some(pods) = two(
        82,
        "timeouts: {connect: 300ms, per_try: 400ms}, retry: {on: [connect_failure, reset, timeout]}, \
         outlier_detection: {consecutive_5xx: 3, base_ejection: 1s}",
    ) else {
        return;
    };
    all_answered(&pods.enter('p', || load(shop(), 4, 80, Duration::from_secs(1))), &pods);
    // No reset, no message: its packets lead nowhere.
    pods.sh(NODE, "ip link set dev to-s down");
    let outcomes = pods.enter('p', || load(shop(), 4, 80, Duration::from_secs(4)));
    all_answered(&outcomes, &pods);
    let worst = percentile(&outcomes, 1.0);
    println!("a peer vanished: the slowest of {} requests took {worst:?}", outcomes.len());
    // Three tries of 400 ms at most, a pause between, what waited behind such a one, and a busy machine.
    assert!(worst < Duration::from_millis(2500), "{worst:?}");
    assert!(pods.value('p', "outrigger_upstream_ejections_total{service=\"shop\"}") >= 1.0);
    pods.until("a line that tells of the ejection", |pods| {
        pods.log('p').iter().any(|line| line["outrigger.ejected"] == "198.18.82.2:8080")
    });
    let retried = |line: &serde_json::Value| line["outrigger.retries"].as_u64() > Some(0);
    assert!(
        pods.log('p').iter().any(|line| retried(line) && line["outrigger.upstream.address"] == "[fd00:18:82::3]:8080")
    );
    pods.sh(NODE, "ip link set dev to-s up");
    let begun = Instant::now();
    let mut heard = String::new();
    pods.enter('p', || {
        let mut caller = Caller::new(shop(), PATIENCE).unwrap();
        while heard != "s answers" {
            assert!(begun.elapsed() < PATIENCE, "it does not come back");
            let (status, body) = caller.get("shop", "/").unwrap();
            assert_eq!(status, 200);
            heard = body;
        }
    });
}

#[test]
fn a_storm_of_resets_fails_no_request_that_may_be_repeated() {
    let Some(pods) = two(83, "outlier_detection: {max_ejected: 50%}") else { return };
    let over = AtomicBool::new(false);
    let outcomes = std::thread::scope(|scope| {
        scope.spawn(|| {
            // On and off: connections that are open are reset, and so are new ones.
            pods.sh('s', "nft 'add table inet storm; add chain inet storm in { type filter hook input priority 0; }'");
            while !over.load(SeqCst) {
                pods.sh('s', "nft add rule inet storm in tcp dport 8080 reject with tcp reset");
                std::thread::sleep(Duration::from_millis(400));
                pods.sh('s', "nft flush chain inet storm in");
                std::thread::sleep(Duration::from_millis(300));
            }
        });
        let outcomes = pods.enter('p', || load(shop(), 8, 200, Duration::from_secs(5)));
        over.store(true, SeqCst);
        outcomes
    });
    all_answered(&outcomes, &pods);
    let retries = pods.value('p', "outrigger_upstream_retries_total{service=\"shop\",result=\"granted\"}");
    println!(
        "{} requests in a storm of resets, {retries} retries, p99 {:?}",
        outcomes.len(),
        percentile(&outcomes, 0.99)
    );
    assert!(retries > 0.0, "there was no storm");
    assert_eq!(pods.value('p', "outrigger_upstream_retries_total{service=\"shop\",result=\"over_budget\"}"), 0.0);
}
