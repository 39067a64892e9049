//! Whose address reaches the app and the log: nobody can make it another's whom we do not trust.

use std::num::NonZeroU8;

use geo::{AddressPolicy, ForwardingHeader, Proxies, Trust};
use proxy::config::ProxyProtocol;

use crate::harness::{Sidecar, field, mirror};

fn trusting_loopback() -> AddressPolicy {
    let networks = ["127.0.0.0/8".parse().unwrap(), "10.0.0.0/8".parse().unwrap()];
    AddressPolicy { trusted: Trust::Proxies(Proxies::new(networks, [])), ..AddressPolicy::default() }
}

#[tokio::test]
async fn nobody_is_trusted_by_default_and_forwarding_headers_are_replaced() {
    let (app, _) = mirror().await;
    let sidecar = Sidecar::start(app);
    let mut caller = sidecar.connect().await;
    caller
        .send(
            "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 8.8.8.8\r\nx_forwarded_for: 8.8.4.4\r\nForwarded: for=9.9.9.9\r\n\
             X-Real-IP: 1.1.1.1\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\nX-Forwarded-Port: 1\r\n\
             X-Forwarded-Client-Cert: URI=spiffe://a/b\r\nX-Client-Geo-Country: NO\r\nX-Client_Geo-City: Oslo\r\n\
             X-Outrigger-Error: none\r\nX-Request-ID: mine\r\nTraceparent: nonsense\r\nTracestate: a=b\r\n\r\n",
        )
        .await;
    let (_, seen) = caller.answer().await;
    assert_eq!(field(&seen, "x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(field(&seen, "x-forwarded-proto"), Some("http"));
    assert_eq!(seen.to_lowercase().matches("forwarded").count(), 2, "{seen}");
    for name in
        ["x-real-ip", "x-client-geo-country", "x-client_geo-city", "x-outrigger-error", "traceparent", "tracestate"]
    {
        assert_eq!(field(&seen, name), None, "{seen}");
    }
    assert_ne!(field(&seen, "x-request-id"), Some("mine"));
    drop(caller);
    assert_eq!(sidecar.end()[0]["client.address"], "127.0.0.1");
}

#[tokio::test]
async fn a_trusted_hop_names_the_client_and_the_chain_goes_on() {
    let (app, _) = mirror().await;
    let sidecar = Sidecar::with(app, |port| {
        port.address = trusting_loopback();
        port.geo_headers.country = true;
    });
    let mut caller = sidecar.connect().await;
    caller
        .send(
            "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.2.3.4, 8.8.8.8\r\nX-Forwarded-For: 10.1.2.3\r\nX-Forwarded-Proto: https\r\n\
             X-Request-ID: edge-17\r\nTraceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n\r\n",
        )
        .await;
    let (_, seen) = caller.answer().await;
    assert_eq!(field(&seen, "x-forwarded-for"), Some("1.2.3.4, 8.8.8.8, 10.1.2.3, 127.0.0.1"));
    assert_eq!(field(&seen, "x-forwarded-proto"), Some("https"));
    assert_eq!(field(&seen, "x-request-id"), Some("edge-17"));
    assert_eq!(field(&seen, "x-client-geo-country"), Some("US"));
    assert_eq!(field(&seen, "traceparent"), Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"));
    drop(caller);
    let line = &sidecar.end()[0];
    assert_eq!(line["client.address"], "8.8.8.8", "the forged first entry won");
    assert_eq!(line["geo.country.iso_code"], "US");
    assert_eq!(line["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736");
}

#[tokio::test]
async fn hops_and_the_forwarded_header_are_understood() {
    let (app, _) = mirror().await;
    for (policy, header, client) in [
        (
            AddressPolicy { trusted: Trust::Hops(NonZeroU8::MIN), ..AddressPolicy::default() },
            "X-Forwarded-For: 6.6.6.6, 8.8.8.8",
            "8.8.8.8",
        ),
        (
            AddressPolicy { headers: vec![ForwardingHeader::Forwarded], ..trusting_loopback() },
            "Forwarded: for=6.6.6.6, for=\"[2001:4860:4860::8888]:443\";proto=https, for=10.0.0.9",
            "2001:4860:4860::8888",
        ),
    ] {
        let sidecar = Sidecar::with(app, |port| port.address = policy);
        let mut caller = sidecar.connect().await;
        caller.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{header}\r\n\r\n")).await;
        caller.answer().await;
        drop(caller);
        assert_eq!(sidecar.end()[0]["client.address"], client);
    }
}

#[tokio::test]
async fn a_proxy_header_of_a_trusted_source_names_the_client() {
    let (app, _) = mirror().await;
    let sidecar = Sidecar::with(app, |port| {
        port.address = trusting_loopback();
        port.proxy_protocol = ProxyProtocol::Required;
    });
    let mut caller = sidecar.connect().await;
    caller
        .send("PROXY TCP4 8.8.8.8 127.0.0.1 4711 80\r\nGET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.1.1.1\r\n\r\n")
        .await;
    let (_, seen) = caller.answer().await;
    assert_eq!(field(&seen, "x-forwarded-for"), Some("8.8.8.8"), "the client itself is not trusted to name another");
    drop(caller);
    assert_eq!(sidecar.end()[0]["client.address"], "8.8.8.8");
}

#[tokio::test]
async fn a_proxy_header_where_none_is_allowed_ends_the_connection() {
    let (app, connections) = mirror().await;
    let header = "PROXY TCP4 8.8.8.8 127.0.0.1 4711 80\r\n";
    let request = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    for (mode, trusted, bytes) in [
        (ProxyProtocol::Optional, false, format!("{header}{request}")),
        (ProxyProtocol::Required, false, format!("{header}{request}")),
        (ProxyProtocol::Required, true, request.to_string()),
        (ProxyProtocol::Required, true, format!("PROXY TCP4 8.8.8.8\r\n{request}")),
    ] {
        let sidecar = Sidecar::with(app, |port| {
            port.proxy_protocol = mode;
            if trusted {
                port.address = trusting_loopback();
            }
        });
        let answer = sidecar.ask(bytes).await;
        assert!(!answer.contains("200 OK"), "{answer}");
        sidecar.counts("outrigger_errors_total{error_type=\"proxy_protocol\",fault=\"client\"} 1").await;
    }
    // Where it is disabled its bytes are no request, and a second one never is.
    let disabled = Sidecar::start(app);
    assert!(disabled.ask(format!("{header}{request}")).await.starts_with("HTTP/1.1 400 "));
    let twice = Sidecar::with(app, |port| {
        port.proxy_protocol = ProxyProtocol::Optional;
        port.address = trusting_loopback();
    });
    assert!(twice.ask(format!("{header}{header}{request}")).await.starts_with("HTTP/1.1 400 "));
    assert_eq!(connections.load(std::sync::atomic::Ordering::SeqCst), 0);
}
