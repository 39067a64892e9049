//! `POST /v1/certificates`: from a request to a certificate, top to bottom.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use model::{SpiffeId, TrustDomain};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Semaphore;

use super::csr::{self, Asked};
use super::issuer::{self, Issuer, Signed};
use super::record::{Audit, Metrics, Record};
use super::refusal::Refusal;
use super::review::{self, Workload};
use crate::api::Api;
use crate::limit::Limiter;
use crate::serve::Caller;

/// Bytes of a request's body; a request for an RSA key of 8,192 bits is some 4,000.
const MAX_BODY: usize = 16 * 1024;
/// How long a request's body may take.
const BODY: Duration = Duration::from_secs(5);
/// Reviews under way at once.
const REVIEWS: usize = 64;

/// What the authority is made of.
pub(crate) struct Authority {
    pub(crate) trust_domain: TrustDomain,
    pub(crate) audience: String,
    pub(crate) lifetime: Duration,
    pub(crate) api: Api,
    pub(crate) issuer: ArcSwapOption<Issuer>,
    pub(crate) metrics: Metrics,
    audit: Audit,
    by_caller: Limiter<IpAddr>,
    by_identity: Limiter<SpiffeId>,
    by_all: Limiter<()>,
    bundles: Limiter<IpAddr>,
    reviews: Semaphore,
}

/// How often certificates may be asked for, per minute.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rates {
    pub(crate) by_caller: u32,
    pub(crate) by_identity: u32,
    pub(crate) by_all: u32,
}

#[derive(Deserialize)]
struct Asking {
    csr: String,
}

impl Authority {
    pub(crate) fn new(
        trust_domain: TrustDomain,
        audience: String,
        lifetime: Duration,
        api: Api,
        rates: Rates,
    ) -> Arc<Self> {
        let limiter = |rate: u32| (rate, rate.div_ceil(2));
        let ((caller, caller_burst), (identity, identity_burst), (all, all_burst)) =
            (limiter(rates.by_caller), limiter(rates.by_identity), limiter(rates.by_all));
        Arc::new(Self {
            trust_domain,
            audience,
            lifetime,
            api,
            issuer: ArcSwapOption::empty(),
            metrics: Metrics::default(),
            audit: Audit::new(std::io::stdout()),
            by_caller: Limiter::new(caller, caller_burst),
            by_identity: Limiter::new(identity, identity_burst),
            by_all: Limiter::new(all, all_burst),
            bundles: Limiter::new(caller, caller_burst),
            reviews: Semaphore::new(REVIEWS),
        })
    }

    /// What strangers may call, over TLS.
    pub(crate) fn router(self: &Arc<Self>) -> Router {
        Router::new()
            .route("/v1/certificates", post(certificates))
            .route("/v1/bundle", get(bundle))
            .with_state(self.clone())
    }

    /// Probes and metrics.
    pub(crate) fn admin(self: &Arc<Self>) -> Router {
        Router::new()
            .route("/livez", get(|| async { "live\n" }))
            .route("/readyz", get(ready))
            .route("/metrics", get(metrics))
            .with_state(self.clone())
    }

    /// From a request to a certificate.
    async fn decide(
        &self,
        caller: IpAddr,
        headers: &HeaderMap,
        body: Body,
        record: &mut Record<'_>,
    ) -> Result<Signed, Refusal> {
        self.by_caller.take(caller, Instant::now()).map_err(Refusal::RateLimited)?;
        let token = bearer(headers)?;
        let asked = read(body).await?;
        record.asked(&asked);
        // Nobody is asked anything for the sake of a caller who may not have what he wants anyway.
        let issuer = self.issuer.load_full().ok_or(Refusal::NoIssuer)?;
        self.by_all.take((), Instant::now()).map_err(Refusal::RateLimited)?;
        let workload = self.review(token).await?;
        record.workload(&workload);
        self.by_identity.take(workload.id.clone(), Instant::now()).map_err(Refusal::RateLimited)?;
        issuer.workload(&workload.id, &asked.key, self.lifetime)
    }

    async fn review(&self, token: &str) -> Result<Workload, Refusal> {
        let _place = self.reviews.try_acquire().map_err(|_| Refusal::Busy)?;
        review::workload(&self.api, token, &self.audience, &self.trust_domain).await
    }
}

fn bearer(headers: &HeaderMap) -> Result<&str, Refusal> {
    let mut all = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (all.next(), all.next()) else { return Err(Refusal::NoToken) };
    let (scheme, token) = value.to_str().ok().and_then(|value| value.split_once(' ')).ok_or(Refusal::NoToken)?;
    if scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() { Ok(token) } else { Err(Refusal::NoToken) }
}

async fn read(body: Body) -> Result<Asked, Refusal> {
    let whole = tokio::time::timeout(BODY, to_bytes(body, MAX_BODY)).await;
    let whole = whole.map_err(|_| Refusal::BadRequest)?.map_err(|_| Refusal::TooLarge)?;
    let Asking { csr } = serde_json::from_slice(&whole).map_err(|_| Refusal::BadRequest)?;
    csr::read(&csr)
}

async fn certificates(
    State(authority): State<Arc<Authority>>,
    Extension(Caller(caller)): Extension<Caller>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let mut record = Record::new(&authority.metrics, &authority.audit, caller);
    let outcome = authority.decide(caller, &headers, body, &mut record).await;
    let outcome = record.outcome(outcome);
    match (outcome, authority.issuer.load_full()) {
        (Ok(signed), Some(issuer)) => {
            let chain: String = signed.chain.iter().map(|der| issuer::pem(der)).collect();
            let body = json!({
                "chain": chain,
                "bundle": issuer.roots_pem(),
                "trust_domain": authority.trust_domain.as_str(),
            });
            ([(header::CACHE_CONTROL, "no-store")], axum::Json(body)).into_response()
        }
        (Ok(_), None) => refused(Refusal::NoIssuer),
        (Err(refusal), _) => refused(refusal),
    }
}

fn refused(refusal: Refusal) -> Response {
    let mut response = (refusal.status(), axum::Json(json!({"error": refusal.label()}))).into_response();
    if let Some(wait) = refusal.retry_after() {
        response.headers_mut().insert(header::RETRY_AFTER, (wait.as_secs() + 1).into());
    }
    response
}

/// The roots are no secret.
async fn bundle(State(authority): State<Arc<Authority>>, Extension(Caller(caller)): Extension<Caller>) -> Response {
    if let Err(wait) = authority.bundles.take(caller, Instant::now()) {
        return refused(Refusal::RateLimited(wait));
    }
    match authority.issuer.load_full() {
        Some(issuer) => ([(header::CONTENT_TYPE, "application/x-pem-file")], issuer.roots_pem()).into_response(),
        None => refused(Refusal::NoIssuer),
    }
}

async fn ready(State(authority): State<Arc<Authority>>) -> Response {
    let now = std::time::SystemTime::now();
    match authority.issuer.load().as_ref() {
        Some(issuer) if issuer.not_after > now => "ready\n".into_response(),
        Some(_) => (StatusCode::SERVICE_UNAVAILABLE, "the issuer has expired\n").into_response(),
        None => (StatusCode::SERVICE_UNAVAILABLE, "no issuer; see the log\n").into_response(),
    }
}

async fn metrics(State(authority): State<Arc<Authority>>) -> Response {
    let not_after = authority.issuer.load().as_ref().map(|issuer| issuer.not_after);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], authority.metrics.encode(not_after))
        .into_response()
}
