//! Mutual TLS from callers: who is let in, who is refused and how, and what the app is told.

use std::io::{Read, Write};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use authority::{Authority, Issued, Wish};
use identity::KeyPair;
use proxy::config::{Port, Protocol, Tls};
use rcgen::{ExtendedKeyUsagePurpose, KeyUsagePurpose};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::rustls::crypto::aws_lc_rs::cipher_suite::{
    TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256,
};
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{CipherSuite, HandshakeKind, ProtocolVersion};

use crate::harness::{Raw, Sidecar, app, field, mirror};
use crate::tls_peers::{CLIENT, DOMAIN, SERVER, ask, ask_http2, client, client_with, connect, known, say, showing};

const GET: &str =
    "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-Client-Cert: By=me;URI=spiffe://forged\r\nConnection: close\r\n\r\n";

fn strict(port: &mut Port) {
    port.tls = Tls::Strict { plaintext_paths: vec!["/healthz".into()] };
}

fn permissive(port: &mut Port) {
    port.tls = Tls::Permissive;
}

#[tokio::test]
async fn a_caller_that_proves_itself_is_told_to_the_app_and_to_the_log() {
    let (authority, _dir, identity) = known();
    let (app, _) = mirror().await;
    let sidecar = Sidecar::known_as(identity, app, strict);
    let svid = authority.intermediate().unwrap().svid("/ns/b/sa/client").unwrap();
    for alpn in [&["http/1.1"][..], &[], &["spdy/1", "http/1.1"]] {
        let answer = ask(&sidecar, showing(&svid, alpn), GET).await.unwrap();
        let seen = answer.split_once("\r\n\r\n").unwrap().1;
        let told = field(seen, "x-forwarded-client-cert").unwrap();
        assert!(told.starts_with(&format!("By={SERVER};Hash=")) && told.ends_with(&format!(";URI={CLIENT}")), "{told}");
        assert_eq!(seen.matches("client-cert").count(), 1, "{seen}");
        assert_eq!(told.split(';').nth(1).unwrap().len(), "Hash=".len() + 64);
        assert_eq!(field(seen, "x-forwarded-proto"), Some("https"));
    }
    sidecar.counts("outrigger_tls_handshakes_total{result=\"ok\"} 3").await;
    for line in sidecar.end() {
        assert_eq!((&line["outrigger.peer.identity"], &line["url.scheme"]), (&CLIENT.into(), &"https".into()));
    }
}

#[tokio::test]
async fn aes_128_is_agreed_on_whatever_the_caller_likes_best_and_nobody_has_to_have_it() {
    let (authority, _dir, identity) = known();
    let (app, _) = mirror().await;
    let sidecar = Sidecar::known_as(identity, app, strict);
    let svid = authority.svid("/ns/b/sa/client").unwrap();
    for (offered, agreed) in [
        (&[TLS13_AES_256_GCM_SHA384, TLS13_AES_128_GCM_SHA256][..], CipherSuite::TLS13_AES_128_GCM_SHA256),
        (&[TLS13_AES_256_GCM_SHA384], CipherSuite::TLS13_AES_256_GCM_SHA384),
        (&[TLS13_CHACHA20_POLY1305_SHA256], CipherSuite::TLS13_CHACHA20_POLY1305_SHA256),
    ] {
        let mut provider = default_provider();
        provider.cipher_suites = offered.to_vec();
        let mut stream = connect(&sidecar, client_with(provider, &[&TLS13], Some(&svid), &[])).await.unwrap();
        assert_eq!(stream.get_ref().1.negotiated_cipher_suite().map(|suite| suite.suite()), Some(agreed));
        assert!(say(&mut stream, GET).await.unwrap().starts_with("HTTP/1.1 200"));
    }
}

/// As many records as writes: each costs a call to the kernel and another's wake-up.
#[tokio::test]
async fn an_answer_with_a_small_body_is_one_record() {
    let (authority, _dir, identity) = known();
    let (app, _) = mirror().await;
    let sidecar = Sidecar::known_as(identity, app, strict);
    let config = showing(&authority.svid("/ns/b/sa/client").unwrap(), &[]);
    let (mut tcp, mut session) = connect(&sidecar, config).await.unwrap().into_inner();
    for _ in 0..3 {
        session.writer().write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        let mut request = Vec::new();
        session.write_tls(&mut request).unwrap();
        tcp.write_all(&request).await.unwrap();
        let (mut wire, mut answer) = (Vec::new(), String::new());
        // What the app is told comes last in its answer.
        while !answer.ends_with("\r\n\r\n") || answer.matches("\r\n\r\n").count() < 2 {
            let mut received = vec![0; 32 * 1024];
            let n = tcp.read(&mut received).await.unwrap();
            assert!(n > 0, "{answer}");
            wire.extend_from_slice(&received[..n]);
            session.read_tls(&mut &received[..n]).unwrap();
            session.process_new_packets().unwrap();
            let _ = session.reader().read_to_string(&mut answer);
        }
        let length = 5 + usize::from(u16::from_be_bytes([wire[3], wire[4]]));
        assert_eq!(length, wire.len(), "{answer}");
    }
}

