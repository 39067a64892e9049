//! Issuers that come late, go bad, end soon and are replaced.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, SystemTime};

use hyper::StatusCode;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, UnixTime};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use super::cluster::{Cluster, make_root};
use super::signed::{chain, plain};

fn csr() -> String {
    plain(&KeyPair::generate().unwrap())
}

/// Whether a chain leads to one of these roots, as a peer sees it.
fn leads_to(chain: &[CertificateDer<'_>], roots: &str) -> bool {
    let roots: Vec<_> = CertificateDer::pem_slice_iter(roots.as_bytes()).collect::<Result<_, _>>().unwrap();
    let anchors: Vec<_> = roots.iter().map(|root| webpki::anchor_from_trusted_cert(root).unwrap()).collect();
    let algorithms = rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms;
    let leaf = webpki::EndEntityCert::try_from(&chain[0]).unwrap();
    let (now, usage) = (UnixTime::now(), webpki::KeyUsage::client_auth());
    leaf.verify_for_usage(algorithms.all, &anchors, &chain[1..], now, usage, None, None).is_ok()
}

/// An authority's parameters that end after `minutes`.
fn authority(minutes: u64) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.not_after = (SystemTime::now() + Duration::from_secs(minutes * 60)).into();
    params
}

fn put(dir: &Path, cert: &str, key: &KeyPair) {
    std::fs::create_dir_all(dir).unwrap();
    std::fs::write(dir.join("tls.crt"), cert).unwrap();
    std::fs::write(dir.join("tls.key"), key.serialize_pem()).unwrap();
}

/// Swaps what a directory is, as Kubernetes does with a mounted Secret.
fn swap(cluster: &Cluster, to: &Path) {
    let link = cluster.dir.join("issuer");
    let fresh = cluster.dir.join("fresh");
    symlink(to, &fresh).unwrap();
    std::fs::rename(fresh, link).unwrap();
}

#[tokio::test]
async fn without_an_issuer_it_is_not_ready_and_with_one_it_is() {
    let cluster = Cluster::start_without_issuer(&[]).await;
    assert_eq!(cluster.get("/livez").await.status, StatusCode::OK);
    assert_eq!(cluster.get("/readyz").await.status, StatusCode::SERVICE_UNAVAILABLE);
    make_root(&cluster.dir.join("issuer"));
    cluster.becomes_ready().await;
    assert!(cluster.metric("outrigger_ca_issuer_not_after_timestamp_seconds").await > 0);
}

#[tokio::test]
async fn roots_are_replaced_by_overlap() {
    let cluster = Cluster::start_without_issuer(&["--caller-rate", "100000"]).await;
    let (old, new) = (cluster.dir.join("old"), cluster.dir.join("new"));
    make_root(&old);
    make_root(&new);
    let pem = |dir: &Path| std::fs::read_to_string(dir.join("tls.crt")).unwrap();
    let (old_root, new_root) = (pem(&old), pem(&new));
    swap(&cluster, &old);
    cluster.becomes_ready().await;
    let before = chain(&cluster.ask(&csr()).await);
    assert!(leads_to(&before, &old_root) && !leads_to(&before, &new_root));

    // First everybody learns of the new root, then it signs: both are trusted all the while.
    std::fs::write(old.join("ca.crt"), &new_root).unwrap();
    let served = async || cluster.try_call("GET", "/v1/bundle", &[], Vec::new()).await.unwrap().text;
    cluster.until(async || served().await.matches("BEGIN").count() == 2).await;
    std::fs::write(new.join("ca.crt"), &old_root).unwrap();
    swap(&cluster, &new);
    cluster.until(async || cluster.try_call("GET", "/v1/bundle", &[], Vec::new()).await.is_ok()).await;
    let answer = cluster.ask(&csr()).await;
    let (after, bundle) = (chain(&answer), answer.json()["bundle"].as_str().unwrap().to_owned());
    assert!(leads_to(&after, &new_root) && !leads_to(&after, &old_root));
    assert!(leads_to(&after, &bundle) && leads_to(&before, &bundle));
}

