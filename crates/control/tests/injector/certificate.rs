//! The webhook's certificate: made, shared, renewed by overlap.

use base64::Engine;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, KeyUsagePurpose};
use serde_json::{Value, json};

use super::server::{Injector, SECRET, Store, WEBHOOK, decode, new_store};

#[tokio::test]
async fn the_api_server_is_told_whom_to_believe_in_every_webhook() {
    let injector = Injector::start(&[]).await;
    let configuration = injector.store.lock().unwrap()[WEBHOOK].clone();
    let bundles: Vec<_> =
        configuration["webhooks"].as_array().unwrap().iter().map(|w| &w["clientConfig"]["caBundle"]).collect();
    assert_eq!(bundles.len(), 2);
    assert_eq!(bundles[0], bundles[1]);
    assert_eq!(injector.review("{}").await.0, 400, "the handshake went well; what was sent is no review");
    let other = Injector::start(&[]).await;
    assert!(injector.believing(&other.ca_bundle(), "{}").await.is_err(), "another's authority does not vouch for it");
}

#[tokio::test]
async fn replicas_share_an_authority_and_are_all_believed() {
    let store = new_store();
    let (one, two) = (Injector::beside(store.clone(), &[]).await, Injector::beside(store, &[]).await);
    let bundle = one.ca_bundle();
    assert_eq!(bundle.matches("BEGIN").count(), 1);
    assert!(one.believing(&bundle, "{}").await.is_ok() && two.believing(&bundle, "{}").await.is_ok());
}

/// An API server that keeps an authority which ends soon; that authority.
fn with_an_old_authority() -> (Store, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "the old one");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.not_after = (std::time::SystemTime::now() + std::time::Duration::from_secs(30 * 86_400)).into();
    let old = params.self_signed(&key).unwrap().pem();
    let encode = |text: &str| Value::from(base64::engine::general_purpose::STANDARD.encode(text));
    let store = new_store();
    let data = json!({"tls.crt": encode(&old), "tls.key": encode(&key.serialize_pem()), "ca.crt": encode(&old)});
    let secret = json!({"metadata": {"name": "outrigger-injector", "resourceVersion": "7"}, "data": data});
    store.lock().unwrap().insert(SECRET.into(), secret);
    (store, old)
}

#[tokio::test]
async fn an_authority_that_ends_soon_is_replaced_and_believed_until_then() {
    let (store, old) = with_an_old_authority();
    let injector = Injector::beside(store, &[]).await;
    let bundle = injector.ca_bundle();
    assert!(
        bundle.contains(old.trim()) && bundle.matches("BEGIN").count() == 2,
        "replicas that still show the old one are believed"
    );
    assert!(injector.believing(&bundle, "{}").await.is_ok());
    assert!(injector.believing(&old, "{}").await.is_err(), "the new one signs");
    let secret = injector.store.lock().unwrap()[SECRET].clone();
    assert_eq!(secret["metadata"]["resourceVersion"], "8");
    assert_eq!(decode(&secret["data"]["ca.crt"]), bundle);
}

#[tokio::test]
async fn where_another_was_believed_a_new_authority_is_known_for_a_while_before_it_signs() {
    let (store, old) = with_an_old_authority();
    let believed = Value::from(base64::engine::general_purpose::STANDARD.encode(&old));
    store.lock().unwrap().get_mut(WEBHOOK).unwrap()["webhooks"][0]["clientConfig"]["caBundle"] = believed;
    let began = std::time::Instant::now();
    let injector = Injector::beside(store, &[]).await;
    assert!(began.elapsed() >= std::time::Duration::from_secs(5), "ready after {:?}", began.elapsed());
    assert!(injector.believing(&injector.ca_bundle(), "{}").await.is_ok());
}

#[tokio::test]
async fn a_secret_with_something_else_in_it_is_replaced() {
    let store = new_store();
    let secret = json!({"metadata": {"name": "outrigger-injector", "resourceVersion": "1"}, "data": {"tls.crt": "bm9uc2Vuc2U="}});
    store.lock().unwrap().insert(SECRET.into(), secret);
    let injector = Injector::beside(store, &[]).await;
    assert!(injector.believing(&injector.ca_bundle(), "{}").await.is_ok());
}
