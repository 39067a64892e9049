//! HTTP/1.0 and HTTP/1.1 as it should be.

use crate::harness::{Sidecar, app, field, mirror};

#[tokio::test]
async fn a_request_reaches_the_app_with_what_the_proxy_knows() {
    let (app, _) = mirror().await;
    let sidecar = Sidecar::start(app);
    let mut caller = sidecar.connect().await;
    caller.send("GET /a/b?c=d HTTP/1.1\r\nHost: shop.example\r\nAccept: */*\r\nX-Odd: \u{e9}\r\n\r\n").await;
    let (head, seen) = caller.answer().await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(seen.starts_with("GET /a/b?c=d HTTP/1.1\r\n"), "{seen}");
    for (name, value) in [
        ("host", "shop.example"),
        ("accept", "*/*"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-proto", "http"),
        ("x-odd", "\u{e9}"),
    ] {
        assert_eq!(field(&seen, name), Some(value), "{seen}");
    }
    assert_eq!(field(&seen, "x-request-id").map(str::len), Some(36));
    assert_eq!(field(&seen, "traceparent"), None, "none is invented");
    drop(caller);
    let log = sidecar.end();
    assert_eq!(log.len(), 1, "{log:?}");
    assert_eq!(log[0]["http.request.method"], "GET");
    assert_eq!(log[0]["url.path"], "/a/b");
    assert_eq!(log[0]["http.response.status_code"], 200);
    assert_eq!(log[0]["client.address"], "127.0.0.1");
    assert!(log[0].get("url.query").is_none(), "query strings are not recorded by default");
}

#[tokio::test]
async fn one_connection_carries_many_requests_and_so_does_the_apps() {
    let (app, connections) = mirror().await;
    let sidecar = Sidecar::start(app);
    let mut caller = sidecar.connect().await;
    for n in 0..5 {
        caller.send(format!("POST /{n} HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc")).await;
        let (_, seen) = caller.answer().await;
        assert!(seen.starts_with(&format!("POST /{n} ")) && seen.ends_with("\r\n\r\nabc"), "{seen}");
    }
    assert_eq!(connections.load(std::sync::atomic::Ordering::SeqCst), 1);
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let (app, _) = mirror().await;
    let sidecar = Sidecar::start(app);
    let mut caller = sidecar.connect().await;
    let requests: String = (0..20)
        .map(|n| format!("POST /{n} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n"))
        .collect();
    caller.send(requests).await;
    for n in 0..20 {
        let (_, seen) = caller.answer().await;
        assert!(seen.starts_with(&format!("POST /{n} ")), "{seen}");
    }
}

#[tokio::test]
async fn a_request_may_come_byte_by_byte() {
    let (app, _) = mirror().await;
    let sidecar = Sidecar::start(app);
    let mut caller = sidecar.connect().await;
    caller.0.set_nodelay(true).unwrap();
    for byte in b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\n\r\n" {
        caller.send([*byte]).await;
        tokio::task::yield_now().await;
    }
    let (head, seen) = caller.answer().await;
    assert!(head.starts_with("HTTP/1.1 200") && seen.ends_with("0\r\n\r\n"), "{head}{seen}");
}

#[tokio::test]
async fn http10_gets_an_answer_it_understands() {
    let (app, _) = app(|mut caller, _| async move {
        while caller.0.readable().await.is_ok() {
            let head = caller.head().await;
            assert!(head.contains("HTTP/1.1\r\n"), "the app is always asked in 1.1");
            caller.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n").await;
        }
    })
    .await;
    let sidecar = Sidecar::start(app);
    let answer = sidecar.ask("GET / HTTP/1.0\r\n\r\n").await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert_eq!(field(head, "connection"), Some("close"));
    assert_eq!(field(head, "transfer-encoding"), None);
    assert_eq!(body, "hello");
}

#[tokio::test]
async fn http10_keeps_its_connection_when_it_asks_and_the_length_is_known() {
    let (app, _) = mirror().await;
    let sidecar = Sidecar::start(app);
    let mut caller = sidecar.connect().await;
    for _ in 0..2 {
        caller.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").await;
        let (head, _) = caller.answer().await;
        assert_eq!(field(&head, "connection"), Some("keep-alive"));
    }
}

#[tokio::test]
async fn head_gets_no_body_whatever_the_length_says() {
    let (app, _) = app(|mut caller, _| async move {
        while caller.0.readable().await.is_ok() {
            let head = caller.head().await;
            let body = if head.starts_with("HEAD") { "" } else { "12345" };
            caller.send(format!("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n{body}")).await;
        }
    })
    .await;
    let sidecar = Sidecar::start(app);
    let mut caller = sidecar.connect().await;
    caller.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let head = caller.head().await;
    assert_eq!(field(&head, "content-length"), Some("5"));
    let (head, body) = caller.answer().await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert_eq!(body, "12345");
}

