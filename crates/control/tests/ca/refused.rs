//! Who gets nothing, and is told why in one word.

use hyper::StatusCode;
use rcgen::KeyPair;
use rustls_pki_types::pem::PemObject;
use serde_json::json;

use super::cluster::{Cluster, Says, authenticated};
use super::signed::plain;

fn csr() -> String {
    plain(&KeyPair::generate().unwrap())
}

#[tokio::test]
async fn keys_that_are_weak_or_of_unknown_kind() {
    let cluster = Cluster::start(&[]).await;
    for csr in [
        include_str!("requests/rsa-1024.pem"),
        include_str!("requests/rsa-2048-exponent-3.pem"),
        include_str!("requests/secp256k1.pem"),
        include_str!("requests/secp521r1.pem"),
        include_str!("requests/dsa-2048.pem"),
        include_str!("requests/ed448.pem"),
    ] {
        let answer = cluster.ask(csr).await;
        assert_eq!((answer.status, answer.error().as_str()), (StatusCode::BAD_REQUEST, "weak_key"), "{csr}");
    }
    assert!(cluster.asked.lock().unwrap().is_empty(), "nobody is asked for the sake of these");
}

#[tokio::test]
async fn requests_that_are_not_signed_by_their_own_key() {
    let cluster = Cluster::start(&["--caller-rate", "100000"]).await;
    let pem = csr();
    let der = rustls_pki_types::CertificateSigningRequestDer::from_pem_slice(pem.as_bytes()).unwrap().to_vec();
    let again = |der: &[u8]| {
        use base64::Engine;
        let text = base64::engine::general_purpose::STANDARD.encode(der);
        format!("-----BEGIN CERTIFICATE REQUEST-----\n{text}\n-----END CERTIFICATE REQUEST-----\n")
    };
    // The key's last byte lies before the attributes and the signature.
    let mut other_signature = der.clone();
    *other_signature.last_mut().unwrap() ^= 1;
    let answer = cluster.ask(&again(&other_signature)).await;
    assert_eq!((answer.status, answer.error().as_str()), (StatusCode::BAD_REQUEST, "bad_signature"));
    let answer = cluster.ask(include_str!("requests/rsa-2048-sha1.pem")).await;
    assert_eq!(answer.error(), "bad_signature", "SHA-1 proves nothing");
    // Every single byte that is changed makes it another request: none of them is signed.
    for at in 0..der.len() {
        let mut changed = der.clone();
        changed[at] ^= 1;
        let answer = cluster.ask(&again(&changed)).await;
        let error = answer.error();
        assert!(["bad_csr", "weak_key", "bad_signature"].contains(&error.as_str()), "byte {at}: {error}");
    }
    assert!(cluster.asked.lock().unwrap().is_empty(), "nobody is asked for the sake of these");
}

