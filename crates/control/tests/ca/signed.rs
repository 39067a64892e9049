//! What is signed: the key, the identity that the API server vouches for, and nothing else of the request.

use hyper::StatusCode;
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
    PublicKeyData, SanType,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use super::cluster::{Answer, Cluster, DOMAIN, authenticated};

/// The certificates of an answer, leaf first.
pub(crate) fn chain(answer: &Answer) -> Vec<CertificateDer<'static>> {
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    let pem = answer.json()["chain"].as_str().unwrap().to_owned();
    CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().unwrap()
}

/// A request for nothing but a key.
pub(crate) fn plain(key: &KeyPair) -> String {
    CertificateParams::default().serialize_request(key).unwrap().pem().unwrap()
}

/// Asserts that this is an X.509-SVID of `id` for `spki`, and says nothing else.
fn assert_svid(der: &[u8], id: &str, spki: &[u8]) {
    let (rest, leaf) = X509Certificate::from_der(der).unwrap();
    assert!(rest.is_empty());
    assert_eq!(leaf.public_key().raw, spki);
    let names = leaf.subject_alternative_name().unwrap().unwrap();
    assert!(matches!(names.value.general_names.as_slice(), [GeneralName::URI(uri)] if *uri == id), "{names:?}");
    let constraints = leaf.basic_constraints().unwrap().unwrap();
    assert!(constraints.critical && !constraints.value.ca);
    let usage = leaf.key_usage().unwrap().unwrap();
    assert!(usage.critical);
    assert_eq!(usage.value.flags, 1, "digitalSignature alone");
    let purposes = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(purposes.server_auth && purposes.client_auth && !purposes.any && !purposes.code_signing);
    assert_eq!(leaf.subject().to_string(), "CN=outrigger workload");
    let known = ["2.5.29.15", "2.5.29.17", "2.5.29.19", "2.5.29.35", "2.5.29.37", "2.5.29.14"];
    for extension in leaf.extensions() {
        assert!(known.contains(&extension.oid.to_id_string().as_str()), "{extension:?}");
    }
    let lifetime = leaf.validity().not_after.timestamp() - leaf.validity().not_before.timestamp();
    assert_eq!(lifetime, 12 * 3600 + 60);
}

#[tokio::test]
async fn whatever_a_request_asks_for_only_its_key_is_signed() {
    let cluster = Cluster::start(&[]).await;
    let id = format!("spiffe://{DOMAIN}/ns/shop/sa/web");
    let key = KeyPair::generate().unwrap();
    let asking = |change: &dyn Fn(&mut CertificateParams)| {
        let mut params = CertificateParams::default();
        change(&mut params);
        params.serialize_request(&key).unwrap().pem().unwrap()
    };
    let uri = |uri: &str| SanType::URI(Ia5String::try_from(uri).unwrap());
    for csr in [
        asking(&|_| {}),
        asking(&|p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)),
        asking(&|p| p.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign]),
        asking(&|p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::Any]),
        asking(&|p| p.subject_alt_names = vec![uri(&format!("spiffe://{DOMAIN}/ns/kube-system/sa/admin"))]),
        asking(&|p| p.subject_alt_names = vec![uri(&id), uri("spiffe://other.example/ns/a/sa/b")]),
        asking(&|p| p.subject_alt_names = vec![SanType::DnsName("kubernetes.default.svc".try_into().unwrap())]),
        asking(&|p| p.subject_alt_names = vec![SanType::IpAddress([10, 96, 0, 1].into())]),
        asking(&|p| p.distinguished_name.push(DnType::OrganizationName, "system:masters")),
    ] {
        let chain = chain(&cluster.ask(&csr).await);
        assert_eq!(chain.len(), 1, "the root is not part of the chain");
        assert_svid(&chain[0], &id, &key.subject_public_key_info());
    }
}

#[tokio::test]
async fn every_kind_of_key_that_is_strong_enough_is_signed() {
    let cluster = Cluster::start(&[]).await;
    for algorithm in [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519] {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let chain = chain(&cluster.ask(&plain(&key)).await);
        assert_svid(&chain[0], &format!("spiffe://{DOMAIN}/ns/shop/sa/web"), &key.subject_public_key_info());
    }
    assert_eq!(chain(&cluster.ask(include_str!("requests/rsa-2048.pem")).await).len(), 1);
    assert_eq!(cluster.metric("outrigger_ca_requests_total{result=\"issued\"}").await, 4);
}

#[tokio::test]
async fn the_api_server_is_asked_about_this_token_for_our_audience() {
    let cluster = Cluster::start(&[]).await;
    cluster.say(authenticated("system:serviceaccount:bank:vault.v2"));
    let key = KeyPair::generate().unwrap();
    let chain = chain(&cluster.ask(&plain(&key)).await);
    assert_svid(&chain[0], &format!("spiffe://{DOMAIN}/ns/bank/sa/vault.v2"), &key.subject_public_key_info());
    let asked = cluster.asked.lock().unwrap().clone();
    let [(headers, question)] = asked.as_slice() else { panic!("{asked:?}") };
    assert_eq!(headers["authorization"], "Bearer our own token");
    assert_eq!(question["spec"], serde_json::json!({"token": "a-token", "audiences": ["outrigger-ca"]}));
}

#[tokio::test]
async fn serial_numbers_are_random_even_for_one_key() {
    let cluster = Cluster::start(&[]).await;
    let csr = plain(&KeyPair::generate().unwrap());
    let mut serials = std::collections::BTreeSet::new();
    for _ in 0..8 {
        let chain = chain(&cluster.ask(&csr).await);
        let (_, leaf) = X509Certificate::from_der(&chain[0]).unwrap();
        serials.insert(leaf.raw_serial().to_vec());
    }
    assert_eq!(serials.len(), 8);
    assert!(serials.iter().all(|serial| serial.len() == 16));
}

#[test]
fn a_certificate_by_hand_is_an_svid_too_and_replaces_the_one_before() {
    let dir = std::env::temp_dir().join(format!("outrigger-issue-{}", std::process::id()));
    super::cluster::make_root(&dir.join("issuer"));
    let id = format!("spiffe://{DOMAIN}/ns/compose/sa/login");
    let issue = |id: &str| {
        control::ca::issue::run(&control::ca::issue::IssueArgs {
            issuer: dir.join("issuer"),
            id: id.parse().unwrap(),
            days: 30,
            out: dir.join("out"),
        })
    };
    let read = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap_or_default();
    issue(&id).unwrap();
    let first = read("out/tls.crt");
    issue(&id).unwrap();
    assert!(read("out/tls.crt") != first && read("out/roots.pem") == read("issuer/tls.crt"));
    let key = KeyPair::from_pem(&read("out/tls.key")).unwrap();
    let der = CertificateDer::from_pem_slice(read("out/tls.crt").as_bytes()).unwrap();
    let (_, leaf) = X509Certificate::from_der(&der).unwrap();
    assert_eq!(leaf.public_key().raw, key.subject_public_key_info());
    let names = leaf.subject_alternative_name().unwrap().unwrap();
    assert!(matches!(names.value.general_names.as_slice(), [GeneralName::URI(uri)] if *uri == id));
    assert!(issue("spiffe://other.example/a").is_err(), "the root is of one trust domain");
    assert!(issue(&format!("spiffe://{DOMAIN}")).is_err());
    std::fs::remove_dir_all(dir).unwrap();
}