/// A client under Nagle's algorithm sends its first request when the end of its handshake is acknowledged. The kernel would
/// take 40 ms for that at least, every time; once without is proof.
#[tokio::test]
async fn a_handshakes_end_is_acknowledged_at_once() {
    let (authority, _dir, identity) = known();
    let (app, _) = mirror().await;
    let sidecar = Sidecar::known_as(identity, app, strict);
    let svid = authority.svid("/ns/b/sa/client").unwrap();
    let mut fastest = Duration::MAX;
    for _ in 0..5 {
        let mut stream = connect(&sidecar, showing(&svid, &[])).await.unwrap();
        assert!(!stream.get_ref().0.nodelay().unwrap());
        let begun = std::time::Instant::now();
        say(&mut stream, GET).await.unwrap();
        fastest = fastest.min(begun.elapsed());
    }
    assert!(fastest < Duration::from_millis(35), "the first request takes {fastest:?}");
}

#[tokio::test]
async fn http2_is_agreed_on_and_carries_the_identity() {
    let (authority, _dir, identity) = known();
    let (app, _) = mirror().await;
    let sidecar = Sidecar::known_as(identity, app, strict);
    let svid = authority.svid("/ns/b/sa/client").unwrap();
    let stream = connect(&sidecar, showing(&svid, &["h2", "http/1.1"])).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
    let driving = tokio::spawn(connection);
    for _ in 0..3 {
        let seen = ask_http2(&mut sender, "https://a/x").await;
        assert!(field(&seen, "x-forwarded-client-cert").unwrap().ends_with(CLIENT), "{seen}");
        assert_eq!(field(&seen, "x-forwarded-proto"), Some("https"));
    }
    driving.abort();
}

#[tokio::test]
async fn a_permissive_port_takes_both_and_believes_no_claim() {
    let (authority, _dir, identity) = known();
    let (app, _) = mirror().await;
    let sidecar = Sidecar::known_as(identity, app, permissive);
    let svid = authority.svid("/ns/b/sa/client").unwrap();
    let encrypted = ask(&sidecar, showing(&svid, &[]), GET).await.unwrap();
    assert!(encrypted.contains(CLIENT), "{encrypted}");
    let plain = sidecar.ask(GET).await;
    assert!(plain.starts_with("HTTP/1.1 200 ") && !plain.to_lowercase().contains("client-cert"), "{plain}");
    // Every ClientHello is ended here: one without a certificate is refused, not passed on as plaintext.
    let error = ask(&sidecar, client(&[&TLS13], None, &[]), GET).await.unwrap_err();
    assert!(error.contains("CertificateRequired"), "{error}");
}

