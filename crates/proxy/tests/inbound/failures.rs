//! Apps that are not there, too slow or gone, and callers that go away.

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use crate::harness::{Raw, Sidecar, app, field};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const POST: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Checks an answer of the proxy's own: status, cause, and that the caller may go on.
async fn refused(caller: &mut Raw, status: u16, cause: &str) {
    let (head, body) = caller.answer().await;
    assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
    assert_eq!(field(&head, "x-outrigger-error"), Some(cause));
    assert!(!body.trim().is_empty());
}

#[tokio::test]
async fn an_app_that_is_not_up_is_a_503_and_the_connection_stays() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let sidecar = Sidecar::start(nobody);
    let mut caller = sidecar.connect().await;
    for _ in 0..2 {
        caller.send(GET).await;
        refused(&mut caller, 503, "app_unreachable").await;
    }
    drop(caller);
    sidecar.counts("outrigger_errors_total{error_type=\"app_unreachable\",fault=\"app\"} 2").await;
    let log = sidecar.end();
    assert_eq!((log.len(), &log[0]["error.type"]), (2, &"app_unreachable".into()));
}

#[tokio::test]
async fn an_app_that_does_not_answer_is_a_504() {
    let (app, _) = app(|mut caller, _| async move {
        caller.rest().await;
    })
    .await;
    let sidecar = Sidecar::with(app, |port| port.timeouts.response = Some(Duration::from_millis(50)));
    let mut caller = sidecar.connect().await;
    caller.send(POST).await;
    refused(&mut caller, 504, "app_timeout").await;
}

#[tokio::test]
async fn an_app_that_closes_before_answering_is_a_502() {
    let (app, connections) = app(|mut caller, _| async move {
        caller.head().await;
    })
    .await;
    let sidecar = Sidecar::start(app);
    let mut caller = sidecar.connect().await;
    caller.send(GET).await;
    refused(&mut caller, 502, "app_closed").await;
    assert_eq!(connections.load(SeqCst), 1, "a fresh connection that fails is not tried again");
}

#[tokio::test]
async fn an_answer_that_is_not_http_is_a_502() {
    for answer in [
        "SSH-2.0-x\r\n",
        "HTTP/1.1 200 OK\nA: b\n\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    ] {
        let (app, _) = app(move |mut caller, _| async move {
            caller.head().await;
            caller.send(answer).await;
            caller.rest().await;
        })
        .await;
        let sidecar = Sidecar::start(app);
        let mut caller = sidecar.connect().await;
        caller.send(GET).await;
        refused(&mut caller, 502, "app_protocol").await;
    }
}

#[tokio::test]
async fn an_app_gone_within_its_answer_breaks_the_stream_honestly() {
    for (answer, asked) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", "HTTP/1.1"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", "HTTP/1.1"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", "HTTP/1.0"),
    ] {
        let (app, _) = app(move |mut caller, _| async move {
            caller.head().await;
            caller.send(answer).await;
        })
        .await;
        let sidecar = Sidecar::start(app);
        let mut caller = sidecar.connect().await;
        caller.send(format!("GET / {asked}\r\nHost: a\r\n\r\n")).await;
        let got = caller.rest().await;
        let body = got.split_once("\r\n\r\n").unwrap().1;
        assert!(body.contains("half"), "what came is passed on: {got}");
        assert!(!body.contains("0\r\n\r\n"), "an unfinished body looks finished: {got}");
        if asked == "HTTP/1.0" {
            assert!(got.ends_with("<reset>"), "nothing tells that the answer is not whole: {got}");
        }
        let log = sidecar.end();
        assert_eq!((&log[0]["error.type"], &log[0]["http.response.status_code"]), (&"app_broken".into(), &200.into()));
    }
}

