//! Streams that live long: event streams, upgrades, opaque ports.

use std::time::Duration;

use proxy::config::Protocol;

use crate::harness::{Sidecar, app, field};

#[tokio::test]
async fn events_arrive_as_they_are_sent() {
    let (next, mut wait) = tokio::sync::mpsc::channel::<()>(1);
    let wait = std::sync::Mutex::new(Some(wait.try_recv().err().map(|_| wait).unwrap()));
    let (app, _) = app(move |mut caller, _| {
        let mut wait = wait.lock().unwrap().take().unwrap();
        async move {
            caller.head().await;
            caller
                .send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
                .await;
            while wait.recv().await.is_some() {
                caller.send("8\r\ndata: x\n\r\n").await;
            }
        }
    })
    .await;
    let sidecar = Sidecar::with(app, |port| {
        // None of the bounds on time is for a stream that is open.
        port.timeouts.response = Some(Duration::from_millis(20));
        port.timeouts.body = Duration::from_millis(20);
        port.timeouts.idle = Duration::from_millis(20);
        port.timeouts.head = Duration::from_millis(20);
    });
    let mut caller = sidecar.connect().await;
    caller.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    caller.head().await;
    for _ in 0..3 {
        next.send(()).await.unwrap();
        assert_eq!(caller.until("\n\r\n").await, "8\r\ndata: x\n\r\n");
    }
    drop(caller);
    let log = sidecar.end();
    let events: Vec<_> = log.iter().map(|line| line["outrigger.event"].as_str().unwrap_or("none").to_owned()).collect();
    assert_eq!(events.first().map(String::as_str), Some("start"), "{events:?}");
    assert_eq!(events.len(), 2, "{events:?}");
}

#[tokio::test]
async fn an_upgrade_becomes_a_tunnel() {
    let (app, _) = app(|mut caller, _| async move {
        let head = caller.head().await;
        assert_eq!((field(&head, "connection"), field(&head, "upgrade")), (Some("upgrade"), Some("websocket")));
        caller
            .send(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX-A: b\r\n\r\nfirst",
            )
            .await;
        let heard = caller.take(6).await;
        caller.send(heard.to_uppercase()).await;
        assert_eq!(caller.rest().await, "");
        caller.send("after the caller's end").await;
    })
    .await;
    let sidecar = Sidecar::start(app);
    let mut caller = sidecar.connect().await;
    caller.send("GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n").await;
    let head = caller.head().await;
    assert!(head.starts_with("HTTP/1.1 101 ") && field(&head, "upgrade") == Some("websocket"), "{head}");
    assert_eq!(caller.take(5).await, "first");
    caller.send("hello!").await;
    assert_eq!(caller.take(6).await, "HELLO!");
    caller.end().await;
    assert_eq!(caller.rest().await, "after the caller's end");
    let log = sidecar.end();
    assert_eq!(log.len(), 2, "a start line and an end line: {log:?}");
    assert_eq!(log[1]["http.response.status_code"], 101);
    assert_eq!(log[1]["http.request.body.size"], 6);
    assert_eq!(log[1]["http.response.body.size"], 33);
}

#[tokio::test]
async fn a_refused_upgrade_is_an_ordinary_answer() {
    let (app, _) = crate::harness::mirror().await;
    let sidecar = Sidecar::start(app);
    let mut caller = sidecar.connect().await;
    for _ in 0..2 {
        caller.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n").await;
        let (head, _) = caller.answer().await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    }
}

#[tokio::test]
async fn an_opaque_port_passes_bytes_and_ends_through() {
    let (app, _) = app(|mut caller, _| async move {
        caller.send("220 ready\r\n").await;
        let heard = caller.rest().await;
        caller.send(heard).await;
    })
    .await;
    let sidecar = Sidecar::with(app, |port| port.protocol = Protocol::Tcp);
    let mut caller = sidecar.connect().await;
    assert_eq!(caller.until("\n").await, "220 ready\r\n");
    caller.send("\x16\x03\x01 not HTTP\0").await;
    caller.end().await;
    assert_eq!(caller.rest().await, "\x16\x03\x01 not HTTP\0");
}
