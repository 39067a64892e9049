//! Servers that break HTTP/2's rules, or use what is rare in them: what a caller is told, frame by frame by hand.

use std::net::SocketAddr;

use model::Direction;
use proxy::Cluster;
use proxy::config::{Outliers, Protocol, Service, Source, Upstream};

use crate::h2_peers::{
    self, CONTINUATION, DATA, END_HEADERS, END_STREAM, Frames, GOAWAY, HEADERS, PING, RST_STREAM, SETTINGS,
    WINDOW_UPDATE, full, literals,
};
use crate::harness::Sidecar;

/// What a caller is to be told.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Told {
    /// The answer, with this body.
    Answer(&'static str),
    /// That there is none: 502, or 503.
    Nothing,
    /// The beginning of one, which then visibly breaks off.
    Broken,
}
use Told::{Answer, Broken, Nothing};

type Sent = (u8, u8, u32, Vec<u8>);

fn head(fields: &[(&str, &str)]) -> Sent {
    (HEADERS, END_HEADERS, 1, literals(fields))
}

fn last_head(fields: &[(&str, &str)]) -> Sent {
    (HEADERS, END_HEADERS | END_STREAM, 1, literals(fields))
}

fn data(text: &str) -> Sent {
    (DATA, 0, 1, text.into())
}

fn last_data(text: &str) -> Sent {
    (DATA, END_STREAM, 1, text.into())
}

