//! What could be read two ways reaches no app.

use std::sync::Arc;
use std::sync::Mutex;

use crate::harness::{Sidecar, app};

/// Requests that get a definite refusal, with the status that says why.
const REFUSED: &[(&str, &str, u16)] = &[
    (
        "content-length with transfer-encoding",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    ("two content-lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcde", 400),
    (
        "two equal content-lengths",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nContent-Length: 4\r\n\r\nabcd",
        400,
    ),
    ("a list of content-lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4, 4\r\n\r\nabcd", 400),
    ("a signed content-length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +4\r\n\r\nabcd", 400),
    ("a hexadecimal content-length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x4\r\n\r\nabcd", 400),
    ("a content-length with a space", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4 4\r\n\r\nabcd", 400),
    ("an empty content-length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n", 400),
    (
        "a content-length beyond 64 bits",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n",
        400,
    ),
    ("a space before the colon", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length : 4\r\n\r\nabcd", 400),
    ("a folded field", "GET / HTTP/1.1\r\nHost: a\r\nX-A: b\r\n c\r\n\r\n", 400),
    ("a bare line feed", "GET / HTTP/1.1\nHost: a\n\n", 400),
    ("a bare line feed between fields", "GET / HTTP/1.1\r\nHost: a\nX-B: c\r\n\r\n", 400),
    ("a bare carriage return in a value", "GET / HTTP/1.1\r\nHost: a\r\nX-A: b\rc\r\n\r\n", 400),
    ("a NUL in a value", "GET / HTTP/1.1\r\nHost: a\r\nX-A: b\0c\r\n\r\n", 400),
    ("no host", "GET / HTTP/1.1\r\n\r\n", 400),
    ("two hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    ("two equal hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
    ("a host with a path", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
    ("a host with userinfo", "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", 400),
    ("a host that is not the target's", "GET http://a/ HTTP/1.1\r\nHost: b\r\n\r\n", 400),
    (
        "an unknown transfer coding",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        501,
    ),
    (
        "chunked twice",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    (
        "a coding after chunked",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        501,
    ),
    ("a misspelt coding", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501),
    (
        "a coding with a vertical tab",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    ("chunked in HTTP/1.0", "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    ("a framing field with an underscore", "POST / HTTP/1.1\r\nHost: a\r\nTransfer_Encoding: chunked\r\n\r\n", 400),
    ("a nameless field", "GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n", 400),
    ("a field without a colon", "GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n", 400),
    ("a space before the first field", "GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400),
    ("two spaces in the request line", "GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("a tab in the request line", "GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("no version", "GET /\r\n\r\n", 400),
    ("a later version", "GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505),
    ("HTTP/2 in words", "GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
    ("a fragment", "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("a relative target", "GET a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("an asterisk without OPTIONS", "GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("CONNECT", "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", 405),
    ("TRACE", "TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", 405),
    ("an unknown expectation", "POST / HTTP/1.1\r\nHost: a\r\nExpect: 200-ok\r\n\r\n", 417),
    ("a hop that hides the host", "GET / HTTP/1.1\r\nHost: a\r\nConnection: host\r\n\r\n", 400),
    (
        "a hop that hides the length",
        "POST / HTTP/1.1\r\nHost: a\r\nConnection: content-length\r\nContent-Length: 1\r\n\r\nx",
        400,
    ),
    ("TLS", "\x16\x03\x01\x02\0\x01\0\x01\u{7c}\x03\x03", 400),
];

/// Bodies that turn out to be no bodies after the head was forwarded.
const BROKEN_CHUNKS: &[(&str, &str)] = &[
    ("a size that is no number", "z\r\n"),
    ("a size with a sign", "+1\r\nx\r\n0\r\n\r\n"),
    ("a size with 0x", "0x1\r\nx\r\n0\r\n\r\n"),
    ("a size with a space", "1 \r\nx\r\n0\r\n\r\n"),
    ("a size beyond 64 bits", "fffffffffffffffff\r\nx"),
    ("a bare line feed after the size", "1\nx\r\n0\r\n\r\n"),
    ("data longer than its size", "1\r\nxy\r\n0\r\n\r\n"),
    ("a bare line feed after the data", "1\r\nx\n0\r\n\r\n"),
    ("a bare carriage return in an extension", "1;a\rb\r\nx\r\n0\r\n\r\n"),
    ("a framing field in the trailers", "1\r\nx\r\n0\r\nContent-Length: 5\r\n\r\n"),
    ("a folded trailer", "1\r\nx\r\n0\r\nX-A: b\r\n c\r\n\r\n"),
];

#[tokio::test]
async fn ambiguous_heads_are_refused_and_nothing_of_them_reaches_the_app() {
    let (app, connections) = app(|_, _| async {}).await;
    let sidecar = Sidecar::start(app);
    for (what, request, status) in REFUSED {
        let answer = sidecar.ask(request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{what}: {answer}");
        assert!(answer.to_lowercase().contains("connection: close"), "{what}: {answer}");
        assert!(answer.contains("x-outrigger-error: "), "{what}: {answer}");
    }
    assert_eq!(connections.load(std::sync::atomic::Ordering::SeqCst), 0, "the app was connected to");
    let log = sidecar.end();
    assert_eq!(log.len(), REFUSED.len(), "every refusal is logged");
    assert!(log.iter().all(|line| line["error.type"].is_string()), "{log:?}");
}

#[tokio::test]
async fn a_broken_chunk_ends_the_request_and_smuggles_none() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let heard = seen.clone();
    let (app, _) = app(move |mut caller, _| {
        let heard = heard.clone();
        async move {
            let all = caller.rest().await;
            heard.lock().unwrap().push(all);
        }
    })
    .await;
    let sidecar = Sidecar::start(app);
    for (what, body) in BROKEN_CHUNKS {
        let request = format!(
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
        );
        let answer = sidecar.ask(request).await;
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.matches("HTTP/1.1").count() == 1, "{what}: {answer}");
    }
    drop(sidecar);
    let seen = seen.lock().unwrap();
    assert!(seen.iter().all(|all| !all.contains("\r\n\r\n0\r\n\r\n") && !all.contains("GET /smuggled")), "{seen:?}");
}

#[tokio::test]
async fn heads_beyond_the_limits_are_refused_by_name() {
    let (app, _) = app(|_, _| async {}).await;
    let sidecar = Sidecar::start(app);
    let long_target = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(40_000));
    let long_field = format!("GET / HTTP/1.1\r\nHost: a\r\nX-A: {}\r\n\r\n", "a".repeat(40_000));
    let many_fields = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X-A: b\r\n".repeat(101));
    for (request, status) in [(long_target, 414), (long_field, 431), (many_fields, 431)] {
        let answer = sidecar.ask(request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    }
    sidecar.counts("outrigger_limits_hit_total{limit=\"head_bytes\"} 2").await;
    sidecar.counts("outrigger_limits_hit_total{limit=\"head_fields\"} 1").await;
}