#[tokio::test]
async fn bodies_that_are_no_request() {
    let cluster = Cluster::start(&["--caller-rate", "1000"]).await;
    let token = [("authorization", "Bearer a-token")];
    for (body, error) in [
        ("", "bad_request"),
        ("{}", "bad_request"),
        ("[", "bad_request"),
        ("{\"csr\": 1}", "bad_request"),
        ("{\"csr\": \"\"}", "bad_csr"),
        ("{\"csr\": \"-----BEGIN CERTIFICATE REQUEST-----\\n-----END CERTIFICATE REQUEST-----\"}", "bad_csr"),
    ] {
        let answer = cluster.call("/v1/certificates", &token, body).await;
        assert_eq!((answer.status, answer.error().as_str()), (StatusCode::BAD_REQUEST, error), "{body}");
    }
    let large = json!({"csr": csr() + &" ".repeat(16 * 1024)}).to_string();
    let answer = cluster.call("/v1/certificates", &token, large).await;
    assert_eq!((answer.status, answer.error().as_str()), (StatusCode::PAYLOAD_TOO_LARGE, "too_large"));
    assert!(cluster.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn callers_without_one_good_token() {
    let cluster = Cluster::start(&[]).await;
    let body = json!({"csr": csr()}).to_string();
    let long = format!("Bearer {}", "a".repeat(9000));
    for headers in [
        &[][..],
        &[("authorization", "Basic YTpi")],
        &[("authorization", "Bearer ")],
        &[("authorization", "Bearer one"), ("authorization", "Bearer two")],
        &[("authorization", "Bearer one two")],
        &[("authorization", &long)],
    ] {
        let answer = cluster.call("/v1/certificates", headers, body.clone()).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{headers:?}");
    }
    assert!(cluster.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn an_api_server_that_lies() {
    let cluster = Cluster::start(&["--caller-rate", "1000"]).await;
    let user = json!({"username": "system:serviceaccount:shop:web"});
    for (says, status, error) in [
        (Says::Status(json!({"authenticated": false})), 401, "bad_token"),
        (Says::Status(json!({"authenticated": false, "audiences": ["outrigger-ca"], "user": user})), 401, "bad_token"),
        (Says::Status(json!({"authenticated": true, "user": user})), 401, "bad_token"),
        (Says::Status(json!({"authenticated": true, "audiences": ["vault"], "user": user})), 401, "bad_token"),
        (authenticated("system:admin"), 403, "not_a_workload"),
        (authenticated("system:serviceaccount:shop:web/../../kube-system"), 403, "not_a_workload"),
        (authenticated("system:serviceaccount:shop"), 403, "not_a_workload"),
        (Says::Body(StatusCode::OK, "{\"kind\": \"Status\"}".into()), 503, "review_failed"),
        (Says::Body(StatusCode::OK, "<html>".into()), 503, "review_failed"),
        (Says::Body(StatusCode::OK, String::new()), 503, "review_failed"),
        (Says::Body(StatusCode::OK, " ".repeat(2 * 1024 * 1024)), 503, "review_failed"),
        (Says::Body(StatusCode::FOUND, String::new()), 503, "review_failed"),
        (Says::Body(StatusCode::UNAUTHORIZED, "{\"message\": \"who are you\"}".into()), 503, "review_failed"),
        (Says::Body(StatusCode::INTERNAL_SERVER_ERROR, String::new()), 503, "review_failed"),
    ] {
        cluster.say(says.clone());
        let answer = cluster.ask(&csr()).await;
        assert_eq!((answer.status.as_u16(), answer.error().as_str()), (status, error), "{says:?}");
    }
    assert_eq!(cluster.metric("outrigger_ca_requests_total{result=\"issued\"}").await, 0);
    assert_eq!(cluster.metric("outrigger_ca_requests_total{result=\"bad_token\"}").await, 4);
}

#[tokio::test]
async fn an_api_server_that_stalls_is_given_up_and_asked_again_next_time() {
    let cluster = Cluster::start(&[]).await;
    cluster.say(Says::Nothing);
    let answer = cluster.ask(&csr()).await;
    assert_eq!((answer.status.as_u16(), answer.error().as_str()), (503, "review_timeout"));
    assert!(answer.headers.contains_key("retry-after"));
    cluster.say(authenticated("system:serviceaccount:shop:web"));
    assert_eq!(cluster.ask(&csr()).await.status, StatusCode::OK);
}

#[tokio::test]
async fn whoever_asks_too_often() {
    let by_identity = Cluster::start(&["--identity-rate", "4"]).await;
    let ask = async |cluster: &Cluster| cluster.ask(&csr()).await;
    for _ in 0..2 {
        assert_eq!(ask(&by_identity).await.status, StatusCode::OK);
    }
    let answer = ask(&by_identity).await;
    assert_eq!((answer.status.as_u16(), answer.error().as_str()), (429, "rate_limited"));
    assert!(answer.headers["retry-after"].to_str().unwrap().parse::<u64>().unwrap() > 1);
    by_identity.say(authenticated("system:serviceaccount:shop:other"));
    assert_eq!(ask(&by_identity).await.status, StatusCode::OK, "another identity has a rate of its own");

    let by_caller = Cluster::start(&["--caller-rate", "2"]).await;
    assert_eq!(ask(&by_caller).await.status, StatusCode::OK);
    assert_eq!(ask(&by_caller).await.error(), "rate_limited");
    assert_eq!(by_caller.asked.lock().unwrap().len(), 1, "the API server is spared");

    let by_all = Cluster::start(&["--rate", "2"]).await;
    assert_eq!(ask(&by_all).await.status, StatusCode::OK);
    assert_eq!(ask(&by_all).await.error(), "rate_limited");
}

#[tokio::test]
async fn the_roots_are_no_secret_and_still_not_for_asking_without_end() {
    let cluster = Cluster::start(&["--caller-rate", "4"]).await;
    let bundle = async || cluster.try_call("GET", "/v1/bundle", &[], Vec::new()).await.unwrap();
    let mut answers = Vec::new();
    for _ in 0..4 {
        answers.push(bundle().await);
    }
    let last = answers.last().unwrap();
    assert_eq!((last.status.as_u16(), last.error().as_str()), (429, "rate_limited"));
    assert!(last.headers.contains_key("retry-after"));
    assert_eq!(cluster.ask(&csr()).await.status, StatusCode::OK, "certificates are counted by themselves");
}