#[tokio::test]
async fn chunks_and_trailers_pass_both_ways() {
    let (app, _) = app(|mut caller, _| async move {
        let head = caller.head().await;
        assert_eq!(field(&head, "transfer-encoding"), Some("chunked"));
        let body = caller.until("x-sum: 6\r\n\r\n").await;
        assert!(body.starts_with("6\r\nabcdef\r\n0\r\n") || body.starts_with("3\r\nabc\r\n3\r\ndef\r\n0\r\n"), "{body}");
        caller.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-done\r\n\r\n2\r\nok\r\n0\r\nX-Done: yes\r\n\r\n").await;
    })
    .await;
    let sidecar = Sidecar::start(app);
    let mut caller = sidecar.connect().await;
    caller.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;ext=1\r\nabc\r\n3\r\ndef\r\n0\r\nx-sum: 6\r\n\r\n").await;
    let answer = caller.until("X-Done: yes\r\n\r\n").await.to_lowercase();
    assert!(answer.contains("\r\n\r\n2\r\nok\r\n0\r\nx-done: yes\r\n\r\n"), "{answer}");
}

#[tokio::test]
async fn informational_answers_pass_and_expect_is_honoured() {
    let (app, _) = app(|mut caller, _| async move {
        let head = caller.head().await;
        assert_eq!(field(&head, "expect"), Some("100-continue"));
        caller.send("HTTP/1.1 103 Early Hints\r\nLink: </s.css>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n").await;
        assert_eq!(caller.take(4).await, "body");
        caller.send("HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n").await;
    })
    .await;
    let sidecar = Sidecar::start(app);
    let mut caller = sidecar.connect().await;
    caller.send("PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n").await;
    let hints = caller.head().await;
    assert!(hints.starts_with("HTTP/1.1 103 ") && field(&hints, "link").is_some(), "{hints}");
    assert!(caller.head().await.starts_with("HTTP/1.1 100 "));
    caller.send("body").await;
    assert!(caller.head().await.starts_with("HTTP/1.1 201 "));
}

#[tokio::test]
async fn an_answer_until_close_becomes_chunked() {
    let (app, _) = app(|mut caller, _| async move {
        caller.head().await;
        caller.send("HTTP/1.0 200 OK\r\n\r\nold style").await;
    })
    .await;
    let sidecar = Sidecar::start(app);
    let mut caller = sidecar.connect().await;
    caller.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let head = caller.head().await;
    assert_eq!(field(&head, "transfer-encoding"), Some("chunked"));
    assert_eq!(caller.until("0\r\n\r\n").await, "9\r\nold style\r\n0\r\n\r\n");
}

#[tokio::test]
async fn hop_by_hop_fields_stay_on_their_hop() {
    let (app, _) = app(|mut caller, _| async move {
        let head = caller.head().await;
        for name in ["connection", "keep-alive", "te", "proxy-connection", "x-private", "upgrade"] {
            assert_eq!(field(&head, name), None, "{head}");
        }
        caller
            .send("HTTP/1.1 200 OK\r\nConnection: x-inner\r\nX-Inner: 1\r\nKeep-Alive: timeout=5\r\nX-Outer: 2\r\nContent-Length: 0\r\n\r\n")
            .await;
    })
    .await;
    let sidecar = Sidecar::start(app);
    let mut caller = sidecar.connect().await;
    caller
        .send("GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, X-Private\r\nX-Private: 1\r\nKeep-Alive: 5\r\nTE: trailers\r\nProxy-Connection: x\r\nUpgrade: h2c\r\n\r\n")
        .await;
    let head = caller.head().await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert_eq!((field(&head, "x-inner"), field(&head, "keep-alive"), field(&head, "x-outer")), (None, None, Some("2")));
}

#[tokio::test]
async fn absolute_form_becomes_origin_form() {
    let (app, _) = mirror().await;
    let sidecar = Sidecar::start(app);
    let mut caller = sidecar.connect().await;
    caller.send("GET http://shop.example/x?y HTTP/1.1\r\nHost: shop.example\r\n\r\n").await;
    let (_, seen) = caller.answer().await;
    assert!(seen.starts_with("GET /x?y HTTP/1.1\r\nhost: shop.example\r\n"), "{seen}");
}

#[tokio::test]
async fn a_large_body_passes_both_ways_whole() {
    const BYTES: usize = 8 * 1024 * 1024;
    let (app, _) = app(|mut caller, _| async move {
        let head = caller.head().await;
        let body = caller.take(field(&head, "content-length").unwrap().parse().unwrap()).await;
        caller.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len())).await;
        caller.send(body).await;
    })
    .await;
    let sidecar = Sidecar::start(app);
    let mut caller = sidecar.connect().await;
    let body: String = (0..BYTES).map(|n| char::from(b'a' + (n % 23) as u8)).collect();
    caller.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {BYTES}\r\n\r\n")).await;
    caller.send(&body).await;
    let (_, back) = caller.answer().await;
    assert!(back == body, "the body came back changed");
    drop(caller);
    let log = sidecar.end();
    assert_eq!(log[0]["http.request.body.size"], BYTES);
    assert_eq!(log[0]["http.response.body.size"], BYTES);
}
