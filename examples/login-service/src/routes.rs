//! The routes.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{DefaultBodyLimit, FromRequest, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Form, Json, Router};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Semaphore;

use crate::page;
use crate::sessions::Sessions;
use crate::users::Users;

/// Bytes of a request body: a name and a password.
const BODY: usize = 4096;
/// Passwords checked at once: each takes some 19 MiB and a core.
const CHECKS: usize = 4;

struct App {
    users: Users,
    sessions: Sessions,
    checks: Arc<Semaphore>,
}

/// `POST /login`, `GET /me`, `POST /logout`, `GET /healthz`, and a page at `/` to log in by hand.
pub fn router(users: Users) -> Router {
    let app = Arc::new(App { users, sessions: Sessions::default(), checks: Arc::new(Semaphore::new(CHECKS)) });
    Router::new()
        .route("/", get(home))
        .route("/login", post(login))
        .route("/me", get(me))
        .route("/logout", post(logout))
        .route("/healthz", get(|| async { "ok\n" }))
        .layer(DefaultBodyLimit::max(BODY))
        .with_state(app)
}

#[derive(Deserialize)]
struct Credentials {
    username: String,
    password: String,
}

/// Programs send JSON and get JSON; the page sends a form and gets a cookie.
async fn login(State(app): State<Arc<App>>, request: Request) -> Response {
    let is_form = has_type(request.headers(), "application/x-www-form-urlencoded");
    let credentials = if is_form {
        Form::<Credentials>::from_request(request, &()).await.map(|Form(c)| c).map_err(IntoResponse::into_response)
    } else {
        Json::<Credentials>::from_request(request, &()).await.map(|Json(c)| c).map_err(IntoResponse::into_response)
    };
    let credentials = match credentials {
        Ok(credentials) => credentials,
        Err(rejected) => return rejected,
    };
    let name = credentials.username.clone();
    match check(&app, credentials).await {
        Some(true) => {}
        Some(false) if is_form => return page::login(StatusCode::UNAUTHORIZED, "Wrong name or password."),
        Some(false) => {
            return (StatusCode::UNAUTHORIZED, Json(json!({"error": "wrong name or password"}))).into_response();
        }
        None => return StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
    let Ok(token) = app.sessions.begin(&name, Instant::now()) else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    if is_form {
        let cookie = format!("session={token}; HttpOnly; SameSite=Strict; Path=/");
        ([(header::SET_COOKIE, cookie)], Redirect::to("/")).into_response()
    } else {
        Json(json!({"token": token})).into_response()
    }
}

/// Checks a password on a thread of its own; `None` where there is none to be had.
async fn check(app: &Arc<App>, credentials: Credentials) -> Option<bool> {
    let place = app.checks.clone().acquire_owned().await.ok()?;
    let app = app.clone();
    let work = move || {
        // Held by the work, which goes on where a caller goes away.
        let _place = place;
        app.users.check(&credentials.username, &credentials.password)
    };
    tokio::task::spawn_blocking(work).await.ok()
}

async fn me(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    match token(&headers).and_then(|token| app.sessions.name(&token, Instant::now())) {
        Some(name) => Json(json!({"username": name})).into_response(),
        None => (StatusCode::UNAUTHORIZED, Json(json!({"error": "not logged in"}))).into_response(),
    }
}

async fn logout(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    if let Some(token) = token(&headers) {
        app.sessions.end(&token);
    }
    if has_type(&headers, "application/x-www-form-urlencoded") {
        let gone = HeaderValue::from_static("session=; HttpOnly; SameSite=Strict; Path=/; Max-Age=0");
        return ([(header::SET_COOKIE, gone)], Redirect::to("/")).into_response();
    }
    StatusCode::NO_CONTENT.into_response()
}

async fn home(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    match token(&headers).and_then(|token| app.sessions.name(&token, Instant::now())) {
        Some(name) => page::welcome(&name),
        None => page::login(StatusCode::OK, ""),
    }
}

/// The token of `Authorization: Bearer`, else of the cookie.
fn token(headers: &HeaderMap) -> Option<String> {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let bearer = text(header::AUTHORIZATION).and_then(|value| value.strip_prefix("Bearer "));
    let cookie = || text(header::COOKIE)?.split(';').find_map(|one| one.trim().strip_prefix("session="));
    bearer.or_else(cookie).map(str::to_owned)
}

fn has_type(headers: &HeaderMap, expected: &str) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.starts_with(expected))
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;

    fn service() -> Router {
        router(Users::parse(crate::SAMPLE_USERS).unwrap())
    }

    async fn ask(
        service: &Router,
        request: axum::http::request::Builder,
        body: &str,
    ) -> (StatusCode, HeaderMap, String) {
        let response = service.clone().oneshot(request.body(Body::from(body.to_owned())).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        (parts.status, parts.headers, String::from_utf8(body.to_vec()).unwrap())
    }

    fn json_login() -> axum::http::request::Builder {
        Request::post("/login").header("content-type", "application/json")
    }

    fn form(path: &str) -> axum::http::request::Builder {
        Request::post(path).header("content-type", "application/x-www-form-urlencoded")
    }

    #[tokio::test]
    async fn a_program_logs_in_and_out() {
        let service = service();
        let (status, _, body) = ask(&service, json_login(), r#"{"username":"grace","password":"amazing"}"#).await;
        assert_eq!(status, 200);
        let token = serde_json::from_str::<serde_json::Value>(&body).unwrap()["token"].as_str().unwrap().to_owned();
        let bearer = |request: axum::http::request::Builder| request.header("authorization", format!("Bearer {token}"));
        let (status, _, body) = ask(&service, bearer(Request::get("/me")), "").await;
        assert_eq!((status.as_u16(), body.as_str()), (200, r#"{"username":"grace"}"#));
        assert_eq!(ask(&service, bearer(Request::post("/logout")), "").await.0, 204);
        assert_eq!(ask(&service, bearer(Request::get("/me")), "").await.0, 401);
    }

    #[tokio::test]
    async fn wrong_passwords_and_unknown_users_get_the_same_answer() {
        let service = service();
        let wrong = ask(&service, json_login(), r#"{"username":"ada","password":"x"}"#).await;
        let unknown = ask(&service, json_login(), r#"{"username":"eve","password":"x"}"#).await;
        assert_eq!((wrong.0.as_u16(), wrong.2), (401, unknown.2));
        assert_eq!(ask(&service, json_login(), "{}").await.0, 422);
        assert_eq!(ask(&service, json_login(), &"x".repeat(5000)).await.0, 413);
    }

    #[tokio::test]
    async fn a_browser_gets_a_cookie_that_no_script_reads() {
        let service = service();
        let (status, headers, _) = ask(&service, form("/login"), "username=grace&password=amazing").await;
        assert_eq!((status.as_u16(), headers["location"].as_bytes()), (303, &b"/"[..]));
        let cookie = headers["set-cookie"].to_str().unwrap();
        assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
        let session = cookie.split(';').next().unwrap().to_owned();
        let (_, headers, body) = ask(&service, Request::get("/").header("cookie", &session), "").await;
        assert!(body.contains("grace") && headers.contains_key("content-security-policy"));
        assert_eq!(ask(&service, form("/logout").header("cookie", &session), "").await.0, 303);
        assert!(ask(&service, Request::get("/").header("cookie", &session), "").await.2.contains("<form"));
        let (status, _, body) = ask(&service, form("/login"), "username=grace&password=x").await;
        assert!(status == 401 && body.contains("Wrong name or password"));
    }

    #[tokio::test]
    async fn forged_tokens_open_nothing_and_health_is_open_to_all() {
        let service = service();
        assert_eq!(ask(&service, Request::get("/me").header("authorization", "Bearer 00"), "").await.0, 401);
        assert_eq!(ask(&service, Request::get("/me").header("cookie", "session="), "").await.0, 401);
        assert_eq!(ask(&service, Request::get("/healthz"), "").await.2, "ok\n");
    }
}
