//! Calls to services with several endpoints: spread, repeated where that is safe, bounded, and kept from those that fail.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use http::Response;
use model::Direction;
use proxy::Cluster;
use proxy::config::{Outliers, Port, Protocol, Retry, RetryOn, Service, Source, Upstream};

use crate::h2_peers::{self, full, whole};
use crate::harness::{PATIENCE, Raw, Sidecar, app, field};

const GET: &str = "GET /a HTTP/1.1\r\nHost: shop\r\n\r\n";

/// An endpoint that answers every request with this status and its own name, after reading it whole; and how many it got.
async fn endpoint(name: &'static str, status: u16) -> (SocketAddr, Arc<AtomicUsize>) {
    let requests = Arc::new(AtomicUsize::new(0));
    let counted = requests.clone();
    let (addr, _) = app(move |mut caller, _| {
        let requests = counted.clone();
        async move {
            while let Some((_, body)) = request(&mut caller).await {
                requests.fetch_add(1, SeqCst);
                let text = format!("{name} {}", body.len());
                let length = text.len();
                caller.send(format!("HTTP/1.1 {status} So\r\ncontent-length: {length}\r\n\r\n{text}")).await;
            }
        }
    })
    .await;
    (addr, requests)
}

/// A request's head and body; none where the caller has closed.
async fn request(caller: &mut Raw) -> Option<(String, String)> {
    use tokio::io::AsyncReadExt;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if caller.0.read(&mut byte).await.unwrap_or(0) == 0 {
            return None;
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let length = field(&head, "content-length").map_or(0, |n| n.parse().unwrap());
    let body = caller.take(length).await;
    Some((head, body))
}

/// An address that nobody listens at.
fn nobody() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// A sidecar whose one service has these endpoints.
fn calling(endpoints: &[SocketAddr], change: impl FnOnce(&mut Service, &mut Port)) -> Sidecar {
    let mut service = Service::new(Source::Static(endpoints.to_vec()));
    Sidecar::with(endpoints[0], |port| {
        port.direction = Direction::Outbound;
        change(&mut service, port);
        port.upstream = Upstream::Service(Cluster::new(service));
    })
}

fn state(sidecar: &Sidecar) -> proxy::ClusterState {
    sidecar.shared().upstreams().remove(0).2
}

async fn get(raw: &mut Raw) -> (String, String) {
    raw.send(GET).await;
    raw.answer().await
}

#[tokio::test]
async fn requests_are_spread_over_all_endpoints() {
    // Slow enough for a busy machine's own delays not to look like an endpoint's.
    let pace = Duration::from_millis(20);
    let mut endpoints = Vec::new();
    for _ in 0..3 {
        endpoints.push(until(Arc::new(AtomicBool::new(true)), 200, pace).await);
    }
    let sidecar = calling(&endpoints, |_, _| {});
    let callers: Vec<_> = (0..6)
        .map(|_| {
            let addr = sidecar.addr;
            tokio::spawn(async move {
                let mut raw = Raw(tokio::net::TcpStream::connect(addr).await.unwrap());
                for _ in 0..15 {
                    assert!(get(&mut raw).await.0.starts_with("HTTP/1.1 200 "));
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
    let log = sidecar.end();
    assert!(
        log.iter()
            .all(|line| line["outrigger.upstream.tls"] == "disabled" && line["outrigger.upstream.address"].is_string())
    );
    for endpoint in endpoints {
        let went = |line: &&serde_json::Value| line["outrigger.upstream.address"] == endpoint.to_string();
        let requests = log.iter().filter(went).count();
        assert!((15..50).contains(&requests), "{requests} of 90");
    }
}

#[tokio::test]
async fn what_another_endpoint_answers_the_caller_never_sees_fail() {
    let (good, bad) = (endpoint("good", 200).await, endpoint("bad", 503).await);
    // How often each is asked first is up to chance: the budget is not to decide.
    let change = |service: &mut Service, _: &mut Port| {
        service.outliers.consecutive = 0;
        service.retry.budget_floor = 100.0;
    };
    let sidecar = calling(&[nobody(), bad.0, good.0], change);
    let mut raw = sidecar.connect().await;
    for _ in 0..30 {
        let (head, body) = get(&mut raw).await;
        assert!(head.starts_with("HTTP/1.1 200 ") && body.starts_with("good"), "{head}{body}");
    }
    let state = state(&sidecar);
    assert!(state.retries > 0 && state.over_budget == 0);
    let log = sidecar.end();
    let told: Vec<_> = log.iter().filter(|line| line["outrigger.retries"].is_number()).collect();
    assert!(told.iter().any(|line| line["outrigger.retry.reasons"].as_str().unwrap().contains("503")));
    assert!(told.iter().any(|line| line["outrigger.retry.reasons"].as_str().unwrap().contains("connect_failure")));
    assert_eq!(told.iter().map(|line| line["outrigger.retries"].as_u64().unwrap()).sum::<u64>(), state.retries);
}

#[tokio::test]
async fn a_request_that_may_not_be_repeated_is_not_but_for_what_nobody_saw() {
    let bad = endpoint("bad", 503).await;
    let sidecar = calling(&[nobody(), bad.0], |service, _| service.outliers.consecutive = 0);
    for _ in 0..10 {
        let mut raw = sidecar.connect().await;
        raw.send("POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 5\r\n\r\nhello").await;
        // Refused by the one, answered by the other, and the answer passes as it is.
        let (head, body) = raw.answer().await;
        assert!(head.starts_with("HTTP/1.1 503 ") && body == "bad 5", "{head}{body}");
    }
    assert_eq!(bad.1.load(SeqCst), 10);
}

#[tokio::test]
async fn a_body_is_sent_again_while_it_is_small_enough_to_be_kept() {
    for (length, repeated) in [(10, true), (60_000, true), (200_000, false)] {
        let (addr, connections) = app(|mut caller, number| async move {
            let (_, body) = request(&mut caller).await.unwrap();
            let (status, text) = (if number == 0 { 503 } else { 200 }, body.len().to_string());
            caller.send(format!("HTTP/1.1 {status} So\r\ncontent-length: {}\r\n\r\n{text}", text.len())).await;
        })
        .await;
        let sidecar = calling(&[addr], |service, _| service.retry.all_methods = true);
        let mut raw = sidecar.connect().await;
        let body = "x".repeat(length);
        raw.send(format!("POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: {length}\r\n\r\n{body}")).await;
        let (head, body) = raw.answer().await;
        assert_eq!(head.starts_with("HTTP/1.1 200 "), repeated, "{length}: {head}");
        assert_eq!((body, connections.load(SeqCst)), (length.to_string(), 1 + usize::from(repeated)));
    }
}

#[tokio::test]
async fn a_chunked_body_is_sent_again_as_it_came() {
    let (addr, connections) = app(|mut caller, number| async move {
        let head = caller.head().await;
        assert!(field(&head, "transfer-encoding").is_some());
        let body = caller.until("0\r\n\r\n").await;
        let status = if number == 0 { 503 } else { 200 };
        caller.send(format!("HTTP/1.1 {status} So\r\ncontent-length: {}\r\n\r\n{body}", body.len())).await;
    })
    .await;
    let sidecar = calling(&[addr], |service, _| service.retry.all_methods = true);
    let mut raw = sidecar.connect().await;
    raw.send("POST / HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n").await;
    raw.send("2\r\nde\r\n0\r\n\r\n").await;
    let (head, body) = raw.answer().await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let data: String = body.split("\r\n").filter(|line| line.chars().all(|c| c.is_ascii_lowercase())).collect();
    assert_eq!(data, "abcde");
    assert_eq!(connections.load(SeqCst), 2);
}

#[tokio::test]
async fn retries_stay_within_their_budget_and_what_goes_beyond_is_the_services_answer() {
    let bad = endpoint("bad", 503).await;
    let sidecar = calling(&[bad.0], |service, _| {
        service.outliers.consecutive = 0;
        service.retry = Retry { attempts: 1, budget_share: 0.2, budget_floor: 0.0, ..Retry::default() };
    });
    let mut raw = sidecar.connect().await;
    for _ in 0..100 {
        let (head, body) = get(&mut raw).await;
        assert!(head.starts_with("HTTP/1.1 503 ") && body.starts_with("bad"), "{head}");
        assert_eq!(field(&head, "x-outrigger-error"), None);
    }
    let state = state(&sidecar);
    assert_eq!((state.retries, state.over_budget), (20, 80));
    assert_eq!(bad.1.load(SeqCst), 120);
}

#[tokio::test]
async fn a_try_that_takes_too_long_is_made_elsewhere() {
    let (good, (silent, asked)) = (
        endpoint("good", 200).await,
        app(|mut caller, _| async move {
            caller.head().await;
            caller.rest().await;
        })
        .await,
    );
    let sidecar = calling(&[silent, good.0], |service, port| {
        service.retry.on = RetryOn { timeout: true, ..RetryOn::default() };
        port.timeouts.per_try = Some(Duration::from_millis(50));
    });
    let mut raw = sidecar.connect().await;
    for _ in 0..20 {
        let (head, _) = get(&mut raw).await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    }
    assert!(asked.load(SeqCst) >= 1);
}

#[tokio::test]
async fn a_whole_request_has_its_time_and_no_more() {
    let (addr, _) = app(|mut caller, _| async move {
        caller.head().await;
        caller.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf ").await;
        caller.rest().await;
    })
    .await;
    let sidecar = calling(&[addr], |_, port| port.timeouts.request = Some(Duration::from_millis(100)));
    let begun = Instant::now();
    let answer = sidecar.ask(GET).await;
    assert!(answer.contains("half "), "{answer}");
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert_eq!(sidecar.end()[0]["error.type"], "app_timeout");
}

#[tokio::test]
async fn an_endpoint_that_fails_in_a_row_gets_nothing_for_a_while() {
    let (good, bad) = (endpoint("good", 200).await, endpoint("bad", 500).await);
    let sidecar = calling(&[bad.0, good.0], |service, _| {
        service.outliers = Outliers { consecutive: 3, base: Duration::from_secs(300), max_ejected: 0.5 };
    });
    // Enough callers at once that both are asked, however fast one fails.
    for _ in 0..40 {
        let mut callers = Vec::new();
        for _ in 0..8 {
            callers.push(sidecar.connect().await);
        }
        for raw in &mut callers {
            raw.send(GET).await;
        }
        for raw in &mut callers {
            raw.answer().await;
        }
        if state(&sidecar).ejections > 0 {
            break;
        }
    }
    let before = bad.1.load(SeqCst);
    let mut raw = sidecar.connect().await;
    for _ in 0..20 {
        assert!(get(&mut raw).await.0.starts_with("HTTP/1.1 200 "));
    }
    assert_eq!(bad.1.load(SeqCst), before);
    let found = state(&sidecar);
    assert_eq!(found.endpoints.iter().find(|e| e.addr == bad.0).unwrap().state, "ejected");
    let told = bad.0.to_string();
    assert!(sidecar.end().iter().any(|line| line["outrigger.ejected"] == told.as_str()));
}

#[tokio::test]
async fn what_goes_beyond_a_bound_is_refused_at_once_and_by_name() {
    let (addr, _) = app(|mut caller, _| async move {
        caller.head().await;
        caller.rest().await;
    })
    .await;
    for bound in ["requests", "connections"] {
        let sidecar = calling(&[addr], |service, _| {
            let breaker = &mut service.breaker;
            *(if bound == "requests" { &mut breaker.requests } else { &mut breaker.connections }) = 1;
            service.retry.attempts = 0;
        });
        let mut first = sidecar.connect().await;
        first.send(GET).await;
        while state(&sidecar).connections == 0 {
            tokio::task::yield_now().await;
        }
        let mut second = sidecar.connect().await;
        let (head, body) = get(&mut second).await;
        assert!(head.starts_with("HTTP/1.1 503 ") && body.contains(bound), "{head}{body}");
        assert_eq!(field(&head, "x-outrigger-error"), Some("circuit_breaker"));
        drop((first, second));
        while state(&sidecar).requests > 0 || state(&sidecar).connections > 0 {
            tokio::task::yield_now().await;
        }
    }
}

/// The same over HTTP/2 on both sides: an endpoint that counts its calls.
async fn endpoint2(name: &'static str, status: u16) -> (SocketAddr, Arc<AtomicUsize>, Arc<AtomicUsize>) {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let (addr, connections) = h2_peers::app(move |request, _| {
        let calls = counted.clone();
        async move {
            calls.fetch_add(1, SeqCst);
            let body = http_body_util::BodyExt::collect(request.into_body()).await.unwrap().to_bytes();
            Response::builder().status(status).body(full(format!("{name} {}", body.len()))).unwrap()
        }
    })
    .await;
    (addr, calls, connections)
}

fn http2(service: &mut Service, port: &mut Port) {
    port.protocol = Protocol::H2c;
    service.outliers.consecutive = 0;
}

#[tokio::test]
async fn calls_over_http2_are_spread_one_by_one_and_repeated_with_their_bodies() {
    let (good, fine, bad) = (endpoint2("good", 200).await, endpoint2("fine", 200).await, endpoint2("bad", 503).await);
    let sidecar = calling(&[good.0, fine.0, bad.0], |service, port| {
        http2(service, port);
        service.retry.all_methods = true;
        service.retry.budget_floor = 100.0;
    });
    let mut sender = h2_peers::caller(&sidecar).await;
    for _ in 0..60 {
        let request = h2_peers::request("POST", "/a").body(full("twelve bytes")).unwrap();
        let (parts, body, _) = whole(sender.send_request(request).await.unwrap()).await;
        assert_eq!((parts.status.as_u16(), &body[4..]), (200, &b" 12"[..]));
    }
    for (_, calls, connections) in [&good, &fine] {
        assert!(calls.load(SeqCst) > 3 && connections.load(SeqCst) == 1);
    }
    assert!(bad.1.load(SeqCst) >= 1);
    assert_eq!(state(&sidecar).requests, 0);
}

#[tokio::test]
async fn the_four_ways_through_all_repeat() {
    for (caller2, app2) in [(false, true), (true, false)] {
        let (good, bad) = match app2 {
            true => (endpoint2("good", 200).await.0, endpoint2("bad", 503).await.0),
            false => (endpoint("good", 200).await.0, endpoint("bad", 503).await.0),
        };
        let sidecar = calling(&[good, bad], |service, port| {
            http2(service, port);
            port.protocol = if app2 { Protocol::H2c } else { Protocol::Http1 };
            service.retry.all_methods = true;
        });
        for _ in 0..10 {
            let body = if caller2 {
                let mut sender = h2_peers::caller(&sidecar).await;
                let request = h2_peers::request("POST", "/a").header("content-length", 5).body(full("hello")).unwrap();
                let (parts, body, _) = whole(sender.send_request(request).await.unwrap()).await;
                assert_eq!(parts.status, 200);
                String::from_utf8(body.to_vec()).unwrap()
            } else {
                let mut raw = sidecar.connect().await;
                raw.send("POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 5\r\n\r\nhello").await;
                let (head, body) = raw.answer().await;
                assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
                body
            };
            assert_eq!(body, "good 5");
        }
        assert!(state(&sidecar).retries > 0);
    }
}

#[tokio::test]
async fn a_connection_for_opaque_bytes_goes_to_an_endpoint_that_takes_it() {
    let (addr, _) = app(|mut caller, _| async move { caller.send("hello").await }).await;
    let sidecar = calling(&[nobody(), addr, nobody()], |_, port| port.protocol = Protocol::Tcp);
    for _ in 0..10 {
        assert_eq!(sidecar.connect().await.rest().await, "hello");
    }
}

/// An endpoint that can be ended, with all its connections, and begun again at the same address.
struct Fickle {
    addr: SocketAddr,
    running: Option<tokio::task::JoinHandle<()>>,
}

impl Fickle {
    async fn new() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        Self { addr, running: Some(Self::run(listener)) }
    }

    fn run(listener: tokio::net::TcpListener) -> tokio::task::JoinHandle<()> {
        tokio::spawn(async move {
            let mut open = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                open.spawn(async move {
                    let mut caller = Raw(stream);
                    while request(&mut caller).await.is_some() {
                        caller.send("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nfickle").await;
                    }
                });
            }
        })
    }

    async fn end(&mut self) {
        if let Some(running) = self.running.take() {
            running.abort();
            let _ = running.await;
        }
    }

    fn begin(&mut self) {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(self.addr).unwrap();
        self.running = Some(Self::run(socket.listen(128).unwrap()));
    }
}

/// An endpoint that is as it should be until it is told to go bad.
async fn until(bad: Arc<AtomicBool>, status: u16, slow: Duration) -> SocketAddr {
    let (addr, _) = app(move |mut caller, _| {
        let bad = bad.clone();
        async move {
            while request(&mut caller).await.is_some() {
                let (status, pause) = if bad.load(SeqCst) { (status, slow) } else { (200, Duration::ZERO) };
                tokio::time::sleep(pause).await;
                caller.send(format!("HTTP/1.1 {status} Any\r\ncontent-length: 2\r\n\r\nok")).await;
            }
        }
    })
    .await;
    addr
}

/// The time within which 99 of a hundred answers came.
fn p99(mut took: Vec<Duration>) -> Duration {
    took.sort_unstable();
    took[took.len() * 99 / 100]
}

/// One endpoint slow, one failing, one ended and begun again and again: no caller sees a failure, and after five seconds none
/// sees the slow one either, but for the odd request that looks whether it still is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_endpoints_go_through_no_caller_is_told() {
    const HEALTHY: Duration = Duration::from_secs(2);
    const SETTLED: Duration = Duration::from_secs(7);
    const END: Duration = Duration::from_secs(10);
    const SLOW: Duration = Duration::from_millis(400);
    let goes_bad = Arc::new(AtomicBool::new(false));
    let failing = until(goes_bad.clone(), 503, Duration::ZERO).await;
    let slow = until(goes_bad.clone(), 200, SLOW).await;
    let mut fickle = Fickle::new().await;
    let sidecar = calling(&[slow, failing, fickle.addr], |service, _| {
        service.outliers.max_ejected = 0.67;
    });
    let begun = Instant::now();
    let callers: Vec<_> = (0..8)
        .map(|_| {
            let addr = sidecar.addr;
            tokio::spawn(async move {
                let mut raw = Raw(tokio::net::TcpStream::connect(addr).await.unwrap());
                let mut took = Vec::new();
                let mut pace = tokio::time::interval(Duration::from_millis(10));
                while begun.elapsed() < END {
                    pace.tick().await;
                    let asked = Instant::now();
                    let (head, _) = get(&mut raw).await;
                    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
                    took.push((asked - begun, asked.elapsed()));
                }
                took
            })
        })
        .collect();
    tokio::time::sleep(HEALTHY).await;
    goes_bad.store(true, SeqCst);
    while begun.elapsed() + Duration::from_secs(2) < END {
        fickle.end().await;
        fickle.begin();
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    let mut took = Vec::new();
    for caller in callers {
        took.extend(caller.await.unwrap());
    }
    let between = |from, to| took.iter().filter(|(at, _)| (from..to).contains(at)).map(|(_, took)| *took).collect();
    let (before, after) = (p99(between(Duration::ZERO, HEALTHY)), p99(between(SETTLED, END)));
    // A busy machine is late by some milliseconds, an endpoint that is slow by a hundred times as much.
    assert!(after < before.mul_f64(1.5) + SLOW / 8, "{before:?} healthy, {after:?} after");
    let found = state(&sidecar);
    assert_eq!(found.over_budget, 0);
    assert!(found.retries as f64 <= took.len() as f64 * 0.2 + 10.0 * (begun.elapsed().as_secs_f64() + 1.0));
    assert!(found.ejections > 0);
}

#[tokio::test]
async fn where_the_peer_takes_no_more_streams_another_connection_is_opened() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let (counted, gate) = (connections.clone(), Arc::new(tokio::sync::Semaphore::new(0)));
    let held = gate.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            counted.fetch_add(1, SeqCst);
            let held = held.clone();
            let service = hyper::service::service_fn(move |_| {
                let held = held.clone();
                async move {
                    held.acquire().await.unwrap().forget();
                    Ok::<_, std::convert::Infallible>(Response::new(full("done")))
                }
            });
            let mut server = hyper::server::conn::http2::Builder::new(hyper_util::rt::TokioExecutor::new());
            server.max_concurrent_streams(2);
            tokio::spawn(server.serve_connection(hyper_util::rt::TokioIo::new(stream), service));
        }
    });
    let sidecar = calling(&[addr], http2);
    let mut sender = h2_peers::caller(&sidecar).await;
    // The first tells how many streams the peer takes.
    gate.add_permits(1);
    whole(sender.send_request(h2_peers::request("GET", "/").body(full("")).unwrap()).await.unwrap()).await;
    let calls: Vec<_> = (0..6)
        .map(|_| tokio::spawn(sender.send_request(h2_peers::request("GET", "/").body(full("")).unwrap())))
        .collect();
    let waiting = Instant::now();
    while connections.load(SeqCst) < 3 {
        assert!(waiting.elapsed() < PATIENCE, "{} connections for six calls, two on each", connections.load(SeqCst));
        tokio::task::yield_now().await;
    }
    gate.add_permits(6);
    for call in calls {
        assert_eq!(whole(call.await.unwrap().unwrap()).await.1, "done");
    }
    assert_eq!(connections.load(SeqCst), 3);
}

