//! Whose token is it? The API server's TokenReview says, and is held to what it says.

use hyper::Method;
use model::{SpiffeId, TrustDomain};
use serde_json::{Value, json};

use super::refusal::Refusal;
use crate::api::{Api, ApiError};

/// A workload as the API server knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Workload {
    pub(crate) id: SpiffeId,
    /// The pod the token is bound to, for the audit line alone.
    pub(crate) pod: Option<String>,
}

/// Bytes of a token; Kubernetes' own are some 1,200.
const MAX_TOKEN: usize = 8 * 1024;

/// Asks whose token this is.
pub(crate) async fn workload(
    api: &Api,
    token: &str,
    audience: &str,
    trust_domain: &TrustDomain,
) -> Result<Workload, Refusal> {
    if token.len() > MAX_TOKEN || !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(Refusal::BadToken);
    }
    let question = json!({
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenReview",
        "spec": {"token": token, "audiences": [audience]},
    });
    let path = "/apis/authentication.k8s.io/v1/tokenreviews";
    let answer = api.call(Method::POST, path, "application/json", Some(&question)).await.map_err(|e| {
        tracing::error!("token review: {e}");
        if matches!(e, ApiError::Timeout(_)) { Refusal::ReviewTimeout } else { Refusal::ReviewFailed }
    })?;
    read(&answer, audience, trust_domain)
}

/// Reads the answer. An API server that knows nothing of audiences names none: its word is not for us.
fn read(answer: &Value, audience: &str, trust_domain: &TrustDomain) -> Result<Workload, Refusal> {
    if answer["kind"] != "TokenReview" {
        return Err(Refusal::ReviewFailed);
    }
    let status = &answer["status"];
    let meant_for_us = status["audiences"].as_array().is_some_and(|all| all.iter().any(|one| one == audience));
    if status["authenticated"] != true || !meant_for_us {
        return Err(Refusal::BadToken);
    }
    let name = status["user"]["username"].as_str().ok_or(Refusal::NotAWorkload)?;
    let names = name.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'));
    let (namespace, account) = names.ok_or(Refusal::NotAWorkload)?;
    if !is_label(namespace) || !account.split('.').all(is_label) {
        return Err(Refusal::NotAWorkload);
    }
    let id = format!("spiffe://{trust_domain}/ns/{namespace}/sa/{account}");
    let pod = &status["user"]["extra"]["authentication.kubernetes.io/pod-name"][0];
    Ok(Workload {
        id: id.parse().map_err(|_| Refusal::NotAWorkload)?,
        pod: pod.as_str().map(|pod| pod.chars().take(253).collect()),
    })
}

/// RFC 1123, as Kubernetes names things.
fn is_label(name: &str) -> bool {
    let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = name.as_bytes();
    bytes.len() <= 63
        && edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: Value) -> Result<String, Refusal> {
        let answer = json!({"kind": "TokenReview", "status": status});
        read(&answer, "outrigger", &"prod.example".parse().unwrap()).map(|workload| workload.id.to_string())
    }

    #[test]
    fn only_a_service_account_that_means_us_is_a_workload() {
        let says =
            |name: &str| answer(json!({"authenticated": true, "audiences": ["outrigger"], "user": {"username": name}}));
        assert_eq!(says("system:serviceaccount:shop:web").unwrap(), "spiffe://prod.example/ns/shop/sa/web");
        assert_eq!(says("system:serviceaccount:shop:web.v2").unwrap(), "spiffe://prod.example/ns/shop/sa/web.v2");
        for other in [
            "",
            "admin",
            "system:node:shop",
            "system:serviceaccount:shop",
            "system:serviceaccount::web",
            "system:serviceaccount:shop:",
            "system:serviceaccount:shop:..",
            "system:serviceaccount:shop:web/../admin",
            "system:serviceaccount:shop/sa/admin:web",
            "system:serviceaccount:shop:web:admin",
            "system:serviceaccount:Shop:web",
            "system:serviceaccount:shop:-web",
            "system:serviceaccount:shop:web%2f",
        ] {
            assert_eq!(says(other), Err(Refusal::NotAWorkload), "{other:?}");
        }
        let user = json!({"username": "system:serviceaccount:shop:web"});
        for lie in [
            json!({"authenticated": false, "audiences": ["outrigger"], "user": user}),
            json!({"authenticated": "true", "audiences": ["outrigger"], "user": user}),
            json!({"authenticated": true, "user": user}),
            json!({"authenticated": true, "audiences": [], "user": user}),
            json!({"authenticated": true, "audiences": ["https://kubernetes.default.svc"], "user": user}),
            json!({"authenticated": true, "audiences": "outrigger", "user": user}),
            json!({"error": "token expired"}),
            json!(null),
        ] {
            assert_eq!(answer(lie.clone()), Err(Refusal::BadToken), "{lie}");
        }
        assert_eq!(
            read(&json!({"kind": "Status"}), "outrigger", &"prod.example".parse().unwrap()),
            Err(Refusal::ReviewFailed)
        );
    }
}
