//! A shop with one responsibility: it tells callers their orders. Who is calling it asks the login service, at an address
//! it is given.
//!
//! What is missing is the lesson, here too. `LOGIN_URL=http://localhost:9001` is all it knows of the way: that the call goes
//! over mutual TLS, to whom and from whom, is the outrigger's business.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, Request, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use clap::Parser;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::json;
use tokio::net::TcpStream;

/// Tells callers their orders.
#[derive(Debug, Parser)]
#[command(name = "shop-service", version)]
struct Cli {
    /// Where to listen
    #[arg(long, default_value = "127.0.0.1:8081")]
    listen: SocketAddr,
    /// Where the login service is
    #[arg(long, env = "LOGIN_URL", default_value = "http://localhost:9001")]
    login: Uri,
}

/// The program.
pub fn main() -> ExitCode {
    main_with(std::env::args_os())
}

/// The program with arguments of the caller's choosing, the first being its name.
pub fn main_with<I, A>(args: I) -> ExitCode
where
    I: IntoIterator<Item = A>,
    A: Into<std::ffi::OsString> + Clone,
{
    match run(Cli::parse_from(args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("shop-service: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<(), Box<dyn std::error::Error>> {
    let authority = cli.login.authority().ok_or("--login needs a host: http://localhost:9001")?.to_string();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(cli.listen)
            .await
            .map_err(|e| format!("cannot listen on {}: {e}", cli.listen))?;
        eprintln!("shop-service: listening on http://{}", listener.local_addr()?);
        axum::serve(listener, router(authority)).with_graceful_shutdown(told_to_end()).await?;
        Ok(())
    })
}

/// `GET /orders` and `GET /healthz`; `login` is the login service's host and port.
pub fn router(login: String) -> Router {
    Router::new().route("/orders", get(orders)).route("/healthz", get(|| async { "ok\n" })).with_state(Arc::new(login))
}

#[derive(Deserialize)]
struct Me {
    username: String,
}

/// The orders of whoever's token this is.
async fn orders(State(login): State<Arc<String>>, headers: HeaderMap) -> Response {
    let Some(token) = headers.get(header::AUTHORIZATION) else {
        return (StatusCode::UNAUTHORIZED, "log in first\n").into_response();
    };
    let asked = tokio::time::timeout(ANSWER, who(&login, token)).await;
    match asked.unwrap_or_else(|_| Err("no answer in time".into())) {
        Ok((StatusCode::OK, body)) => match serde_json::from_slice::<Me>(&body) {
            Ok(me) => Json(json!({"username": me.username, "orders": ["a canoe", "an outrigger"]})).into_response(),
            Err(_) => (StatusCode::BAD_GATEWAY, "the login service says nothing sensible\n").into_response(),
        },
        Ok((StatusCode::UNAUTHORIZED, _)) => (StatusCode::UNAUTHORIZED, "log in first\n").into_response(),
        Ok((status, _)) => (StatusCode::BAD_GATEWAY, format!("the login service says {status}\n")).into_response(),
        Err(e) => (StatusCode::BAD_GATEWAY, format!("the login service does not answer: {e}\n")).into_response(),
    }
}

/// How long the login service may take, and how much it may say.
const ANSWER: Duration = Duration::from_secs(5);
const MAX_ANSWER: usize = 4096;

type Asked = Result<(StatusCode, Bytes), Box<dyn std::error::Error + Send + Sync>>;

/// Asks the login service whose token it is.
async fn who(login: &str, token: &header::HeaderValue) -> Asked {
    let stream = TcpStream::connect(login).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let driving = tokio::spawn(connection);
    let request = Request::get("/me")
        .header(header::HOST, login)
        .header(header::AUTHORIZATION, token)
        .body(Empty::<Bytes>::new())?;
    let answer = sender.send_request(request).await?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await?.to_bytes();
    driving.abort();
    Ok((status, body))
}

/// SIGTERM, as a container engine sends it, or Ctrl-C.
async fn told_to_end() {
    let terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate());
    let Ok(mut terminate) = terminate else { return std::future::pending().await };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}