#[tokio::test]
async fn a_share_of_requests_and_those_with_a_header_go_to_the_canary() {
    use proxy::config::{Share, Split};
    let (stable, canary) = (endpoint("stable", 200).await, endpoint("canary", 200).await);
    let sidecar = Sidecar::with_more(stable.0, |ports| {
        let service = |addr| Upstream::Service(Cluster::new(Service::new(Source::Static(vec![addr]))));
        ports[0].direction = Direction::Outbound;
        ports[0].upstream = service(stable.0);
        ports.push(Port { name: "canary".into(), listen: Vec::new(), upstream: service(canary.0), ..ports[0].clone() });
    });
    let shared = sidecar.shared();
    let ports = shared.snapshot.load().ports.clone();
    let split = |which| {
        let split = Port { splits: vec![Split { to: 1, which }], ..Port::clone(&ports[0]) };
        shared.reload(proxy::config::Snapshot { ports: vec![Arc::new(split), ports[1].clone()], ..Default::default() });
    };
    for (share, expected) in [(0.5, 20..80), (0.0, 0..1), (1.0, 100..101)] {
        split(Share::Of(share));
        let mut raw = sidecar.connect().await;
        let mut at_canary = 0;
        for _ in 0..100 {
            at_canary += usize::from(get(&mut raw).await.1.starts_with("canary"));
        }
        assert!(expected.contains(&at_canary), "{share}: {at_canary}");
    }
    split(Share::Field("x-canary".into(), "1".into()));
    for (value, expected) in [("1", "canary"), ("10", "stable"), ("0", "stable")] {
        let mut raw = sidecar.connect().await;
        raw.send(format!("GET / HTTP/1.1\r\nHost: a\r\nX-Canary: {value}\r\n\r\n")).await;
        assert!(raw.answer().await.1.starts_with(expected), "{value}");
    }
}
