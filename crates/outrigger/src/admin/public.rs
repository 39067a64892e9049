//! What may be exposed: probes and metrics, and nothing that tells more, or changes anything but for the host's kubelet.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State as Shown};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use proxy::Phase;

use super::{State, drain, probe};

/// A worker that has shown no life for so long is stuck.
const STUCK: Duration = Duration::from_secs(10);
/// How long the app's own probe may take. Whoever asks has a patience of his own, in Kubernetes a second by default, and goes
/// away when it ends.
const PROBE: Duration = Duration::from_secs(10);

pub(super) fn router(state: Arc<State>) -> Router {
    Router::new()
        .route("/livez", get(live))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/app-health/{name}", get(app_health))
        .route("/drain/{seconds}", get(drain::drain))
        .with_state(state)
}

async fn live(Shown(state): Shown<Arc<State>>) -> Response {
    match state.shared.telemetry.stuck_workers(STUCK) {
        0 => "live\n".into_response(),
        n => {
            (StatusCode::SERVICE_UNAVAILABLE, format!("{n} worker(s) stuck for more than {STUCK:?}\n")).into_response()
        }
    }
}

/// Listeners are open and the configuration is read before this server answers at all; an identity may come later. The app is never waited for, since
/// it may itself wait for the sidecar.
async fn ready(Shown(state): Shown<Arc<State>>) -> Response {
    match state.shared.lifecycle.phase() {
        Phase::Serving if state.shared.identity.is_configured() && state.shared.identity.id().is_none() => {
            (StatusCode::SERVICE_UNAVAILABLE, "no valid identity; see the log\n").into_response()
        }
        Phase::Serving => "ready\n".into_response(),
        _ => (StatusCode::SERVICE_UNAVAILABLE, "draining\n").into_response(),
    }
}

async fn metrics(Shown(state): Shown<Arc<State>>) -> Response {
    state.shared.report_upstreams();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], state.shared.telemetry.encode_metrics())
        .into_response()
}

/// The app's own answer to its own probe: the status alone; over TCP and gRPC 200 where it is well.
async fn app_health(Shown(state): Shown<Arc<State>>, Path(name): Path<String>) -> Response {
    let probe = state.changing().app_probes.get(&name).cloned();
    let Some(probe) = probe else {
        return (StatusCode::NOT_FOUND, "no such probe; name it in admin.app_probes\n").into_response();
    };
    match tokio::time::timeout(PROBE, probe::ask(&probe)).await {
        Ok(Ok(status)) => (status, format!("the app answered {status}\n")).into_response(),
        Ok(Err(e)) => (StatusCode::SERVICE_UNAVAILABLE, format!("the app did not answer: {e}\n")).into_response(),
        Err(_) => {
            (StatusCode::SERVICE_UNAVAILABLE, format!("the app did not answer within {PROBE:?}\n")).into_response()
        }
    }
}
