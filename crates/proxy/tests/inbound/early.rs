//! Answers in HTTP/2 to requests that are still being sent.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Response;
use hyper::body::Frame as BodyFrame;
use proxy::config::Protocol;

use crate::h2_peers::{DATA, END_STREAM, Frames, HEADERS, RST_STREAM, caller, full, request, whole};
use crate::harness::{Sidecar, app, field};
use crate::http2::fed;

/// A request's fields.
fn fields(method: &str) -> [(&str, &str); 4] {
    [(":method", method), (":scheme", "http"), (":path", "/"), (":authority", "a")]
}

#[tokio::test]
async fn an_early_answer_does_not_wait_for_the_body() {
    let (app, _) = app(|mut caller, _| async move {
        caller.head().await;
        caller.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno").await;
        caller.rest().await;
    })
    .await;
    let sidecar = Sidecar::start(app);
    let mut caller = caller(&sidecar).await;
    let (feed, body) = fed();
    let answer = caller.send_request(request("POST", "/").body(body).unwrap()).await.unwrap();
    let (head, body, _) = whole(answer).await;
    assert_eq!((head.status.as_u16(), &body[..]), (403, &b"no"[..]));
    drop(feed);
}

/// Uploads what nobody wants, after the answer; the frames that came after it, up to the answer to another stream.
async fn frames_after_an_early_answer(sidecar: &Sidecar, method: &str, bytes: usize) -> Vec<(u8, u32)> {
    let mut frames = Frames::connect(sidecar, &[]).await;
    frames.headers(1, false, &fields(method)).await;
    let mut answer = Vec::new();
    while answer.last() != Some(&(DATA, END_STREAM)) {
        let frame = frames.next().await.unwrap();
        answer.push((frame.kind, frame.flags & END_STREAM));
    }
    // No more than the windows that a connection begins with.
    for _ in 0..bytes / 16_384 {
        frames.send(DATA, 0, 1, &[0; 16_384]).await;
    }
    frames.send(DATA, END_STREAM, 1, &[]).await;
    frames.headers(3, true, &fields("GET")).await;
    let mut after = Vec::new();
    while !after.contains(&(HEADERS, 3)) {
        let frame = frames.next().await.unwrap();
        after.push((frame.kind, frame.stream));
    }
    after
}

#[tokio::test]
async fn what_a_caller_still_uploads_after_an_early_answer_resets_nothing() {
    // Where it does, curl 7.88 loses the answer.
    let (http1, _) = app(|mut caller, number| async move {
        caller.head().await;
        caller.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno").await;
        if number == 0 {
            caller.rest().await;
        }
    })
    .await;
    let sidecar = Sidecar::start(http1);
    assert_eq!(frames_after_an_early_answer(&sidecar, "POST", 49_152).await, [(HEADERS, 3)]);

    let (http2, _) =
        crate::h2_peers::app(|_, _| async { Response::builder().status(403).body(full("no")).unwrap() }).await;
    let sidecar = Sidecar::with(http2, |port| port.protocol = Protocol::H2c);
    assert_eq!(frames_after_an_early_answer(&sidecar, "POST", 49_152).await, [(HEADERS, 3)]);
    // An answer of ours.
    assert_eq!(frames_after_an_early_answer(&sidecar, "TRACE", 49_152).await, [(HEADERS, 3)]);
}

#[tokio::test]
async fn an_upload_that_nobody_wants_is_reset_in_the_end() {
    let (app, _) =
        crate::h2_peers::app(|_, _| async { Response::builder().status(403).body(full("no")).unwrap() }).await;
    let sidecar = Sidecar::with(app, |port| port.protocol = Protocol::H2c);
    let mut caller = caller(&sidecar).await;
    let (feed, body) = fed();
    let answer = caller.send_request(request("POST", "/").body(body).unwrap()).await.unwrap();
    assert_eq!(whole(answer).await.0.status, 403);
    let (mut mebibytes, mebibyte) = (0, Bytes::from(vec![0; 1 << 20]));
    while feed.send(BodyFrame::data(mebibyte.clone())).await.is_ok() {
        mebibytes += 1;
        assert!(mebibytes < 32, "read on for ever");
    }
    assert!(mebibytes >= 16, "{mebibytes} MiB");
}

/// A caller that never ends what it sends.
#[tokio::test]
async fn streams_that_are_read_on_leave_room_for_others() {
    let (app, _) =
        crate::h2_peers::app(|_, _| async { Response::builder().status(403).body(full("no")).unwrap() }).await;
    let sidecar = Sidecar::with(app, |port| {
        port.protocol = Protocol::H2c;
        port.limits.streams = 8;
    });
    let mut frames = Frames::connect(&sidecar, &[]).await;
    let mut resets = Vec::new();
    for stream in (1..40).step_by(2) {
        frames.headers(stream, false, &fields("POST")).await;
        loop {
            let frame = frames.next().await.unwrap();
            match frame.kind {
                RST_STREAM => resets.push((frame.stream, frame.payload)),
                DATA if frame.flags & END_STREAM != 0 => break,
                _ => {}
            }
        }
    }
    // All were answered, none refused. The first two are read on, and the last ones' resets may still be on their way.
    assert!(resets.len() >= 12 && resets.iter().all(|(stream, code)| *stream > 3 && code[..] == [0; 4]), "{resets:?}");
}

#[tokio::test]
async fn a_caller_that_neither_reads_nor_ends_is_given_up_at_once() {
    let (app, _) = app(|mut caller, _| async move {
        caller.head().await;
        caller.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{}", 1 << 20, "x".repeat(1 << 20))).await;
        caller.rest().await;
    })
    .await;
    let sidecar = Sidecar::with(app, |port| port.timeouts.write = Duration::from_millis(100));
    let mut frames = Frames::connect(&sidecar, &[(4, 0)]).await;
    frames.headers(1, false, &fields("POST")).await;
    assert_eq!(frames.next().await.unwrap().kind, HEADERS);
    let begun = Instant::now();
    assert_eq!(frames.next().await.unwrap().kind, RST_STREAM);
    assert!(begun.elapsed() < Duration::from_secs(4), "read on for {:?}", begun.elapsed());
}

#[tokio::test]
async fn an_h2c_app_that_answers_early_ends_the_exchange() {
    let (app, _) =
        crate::h2_peers::app(|_, _| async { Response::builder().status(413).body(full("too much")).unwrap() }).await;
    let sidecar = Sidecar::with(app, |port| port.protocol = Protocol::H2c);
    let mut caller = sidecar.connect().await;
    caller.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nsome").await;
    let (head, body) = caller.answer().await;
    assert!(head.starts_with("HTTP/1.1 413 ") && field(&head, "connection") == Some("close"), "{head}");
    assert_eq!(body, "too much");
}
