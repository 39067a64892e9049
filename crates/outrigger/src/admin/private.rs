//! What is for this pod alone: status, configuration, log level. A browser on the same host must not be tricked into
//! reading it (DNS rebinding) or changing it (cross-site requests), nor a server nearby (SSRF).

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State as Shown};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::json;

use super::State;
use crate::callers;

/// A header that no form, link or plain fetch can send: whoever sends it means it.
const INTENT: &str = "x-outrigger-admin";

pub(super) fn router(state: Arc<State>) -> Router {
    Router::new()
        .route("/status", get(status))
        .route("/config", get(config))
        .route("/log-level", get(log_level).put(set_log_level))
        .layer(DefaultBodyLimit::max(1024))
        .layer(middleware::from_fn(guard))
        .with_state(state)
}

async fn guard(request: Request, next: Next) -> Response {
    if !is_this_host(request.headers()) {
        return (StatusCode::MISDIRECTED_REQUEST, "ask for localhost, 127.0.0.1 or [::1]\n").into_response();
    }
    if request.headers().contains_key(header::ORIGIN) {
        return (StatusCode::FORBIDDEN, "not for pages of another origin\n").into_response();
    }
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    let meant = request.headers().get(INTENT).is_some_and(|value| value == "1");
    if !reads && !meant {
        return (StatusCode::FORBIDDEN, format!("a change needs the header {INTENT}: 1\n")).into_response();
    }
    next.run(request).await
}

/// Whether `Host` names this host as such; another name that resolves here is somebody else's doing.
fn is_this_host(headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next().and_then(|host| host.to_str().ok()), hosts.next()) else { return false };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !port.is_empty() => name,
        _ => host,
    };
    ["localhost", "127.0.0.1", "[::1]"].iter().any(|known| name.eq_ignore_ascii_case(known))
}

async fn status(Shown(state): Shown<Arc<State>>) -> Response {
    let shared = &state.shared;
    let geo = shared.geo.state();
    let snapshot = shared.snapshot.load();
    let ports: Vec<_> = snapshot.ports.iter().map(|port| self::port(port)).collect();
    let upstreams: serde_json::Map<_, _> =
        shared.upstreams().iter().map(|(name, mtls, state)| (name.to_string(), upstream(*mtls, state))).collect();
    let (generation, last_error) = {
        let changing = state.changing();
        (changing.generation, changing.last_error.clone())
    };
    let peers: serde_json::Map<_, _> =
        shared.peers().into_iter().map(|(id, open)| (id.to_string(), open.into())).collect();
    let body = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "phase": format!("{:?}", shared.lifecycle.phase()).to_lowercase(),
        "ports": ports,
        "config": {"generation": generation, "last_reload_error": last_error},
        "geo": {
            "kind": geo.kind.as_str(),
            "age_seconds": geo.age.as_secs(),
            "stale": geo.stale,
            "files": geo.files.iter().map(|file| json!({"name": file.name, "type": file.database_type})).collect::<Vec<_>>(),
            "last_error": geo.last_error,
        },
        "identity": identity(&shared.identity.status()),
        "peers": peers,
        "callers_warning": callers::explain(
            &shared.telemetry.encode_metrics(),
            callers::trusts(&snapshot),
            callers::in_kubernetes(),
        ),
        "upstreams": upstreams,
        "telemetry": shared.telemetry.status(),
    });
    json(&body)
}

fn port(port: &proxy::config::Port) -> serde_json::Value {
    let mut shown = json!({
        "name": port.name,
        "listen": port.listen.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "direction": port.direction.as_str(),
        "tls": port.tls.as_str(),
    });
    if let proxy::config::Upstream::App(addrs) = &port.upstream {
        shown["app"] = addrs.iter().map(ToString::to_string).collect();
    }
    shown
}

/// A service that the app calls.
fn upstream(mtls: bool, state: &proxy::ClusterState) -> serde_json::Value {
    let endpoint = |endpoint: &proxy::EndpointState| {
        json!({
            "address": endpoint.addr.to_string(),
            "state": endpoint.state,
            "requests": endpoint.requests,
            "expected_seconds": endpoint.expected.map(|expected| expected.as_secs_f64()),
            "failures_in_a_row": endpoint.failures,
        })
    };
    let mut shown = json!({
        "tls": if mtls { "mtls" } else { "disabled" },
        "endpoints": state.endpoints.iter().map(endpoint).collect::<Vec<_>>(),
        "endpoints_known": state.known,
        "connections": state.connections,
        "requests": state.requests,
        "pending": state.pending,
        "retries": {"granted": state.retries, "over_budget": state.over_budget},
        "ejections": state.ejections,
        "refused": state.refused.iter().map(|(bound, n)| ((*bound).to_owned(), (*n).into())).collect::<serde_json::Map<_, _>>(),
        "resolution": {
            "answers": state.resolution.answers,
            "failures": state.resolution.failures,
            "last_error": state.resolution.last_error,
        },
    });
    if state.unbalanced {
        shown["warning"] =
            "its name leads to one address, behind which connections are balanced and requests are not: \
                            in Kubernetes, name a headless Service (clusterIP: None) instead"
                .into();
    }
    shown
}

fn identity(status: &identity::Status) -> serde_json::Value {
    let certificates = |chain: &[identity::CertificateInfo]| -> Vec<_> {
        let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let one = |info: &identity::CertificateInfo| {
            json!({
                "name": info.name,
                "serial": info.serial,
                "not_before": seconds(info.not_before),
                "not_after": seconds(info.not_after),
            })
        };
        chain.iter().map(one).collect()
    };
    let bundles: serde_json::Map<_, _> =
        status.bundles.iter().map(|(name, chain)| (name.to_string(), certificates(chain).into())).collect();
    json!({
        "source": status.source,
        "id": status.id.as_ref().map(ToString::to_string),
        "chain": certificates(&status.chain),
        "bundles": bundles,
        "updates": status.updates,
        "failures": status.failures,
        "last_error": status.last_error,
        "warnings": status.warnings,
    })
}

async fn config(Shown(state): Shown<Arc<State>>) -> Response {
    json(&state.changing().shown)
}

fn json(body: &serde_json::Value) -> Response {
    let text = serde_json::to_string_pretty(body).unwrap_or_default() + "\n";
    ([(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")], text).into_response()
}

async fn log_level(Shown(state): Shown<Arc<State>>) -> String {
    state.log_level.get() + "\n"
}

async fn set_log_level(Shown(state): Shown<Arc<State>>, level: String) -> Response {
    match state.log_level.set(&level) {
        Ok(()) => {
            tracing::info!("log level set to {}", state.log_level.get());
            (state.log_level.get() + "\n").into_response()
        }
        Err(expected) => (StatusCode::BAD_REQUEST, format!("{expected}\n")).into_response(),
    }
}
