//! The webhook over HTTPS, and its probes and metrics.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};

use http_body_util::BodyExt;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::review::{self, Ended};
use super::settings::Settings;
use crate::serve::Certificate;

/// Bytes of a review. A pod is some kilobytes, all its annotations 256 KiB at most.
const MAX_BODY: usize = 1024 * 1024;
/// What is larger than this is rare: few of those at once, so that callers who prove nothing do not fill the memory. Parsed, a
/// review may take thirty times its bytes.
const LARGE: usize = 64 * 1024;
const LARGE_AT_ONCE: usize = 4;
/// How long a review's body may take.
const BODY: Duration = Duration::from_secs(5);

/// What the webhook is made of.
pub(crate) struct Webhook {
    settings: Settings,
    pub(crate) certificate: Certificate,
    injected: AtomicU64,
    left: AtomicU64,
    impossible: AtomicU64,
    malformed: AtomicU64,
    large: Semaphore,
}

impl Webhook {
    pub(crate) fn new(settings: Settings) -> Arc<Self> {
        Arc::new(Self {
            settings,
            certificate: Arc::new(ArcSwapOption::empty()),
            injected: AtomicU64::default(),
            left: AtomicU64::default(),
            impossible: AtomicU64::default(),
            malformed: AtomicU64::default(),
            large: Semaphore::new(LARGE_AT_ONCE),
        })
    }

    /// What the API server calls.
    pub(crate) fn router(self: &Arc<Self>) -> Router {
        Router::new().route("/inject", post(inject)).with_state(self.clone())
    }

    /// Probes and metrics.
    pub(crate) fn admin(self: &Arc<Self>) -> Router {
        Router::new()
            .route("/livez", get(|| async { "live\n" }))
            .route("/readyz", get(ready))
            .route("/metrics", get(metrics))
            .with_state(self.clone())
    }
}

async fn inject(State(webhook): State<Arc<Webhook>>, body: Body) -> Response {
    let whole = tokio::time::timeout(BODY, read(body, &webhook.large)).await.ok().flatten();
    let review = whole.as_ref().and_then(|(whole, _)| serde_json::from_slice(whole).ok());
    let Some((answer, ended)) = review.and_then(|review| review::answer(&review, &webhook.settings)) else {
        webhook.malformed.fetch_add(1, Ordering::Relaxed);
        return (StatusCode::BAD_REQUEST, "expected an AdmissionReview of admission.k8s.io/v1\n").into_response();
    };
    let counter = match ended {
        Ended::Injected => &webhook.injected,
        Ended::Left => &webhook.left,
        Ended::Impossible => &webhook.impossible,
    };
    counter.fetch_add(1, Ordering::Relaxed);
    axum::Json(answer).into_response()
}

/// A body, and where it is large what says that it may be.
async fn read(mut body: Body, large: &Semaphore) -> Option<(Vec<u8>, Option<SemaphorePermit<'_>>)> {
    let (mut whole, mut permit) = (Vec::new(), None);
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.ok()?.into_data() else { continue };
        if whole.len() + data.len() > MAX_BODY {
            return None;
        }
        if whole.len() + data.len() > LARGE && permit.is_none() {
            permit = Some(large.try_acquire().ok()?);
        }
        whole.extend_from_slice(&data);
    }
    Some((whole, permit))
}

async fn ready(State(webhook): State<Arc<Webhook>>) -> Response {
    match webhook.certificate.load().is_some() {
        true => "ready\n".into_response(),
        false => (StatusCode::SERVICE_UNAVAILABLE, "no certificate yet; see the log\n").into_response(),
    }
}

async fn metrics(State(webhook): State<Arc<Webhook>>) -> Response {
    let mut text = String::from(
        "# HELP outrigger_injector_reviews_total Admission reviews, by what became of the pod.\n\
         # TYPE outrigger_injector_reviews_total counter\n",
    );
    for (result, counter) in [
        ("injected", &webhook.injected),
        ("left", &webhook.left),
        ("impossible", &webhook.impossible),
        ("malformed", &webhook.malformed),
    ] {
        let n = counter.load(Ordering::Relaxed);
        text += &format!("outrigger_injector_reviews_total{{result=\"{result}\"}} {n}\n");
    }
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}