/// What servers send in answer to a request, and what its caller is told. The sections are RFC 9113's.
fn cases() -> Vec<(&'static str, Vec<Sent>, Told)> {
    const OK: (&str, &str) = (":status", "200");
    let split = literals(&[OK, ("a", "b")]);
    let padded = |text: &str| [&[3], text.as_bytes(), &[0; 3]].concat();
    let large = "x".repeat(16_385);
    vec![
        ("an answer", vec![head(&[OK]), last_data("hello")], Answer("hello")),
        ("an empty answer", vec![last_head(&[OK])], Answer("")),
        ("trailers (8.1)", vec![head(&[OK]), data("hello"), last_head(&[("grpc-status", "0")])], Answer("hello")),
        (
            "informational answers first (8.1)",
            vec![head(&[(":status", "103")]), head(&[(":status", "103")]), head(&[OK]), last_data("hi")],
            Answer("hi"),
        ),
        (
            "a head in three frames (6.10)",
            vec![
                (HEADERS, 0, 1, split[..4].into()),
                (CONTINUATION, 0, 1, split[4..6].into()),
                (CONTINUATION, END_HEADERS, 1, split[6..].into()),
                last_data("hi"),
            ],
            Answer("hi"),
        ),
        ("padding (6.1)", vec![head(&[OK]), (DATA, END_STREAM | 8, 1, padded("hi"))], Answer("hi")),
        ("empty DATA frames (6.1)", vec![head(&[OK]), data(""), data("h"), data(""), last_data("i")], Answer("hi")),
        (
            "a frame of an unknown type (4.1)",
            vec![(0x42, 0xff, 1, vec![1, 2, 3]), head(&[OK]), last_data("hi")],
            Answer("hi"),
        ),
        (
            "an unknown setting (6.5.2)",
            vec![(SETTINGS, 0, 0, vec![0x42, 0x42, 0, 0, 0, 1]), head(&[OK]), last_data("hi")],
            Answer("hi"),
        ),
        ("PING within (6.7)", vec![head(&[OK]), (PING, 0, 0, vec![7; 8]), last_data("hi")], Answer("hi")),
        (
            "GOAWAY that lets it finish (6.8)",
            vec![(GOAWAY, 0, 0, vec![0, 0, 0, 1, 0, 0, 0, 0]), head(&[OK]), last_data("hi")],
            Answer("hi"),
        ),
        (
            "no error after a whole answer (8.1)",
            vec![head(&[OK]), last_data("hi"), (RST_STREAM, 0, 1, vec![0; 4])],
            Answer("hi"),
        ),
        ("content-length that is right", vec![head(&[OK, ("content-length", "2")]), last_data("hi")], Answer("hi")),
        // Malformed answers (8.1.1): errors of the stream, and nothing of them may be taken for whole.
        ("content-length too large", vec![head(&[OK, ("content-length", "3")]), last_data("hi")], Broken),
        ("content-length too small", vec![head(&[OK, ("content-length", "1")]), last_data("hi")], Broken),
        ("content-length without a body", vec![last_head(&[OK, ("content-length", "3")])], Nothing),
        ("no status (8.3.2)", vec![last_head(&[("a", "b")])], Nothing),
        ("a status twice", vec![last_head(&[OK, OK])], Nothing),
        ("a status that is none", vec![last_head(&[(":status", "2x0")])], Nothing),
        ("status 101 (8.6)", vec![last_head(&[(":status", "101")])], Nothing),
        // The library drops it unseen.
        ("a request's pseudo-field (8.3)", vec![last_head(&[OK, (":path", "/")])], Answer("")),
        ("an unknown pseudo-field (8.3)", vec![last_head(&[OK, (":x", "/")])], Nothing),
        ("a pseudo-field after others (8.3)", vec![last_head(&[("a", "b"), OK])], Nothing),
        ("an upper-case name (8.2.1)", vec![last_head(&[OK, ("Aa", "b")])], Nothing),
        ("a name with a blank (8.2.1)", vec![last_head(&[OK, ("a b", "b")])], Nothing),
        ("an empty name (8.2.1)", vec![last_head(&[OK, ("", "b")])], Nothing),
        ("a line feed in a value (8.2.1)", vec![last_head(&[OK, ("a", "b\nc: d")])], Nothing),
        ("a NUL in a value (8.2.1)", vec![last_head(&[OK, ("a", "b\0")])], Nothing),
        ("connection (8.2.2)", vec![last_head(&[OK, ("connection", "close")])], Nothing),
        ("transfer-encoding (8.2.2)", vec![last_head(&[OK, ("transfer-encoding", "chunked")])], Nothing),
        ("keep-alive (8.2.2)", vec![last_head(&[OK, ("keep-alive", "timeout=5")])], Nothing),
        ("upgrade (8.2.2)", vec![last_head(&[OK, ("upgrade", "websocket")])], Nothing),
        (
            "a status in trailers (8.1)",
            vec![head(&[OK]), data("hi"), last_head(&[(":status", "200")])], // As above.
            Answer("hi"),
        ),
        (
            "trailers that do not end it (8.1)",
            vec![head(&[OK]), data("hi"), head(&[("a", "b")]), last_data("hi")],
            Broken,
        ),
        ("an informational answer that ends it (8.1)", vec![last_head(&[(":status", "103")])], Nothing),
        (
            "two content-lengths",
            vec![head(&[OK, ("content-length", "2"), ("content-length", "3")]), last_data("hi")],
            Nothing,
        ),
        // Errors of the connection.
        ("DATA before a head (8.1)", vec![last_data("hi")], Nothing),
        (
            "a head on a stream nobody opened (5.1)",
            vec![(HEADERS, END_HEADERS | END_STREAM, 7, literals(&[OK]))],
            Nothing,
        ),
        ("a head on an even stream (5.1.1)", vec![(HEADERS, END_HEADERS | END_STREAM, 2, literals(&[OK]))], Nothing),
        ("DATA on stream 0 (6.1)", vec![(DATA, 0, 0, b"x".into())], Nothing),
        ("a head on stream 0 (6.2)", vec![(HEADERS, END_HEADERS, 0, literals(&[OK]))], Nothing),
        ("SETTINGS on a stream (6.5)", vec![(SETTINGS, 0, 1, Vec::new())], Nothing),
        ("SETTINGS of an odd length (6.5)", vec![(SETTINGS, 0, 0, vec![0; 5])], Nothing),
        ("ENABLE_PUSH by a server (6.5.2)", vec![(SETTINGS, 0, 0, vec![0, 2, 0, 0, 0, 1])], Nothing),
        ("a window beyond bounds (6.5.2)", vec![(SETTINGS, 0, 0, vec![0, 4, 0xff, 0xff, 0xff, 0xff])], Nothing),
        ("frames too small to be allowed (6.5.2)", vec![(SETTINGS, 0, 0, vec![0, 5, 0, 0, 0, 1])], Nothing),
        ("PING of seven bytes (6.7)", vec![(PING, 0, 0, vec![0; 7])], Nothing),
        ("PING on a stream (6.7)", vec![(PING, 0, 1, vec![0; 8])], Nothing),
        ("WINDOW_UPDATE by nothing (6.9)", vec![(WINDOW_UPDATE, 0, 0, vec![0; 4])], Nothing),
        ("WINDOW_UPDATE of three bytes (6.9)", vec![(WINDOW_UPDATE, 0, 0, vec![0; 3])], Nothing),
        ("RST_STREAM of three bytes (6.4)", vec![(RST_STREAM, 0, 1, vec![0; 3])], Nothing),
        ("RST_STREAM on stream 0 (6.4)", vec![(RST_STREAM, 0, 0, vec![0; 4])], Nothing),
        ("GOAWAY on a stream (6.8)", vec![(GOAWAY, 0, 1, vec![0; 8])], Nothing),
        ("CONTINUATION of nothing (6.10)", vec![(CONTINUATION, END_HEADERS, 1, literals(&[OK]))], Nothing),
        ("another frame within a head (6.10)", vec![(HEADERS, 0, 1, split[..4].into()), data("hi")], Nothing),
        ("padding longer than its frame (6.1)", vec![head(&[OK]), (DATA, END_STREAM | 8, 1, vec![9, 1, 2])], Broken),
        ("a frame larger than allowed (4.2)", vec![head(&[OK]), last_data(&large)], Broken),
        (
            "PUSH_PROMISE (8.4)",
            vec![(5, END_HEADERS, 1, [&[0, 0, 0, 2], &literals(&[(":method", "GET")])[..]].concat())],
            Nothing,
        ),
        (
            "an index out of range (RFC 7541, 2.3.3)",
            vec![(HEADERS, END_HEADERS | END_STREAM, 1, vec![0xff, 0xff, 0x7f])],
            Nothing,
        ),
        (
            "a string longer than its block (RFC 7541, 5.2)",
            vec![(HEADERS, END_HEADERS | END_STREAM, 1, vec![0, 0x7f, 0x10])],
            Nothing,
        ),
        // Told to stop.
        ("REFUSED_STREAM (8.7)", vec![(RST_STREAM, 0, 1, vec![0, 0, 0, 7])], Nothing),
        ("a reset within the body (6.4)", vec![head(&[OK]), data("hi"), (RST_STREAM, 0, 1, vec![0, 0, 0, 2])], Broken),
        ("GOAWAY that did not see it (6.8)", vec![(GOAWAY, 0, 0, vec![0; 8])], Nothing),
    ]
}

