//! The app's own calls: over mutual TLS to whom is expected, through another outrigger, and to nobody else.

use std::net::SocketAddr;

use identity::Expected;
use model::Direction;
use proxy::Cluster;
use proxy::config::{Port, Protocol, Service, Source, Tls, Upstream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::{Sidecar, app, field, mirror};
use crate::tls_peers::{CLIENT, SERVER, ask_http2, known};

fn strict(port: &mut Port) {
    port.tls = Tls::Strict { plaintext_paths: Vec::new() };
}

fn calls(addr: SocketAddr, expected: &str) -> impl FnOnce(&mut Port) {
    let expected = Expected::OneOf(vec![expected.parse().unwrap()]);
    move |port| {
        port.direction = Direction::Outbound;
        let mut service = Service::new(Source::Static(vec![addr]));
        (service.expected, service.host) = (Some(expected), Some("payments.shop".into()));
        port.upstream = Upstream::Service(Cluster::new(service));
    }
}

/// Two outriggers of one trust domain: an app's, and in front of it its caller's.
fn pair(app: SocketAddr, expected: &str, change: impl Fn(&mut Port)) -> (Sidecar, Sidecar) {
    let (authority, dir, identity) = known();
    let server = Sidecar::known_as(identity, app, |port| {
        strict(port);
        change(port);
    });
    authority.svid("/ns/b/sa/client").unwrap().write(&dir.0).unwrap();
    let caller = Sidecar::known_as(dir.identity(), app, |port| {
        calls(server.addr, expected)(port);
        change(port);
    });
    (server, caller)
}

const GET: &str = "GET /a?b HTTP/1.1\r\nHost: localhost:9001\r\nX-Forwarded-Client-Cert: By=me\r\n\r\n";

#[tokio::test]
async fn a_call_reaches_its_service_and_both_ends_know_each_other() {
    let (app, connections) = mirror().await;
    let (server, caller) = pair(app, SERVER, |_| {});
    let mut raw = caller.connect().await;
    for _ in 0..3 {
        raw.send(GET).await;
        let (head, seen) = raw.answer().await;
        assert!(head.starts_with("HTTP/1.1 200 ") && seen.starts_with("GET /a?b HTTP/1.1\r\n"), "{head}{seen}");
        assert_eq!(field(&seen, "host"), Some("payments.shop"));
        let told = field(&seen, "x-forwarded-client-cert").unwrap();
        assert!(told.starts_with(&format!("By={SERVER};")) && told.ends_with(&format!("URI={CLIENT}")), "{told}");
        assert!(field(&seen, "x-request-id").is_some());
    }
    // One connection of each for all three.
    server.counts("outrigger_tls_handshakes_total{result=\"ok\"} 1").await;
    caller.counts("outrigger_upstream_tls_handshakes_total{result=\"ok\"} 1").await;
    assert_eq!(connections.load(std::sync::atomic::Ordering::SeqCst), 1);
    let ids: Vec<_> = server.end().iter().map(|line| line["outrigger.request_id"].clone()).collect();
    let log = caller.end();
    assert!(log.iter().all(|line| line["network.io.direction"] == "transmit"));
    // The same request bears its ID on both sides: its caller has proven to be of the mesh.
    assert!(log.iter().zip(&ids).all(|(line, id)| line["outrigger.request_id"] == *id));
}

#[tokio::test]
async fn whoever_is_not_expected_is_told_nothing() {
    let (app, connections) = mirror().await;
    let (server, caller) = pair(app, "spiffe://test.example/ns/a/sa/other", |_| {});
    let answer = caller.ask(GET.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
    assert_eq!(field(&answer, "x-outrigger-error"), Some("upstream_tls"));
    caller.counts("outrigger_upstream_tls_handshakes_total{result=\"unexpected_peer\"} 1").await;
    server.counts("outrigger_tls_handshakes_total{result=\"refused\"} 1").await;
    assert_eq!(connections.load(std::sync::atomic::Ordering::SeqCst), 0);
    let log = caller.end();
    assert!(log[0]["outrigger.error.detail"].as_str().unwrap().starts_with("unexpected_peer: "), "{}", log[0]);
}

#[tokio::test]
async fn there_is_no_falling_back_to_plaintext() {
    let (app, connections) = mirror().await;
    let (_authority, _dir, identity) = known();
    // An app that speaks plaintext where an outrigger is expected.
    let caller = Sidecar::known_as(identity, app, |port| {
        calls(app, SERVER)(port);
        port.timeouts.handshake = std::time::Duration::from_millis(200);
    });
    let answer = caller.ask(GET.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n")).await;
    assert!(
        answer.starts_with("HTTP/1.1 502 ") && field(&answer, "x-outrigger-error") == Some("upstream_tls"),
        "{answer}"
    );
    assert_eq!(connections.load(std::sync::atomic::Ordering::SeqCst), 1);
    let log = caller.end();
    assert!(!log[0]["outrigger.error.detail"].as_str().unwrap().is_empty());
}

#[tokio::test]
async fn a_call_in_http2_stays_one_between_the_two() {
    let (app, _) = mirror().await;
    let (server, caller) = pair(app, "spiffe://test.example/ns/a/*", |_| {});
    let tcp = tokio::net::TcpStream::connect(caller.addr).await.unwrap();
    let (mut sender, connection) = h2::client::handshake(tcp).await.unwrap();
    let driving = tokio::spawn(connection);
    for _ in 0..3 {
        let seen = ask_http2(&mut sender, "http://localhost:9001/x").await;
        assert_eq!(field(&seen, "host"), Some("payments.shop"));
        assert!(field(&seen, "x-forwarded-client-cert").unwrap().ends_with(CLIENT), "{seen}");
    }
    drop(sender);
    driving.abort();
    server.counts("outrigger_tls_handshakes_total{result=\"ok\"} 1").await;
    for line in server.end() {
        assert_eq!(line["network.protocol.version"], "2");
    }
    drop(caller);
}

#[tokio::test]
async fn opaque_bytes_are_carried_between_the_two_and_each_end_by_itself() {
    let (app, _) = app(|mut caller, _| async move {
        let heard = caller.take(5).await;
        caller.send(heard.to_uppercase()).await;
        assert_eq!(caller.rest().await, "");
        caller.send("bye").await;
    })
    .await;
    let (_server, caller) = pair(app, SERVER, |port| port.protocol = Protocol::Tcp);
    let mut raw = caller.connect().await;
    raw.send("hello").await;
    assert_eq!(raw.take(5).await, "HELLO");
    raw.end().await;
    assert_eq!(raw.rest().await, "bye");
}

#[tokio::test]
async fn a_large_body_crosses_two_outriggers_both_ways() {
    let (app, _) = mirror().await;
    let (_server, caller) = pair(app, SERVER, |_| {});
    let body = "0123456789abcdef".repeat(1 << 16);
    let post =
        format!("POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let (mut read, mut write) = caller.connect().await.0.into_split();
    let sending = tokio::spawn(async move { write.write_all(post.as_bytes()).await.unwrap() });
    let mut answer = Vec::new();
    read.read_to_end(&mut answer).await.unwrap();
    sending.await.unwrap();
    assert!(answer.ends_with(body.as_bytes()));
}

#[tokio::test]
async fn without_an_identity_of_our_own_nothing_is_called() {
    let (app, connections) = mirror().await;
    let dir = crate::tls_peers::Directory::new();
    let caller = Sidecar::known_as(dir.identity(), app, calls(app, SERVER));
    let answer = caller.ask(GET.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n")).await;
    assert!(
        answer.starts_with("HTTP/1.1 503 ") && field(&answer, "x-outrigger-error") == Some("no_identity"),
        "{answer}"
    );
    caller.counts("outrigger_upstream_tls_handshakes_total{result=\"own_identity\"} 1").await;
    assert_eq!(connections.load(std::sync::atomic::Ordering::SeqCst), 0);
    let endpoint = &caller.shared().upstreams()[0].2.endpoints[0];
    assert_eq!((endpoint.state, endpoint.failures), ("healthy", 0), "it is no fault of theirs");
}

#[tokio::test]
async fn a_peer_that_stalls_the_handshake_holds_a_call_no_longer_than_a_try_may_take() {
    let (app, _) = mirror().await;
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stalls = silent.local_addr().unwrap();
    let holding = tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = silent.accept().await {
            held.push(stream);
        }
    });
    let (_authority, dir, _) = known();
    let caller = Sidecar::known_as(dir.identity(), app, |port| {
        calls(stalls, SERVER)(port);
        port.timeouts.connect = std::time::Duration::from_secs(60);
        port.timeouts.per_try = Some(std::time::Duration::from_millis(100));
    });
    let begun = std::time::Instant::now();
    for version in ["1.1", "1.0"] {
        let answer = caller.ask(format!("GET / HTTP/{version}\r\nHost: a\r\nConnection: close\r\n\r\n")).await;
        assert!(field(&answer, "x-outrigger-error") == Some("app_connect_timeout"), "{answer}");
    }
    assert!(begun.elapsed() < std::time::Duration::from_secs(10), "{:?}", begun.elapsed());
    holding.abort();
}