#[tokio::test]
async fn an_issuer_that_is_none_leaves_the_one_before_in_use() {
    let cluster = Cluster::start(&[]).await;
    let issuer = cluster.dir.join("issuer");
    let root = std::fs::read_to_string(issuer.join("tls.crt")).unwrap();
    // The caller trusts the first root whatever the directory says, and still gets what leads there.
    std::fs::write(cluster.dir.join("pinned.crt"), &root).unwrap();
    let other = KeyPair::generate().unwrap();
    let failures = async || cluster.metric("outrigger_ca_reload_failures_total").await;
    let mut not_ca = authority(600);
    not_ca.is_ca = IsCa::NoCa;
    let mut no_usage = authority(600);
    no_usage.key_usages.clear();
    let mut other_domain = authority(600);
    let uri = rcgen::string::Ia5String::try_from("spiffe://other.example").unwrap();
    other_domain.subject_alt_names = vec![rcgen::SanType::URI(uri)];
    for (i, cert) in [
        String::new(),
        "nonsense".into(),
        root.clone(),
        not_ca.self_signed(&other).unwrap().pem(),
        no_usage.self_signed(&other).unwrap().pem(),
        other_domain.self_signed(&other).unwrap().pem(),
        authority(1).self_signed(&other).unwrap().pem(),
    ]
    .into_iter()
    .enumerate()
    {
        put(&issuer, &cert, &other);
        cluster.until(async || failures().await == i as u64 + 1).await;
        let now = chain(&cluster.ask(&csr()).await);
        assert!(leads_to(&now, &root), "{i}");
    }
}

#[tokio::test]
async fn nothing_outlives_the_issuer_and_intermediates_are_shown() {
    let cluster = Cluster::start_without_issuer(&[]).await;
    let (root_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let root = authority(600);
    let root_pem = root.self_signed(&root_key).unwrap().pem();
    let mut below = authority(30);
    below.distinguished_name.push(rcgen::DnType::CommonName, "below");
    let intermediate = below.signed_by(&key, &Issuer::new(root, root_key)).unwrap();
    let dir = cluster.dir.join("with-root");
    put(&dir, &(intermediate.pem() + &root_pem), &key);
    swap(&cluster, &dir);
    cluster.becomes_ready().await;
    let answer = cluster.ask(&csr()).await;
    let chain = chain(&answer);
    assert_eq!(chain.len(), 2);
    assert!(leads_to(&chain, &root_pem));
    let ends = |der: &[u8]| X509Certificate::from_der(der).unwrap().1.validity().not_after.timestamp();
    assert_eq!(ends(&chain[0]), ends(&chain[1]));
    assert_eq!(answer.json()["bundle"].as_str().unwrap().matches("BEGIN").count(), 1);
}

#[tokio::test]
async fn nothing_outlives_the_root_it_leads_to() {
    let cluster = Cluster::start_without_issuer(&[]).await;
    let (root_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let root = authority(20);
    let root_pem = root.self_signed(&root_key).unwrap().pem();
    let mut below = authority(600);
    below.distinguished_name.push(rcgen::DnType::CommonName, "below");
    let dir = cluster.dir.join("long-lived");
    put(&dir, &below.signed_by(&key, &Issuer::new(root, root_key)).unwrap().pem(), &key);
    std::fs::write(dir.join("ca.crt"), &root_pem).unwrap();
    swap(&cluster, &dir);
    cluster.until(async || cluster.get("/readyz").await.status == StatusCode::OK).await;
    std::fs::write(cluster.dir.join("pinned.crt"), &root_pem).unwrap();
    cluster.becomes_ready().await;
    let chain = chain(&cluster.ask(&csr()).await);
    let ends = |der: &[u8]| X509Certificate::from_der(der).unwrap().1.validity().not_after.timestamp();
    let root = CertificateDer::from_pem_slice(root_pem.as_bytes()).unwrap();
    assert_eq!(ends(&chain[0]), ends(&root));
}

#[tokio::test]
async fn a_new_root_that_the_old_one_vouches_for_is_shown_with_that() {
    let cluster = Cluster::start_without_issuer(&[]).await;
    let (old_key, new_key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let old = authority(600);
    let old_pem = old.self_signed(&old_key).unwrap().pem();
    // One name, two keys.
    let mut cross = authority(600);
    cross.use_authority_key_identifier_extension = true;
    let dir = cluster.dir.join("cross");
    put(&dir, &cross.signed_by(&new_key, &Issuer::new(old, old_key)).unwrap().pem(), &new_key);
    std::fs::write(dir.join("ca.crt"), &old_pem).unwrap();
    std::fs::write(cluster.dir.join("pinned.crt"), &old_pem).unwrap();
    swap(&cluster, &dir);
    cluster.becomes_ready().await;
    let answer = cluster.ask(&csr()).await;
    let chain = chain(&answer);
    assert_eq!(chain.len(), 2);
    assert!(leads_to(&chain, &old_pem));
    assert_eq!(answer.json()["bundle"].as_str().unwrap().matches("BEGIN").count(), 1, "it is no root");
}