/// A server that answers the first request of each connection with these frames, then reads on until the connection ends.
async fn server(sends: Vec<Sent>) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let mut frames = Frames::accept(&listener, &[]).await;
            let sends = sends.clone();
            tokio::spawn(async move {
                while frames.next().await.is_some_and(|frame| frame.kind != HEADERS) {}
                for (kind, flags, stream, payload) in &sends {
                    frames.send(*kind, *flags, *stream, payload).await;
                }
                while frames.next().await.is_some() {}
            });
        }
    });
    addr
}

fn calling(addr: SocketAddr) -> Sidecar {
    let mut service = Service::new(Source::Static(vec![addr]));
    service.outliers = Outliers { consecutive: 0, ..Outliers::default() };
    service.retry.attempts = 0;
    Sidecar::with(addr, |port| {
        (port.direction, port.protocol) = (Direction::Outbound, Protocol::H2c);
        port.timeouts.response = Some(std::time::Duration::from_secs(2));
        port.upstream = Upstream::Service(Cluster::new(service));
    })
}

/// A body by its framing; none where it is not whole.
fn whole_body(head: &str, mut body: &str) -> Option<String> {
    if let Some(length) = crate::harness::field(head, "content-length") {
        return (body.len() == length.parse::<usize>().unwrap()).then(|| body.to_owned());
    }
    let mut text = String::new();
    loop {
        let (size, rest) = body.split_once("\r\n")?;
        match usize::from_str_radix(size, 16).ok()? {
            0 => return Some(text),
            size => {
                text.push_str(rest.get(..size)?);
                body = rest.get(size + 2..)?;
            }
        }
    }
}

#[tokio::test]
async fn an_http1_caller_is_told_what_came_whole_and_nothing_else() {
    let mut wrong = Vec::new();
    for (what, sends, told) in cases() {
        let sidecar = calling(server(sends).await);
        let answer = sidecar.ask("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        let good = head.starts_with("HTTP/1.1 200 ");
        let refused = ["502", "503", "504"].iter().any(|status| head.starts_with(&format!("HTTP/1.1 {status} ")));
        let body = whole_body(head, body);
        let as_told = match told {
            Answer(text) => good && body.as_deref() == Some(text),
            Nothing => refused,
            Broken => refused || answer.is_empty() || (good && body.is_none()),
        };
        if !as_told {
            wrong.push(format!("{what}: {answer:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn an_http2_caller_is_told_what_came_whole_and_nothing_else() {
    use http_body_util::BodyExt as _;
    let mut wrong = Vec::new();
    for (what, sends, told) in cases() {
        let sidecar = calling(server(sends).await);
        let mut sender = h2_peers::caller(&sidecar).await;
        let answered = sender.send_request(h2_peers::request("GET", "/").body(full("")).unwrap()).await;
        let (status, body) = match answered {
            Ok(answer) => {
                (answer.status().as_u16(), answer.into_body().collect().await.map(http_body_util::Collected::to_bytes))
            }
            Err(e) => (0, Err(e)),
        };
        let as_told = match told {
            Answer(text) => status == 200 && body.as_ref().is_ok_and(|body| *body == text.as_bytes()),
            Nothing => matches!(status, 502..=504) && body.is_ok(),
            Broken => matches!(status, 502..=504) || body.is_err(),
        };
        if !as_told {
            wrong.push(format!("{what}: {status} {body:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
