//! The sidecar's side of it: identity source `ca` against the authority itself.

use std::sync::Arc;

use hyper::StatusCode;
use identity::{Alpn, Ca, CaServer, Expected, Identity, Settings, Source};
use rustls::{ClientConnection, ServerConnection};
use rustls_pki_types::ServerName;

use super::cluster::{Cluster, DOMAIN, Says, authenticated, make_root};

fn settings(cluster: &Cluster) -> Settings {
    let trust = std::fs::read_to_string(cluster.dir.join("issuer/tls.crt")).unwrap_or_default();
    std::fs::write(cluster.dir.join("roots.pem"), trust).unwrap();
    std::fs::write(cluster.dir.join("pod-token"), "a-token\n").unwrap();
    Settings {
        source: Source::Ca(Ca {
            server: CaServer { host: "localhost".into(), port: cluster.address.port() },
            token: cluster.dir.join("pod-token"),
            roots: cluster.dir.join("roots.pem"),
            bundles: Default::default(),
        }),
        trust_domain: Some(DOMAIN.parse().unwrap()),
        federates_with: Vec::new(),
    }
}

fn start(settings: Settings) -> Arc<Identity> {
    let identity = Identity::start(settings);
    tokio::spawn(identity.clone().watch());
    identity
}

/// A handshake between two identities, in memory.
fn meet(client: &Identity, server: &Identity) -> Result<String, rustls::Error> {
    let config = client.client(Alpn::Http1, &Expected::Any).unwrap();
    let name = ServerName::try_from("whoever").unwrap();
    let mut client = ClientConnection::new(config, name).unwrap();
    let mut server = ServerConnection::new(server.server(Alpn::Http).unwrap()).unwrap();
    while client.is_handshaking() || server.is_handshaking() {
        let mut wire = Vec::new();
        client.write_tls(&mut wire).unwrap();
        server.read_tls(&mut wire.as_slice()).unwrap();
        server.process_new_packets()?;
        wire.clear();
        server.write_tls(&mut wire).unwrap();
        client.read_tls(&mut wire.as_slice()).unwrap();
        client.process_new_packets()?;
    }
    Ok(identity::peer(server.peer_certificates().unwrap()).unwrap().id.to_string())
}

#[tokio::test]
async fn two_sidecars_get_identities_and_prove_them_to_each_other() {
    let cluster = Cluster::start(&[]).await;
    let web = start(settings(&cluster));
    cluster.until(async || web.id().is_some()).await;
    cluster.say(authenticated("system:serviceaccount:shop:login"));
    let login = start(settings(&cluster));
    cluster.until(async || login.id().is_some()).await;
    assert_eq!(login.id().unwrap().as_str(), format!("spiffe://{DOMAIN}/ns/shop/sa/login"));
    assert_eq!(meet(&web, &login).unwrap(), format!("spiffe://{DOMAIN}/ns/shop/sa/web"));
    let status = web.status();
    assert_eq!((status.source, status.updates, status.failures), ("ca", 1, 0));
    let (headers, _) = cluster.asked.lock().unwrap().last().unwrap().clone();
    assert_eq!(headers["authorization"], "Bearer our own token", "the pod's token goes into the review, not before it");
}

#[tokio::test]
async fn whoever_is_refused_says_so_and_goes_on_asking() {
    let cluster = Cluster::start(&["--caller-rate", "1000"]).await;
    cluster.say(Says::Status(serde_json::json!({"authenticated": false})));
    let identity = start(settings(&cluster));
    cluster.until(async || identity.status().failures > 1).await;
    let error = identity.status().last_error.unwrap();
    assert!(error.contains("401") && error.contains("bad_token"), "{error}");
    assert!(identity.id().is_none());
    cluster.say(Says::Body(StatusCode::INTERNAL_SERVER_ERROR, String::new()));
    cluster.until(async || identity.status().last_error.is_some_and(|e| e.contains("review_failed"))).await;
    cluster.say(authenticated("system:serviceaccount:shop:web"));
    cluster.until(async || identity.id().is_some()).await;
    assert_eq!(identity.status().last_error, None);
}