#[tokio::test]
async fn a_strict_port_takes_plaintext_for_named_probes_only() {
    let (_authority, _dir, identity) = known();
    let (app, _) = mirror().await;
    let sidecar = Sidecar::known_as(identity, app, strict);
    for (request, status) in [
        ("GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "200"),
        ("GET /healthz?x=1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "200"),
        ("POST /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", "403"),
        ("GET /healthz/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "403"),
        ("GET /%68ealthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "403"),
        ("GET /../healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "403"),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "403"),
        ("not http at all\r\n\r\n", "400"),
    ] {
        let answer = sidecar.ask(request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {answer}");
        if status == "403" {
            assert_eq!(field(&answer, "x-outrigger-error"), Some("tls_required"));
        }
    }
}

/// What is wrong with a client, what it shows, the alert it gets, and the reason counted.
fn bad_clients(authority: &Authority) -> Vec<(&'static str, Issued, &'static str, &'static str)> {
    let now = SystemTime::now();
    let hour = Duration::from_secs(3600);
    let wish = || Wish::spiffe(CLIENT);
    let issue = |wish: Wish| authority.issue(&wish).unwrap();
    let other = Authority::new("other.example").unwrap();
    let namesake = Authority::new(DOMAIN).unwrap();
    let good = issue(wish());
    let no_signer = Wish { usages: vec![KeyUsagePurpose::DigitalSignature], is_ca: true, ..Wish::default() };
    let below_leaf = Wish { is_ca: true, usages: vec![KeyUsagePurpose::KeyCertSign], purposes: vec![], ..wish() };
    let plain_leaf_signs = Wish { usages: vec![KeyUsagePurpose::KeyCertSign], ..Wish::default() };
    let deep = (0..9).fold(authority.intermediate().unwrap(), |above, _| above.intermediate().unwrap());
    let whole = authority.intermediate().unwrap().svid("/ns/b/sa/client").unwrap();
    vec![
        (
            "expired",
            issue(Wish { not_before: now - 2 * hour, not_after: now - hour, ..wish() }),
            "CertificateExpired",
            "expired",
        ),
        (
            "not yet valid",
            issue(Wish { not_before: now + hour, not_after: now + 2 * hour, ..wish() }),
            "CertificateExpired",
            "not_yet_valid",
        ),
        ("another trust domain", other.svid("/ns/b/sa/client").unwrap(), "CertificateUnknown", "unknown_trust_domain"),
        (
            "our trust domain, signed by another",
            namesake.svid("/ns/b/sa/client").unwrap(),
            "UnknownCA",
            "unknown_issuer",
        ),
        (
            "another's identity, signed by ours",
            issue(Wish::spiffe("spiffe://other.example/ns/b/sa/client")),
            "CertificateUnknown",
            "unknown_trust_domain",
        ),
        (
            "two URIs",
            issue(Wish { uris: vec![CLIENT.into(), "spiffe://test.example/x".into()], ..wish() }),
            "CertificateUnknown",
            "several_identities",
        ),
        (
            "the same URI twice",
            issue(Wish { uris: vec![CLIENT.into(), CLIENT.into()], ..wish() }),
            "CertificateUnknown",
            "several_identities",
        ),
        (
            "no URI",
            issue(Wish { uris: vec![], names: vec!["client.example".into()], ..wish() }),
            "CertificateUnknown",
            "no_identity",
        ),
        ("no name at all", issue(Wish { uris: vec![], ..wish() }), "CertificateUnknown", "no_identity"),
        (
            "no SPIFFE ID",
            issue(Wish { uris: vec!["https://test.example/x".into()], ..wish() }),
            "CertificateUnknown",
            "bad_identity",
        ),
        (
            "a trust domain's own ID",
            issue(Wish { uris: vec!["spiffe://test.example".into()], ..wish() }),
            "CertificateUnknown",
            "bad_identity",
        ),
        (
            "a trust domain in capitals",
            issue(Wish { uris: vec!["spiffe://TEST.example/x".into()], ..wish() }),
            "CertificateUnknown",
            "bad_identity",
        ),
        ("an authority as leaf", issue(Wish { is_ca: true, ..wish() }), "CertificateUnknown", "ca_as_leaf"),
        (
            "a leaf that may sign",
            issue(Wish { usages: vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign], ..wish() }),
            "CertificateUnknown",
            "ca_as_leaf",
        ),
        (
            "a leaf that may sign lists",
            issue(Wish { usages: vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::CrlSign], ..wish() }),
            "CertificateUnknown",
            "ca_as_leaf",
        ),
        ("no key usage", issue(Wish { usages: vec![], ..wish() }), "CertificateUnknown", "key_usage"),
        (
            "another key usage",
            issue(Wish { usages: vec![KeyUsagePurpose::KeyAgreement], ..wish() }),
            "CertificateUnknown",
            "key_usage",
        ),
        (
            "for servers only",
            issue(Wish { purposes: vec![ExtendedKeyUsagePurpose::ServerAuth], ..wish() }),
            "CertificateUnknown",
            "key_usage",
        ),
        ("self-signed", self_signed(), "UnknownCA", "unknown_issuer"),
        (
            "an intermediate whose key may not sign",
            authority.intermediate_as(&no_signer).unwrap().svid("/ns/b/sa/client").unwrap(),
            "CertificateUnknown",
            "key_usage",
        ),
        (
            "an intermediate that is a workload",
            authority.intermediate_as(&below_leaf).unwrap().svid("/ns/b/sa/client").unwrap(),
            "CertificateUnknown",
            "bad_identity",
        ),
        (
            "an intermediate that is no authority",
            authority.intermediate_as(&plain_leaf_signs).unwrap().svid("/ns/b/sa/client").unwrap(),
            "CertificateUnknown",
            "key_usage",
        ),
        ("a chain of eleven", deep.svid("/ns/b/sa/client").unwrap(), "CertificateUnknown", "chain_too_long"),
        (
            "an intermediate left out",
            Issued { chain: leaf_alone(&whole), key: whole.key.clone() },
            "UnknownCA",
            "unknown_issuer",
        ),
        (
            "another's key",
            Issued { chain: good.chain.clone(), key: issue(wish()).key },
            "DecryptError",
            "bad_signature",
        ),
    ]
}

/// A certificate signed with its own key.
fn self_signed() -> Issued {
    let mut params = rcgen::CertificateParams::default();
    params.subject_alt_names = vec![rcgen::SanType::URI(CLIENT.try_into().unwrap())];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    let key = rcgen::KeyPair::generate().unwrap();
    Issued { chain: params.self_signed(&key).unwrap().pem(), key: key.serialize_pem() }
}

fn leaf_alone(issued: &Issued) -> String {
    let end = "-----END CERTIFICATE-----\n";
    let at = issued.chain.replace("\r\n", "\n");
    at.split_inclusive(end).next().unwrap().to_owned()
}

#[tokio::test]
async fn a_caller_that_is_not_who_it_should_be_gets_an_alert_and_is_counted() {
    let (authority, _dir, identity) = known();
    let (app, connections) = mirror().await;
    let sidecar = Sidecar::known_as(identity, app, strict);
    let bad = bad_clients(&authority);
    let mut counts = std::collections::BTreeMap::new();
    for (what, issued, alert, reason) in &bad {
        let error = ask(&sidecar, showing(issued, &[]), GET).await.expect_err(what);
        assert!(error.contains(alert), "{what}: {error}, expected {alert}");
        let count = counts.entry(*reason).or_insert(0);
        *count += 1;
        sidecar.counts(&format!("outrigger_tls_handshakes_total{{result=\"{reason}\"}} {count}")).await;
    }
    let error = ask(&sidecar, client(&[&TLS13], None, &[]), GET).await.unwrap_err();
    assert!(error.contains("CertificateRequired"), "{error}");
    let good = authority.svid("/ns/b/sa/client").unwrap();
    let error = ask(&sidecar, client(&[&TLS12], Some(&good), &[]), GET).await.unwrap_err();
    assert!(error.contains("ProtocolVersion"), "{error}");
    let error = ask(&sidecar, showing(&good, &["spdy/1"]), GET).await.unwrap_err();
    assert!(error.contains("NoApplicationProtocol"), "{error}");
    assert_eq!(connections.load(std::sync::atomic::Ordering::SeqCst), 0);
    let log = sidecar.end();
    assert_eq!(log.len(), bad.len() + 3);
    for line in &log {
        assert_eq!(line["error.type"], "tls_handshake", "{line}");
    }
    for (line, (what, _, _, reason)) in log.iter().zip(&bad) {
        let detail = line["outrigger.error.detail"].as_str().unwrap();
        assert!(detail.starts_with(&format!("{reason}: ")), "{what}: {detail}");
    }
}

#[tokio::test]
async fn bytes_that_are_no_tls_are_refused_and_counted() {
    let (_authority, _dir, identity) = known();
    let (app, _) = mirror().await;
    let sidecar = Sidecar::known_as(identity, app, strict);
    for (bytes, reason) in [
        // A handshake message of six megabytes.
        (&b"\x16\x03\x01\x00\x05hello"[..], "chain_too_long"),
        (b"\x16\x03\x01\xff\xff", "malformed"),
        (b"\x16GET / HTTP/1.1\r\n\r\n", "malformed"),
        // An empty ServerHello.
        (b"\x16\x03\x03\x00\x04\x02\x00\x00\x00", "malformed"),
    ] {
        let before = sidecar.metric(&format!("outrigger_tls_handshakes_total{{result=\"{reason}\"}}"));
        let mut raw = sidecar.connect().await;
        raw.send(bytes).await;
        let mut answer = Vec::new();
        raw.0.read_to_end(&mut answer).await.unwrap();
        assert_eq!((answer.len(), answer.first()), (7, Some(&0x15)), "{bytes:?}: {answer:?}");
        sidecar.counts(&format!("outrigger_tls_handshakes_total{{result=\"{reason}\"}} {}", before + 1)).await;
    }
}

/// The bytes of a ClientHello of ours.
fn client_hello(authority: &Authority) -> Vec<u8> {
    let config = Arc::new(showing(&authority.svid("/ns/b/sa/client").unwrap(), &["http/1.1"]));
    let name = tokio_rustls::rustls::pki_types::ServerName::try_from("a.test").unwrap();
    let mut connection = tokio_rustls::rustls::ClientConnection::new(config, name).unwrap();
    let mut hello = Vec::new();
    connection.write_tls(&mut hello).unwrap();
    hello
}

#[tokio::test]
async fn a_handshake_that_stalls_at_any_byte_ends_in_time_and_leaves_others_alone() {
    let (authority, _dir, identity) = known();
    let (app, _) = mirror().await;
    let sidecar = Sidecar::known_as(identity, app, |port| {
        strict(port);
        port.timeouts.handshake = Duration::from_millis(200);
    });
    let hello = client_hello(&authority);
    let svid = authority.svid("/ns/b/sa/client").unwrap();
    let mut open = connect(&sidecar, showing(&svid, &[])).await.unwrap();
    let ends: Vec<usize> = (1..=hello.len()).collect();
    // A hundred at a time: a process may not have many more descriptors.
    for ends in ends.chunks(100) {
        let mut stalled = Vec::new();
        for end in ends {
            let mut raw = sidecar.connect().await;
            raw.send(&hello[..*end]).await;
            stalled.push(raw);
        }
        for raw in &mut stalled {
            let mut rest = Vec::new();
            let read = raw.0.read_to_end(&mut rest);
            tokio::time::timeout(crate::harness::PATIENCE, read).await.expect("the connection stays open").unwrap();
        }
    }
    assert!(say(&mut open, GET).await.unwrap().starts_with("HTTP/1.1 200 "));
    sidecar.counts(&format!("outrigger_tls_handshakes_total{{result=\"timeout\"}} {}", hello.len())).await;
    sidecar.counts(&format!("outrigger_limits_hit_total{{limit=\"handshake_timeout\"}} {}", hello.len())).await;
}

#[tokio::test]
async fn a_hello_that_comes_byte_by_byte_is_understood() {
    let (authority, _dir, identity) = known();
    let (app, _) = mirror().await;
    let sidecar = Sidecar::known_as(identity, app, strict);
    let hello = client_hello(&authority);
    let mut raw = sidecar.connect().await;
    raw.0.set_nodelay(true).unwrap();
    for byte in &hello {
        raw.send([*byte]).await;
    }
    let mut answer = [0; 3];
    raw.0.read_exact(&mut answer).await.unwrap();
    // A ServerHello's record, not an alert's.
    assert_eq!(answer, [0x16, 3, 3]);
}

#[tokio::test]
async fn a_chain_of_a_megabyte_is_not_taken_in() {
    let (authority, _dir, identity) = known();
    let (app, _) = mirror().await;
    let sidecar = Sidecar::known_as(identity, app, strict);
    let svid = authority.svid("/ns/b/sa/client").unwrap();
    let long = Issued { chain: svid.chain.repeat(3000), key: svid.key };
    assert!(crate::tls_peers::chain(&long.chain).iter().map(|der| der.len()).sum::<usize>() > 1 << 20);
    let answer = ask(&sidecar, showing(&long, &[]), GET).await;
    assert!(answer.as_ref().map_or(true, String::is_empty), "{answer:?}");
    sidecar.counts("outrigger_tls_handshakes_total{result=\"chain_too_long\"} 1").await;
}

#[tokio::test]
async fn nothing_is_resumed_so_a_withdrawn_authority_ends_it_at_once() {
    let (authority, dir, identity) = known();
    let (app, _) = mirror().await;
    let sidecar = Sidecar::known_as(identity.clone(), app, strict);
    let config = showing(&authority.svid("/ns/b/sa/client").unwrap(), &[]);
    for _ in 0..3 {
        let mut stream = connect(&sidecar, config.clone()).await.unwrap();
        say(&mut stream, GET).await.unwrap();
        assert_eq!(stream.get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
    }
    // An open connection goes on; a new one is refused once the authority is gone from the bundle.
    let mut open = connect(&sidecar, config.clone()).await.unwrap();
    let successor = Authority::new(DOMAIN).unwrap();
    dir.bundle(&[&successor]);
    successor.svid("/ns/a/sa/server").unwrap().write(&dir.0).unwrap();
    identity.look();
    let error = ask(&sidecar, config, GET).await.unwrap_err();
    assert!(error.contains("UnknownCA"), "{error}");
    assert!(say(&mut open, GET).await.unwrap().starts_with("HTTP/1.1 200 "));
    let answer = ask(&sidecar, showing(&successor.svid("/ns/b/sa/client").unwrap(), &[]), GET).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn a_new_certificate_is_shown_to_the_next_caller_and_bundles_may_overlap() {
    let (authority, dir, identity) = known();
    let (app, _) = mirror().await;
    let sidecar = Sidecar::known_as(identity.clone(), app, strict);
    let successor = Authority::new(DOMAIN).unwrap();
    dir.bundle(&[&authority, &successor]);
    identity.look();
    let mut shown = std::collections::BTreeSet::new();
    for issuer in [&authority, &successor, &authority] {
        issuer.svid("/ns/a/sa/server").unwrap().write(&dir.0).unwrap();
        identity.look();
        for caller in [&authority, &successor] {
            let config = showing(&caller.svid("/ns/b/sa/client").unwrap(), &[]);
            let mut stream = connect(&sidecar, config).await.unwrap();
            assert!(say(&mut stream, GET).await.unwrap().starts_with("HTTP/1.1 200 "));
            shown.insert(stream.get_ref().1.peer_certificates().unwrap()[0].to_vec());
        }
    }
    assert_eq!(shown.len(), 3);
}

#[tokio::test]
async fn without_a_valid_identity_of_our_own_no_handshake_succeeds() {
    let authority = Authority::new(DOMAIN).unwrap();
    let dir = crate::tls_peers::Directory::new();
    let (app, _) = mirror().await;
    let sidecar = Sidecar::known_as(dir.identity(), app, permissive);
    let svid = authority.svid("/ns/b/sa/client").unwrap();
    assert!(ask(&sidecar, showing(&svid, &[]), GET).await.is_err());
    sidecar.counts("outrigger_tls_handshakes_total{result=\"own_identity\"} 1").await;
    // What is not mutual TLS goes on.
    assert!(sidecar.ask(GET).await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn handshakes_in_progress_are_bounded() {
    let (authority, _dir, identity) = known();
    let (app, _) = mirror().await;
    let sidecar = Sidecar::known_as(identity, app, |port| {
        strict(port);
        port.limits.handshakes = 2;
    });
    let svid = authority.svid("/ns/b/sa/client").unwrap();
    let mut open = connect(&sidecar, showing(&svid, &[])).await.unwrap();
    sidecar.counts("outrigger_tls_handshakes_total{result=\"ok\"} 1").await;
    let mut waiting: Vec<Raw> = Vec::new();
    for _ in 0..2 {
        let mut raw = sidecar.connect().await;
        raw.send(b"\x16\x03").await;
        waiting.push(raw);
    }
    // Which of three comes last is the kernel's choice; one of them is turned away.
    let mut third = sidecar.connect().await;
    third.send(b"\x16\x03").await;
    sidecar.counts("outrigger_limits_hit_total{limit=\"handshakes\"} 1").await;
    sidecar.counts("outrigger_tls_handshakes_total{result=\"limit\"} 1").await;
    assert!(say(&mut open, GET).await.unwrap().starts_with("HTTP/1.1 200 "));
    drop(waiting);
    drop(third);
    sidecar.counts("outrigger_tls_handshakes_total{result=\"disconnected\"} 2").await;
    assert!(ask(&sidecar, showing(&svid, &[]), GET).await.is_ok());
}

#[tokio::test]
async fn peers_are_shown_while_they_are_connected() {
    let (authority, _dir, identity) = known();
    let (app, _) = mirror().await;
    let sidecar = Sidecar::known_as(identity, app, strict);
    let svid = authority.svid("/ns/b/sa/client").unwrap();
    let (first, second) =
        (connect(&sidecar, showing(&svid, &[])).await.unwrap(), connect(&sidecar, showing(&svid, &[])).await.unwrap());
    sidecar.counts("outrigger_tls_handshakes_total{result=\"ok\"} 2").await;
    assert_eq!(sidecar.shared().peers(), [(CLIENT.parse().unwrap(), 2)].into());
    drop(first);
    sidecar.counts("outrigger_connections_open{port=\"test\"} 1").await;
    assert_eq!(sidecar.shared().peers().values().sum::<usize>(), 1);
    drop(second);
    sidecar.counts("outrigger_connections_open{port=\"test\"} 0").await;
    assert!(sidecar.shared().peers().is_empty());
}

#[tokio::test]
async fn a_storm_of_handshakes_starves_no_open_connection() {
    let (authority, _dir, identity) = known();
    let (app, _) = mirror().await;
    let sidecar = Sidecar::known_as(identity, app, permissive);
    // Hellos are made beforehand and sent at once, so that the worker has a long queue of nothing but first steps.
    let hello = client_hello(&authority);
    let mut open = sidecar.connect().await;
    let connect = |_| {
        let tcp = std::net::TcpStream::connect(sidecar.addr).unwrap();
        tcp.set_nonblocking(true).unwrap();
        tcp
    };
    let storm: Vec<_> = (0..200).map(connect).collect();
    for mut tcp in &storm {
        std::io::Write::write_all(&mut tcp, &hello).unwrap();
    }
    let answered = || storm.iter().filter(|tcp| matches!(tcp.peek(&mut [0]), Ok(1))).count();
    // A request takes its turn between two handshakes' steps, not behind all of them. Counted is how many are answered before
    // the storm is over: behind it, that would be none.
    let (begun, mut during) = (answered(), 0);
    for _ in 0..20 {
        open.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        open.answer().await;
        during += usize::from(answered() < storm.len());
    }
    assert!(begun < storm.len(), "the storm was over before it began");
    assert!(during >= 5, "only {during} requests were answered during the storm");
}

#[tokio::test]
async fn an_old_connection_is_retired_between_requests() {
    let (authority, _dir, identity) = known();
    let (app, _) = mirror().await;
    let sidecar = Sidecar::known_as(identity, app, |port| {
        strict(port);
        port.timeouts.max_age = Duration::from_millis(200);
    });
    let svid = authority.svid("/ns/b/sa/client").unwrap();
    let keep_alive = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let begun = std::time::Instant::now();
    let mut idle = connect(&sidecar, showing(&svid, &[])).await.unwrap();
    // Without a request it ends by itself, orderly.
    let answer = say(&mut idle, keep_alive).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && !answer.to_lowercase().contains("connection: close"), "{answer}");
    assert!(begun.elapsed() >= Duration::from_millis(180));
    let mut http2 = h2::client::handshake(connect(&sidecar, showing(&svid, &["h2"])).await.unwrap()).await.unwrap();
    let request = http::Request::get("https://a/x").body(()).unwrap();
    let (answer, _) = http2.0.send_request(request, true).unwrap();
    let driving = tokio::spawn(http2.1);
    answer.await.unwrap();
    // GOAWAY without an error ends the connection's task.
    let ended = tokio::time::timeout(crate::harness::PATIENCE, driving).await.expect("stays open").unwrap();
    // Its last words may find the other end gone.
    assert!(ended.as_ref().map_or_else(|e| e.is_io() || e.is_go_away(), |()| true), "{ended:?}");
    sidecar.counts("outrigger_limits_hit_total{limit=\"max_connection_age\"} 2").await;
}

#[tokio::test]
async fn a_proven_identity_may_speak_for_a_client() {
    let (authority, _dir, identity) = known();
    let (app, _) = mirror().await;
    let sidecar = Sidecar::known_as(identity, app, |port| {
        strict(port);
        let pattern = "spiffe://test.example/ns/ingress/*".parse().unwrap();
        port.address.trusted = geo::Trust::Proxies(geo::Proxies::new([], [pattern]));
    });
    let get = "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 8.8.8.8\r\nConnection: close\r\n\r\n";
    for (path, told) in [("/ns/ingress/sa/nginx", "8.8.8.8, 127.0.0.1"), ("/ns/b/sa/client", "127.0.0.1")] {
        let answer = ask(&sidecar, showing(&authority.svid(path).unwrap(), &[]), get).await.unwrap();
        let seen = answer.split_once("\r\n\r\n").unwrap().1;
        assert_eq!(field(seen, "x-forwarded-for"), Some(told));
    }
    let log = sidecar.end();
    assert_eq!((&log[0]["client.address"], &log[1]["client.address"]), (&"8.8.8.8".into(), &"127.0.0.1".into()));
}

#[tokio::test]
async fn opaque_bytes_pass_through_mutual_tls_with_their_own_protocol_name() {
    let (authority, _dir, identity) = known();
    let (app, connections) = app(|mut caller, _| async move {
        let heard = caller.take(5).await;
        caller.send(heard.to_uppercase()).await;
        assert_eq!(caller.rest().await, "");
        caller.send("bye").await;
    })
    .await;
    let sidecar = Sidecar::known_as(identity, app, |port| {
        strict(port);
        port.protocol = Protocol::Tcp;
    });
    let svid = authority.svid("/ns/b/sa/client").unwrap();
    let mut stream = connect(&sidecar, showing(&svid, &["outrigger-tcp/1"])).await.unwrap();
    stream.write_all(b"hello").await.unwrap();
    let mut heard = [0; 5];
    stream.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"HELLO");
    // Half-close passes through TLS: close_notify one way, the rest the other.
    stream.shutdown().await.unwrap();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest, "bye");
    let error = ask(&sidecar, showing(&svid, &["http/1.1"]), "x").await.unwrap_err();
    assert!(error.contains("NoApplicationProtocol"), "{error}");
    assert_eq!(sidecar.ask("plain").await, "<reset>");
    assert_eq!(connections.load(std::sync::atomic::Ordering::SeqCst), 1);
    let log = sidecar.end();
    assert!(log.iter().any(|line| line["outrigger.event"] == "end" && line["outrigger.peer.identity"] == CLIENT));
}

#[tokio::test]
async fn ordinary_tls_asks_no_certificate_and_takes_no_plaintext() {
    let authority = Authority::new(DOMAIN).unwrap();
    let dir = crate::tls_peers::Directory::new();
    authority.issue(&Wish { names: vec!["edge.test".into()], ..Wish::default() }).unwrap().write(&dir.0).unwrap();
    let pair = KeyPair::load(dir.0.join("tls.crt"), dir.0.join("tls.key"), Some(identity::Alpn::Http)).unwrap();
    let (app, _) = mirror().await;
    let pair = Arc::new(pair);
    let served = pair.clone();
    let sidecar = Sidecar::with(app, |port| port.tls = Tls::Server(served));
    let mut shown = std::collections::BTreeSet::new();
    for (version, protocol) in [(&TLS12, ProtocolVersion::TLSv1_2), (&TLS13, ProtocolVersion::TLSv1_3)] {
        for alpn in [&["http/1.1"][..], &[]] {
            let mut stream = connect(&sidecar, client(&[version], None, alpn)).await.unwrap();
            let answer = say(&mut stream, GET).await.unwrap();
            assert!(answer.contains("x-forwarded-proto: https") && !answer.contains("client-cert"), "{answer}");
            assert_eq!(stream.get_ref().1.protocol_version(), Some(protocol));
            shown.insert(stream.get_ref().1.peer_certificates().unwrap()[0].to_vec());
        }
    }
    assert_eq!(shown.len(), 1);
    let plain = sidecar.ask(GET).await;
    assert!(
        plain.starts_with("HTTP/1.1 403 ") && field(&plain, "x-outrigger-error") == Some("tls_required"),
        "{plain}"
    );
    // A new pair is shown to the next caller.
    authority.issue(&Wish { names: vec!["edge.test".into()], ..Wish::default() }).unwrap().write(&dir.0).unwrap();
    assert_eq!(pair.poll_reload(), Some(Ok(())));
    let stream = connect(&sidecar, client(&[&TLS13], None, &[])).await.unwrap();
    assert!(shown.insert(stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()));
}

#[tokio::test]
async fn a_large_body_passes_both_ways_through_tls() {
    let (authority, _dir, identity) = known();
    let (app, _) = mirror().await;
    let sidecar = Sidecar::known_as(identity, app, strict);
    let svid = authority.svid("/ns/b/sa/client").unwrap();
    let body = "0123456789abcdef".repeat(1 << 16);
    let post =
        format!("POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let stream = connect(&sidecar, showing(&svid, &[])).await.unwrap();
    let (mut read, mut write) = tokio::io::split(stream);
    let sending = tokio::spawn(async move {
        write.write_all(post.as_bytes()).await.unwrap();
        write.flush().await.unwrap();
        write
    });
    let mut answer = Vec::new();
    read.read_to_end(&mut answer).await.unwrap();
    drop(sending.await.unwrap());
    assert!(answer.ends_with(body.as_bytes()));
}

#[tokio::test]
async fn a_caller_that_only_connects_is_no_failure() {
    let (_authority, _dir, identity) = known();
    let (app, _) = mirror().await;
    let sidecar = Sidecar::known_as(identity, app, strict);
    drop(TcpStream::connect(sidecar.addr).await.unwrap());
    sidecar.counts("outrigger_connections_total{port=\"test\"} 1").await;
    sidecar.counts("outrigger_connections_open{port=\"test\"} 0").await;
    assert!(sidecar.end().is_empty());
}
