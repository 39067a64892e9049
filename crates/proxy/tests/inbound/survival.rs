//! What a caller is spared, and what is learnt of an endpoint, where things go wrong on the way to it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use http::Response;
use http_body_util::BodyExt as _;
use model::Direction;
use proxy::Cluster;
use proxy::config::{Outliers, Port, Protocol, Service, Snapshot, Source, Upstream};

use crate::h2_peers::{self, full, whole};
use crate::harness::{PATIENCE, Raw, Sidecar, field, mirror};

/// A sidecar that calls this endpoint over HTTP/2.
fn calling(endpoint: SocketAddr, change: impl FnOnce(&mut Service, &mut Port)) -> Sidecar {
    let mut service = Service::new(Source::Static(vec![endpoint]));
    Sidecar::with(endpoint, |port| {
        (port.direction, port.protocol) = (Direction::Outbound, Protocol::H2c);
        change(&mut service, port);
        port.upstream = Upstream::Service(Cluster::new(service));
    })
}

/// An address that nobody listens at.
fn nobody() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[tokio::test]
async fn calls_at_once_share_a_new_connection_as_soon_as_the_peer_has_said_how_many_it_takes() {
    let (addr, connections) = h2_peers::app(|_, _| async { Response::new(full("hello")) }).await;
    let sidecar = calling(addr, |_, port| port.timeouts.connect = PATIENCE * 2);
    let mut sender = h2_peers::caller(&sidecar).await;
    let begun = Instant::now();
    let calls: Vec<_> = (0..20)
        .map(|_| tokio::spawn(sender.send_request(h2_peers::request("GET", "/").body(full("")).unwrap())))
        .collect();
    for call in calls {
        assert_eq!(whole(call.await.unwrap().unwrap()).await.1, "hello");
    }
    assert!(begun.elapsed() < PATIENCE, "{:?}: somebody waited for the connect timeout", begun.elapsed());
    assert_eq!(connections.load(SeqCst), 1);
}

#[tokio::test]
async fn an_endpoint_whose_calls_fail_in_grpcs_own_words_is_failing() {
    let (addr, _) = h2_peers::app(|_, _| async {
        let answer = Response::builder().header("content-type", "application/grpc").header("grpc-status", "14");
        answer.body(full("")).unwrap()
    })
    .await;
    let sidecar = calling(addr, |service, _| service.outliers = Outliers { consecutive: 0, ..Outliers::default() });
    let mut sender = h2_peers::caller(&sidecar).await;
    for _ in 0..3 {
        let call =
            h2_peers::request("POST", "/a.B/C").header("content-type", "application/grpc").header("te", "trailers");
        let answer = sender.send_request(call.body(full("")).unwrap()).await.unwrap();
        assert!(answer.status() == 200 && answer.headers()["grpc-status"] == "14");
    }
    let state = &sidecar.shared().upstreams()[0].2;
    assert!(state.endpoints[0].failures == 3 && state.retries == 0, "{state:?}");
}

#[tokio::test]
async fn an_endpoint_that_never_answers_is_failing_in_either_version() {
    let (addr, _) = h2_peers::app(|request, _| async move {
        let _ = request.into_body().collect().await;
        std::future::pending().await
    })
    .await;
    let sidecar = calling(addr, |_, port| port.timeouts.response = Some(Duration::from_millis(50)));
    let mut sender = h2_peers::caller(&sidecar).await;
    let answer = sender.send_request(h2_peers::request("GET", "/").body(full("")).unwrap()).await.unwrap();
    assert_eq!(answer.status(), 504);
    let answer = sidecar.ask("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
    assert_eq!(sidecar.shared().upstreams()[0].2.endpoints[0].failures, 2);
}

#[tokio::test]
async fn a_kept_connection_is_only_for_whom_it_was_made_to() {
    let (app, _) = mirror().await;
    let gone = nobody();
    let sidecar = Sidecar::with(app, |port| port.upstream = Upstream::app(vec![gone, app]));
    let shared = sidecar.shared();
    let get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut raw = sidecar.connect().await;
    for reused in ["new", "reused"] {
        raw.send(get).await;
        assert!(raw.answer().await.0.starts_with("HTTP/1.1 200 "), "{reused}");
    }
    let port = shared.snapshot.load().ports[0].clone();
    let other = Port { upstream: Upstream::app(vec![gone]), ..Port::clone(&port) };
    shared.reload(Snapshot { ports: vec![Arc::new(other)], ..Default::default() });
    raw.send(get).await;
    let (head, _) = raw.answer().await;
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    let log = sidecar.end();
    let used: Vec<_> = log.iter().map(|line| line["outrigger.app.connection"].as_str().unwrap_or("none")).collect();
    assert_eq!(used, ["new", "reused", "none"]);
}

/// A sidecar with a listener for calls to anybody.
fn for_anybody(app: SocketAddr) -> Sidecar {
    Sidecar::with(app, |port| (port.direction, port.upstream) = (Direction::Outbound, Upstream::Meant))
}

#[tokio::test]
async fn what_is_said_to_the_proxy_stays_with_the_proxy() {
    let (app, _) = mirror().await;
    let sidecar = for_anybody(app);
    let request = format!(
        "GET http://{app}/a HTTP/1.1\r\nHost: {app}\r\nProxy-Authorization: Basic c2VjcmV0\r\nProxy-Connection: keep-alive\r\n\
         Authorization: Basic dGhlaXJz\r\n\r\n"
    );
    let mut raw: Raw = sidecar.connect().await;
    raw.send(request).await;
    let (_, seen) = raw.answer().await;
    assert!(field(&seen, "proxy-authorization").is_none() && field(&seen, "proxy-connection").is_none(), "{seen}");
    assert_eq!(field(&seen, "authorization"), Some("Basic dGhlaXJz"));
    for scheme in ["https", "HTTPS", "HttpS"] {
        let answer = sidecar.ask(format!("GET {scheme}://{app}/ HTTP/1.1\r\nHost: {app}\r\n\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 501 "), "{scheme}: {answer}");
    }
    let log = sidecar.end();
    assert_eq!(
        (&log[0]["outrigger.upstream.address"], &log[0]["outrigger.upstream.tls"]),
        (&app.to_string().into(), &"disabled".into())
    );
}