#[tokio::test]
async fn an_authority_that_comes_late_is_waited_for_and_one_that_is_another_gets_no_token() {
    let cluster = Cluster::start_without_issuer(&[]).await;
    let identity = start(settings(&cluster));
    cluster.until(async || identity.status().failures > 0).await;
    make_root(&cluster.dir.join("other"));
    std::fs::copy(cluster.dir.join("other/tls.crt"), cluster.dir.join("roots.pem")).unwrap();
    make_root(&cluster.dir.join("issuer"));
    cluster.becomes_ready().await;
    let before = identity.status().failures;
    cluster.until(async || identity.status().failures > before + 1).await;
    assert!(cluster.asked.lock().unwrap().is_empty(), "whom the roots do not vouch for is told nothing");
    std::fs::copy(cluster.dir.join("issuer/tls.crt"), cluster.dir.join("roots.pem")).unwrap();
    cluster.until(async || identity.id().is_some()).await;
}

#[tokio::test]
async fn what_is_of_another_trust_domain_is_not_used() {
    let cluster = Cluster::start(&["--caller-rate", "1000"]).await;
    let identity = start(Settings { trust_domain: Some("prod.example".parse().unwrap()), ..settings(&cluster) });
    cluster.until(async || identity.status().failures > 1).await;
    assert!(identity.status().last_error.unwrap().contains("not of identity.trust_domain prod.example"));
    assert!(identity.id().is_none());
}

#[tokio::test]
async fn whoever_is_told_to_wait_does_not_ask_before() {
    let cluster = Cluster::start(&["--caller-rate", "1"]).await;
    let first = start(settings(&cluster));
    cluster.until(async || first.id().is_some()).await;
    let second = start(settings(&cluster));
    cluster.until(async || second.status().failures > 0).await;
    assert!(second.status().last_error.unwrap().contains("429"));
    // By itself it would ask again within a quarter of a second; it was told to wait for most of a minute.
    let more = async { cluster.until(async || second.status().failures > 1).await };
    assert!(tokio::time::timeout(std::time::Duration::from_secs(2), more).await.is_err());
    assert_eq!(cluster.metric("outrigger_ca_requests_total{result=\"rate_limited\"}").await, 1);
}

#[tokio::test]
async fn for_a_bundle_that_cannot_be_read_nothing_is_signed() {
    let cluster = Cluster::start(&["--caller-rate", "1000"]).await;
    let file = cluster.dir.join("bundle.pem");
    std::fs::write(&file, "nothing\n").unwrap();
    let mut settings = settings(&cluster);
    let Source::Ca(ca) = &mut settings.source else { unreachable!() };
    ca.bundles.insert("other.example".parse().unwrap(), file.clone());
    settings.federates_with = vec!["other.example".parse().unwrap()];
    let root = std::fs::read_to_string(cluster.dir.join("issuer/tls.crt")).unwrap();
    let identity = start(settings);
    cluster.until(async || identity.status().failures > 1).await;
    let issued = async || cluster.metric("outrigger_ca_requests_total{result=\"issued\"}").await;
    assert_eq!(issued().await, 0);
    std::fs::write(&file, root).unwrap();
    cluster.until(async || identity.id().is_some()).await;
    let (before, failures) = (issued().await, identity.status().failures);
    std::fs::write(&file, "nothing again\n").unwrap();
    cluster.until(async || identity.status().failures > failures).await;
    assert!(identity.status().last_error.unwrap().contains("bundle.pem"));
    assert_eq!(issued().await, before, "and none for one that became unreadable");
    assert!(identity.id().is_some());
}

#[tokio::test]
async fn a_bundle_from_a_file_wins_and_is_read_again_when_it_changes() {
    let cluster = Cluster::start(&[]).await;
    let file = cluster.dir.join("bundle.pem");
    let root = std::fs::read_to_string(cluster.dir.join("issuer/tls.crt")).unwrap();
    std::fs::write(&file, &root).unwrap();
    let mut settings = settings(&cluster);
    let Source::Ca(ca) = &mut settings.source else { unreachable!() };
    ca.bundles.insert(DOMAIN.parse().unwrap(), file.clone());
    let identity = start(settings);
    let trusted = || identity.status().bundles.first().map_or(0, |(_, authorities)| authorities.len());
    cluster.until(async || trusted() == 1).await;
    make_root(&cluster.dir.join("next"));
    let next = std::fs::read_to_string(cluster.dir.join("next/tls.crt")).unwrap();
    std::fs::write(&file, root + &next).unwrap();
    cluster.until(async || trusted() == 2).await;
    assert!(identity.id().is_some());
}
