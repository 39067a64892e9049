//! HTTP/2 from the caller, to apps of either version.

use std::convert::Infallible;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame as BodyFrame;
use proxy::Phase;
use proxy::config::Protocol;
use tokio::sync::mpsc;

use crate::h2_peers::{
    Body, CONTINUATION, DATA, END_HEADERS, END_STREAM, Frames, GOAWAY, HEADERS, RST_STREAM, WINDOW_UPDATE, caller,
    full, literals, request, whole,
};
use crate::harness::{Sidecar, app, field, mirror};

/// A body fed frame by frame by the test.
pub(crate) fn fed() -> (mpsc::Sender<BodyFrame<Bytes>>, Body) {
    let (feed, mut frames) = mpsc::channel(1);
    let stream = futures_stream(move |cx| frames.poll_recv(cx));
    (feed, StreamBody::new(stream).boxed())
}

/// A stream from its poll function.
fn futures_stream<F>(poll: F) -> impl futures_core::Stream<Item = Result<BodyFrame<Bytes>, Infallible>> + Send + Sync
where
    F: FnMut(&mut std::task::Context<'_>) -> std::task::Poll<Option<BodyFrame<Bytes>>> + Send + Sync + Unpin,
{
    struct Polled<F>(F);
    impl<F> futures_core::Stream for Polled<F>
    where
        F: FnMut(&mut std::task::Context<'_>) -> std::task::Poll<Option<BodyFrame<Bytes>>> + Unpin,
    {
        type Item = Result<BodyFrame<Bytes>, Infallible>;
        fn poll_next(
            mut self: std::pin::Pin<&mut Self>,
            cx: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Self::Item>> {
            (self.0)(cx).map(|frame| frame.map(Ok))
        }
    }
    Polled(poll)
}

#[tokio::test]
async fn a_request_reaches_an_http1_app_as_http1() {
    let (app, _) = mirror().await;
    let sidecar = Sidecar::start(app);
    let mut caller = caller(&sidecar).await;
    let sent = request("GET", "/x?y=z").header("cookie", "a=b").header("cookie", "c=d").header("te", "trailers");
    let (head, body, _) = whole(caller.send_request(sent.body(full("")).unwrap()).await.unwrap()).await;
    let text = String::from_utf8(body.to_vec()).unwrap();
    assert_eq!(head.status, 200);
    assert!(text.starts_with("GET /x?y=z HTTP/1.1\r\nhost: app.test\r\n"), "{text}");
    assert_eq!(field(&text, "cookie"), Some("a=b; c=d"));
    assert_eq!(field(&text, "te"), None);
    assert_eq!(field(&text, "x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!((field(&text, "transfer-encoding"), field(&text, "content-length")), (None, None));

    let (_, body, _) =
        whole(caller.send_request(request("POST", "/").body(full("with a length")).unwrap()).await.unwrap()).await;
    let text = String::from_utf8(body.to_vec()).unwrap();
    assert_eq!(field(&text, "content-length"), Some("13"));
    assert!(text.ends_with("\r\n\r\nwith a length"), "{text}");

    let (feed, body) = fed();
    let answer = tokio::spawn(caller.send_request(request("POST", "/").body(body).unwrap()));
    feed.send(BodyFrame::data("of unknown ".into())).await.unwrap();
    feed.send(BodyFrame::data("length".into())).await.unwrap();
    drop(feed);
    let (_, body, _) = whole(answer.await.unwrap().unwrap()).await;
    let text = String::from_utf8(body.to_vec()).unwrap();
    assert_eq!(field(&text, "transfer-encoding"), Some("chunked"));
    assert!(text.ends_with("\r\n\r\nb\r\nof unknown \r\n6\r\nlength\r\n0\r\n\r\n"), "{text}");

    let (head, body, _) = whole(caller.send_request(request("HEAD", "/").body(full("")).unwrap()).await.unwrap()).await;
    assert_eq!((head.status.as_u16(), body.len()), (200, 0));
    drop(caller);
    let log = sidecar.end();
    assert_eq!(log.len(), 4);
    assert_eq!(log[0]["network.protocol.version"], "2");
    assert_eq!(log[1]["http.request.body.size"], 13);
    assert!(log.iter().all(|line| line.get("error.type").is_none()), "{log:?}");
}

#[tokio::test]
async fn informational_answers_are_dropped_and_counted_and_trailers_pass() {
    let (app, _) = app(|mut caller, _| async move {
        caller.head().await;
        caller.send("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n").await;
        caller.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: x-hop\r\nX-Hop: 1\r\n\r\n").await;
        caller.send("5\r\nhello\r\n0\r\nX-Check: sum\r\n\r\n").await;
    })
    .await;
    let sidecar = Sidecar::start(app);
    let mut caller = caller(&sidecar).await;
    let answer = caller.send_request(request("GET", "/").body(full("")).unwrap()).await.unwrap();
    let (head, body, trailers) = whole(answer).await;
    assert_eq!((head.status.as_u16(), &body[..]), (200, &b"hello"[..]));
    assert_eq!(head.headers.get("x-hop"), None);
    assert_eq!(trailers.unwrap()["x-check"], "sum");
    sidecar.counts("outrigger_informational_dropped_total 2").await;
}

#[tokio::test]
async fn an_app_that_breaks_off_resets_the_stream_only() {
    let (app, _) = app(|mut caller, number| async move {
        caller.head().await;
        if number == 0 {
            caller.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").await;
        } else {
            caller.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        }
    })
    .await;
    let sidecar = Sidecar::start(app);
    let mut caller = caller(&sidecar).await;
    // The head may or may not have gone out before.
    if let Ok(head) = caller.send_request(request("GET", "/1").body(full("")).unwrap()).await {
        assert!(head.into_body().collect().await.is_err());
    }
    let (_, body, _) = whole(caller.send_request(request("GET", "/2").body(full("")).unwrap()).await.unwrap()).await;
    assert_eq!(&body[..], b"ok");
    drop(caller);
    let log = sidecar.end();
    assert_eq!((log[0]["error.type"].as_str(), log[0]["url.path"].as_str()), (Some("app_broken"), Some("/1")));
}

#[tokio::test]
async fn what_came_before_an_answer_broke_off_is_passed_on_and_then_the_stream_is_reset() {
    let until_close = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhalf";
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n";
    for (answer, then, unread, cause) in [
        // An app that closes with something unread resets its connection.
        (until_close, "", "unread", Some("app_broken")),
        (until_close, "", "", None),
        (chunked, "", "", Some("app_broken")),
        (chunked, "zz\r\n", "", Some("app_protocol")),
    ] {
        let seen = std::sync::Arc::new(tokio::sync::Notify::new());
        let told = seen.clone();
        let (app, _) = app(move |mut caller, _| {
            let seen = seen.clone();
            async move {
                caller.head().await;
                if !unread.is_empty() {
                    caller.0.peek(&mut [0]).await.unwrap();
                }
                caller.send(answer).await;
                seen.notified().await;
                caller.send(then).await;
            }
        })
        .await;
        let sidecar = Sidecar::start(app);
        let mut caller = caller(&sidecar).await;
        let answer = caller.send_request(request("POST", "/").body(full(unread)).unwrap()).await.unwrap();
        let mut body = answer.into_body();
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "half");
        told.notify_one();
        let rest = body.frame().await;
        assert_eq!(rest.is_some_and(|rest| rest.is_err()), cause.is_some(), "{cause:?}");
        drop(caller);
        assert_eq!(sidecar.end()[0].get("error.type").and_then(|cause| cause.as_str()), cause);
    }
}

#[tokio::test]
async fn a_large_answer_arrives_whole_whatever_its_framing() {
    let content: String = (0..9000).map(|n| format!("{n:07}\n")).collect();
    let chunks = |size: usize| {
        let chunks = content.as_bytes().chunks(size).map(std::str::from_utf8).map(Result::unwrap);
        chunks.map(|chunk| format!("{:x}\r\n{chunk}\r\n", chunk.len())).collect::<String>()
    };
    for (fields, sent, trailers) in [
        (format!("Content-Length: {}", content.len()), content.clone(), 0),
        // What an app says beyond that is nobody's.
        (format!("Content-Length: {}", content.len()), content.clone() + "HTTP/1.1 200 OK\r\n\r\n", 0),
        ("Connection: close".to_owned(), content.clone(), 0),
        ("Transfer-Encoding: chunked".to_owned(), chunks(3000) + "0\r\n\r\n", 0),
        ("Transfer-Encoding: chunked".to_owned(), chunks(7) + "0\r\nX-Check: sum\r\n\r\n", 1),
    ] {
        for piece in [1000, 8192, 100_000] {
            let (head, sent) = (format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n"), sent.clone());
            let (app, _) = app(move |mut caller, _| {
                let whole = format!("{head}{sent}");
                async move {
                    caller.head().await;
                    for piece in whole.as_bytes().chunks(piece) {
                        caller.send(piece).await;
                    }
                }
            })
            .await;
            let sidecar = Sidecar::start(app);
            let mut caller = caller(&sidecar).await;
            let answer = caller.send_request(request("GET", "/").body(full("")).unwrap()).await.unwrap();
            let (_, body, got) = whole(answer).await;
            assert!(body[..] == *content.as_bytes(), "{fields}, {piece}: {} bytes", body.len());
            assert_eq!(got.map_or(0, |got| got.len()), trailers, "{fields}, {piece}");
            drop(caller);
            let log = sidecar.end();
            assert_eq!((&log[0]["http.response.body.size"], log[0].get("error.type")), (&content.len().into(), None));
        }
    }
}

#[tokio::test]
async fn a_caller_that_resets_its_stream_frees_the_apps_connection() {
    let (closed, mut seen) = mpsc::channel(1);
    let (asking, mut asked) = mpsc::channel(1);
    let (app, _) = app(move |mut caller, _| {
        let (closed, asking) = (closed.clone(), asking.clone());
        async move {
            caller.head().await;
            asking.send(()).await.unwrap();
            caller.rest().await;
            closed.send(()).await.unwrap();
        }
    })
    .await;
    let sidecar = Sidecar::start(app);
    let mut frames = Frames::connect(&sidecar, &[]).await;
    let fields = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a")];
    frames.headers(1, true, &fields).await;
    asked.recv().await.unwrap();
    frames.send(RST_STREAM, 0, 1, &8u32.to_be_bytes()).await;
    tokio::time::timeout(crate::harness::PATIENCE, seen.recv()).await.expect("the app's connection stays open");
    let log = sidecar.end();
    assert_eq!(log[0]["error.type"], "client_disconnected");
}

#[tokio::test]
async fn a_caller_that_reads_nothing_is_given_up_stream_by_stream() {
    let (app, _) = app(|mut caller, _| async move {
        let head = caller.head().await;
        let size = if head.starts_with("GET /large") { 1 << 22 } else { 2 };
        caller.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n{}", "x".repeat(size))).await;
    })
    .await;
    let sidecar = Sidecar::with(app, |port| port.timeouts.write = Duration::from_millis(100));
    // A window of nothing for every stream; the connection's own stays open.
    let mut frames = Frames::connect(&sidecar, &[(4, 0)]).await;
    let get = |path| [(":method", "GET"), (":scheme", "http"), (":path", path), (":authority", "a")];
    frames.headers(1, true, &get("/large")).await;
    let head = frames.next().await.unwrap();
    assert_eq!((head.kind, head.stream), (HEADERS, 1));
    let reset = frames.next().await.unwrap();
    assert_eq!((reset.kind, reset.stream), (RST_STREAM, 1));
    // The connection goes on.
    frames.headers(3, true, &get("/small")).await;
    assert_eq!(frames.next().await.unwrap().kind, HEADERS);
    frames.send(WINDOW_UPDATE, 0, 3, &2u32.to_be_bytes()).await;
    let data = frames.next().await.unwrap();
    assert_eq!((data.kind, data.stream, &data.payload[..]), (DATA, 3, &b"xx"[..]));
    sidecar.counts("outrigger_limits_hit_total{limit=\"write_timeout\"} 1").await;
    drop(frames);
    assert_eq!(sidecar.end()[0]["error.type"], "client_disconnected");
}

/// What no app may be shown: each is refused, by a 400 or by a reset, and the app is never connected to.
#[tokio::test]
async fn what_could_be_read_two_ways_never_reaches_the_app() {
    let (app, connections) = mirror().await;
    let sidecar = Sidecar::start(app);
    type Fields = &'static [(&'static str, &'static str)];
    const START: Fields = &[(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", "a")];
    let bad: &[(&str, Fields)] = &[
        ("two content-lengths", &[("content-length", "1"), ("content-length", "1")]),
        ("two lengths in one", &[("content-length", "1, 1")]),
        ("no number", &[("content-length", "+1")]),
        ("transfer-encoding", &[("transfer-encoding", "chunked")]),
        ("connection", &[("connection", "close")]),
        ("keep-alive", &[("keep-alive", "1")]),
        ("upgrade", &[("upgrade", "x")]),
        ("te", &[("te", "gzip")]),
        ("another host", &[("host", "b")]),
        ("two hosts", &[("host", "a"), ("host", "a")]),
        ("upper case", &[("X-Upper", "1")]),
        ("a space in the name", &[("x y", "1")]),
        ("a colon in the name", &[("x:y", "1")]),
        ("no name", &[("", "1")]),
        ("a line feed", &[("x", "a\nb")]),
        ("a carriage return", &[("x", "a\rb")]),
        ("a NUL", &[("x", "a\0b")]),
        ("white space before", &[("x", " a")]),
        ("white space after", &[("x", "a\t")]),
        ("another spelling of a framing field", &[("transfer_encoding", "chunked")]),
        ("another spelling of the length", &[("content_length", "1")]),
        ("a late pseudo-header", &[("x", "y"), (":path", "/b")]),
        ("a second path", &[(":path", "/b")]),
        ("an unknown pseudo-header", &[(":x", "y")]),
        ("an answer's pseudo-header", &[(":status", "200")]),
    ];
    for (what, more) in bad {
        refused(&sidecar, what, &[START, *more].concat()).await;
    }
    let starts: &[(&str, Fields)] = &[
        ("no method", &[(":scheme", "http"), (":path", "/"), (":authority", "a")]),
        ("no path", &[(":method", "GET"), (":scheme", "http"), (":authority", "a")]),
        ("no scheme", &[(":method", "GET"), (":path", "/"), (":authority", "a")]),
        ("no authority", &[(":method", "GET"), (":scheme", "http"), (":path", "/")]),
        ("an empty path", &[(":method", "GET"), (":scheme", "http"), (":path", ""), (":authority", "a")]),
        ("a relative path", &[(":method", "GET"), (":scheme", "http"), (":path", "x"), (":authority", "a")]),
        ("a star", &[(":method", "GET"), (":scheme", "http"), (":path", "*"), (":authority", "a")]),
        (
            "a space in the path",
            &[(":method", "GET"), (":scheme", "http"), (":path", "/ HTTP/1.1"), (":authority", "a")],
        ),
        ("a line in the path", &[(":method", "GET"), (":scheme", "http"), (":path", "/\r\nx: y"), (":authority", "a")]),
        (
            "a line in the method",
            &[(":method", "GET / HTTP/1.1\r\n"), (":scheme", "http"), (":path", "/"), (":authority", "a")],
        ),
        ("an authority with a user", &[(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "u@a")]),
        ("an authority with a path", &[(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a/b")]),
        ("a plain CONNECT", &[(":method", "CONNECT"), (":authority", "a:1")]),
        ("TRACE", &[(":method", "TRACE"), (":scheme", "http"), (":path", "/"), (":authority", "a")]),
    ];
    for (what, fields) in starts {
        refused(&sidecar, what, fields).await;
    }
    assert_eq!(connections.load(Ordering::SeqCst), 0);
    let log = sidecar.end();
    assert!(!log.is_empty());
    for line in log {
        assert!([400, 405].contains(&line["http.response.status_code"].as_u64().unwrap()), "{line}");
    }
}

async fn refused(sidecar: &Sidecar, what: &str, fields: &[(&str, &str)]) {
    let mut frames = Frames::connect(sidecar, &[]).await;
    frames.headers(1, false, fields).await;
    frames.send(DATA, END_STREAM, 1, b"x").await;
    let Some(frame) = frames.next().await else { return };
    match frame.kind {
        RST_STREAM | GOAWAY => {}
        HEADERS => assert_eq!(frame.stream, 1, "{what}"),
        _ => panic!("{what}: {frame:?}"),
    }
}

#[tokio::test]
async fn a_body_that_is_not_as_long_as_it_says_is_not_passed_off_as_whole() {
    for (said, sent) in [("3", &b"toolong"[..]), ("10", b"short")] {
        let (app, _) = app(|mut caller, _| async move {
            caller.head().await;
            // Never a complete request: the connection ends within the body, or nothing beyond the length is there.
            let body = caller.rest().await;
            assert!(body.len() < 10, "{body:?}");
        })
        .await;
        let sidecar = Sidecar::start(app);
        let mut frames = Frames::connect(&sidecar, &[]).await;
        let start = [(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", "a")];
        frames.headers(1, false, &[&start[..], &[("content-length", said)]].concat()).await;
        frames.send(DATA, END_STREAM, 1, sent).await;
        let frame = frames.next().await.unwrap();
        assert_eq!(frame.kind, RST_STREAM, "{frame:?}");
    }
}

#[tokio::test]
async fn frames_out_of_order_end_the_connection() {
    let (app, connections) = mirror().await;
    let sidecar = Sidecar::start(app);
    let fields = literals(&[(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a")]);
    for case in 0..6 {
        let mut frames = Frames::connect(&sidecar, &[]).await;
        match case {
            0 => frames.send(DATA, 0, 1, b"x").await,
            1 => frames.send(HEADERS, END_HEADERS | END_STREAM, 2, &fields).await,
            2 => {
                frames.send(HEADERS, END_STREAM, 1, &fields[..5]).await;
                frames.send(DATA, 0, 1, b"x").await;
            }
            3 => frames.send(CONTINUATION, END_HEADERS, 1, &fields).await,
            4 => frames.send(WINDOW_UPDATE, 0, 0, &[0; 4]).await,
            _ => frames.send(HEADERS, END_HEADERS | END_STREAM, 1, &[0xff, 0xff, 0xff, 0xff, 0x0f]).await,
        }
        let mut last = None;
        while let Some(frame) = frames.next().await {
            last = Some(frame.kind);
        }
        assert_eq!(last, Some(GOAWAY), "case {case}");
    }
    assert_eq!(connections.load(Ordering::SeqCst), 0);
    sidecar.counts("outrigger_http2_errors_total{side=\"caller\"} 6").await;
}

#[tokio::test]
async fn a_sidecar_that_leaves_says_goaway_and_finishes() {
    let (release, wait) = mpsc::channel::<()>(1);
    let wait = std::sync::Mutex::new(Some(wait));
    let (asking, mut asked) = mpsc::channel(1);
    let (app, _) = app(move |mut caller, _| {
        let mut wait = wait.lock().unwrap().take().unwrap();
        let asking = asking.clone();
        async move {
            caller.head().await;
            asking.send(()).await.unwrap();
            wait.recv().await;
            caller.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        }
    })
    .await;
    let sidecar = Sidecar::start(app);
    let mut frames = Frames::connect(&sidecar, &[]).await;
    let fields = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a")];
    frames.headers(1, true, &fields).await;
    asked.recv().await.unwrap();
    sidecar.shared().lifecycle.advance(Phase::Draining);
    assert_eq!(frames.next().await.unwrap().kind, GOAWAY);
    release.send(()).await.unwrap();
    let mut kinds = Vec::new();
    while let Some(frame) = frames.next().await {
        kinds.push(frame.kind);
    }
    assert!(kinds.contains(&HEADERS) && kinds.contains(&DATA), "{kinds:?}");
    assert_eq!(sidecar.end()[0]["http.response.status_code"], 200);
}

/// An HTTP/2 app that mirrors method, path, fields and body, and the request's trailers as its own.
async fn mirror2() -> (std::net::SocketAddr, std::sync::Arc<std::sync::atomic::AtomicUsize>) {
    crate::h2_peers::app(|request, _| async move {
        let (parts, body) = request.into_parts();
        let collected = body.collect().await.unwrap();
        let trailers = collected.trailers().cloned().unwrap_or_default();
        let mut text = format!("{} {} {:?}\r\n", parts.method, parts.uri, parts.version);
        for (name, value) in &parts.headers {
            text.push_str(&format!("{name}: {}\r\n", value.to_str().unwrap()));
        }
        text.push_str("\r\n");
        text.push_str(std::str::from_utf8(&collected.to_bytes()).unwrap());
        let frames = vec![Ok(BodyFrame::data(Bytes::from(text))), Ok(BodyFrame::trailers(trailers))];
        let mut frames = frames.into_iter();
        let stream =
            futures_stream(move |_| std::task::Poll::Ready(frames.next().map(Result::<_, Infallible>::unwrap)));
        Response::new(StreamBody::new(stream).boxed())
    })
    .await
}

#[tokio::test]
async fn an_h2c_app_is_spoken_to_in_http2_by_either_caller() {
    let (app, connections) = mirror2().await;
    let sidecar = Sidecar::with(app, |port| port.protocol = Protocol::H2c);

    let (feed, body) = fed();
    let mut h2 = caller(&sidecar).await;
    let answer = tokio::spawn(h2.send_request(request("POST", "/a?b").body(body).unwrap()));
    feed.send(BodyFrame::data("from http/2".into())).await.unwrap();
    let mut trailers = HeaderMap::new();
    trailers.insert("x-check", "sum".parse().unwrap());
    feed.send(BodyFrame::trailers(trailers)).await.unwrap();
    drop(feed);
    let (_, body, trailers) = whole(answer.await.unwrap().unwrap()).await;
    let text = String::from_utf8(body.to_vec()).unwrap();
    assert!(text.starts_with("POST http://app.test/a?b HTTP/2.0\r\n"), "{text}");
    assert_eq!(field(&text, "x-forwarded-for"), Some("127.0.0.1"));
    assert!(text.ends_with("\r\n\r\nfrom http/2"), "{text}");
    assert_eq!(trailers.unwrap()["x-check"], "sum");

    let mut h1 = sidecar.connect().await;
    h1.send(
        "POST /c HTTP/1.1\r\nHost: app.test\r\nTransfer-Encoding: chunked\r\nConnection: x-hop\r\nX-Hop: 1\r\n\r\n",
    )
    .await;
    h1.send("b\r\nfrom http/1\r\n0\r\nX-Check: sum\r\n\r\n").await;
    let head = h1.head().await;
    assert_eq!(field(&head, "transfer-encoding"), Some("chunked"), "{head}");
    let body = h1.until("0\r\nx-check: sum\r\n\r\n").await;
    assert!(body.contains("POST http://app.test/c HTTP/2.0\r\n") && body.contains("from http/1"), "{body}");
    assert!(!body.contains("x-hop"), "{body}");
    // The connection stays, and so does the one to the app.
    h1.send("GET /d HTTP/1.1\r\nHost: app.test\r\n\r\n").await;
    h1.until("0\r\n\r\n").await;
    assert_eq!(connections.load(Ordering::SeqCst), 1);
    drop((h1, h2));
    let log = sidecar.end();
    assert_eq!(log.len(), 3, "{log:?}");
    assert_eq!(log[0]["http.request.body.size"], 11);
    assert_eq!(log[1]["http.request.body.size"], 11);
    assert_eq!(log[2]["outrigger.app.connection"], "reused");
}

#[tokio::test]
async fn a_kept_http2_connection_that_dies_costs_no_request_that_is_safe_to_repeat() {
    // An app whose first connection dies under its second request.
    let (addr, count) = crate::harness::app(|raw, number| async move {
        let mut connection = h2::server::handshake(raw.0).await.unwrap();
        let mut served = 0;
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            served += 1;
            if number == 0 && served == 2 {
                return;
            }
            let mut body = respond.send_response(Response::new(()), false).unwrap();
            body.send_data(Bytes::from("ok"), true).unwrap();
        }
    })
    .await;
    let sidecar = Sidecar::with(addr, |port| port.protocol = Protocol::H2c);
    let mut caller = sidecar.connect().await;
    for _ in 0..2 {
        caller.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let (head, body) = answer_of(&mut caller).await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}{body}");
        assert_eq!(body, "ok");
    }
    assert_eq!(count.load(Ordering::SeqCst), 2);
    drop(caller);
    let log = sidecar.end();
    assert_eq!(log[1]["outrigger.retries"], 1, "{log:?}");
}

/// An answer whose length is told either way.
async fn answer_of(caller: &mut crate::harness::Raw) -> (String, String) {
    let head = caller.head().await;
    match field(&head, "content-length") {
        Some(length) => {
            let body = caller.take(length.parse().unwrap()).await;
            (head, body)
        }
        None => {
            let chunks = caller.until("0\r\n\r\n").await;
            let body = chunks.split("\r\n").nth(1).unwrap_or_default().to_owned();
            (head, body)
        }
    }
}

#[tokio::test]
async fn a_websocket_crosses_versions_both_ways() {
    // HTTP/1.1 from the caller, extended CONNECT to the app.
    let (app, _) = crate::h2_peers::app(|mut request, _| async move {
        let protocol = request.extensions().get::<hyper::ext::Protocol>().map(|p| p.as_str().to_owned());
        assert_eq!((request.method().as_str(), protocol.as_deref()), ("CONNECT", Some("websocket")));
        assert!(!request.headers().contains_key("sec-websocket-key") && !request.headers().contains_key("upgrade"));
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let mut io = hyper_util::rt::TokioIo::new(upgrade.await.unwrap());
            let (mut read, mut write) = tokio::io::split(&mut io);
            tokio::io::copy(&mut read, &mut write).await.unwrap();
            tokio::io::AsyncWriteExt::shutdown(&mut write).await.unwrap();
        });
        Response::builder().header("sec-websocket-protocol", "chat").body(full("")).unwrap()
    })
    .await;
    let sidecar = Sidecar::with(app, |port| port.protocol = Protocol::H2c);
    let mut caller = sidecar.connect().await;
    caller.send("GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n").await;
    let head = caller.head().await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert_eq!(field(&head, "sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert_eq!((field(&head, "upgrade"), field(&head, "sec-websocket-protocol")), (Some("websocket"), Some("chat")));
    caller.send("echo this").await;
    assert_eq!(caller.take(9).await, "echo this");
    caller.end().await;
    assert_eq!(caller.rest().await, "");
    let log = sidecar.end();
    assert_eq!(log.iter().map(|l| l["outrigger.event"].as_str().unwrap()).collect::<Vec<_>>(), ["start", "end"]);
    assert_eq!((&log[1]["http.request.body.size"], &log[1]["http.response.body.size"]), (&9.into(), &9.into()));
    assert_eq!(log[1]["outrigger.stream"], "websocket");
}

#[tokio::test]
async fn streams_over_the_limit_are_refused_and_the_limit_is_counted() {
    let (app, _) = app(|mut caller, _| async move {
        caller.head().await;
        caller.rest().await;
    })
    .await;
    let sidecar = Sidecar::with(app, |port| port.limits.streams = 2);
    let mut frames = Frames::connect(&sidecar, &[]).await;
    let fields = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a")];
    for stream in [1, 3, 5] {
        frames.headers(stream, true, &fields).await;
    }
    let refused = frames.next().await.unwrap();
    // REFUSED_STREAM: the caller may ask again (RFC 9113, 8.7).
    assert_eq!((refused.kind, refused.stream, &refused.payload[..]), (RST_STREAM, 5, &7u32.to_be_bytes()[..]));
    sidecar.counts("outrigger_limits_hit_total{limit=\"streams\"} 1").await;
}
