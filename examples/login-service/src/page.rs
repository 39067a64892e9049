//! The page to log in by hand: no script, nothing from elsewhere.

use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};

const STYLE: &str = "
:root { color-scheme: light dark; font: 1.1rem/1.5 system-ui, sans-serif; }
body { display: grid; place-items: center; min-height: 100vh; margin: 0; background: Canvas; color: CanvasText; }
main { width: min(22rem, 90vw); }
h1 { font-size: 1.5rem; font-weight: 600; }
label { display: block; margin: 1rem 0 .25rem; }
input { box-sizing: border-box; width: 100%; padding: .6rem; font: inherit; border: 1px solid GrayText; border-radius: .4rem; }
button { margin-top: 1.5rem; width: 100%; padding: .7rem; font: inherit; border: 0; border-radius: .4rem; background: #14535e; color: white; cursor: pointer; }
button:hover { background: #1b6b79; }
p[role=alert] { color: #b3261e; }
";

/// The form, with a message where the last try went wrong.
pub(crate) fn login(status: StatusCode, message: &str) -> Response {
    let alert = if message.is_empty() { String::new() } else { format!("<p role=\"alert\">{}</p>", escape(message)) };
    page(
        status,
        &format!(
            "<h1>Log in</h1>{alert}<form method=\"post\" action=\"/login\">\
             <label for=\"u\">Name</label><input id=\"u\" name=\"username\" autocomplete=\"username\" required autofocus>\
             <label for=\"p\">Password</label><input id=\"p\" name=\"password\" type=\"password\" autocomplete=\"current-password\" required>\
             <button>Log in</button></form>"
        ),
    )
}

/// What somebody logged in sees.
pub(crate) fn welcome(name: &str) -> Response {
    let name = escape(name);
    page(
        StatusCode::OK,
        &format!(
            "<h1>Hello, {name}</h1><p>You are logged in.</p><form method=\"post\" action=\"/logout\"><button>Log out</button></form>"
        ),
    )
}

fn page(status: StatusCode, body: &str) -> Response {
    let html = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>Login service</title>\
         <meta name=\"viewport\" content=\"width=device-width\"><style>{STYLE}</style></head><body><main>{body}</main></body></html>"
    );
    let headers = [
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'",
        ),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (status, headers, Html(html)).into_response()
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