#[tokio::test]
async fn a_kept_connection_that_died_is_replaced_where_that_is_safe() {
    // Each connection answers once and dies at the next request, without a byte.
    let (app, connections) = app(|mut caller, _| async move {
        caller.head().await;
        caller.send(OK).await;
        caller.head().await;
    })
    .await;
    let sidecar = Sidecar::start(app);
    let mut caller = sidecar.connect().await;
    for n in 1..=3 {
        caller.send(GET).await;
        let (head, body) = caller.answer().await;
        assert!(head.starts_with("HTTP/1.1 200") && body == "ok", "{head}");
        assert_eq!(connections.load(SeqCst), n);
    }
    caller.send(POST).await;
    refused(&mut caller, 502, "app_closed").await;
    assert_eq!(connections.load(SeqCst), 3, "a POST was sent twice");
}

#[tokio::test]
async fn an_early_answer_reaches_a_caller_that_is_still_sending() {
    let (app, _) = app(|mut caller, _| async move {
        caller.head().await;
        caller.send("HTTP/1.1 413 Too Large\r\nContent-Length: 4\r\nConnection: close\r\n\r\nmuch").await;
    })
    .await;
    let sidecar = Sidecar::start(app);
    let mut caller = sidecar.connect().await;
    caller.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n").await;
    caller.send(vec![b'x'; 300_000]).await;
    let answer = caller.rest().await;
    assert!(answer.starts_with("HTTP/1.1 413 ") && answer.ends_with("much"), "{answer}");
    assert_eq!(field(&answer, "connection"), Some("close"));
}

#[tokio::test]
async fn the_app_hears_that_its_caller_went_away() {
    let (told, tell) = tokio::sync::oneshot::channel();
    let told = std::sync::Mutex::new(Some(told));
    let (app, _) = app(move |mut caller, _| {
        let told = told.lock().unwrap().take();
        async move {
            caller.head().await;
            caller.rest().await;
            let _ = told.unwrap().send(());
        }
    })
    .await;
    let sidecar = Sidecar::start(app);
    let mut caller = sidecar.connect().await;
    caller.send(GET).await;
    drop(caller);
    tokio::time::timeout(Duration::from_secs(5), tell).await.expect("the app waits on").unwrap();
    assert_eq!(sidecar.end()[0]["error.type"], "client_disconnected");
}

#[tokio::test]
async fn a_caller_that_ends_its_side_still_gets_a_prompt_answer() {
    let (app, _) = crate::harness::mirror().await;
    let sidecar = Sidecar::start(app);
    let mut caller = sidecar.connect().await;
    caller.send("GET /half HTTP/1.1\r\nHost: a\r\n\r\n").await;
    caller.end().await;
    let answer = caller.rest().await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn a_head_that_never_ends_is_a_408() {
    let (app, _) = app(|_, _| async {}).await;
    let sidecar = Sidecar::with(app, |port| port.timeouts.head = Duration::from_millis(50));
    let answer = sidecar.ask("GET / HTTP/1.1\r\nHost:").await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
}

#[tokio::test]
async fn a_body_that_stalls_is_a_408() {
    let (app, _) = app(|mut caller, _| async move {
        caller.rest().await;
    })
    .await;
    let sidecar = Sidecar::with(app, |port| port.timeouts.body = Duration::from_millis(50));
    let answer = sidecar.ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab").await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
}

#[tokio::test]
async fn an_idle_connection_is_closed_without_a_word() {
    let (app, _) = crate::harness::mirror().await;
    let sidecar = Sidecar::with(app, |port| port.timeouts.idle = Duration::from_millis(50));
    let mut caller = sidecar.connect().await;
    caller.send(GET).await;
    caller.answer().await;
    assert_eq!(caller.rest().await, "");
}

#[tokio::test]
async fn a_connection_beyond_the_limit_is_told_so() {
    let (app, _) = crate::harness::mirror().await;
    let sidecar = Sidecar::with(app, |port| port.limits.connections = 1);
    let mut first = sidecar.connect().await;
    first.send(GET).await;
    first.answer().await;
    let answer = sidecar.ask("").await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("connection_limit"), "{answer}");
    first.send(GET).await;
    assert!(first.answer().await.0.starts_with("HTTP/1.1 200"));
}
