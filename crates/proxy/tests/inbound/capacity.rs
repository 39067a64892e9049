//! More connections than there is room for, and several workers.

use std::collections::HashSet;
use std::sync::atomic::Ordering;

use proxy::Capacity;

use crate::harness::{Raw, Sidecar, field, mirror};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

async fn get(caller: &mut Raw) -> String {
    caller.send(GET).await;
    let (head, _) = caller.answer().await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    head
}

#[tokio::test]
async fn connections_beyond_what_descriptors_allow_wait_and_are_served_in_turn() {
    let (app, _) = mirror().await;
    let sidecar = Sidecar::of(Capacity { workers: 1, connections: 2 }, app, |_| {});
    let (mut first, mut second, mut third) =
        (sidecar.connect().await, sidecar.connect().await, sidecar.connect().await);
    get(&mut first).await;
    get(&mut second).await;
    third.send(GET).await;
    sidecar.counts("outrigger_connections_open{port=\"test\"} 2").await;
    sidecar.counts("outrigger_accept_backoffs_total 1").await;
    drop(first);
    let (head, _) = third.answer().await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    get(&mut second).await;
}

#[tokio::test]
async fn connections_beyond_the_ports_limit_are_told_so() {
    let (app, _) = mirror().await;
    let sidecar = Sidecar::with(app, |port| port.limits.connections = 1);
    let mut first = sidecar.connect().await;
    get(&mut first).await;
    let mut second = sidecar.connect().await;
    let answer = second.rest().await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert_eq!(field(&answer, "x-outrigger-error"), Some("connection_limit"));
    get(&mut first).await;
    sidecar.counts("outrigger_limits_hit_total{limit=\"connections\"} 1").await;
}

#[tokio::test]
async fn several_workers_share_the_connections_and_none_is_lost_when_they_leave() {
    let (app, connections) = mirror().await;
    let sidecar = Sidecar::of(Capacity { workers: 3, connections: usize::MAX }, app, |_| {});
    let mut callers = Vec::new();
    for _ in 0..9 {
        let mut caller = sidecar.connect().await;
        get(&mut caller).await;
        callers.push(caller);
    }
    // Each worker keeps its own connection to the app: three of nine callers each.
    assert_eq!(connections.load(Ordering::SeqCst), 3);
    for caller in &mut callers {
        get(caller).await;
    }
    assert_eq!(connections.load(Ordering::SeqCst), 3);
    sidecar.counts("outrigger_connections_total{port=\"test\"} 9").await;
    drop(callers);
    let log = sidecar.end();
    assert_eq!(log.len(), 18);
    let ids: HashSet<_> = log.iter().map(|line| line["outrigger.request_id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), 18);
}
