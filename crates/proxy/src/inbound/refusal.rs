//! The answers that are ours, not the app's.

use std::io::Write;

use model::{Cause, Failure};

/// What an answer of our own says: one sentence, and what exactly was found where that helps the one who reads it.
pub(crate) fn body(failure: &Failure) -> String {
    let explanation = failure.cause.explanation();
    match failure.cause {
        // Which rule refused is for the log, and our own faults are nobody else's business.
        Cause::Denied | Cause::Internal => format!("{explanation}\n"),
        _ if failure.detail.is_empty() => format!("{explanation}\n"),
        _ => format!("{explanation} ({})\n", failure.detail),
    }
}

/// What `Allow` says where a method is not allowed (RFC 9110, 15.5.6).
pub(crate) const ALLOWED: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// `Retry-After`, seconds, for what may be over in a moment, or is by then.
pub(crate) fn retry_after(failure: &Failure) -> Option<&str> {
    match failure.cause {
        Cause::RateLimited => failure.detail.strip_prefix("again in ")?.strip_suffix(" s"),
        cause => (cause.status() == 503).then_some("1"),
    }
}

/// An HTTP/1.1 answer. Without a body for `HEAD`, whose `Content-Length` still tells (RFC 9110, 8.6).
pub(crate) fn write_http1(out: &mut Vec<u8>, failure: &Failure, is_head: bool, close: bool) {
    let body = body(failure);
    h1::encode::status_line(out, failure.cause.status(), None);
    let _ = write!(
        out,
        "content-type: text/plain; charset=utf-8\r\ncontent-length: {}\r\nx-outrigger-error: {}\r\n",
        body.len(),
        failure.cause.label()
    );
    if failure.cause == Cause::MethodNotAllowed {
        h1::encode::field(out, b"allow", ALLOWED.as_bytes());
    }
    if let Some(seconds) = retry_after(failure) {
        let _ = write!(out, "retry-after: {seconds}\r\n");
    }
    if close {
        out.extend_from_slice(b"connection: close\r\n");
    }
    out.extend_from_slice(b"\r\n");
    if !is_head {
        out.extend_from_slice(body.as_bytes());
    }
}
