//! The codec against tables, against itself split anywhere, and against other parsers.

#![allow(missing_docs)]

use h1::{Body, BodyDecoder, Error, ErrorKind, Limits, Method, Piece, RequestHead, ResponseHead, Role, Version};
use proptest::prelude::*;

const LIMITS: Limits = Limits { head_bytes: 4096, fields: 20 };

/// What a request head means, or why it is none.
fn request(bytes: &[u8]) -> Result<Option<(usize, RequestHead)>, ErrorKind> {
    let mut head = RequestHead::new();
    head.parse(bytes, &LIMITS).map(|length| length.map(|n| (n, head))).map_err(Error::kind)
}

fn response(bytes: &[u8], method: Method) -> Result<Option<(usize, ResponseHead)>, ErrorKind> {
    let mut head = ResponseHead::new();
    head.parse(bytes, &LIMITS, method).map(|length| length.map(|n| (n, head))).map_err(Error::kind)
}

/// Accepted: target, authority, path, query, body, whether the connection stays.
#[test]
fn good_requests_mean_what_they_say() {
    type Row = (&'static str, &'static str, &'static str, Option<&'static str>, Body, bool);
    let table: &[Row] = &[
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "a", "/", None, Body::Empty, true),
        ("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "a", "/", None, Body::Empty, true),
        ("GET /x?y?z HTTP/1.1\r\nhost:a:8080\r\n\r\n", "a:8080", "/x", Some("y?z"), Body::Empty, true),
        ("GET /? HTTP/1.1\r\nHOST: \t a \t \r\n\r\n", "a", "/", Some(""), Body::Empty, true),
        ("GET /a|b{c}^\"<>` HTTP/1.1\r\nHost: a\r\n\r\n", "a", "/a|b{c}^\"<>`", None, Body::Empty, true),
        ("GET //a/../b HTTP/1.1\r\nHost: a\r\n\r\n", "a", "//a/../b", None, Body::Empty, true),
        ("GET http://a HTTP/1.1\r\nHost: a\r\n\r\n", "a", "/", None, Body::Empty, true),
        ("GET http://a?q HTTP/1.1\r\nHost: a:80\r\n\r\n", "a", "/", Some("q"), Body::Empty, true),
        ("GET HTTPS://A:1/x HTTP/1.1\r\nHost: a:1\r\n\r\n", "A:1", "/x", None, Body::Empty, true),
        ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "a", "*", None, Body::Empty, true),
        ("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", "a:443", "", None, Body::Empty, true),
        ("GET / HTTP/1.0\r\n\r\n", "", "/", None, Body::Empty, false),
        ("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "", "/", None, Body::Empty, true),
        ("GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n", "", "/", None, Body::Empty, false),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: Close\r\n\r\n", "a", "/", None, Body::Empty, false),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: x\r\nConnection: ,,close,\r\n\r\n",
            "a",
            "/",
            None,
            Body::Empty,
            false,
        ),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", "a", "/", None, Body::Length(0), true),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 007\r\n\r\n", "a", "/", None, Body::Length(7), true),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 9223372036854775807\r\n\r\n",
            "a",
            "/",
            None,
            Body::Length(i64::MAX as u64),
            true,
        ),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n", "a", "/", None, Body::Chunked, true),
        ("M-SEARCH!#$%&'*+-.^_`|~ / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", "[::1]:80", "/", None, Body::Empty, true),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nX-Empty:\r\nX-High: \u{e9}\r\nx_y: z\r\n\r\n",
            "a",
            "/",
            None,
            Body::Empty,
            true,
        ),
    ];
    for (text, authority, path, query, body, keep_alive) in table {
        let (length, head) = request(text.as_bytes()).unwrap_or_else(|e| panic!("{e:?}: {text}")).expect(text);
        let bytes = text.as_bytes();
        assert_eq!(length, bytes.len(), "{text}");
        assert_eq!((head.authority(bytes), head.path(bytes), head.query(bytes)), (*authority, *path, *query), "{text}");
        assert_eq!((head.body(), head.keep_alive()), (*body, *keep_alive), "{text}");
    }
}

#[test]
fn bad_requests_are_refused_and_so_is_every_prefix_that_shows_why() {
    use ErrorKind::{
        ExpectationFailed, HeadTooLarge, Malformed, NotImplemented, TargetTooLong, TooManyFields, VersionNotSupported,
    };
    let long_target = format!("GET /{}", "a".repeat(5000));
    let long_value = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "a".repeat(5000));
    let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(20));
    let method = format!("{} / HTTP/1.1\r\nHost: a\r\n\r\n", "A".repeat(33));
    let nominations = format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: {}\r\n\r\n", "x,".repeat(40));
    let with = |field: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{field}\r\n\r\n");
    let line = |line: &str| format!("{line}\r\nHost: a\r\n\r\n");
    let mut table = vec![
        (long_target, TargetTooLong),
        (long_value, HeadTooLarge),
        (many, TooManyFields),
        (method, Malformed),
        (nominations, Malformed),
        ("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n".into(), Malformed),
        ("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n".into(), Malformed),
        ("GET / HTTP/1.1\r\n\r\n".into(), Malformed),
        ("GET / HTTP/1.1\r\n Host: a\r\n\r\n".into(), Malformed),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n".into(), Malformed),
        ("GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n".into(), Malformed),
        ("GET http://a:81/ HTTP/1.1\r\nHost: a\r\n\r\n".into(), Malformed),
        ("CONNECT b:1 HTTP/1.1\r\nHost: a:1\r\n\r\n".into(), Malformed),
        ("GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n".into(), Malformed),
        ("GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n".into(), Malformed),
    ];
    for bad in [
        "GET  / HTTP/1.1",
        " GET / HTTP/1.1",
        "GET / HTTP/1.1 ",
        "GET /  HTTP/1.1",
        "GET\t/ HTTP/1.1",
        "GET /\tx HTTP/1.1",
        "GET / http/1.1",
        "GET / HTTP/1",
        "GET / HTTP/11",
        "GET / HTTP/1.1.1",
        "GET / HTTP/a.b",
        "GET / HTTP /1.1",
        "GET /",
        "GET",
        "GET / FTP/1.1",
        "G(T / HTTP/1.1",
        "GET /#x HTTP/1.1",
        "GET /\x7f HTTP/1.1",
        "GET /\u{e9} HTTP/1.1",
        "GET x HTTP/1.1",
        "GET * HTTP/1.1",
        "GET ftp://a/ HTTP/1.1",
        "GET http:///x HTTP/1.1",
        "GET http://u@a/ HTTP/1.1",
        "GET http://a:x/ HTTP/1.1",
        "GET http:/a HTTP/1.1",
        "CONNECT / HTTP/1.1",
        "CONNECT a HTTP/1.1",
        "CONNECT http://a/ HTTP/1.1",
        "OPTIONS ** HTTP/1.1",
        "GET / HTTP/1.1\rX",
        "\0GET / HTTP/1.1",
        "GET /\0 HTTP/1.1",
        "GET / HTTP/1.1\n",
    ] {
        table.push((line(bad), Malformed));
    }
    for bad in ["GET / HTTP/1.2", "GET / HTTP/2.0", "GET / HTTP/0.9", "GET / HTTP/9.9"] {
        table.push((line(bad), VersionNotSupported));
    }
    for bad in [
        "Content-Length: 1\r\nContent-Length: 1",
        "Content-Length: 1, 1",
        "Content-Length: ",
        "Content-Length: -1",
        "Content-Length: +1",
        "Content-Length: 1 1",
        "Content-Length: 0x1",
        "Content-Length: 1;",
        "Content-Length: \"1\"",
        "Content-Length: 9223372036854775808",
        "Content-Length: 18446744073709551616",
        "Content-Length: 1\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 1",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\ntransfer-encoding: identity",
        "Transfer-Encoding: ",
        "Transfer-Encoding: \"chunked\"",
        "Transfer-Encoding: chunked;x=y",
        "Transfer-Encoding: \x0bchunked",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding\t: chunked",
        "Content-Length : 1",
        "Transfer_Encoding: chunked",
        "Content_Length: 1",
        "content-length_: 1\r\nContent_length: 1",
        "X: a\r\n b",
        "X: a\r\n\tb",
        "X: a\rb",
        "X: a\nb",
        "X: a\0b",
        "X: a\x7fb",
        "X: a\x1bb",
        "X",
        "X\r\nY: z",
        ": x",
        "X Y: z",
        "X\0: z",
        "X(: z",
        "X[]: z",
        "\u{e9}: z",
        "X;y: z",
        "\"X\": z",
        "X,: z",
        "X/: z",
        "X=: z",
        "X@: z",
        "Connection: host",
        "Connection: Content-Length\r\nContent-Length: 1",
        "Connection: transfer-encoding",
        "Connection: authorization",
        "Connection: a b",
        "Connection: \"close\"",
        "Connection: close;",
        "Host: b",
    ] {
        table.push((with(bad), Malformed));
    }
    for bad in [
        "gzip, chunked",
        "chunked, gzip",
        "chunked, chunked",
        "identity",
        "xchunked",
        "chunkedx",
        "chunked,",
        ", chunked",
        "x",
    ] {
        table.push((with(&format!("Transfer-Encoding: {bad}")), NotImplemented));
    }
    for bad in ["200-ok", "100-continue, x", "", "100-continu"] {
        table.push((with(&format!("Expect: {bad}")), ExpectationFailed));
    }
    for host in [
        "", " ", "a b", "a,b", "a/b", "a?b", "u@a", "a:", "a:b", "a:70000", "[::1", "::1", "a\u{e9}", "a#b", "a\\b",
        "%zz",
    ] {
        table.push((format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"), Malformed));
    }
    for (text, kind) in &table {
        assert_eq!(request(text.as_bytes()).map(|head| head.map(|(n, _)| n)), Err(*kind), "{text:?}");
        let mut refused = false;
        for n in 0..text.len().min(300) {
            let prefix = request(&text.as_bytes()[..n]);
            assert!(!matches!(prefix, Ok(Some(_))), "a prefix of {text:?} is accepted");
            assert!(!refused || prefix.is_err(), "refused, then not: {text:?} at {n}");
            refused = prefix.is_err();
        }
    }
}

#[test]
fn junk_is_refused_at_its_first_bytes() {
    for junk in [&b"\x16\x03\x01"[..], b"\0", b"\x80", b"{", b" ", b"\n", b"\rG", b"SSH-2.0-x\r"] {
        assert_eq!(request(junk).err(), Some(ErrorKind::Malformed), "{junk:?}");
    }
}

#[test]
fn roles_part_what_is_for_the_next_hop() {
    let text = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, X-Mine, upgrade\r\nx-mine: 1\r\nKeep-Alive: timeout=5\r\nProxy-Connection: a\r\n\
        TE: gzip, trailers\r\nUpgrade: websocket\r\nHTTP2-Settings: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\nTrailer: x\r\nCookie: c\r\n\r\n";
    let (_, head) = request(text).unwrap().unwrap();
    let hop: Vec<_> = head
        .fields(text)
        .filter(|f| f.role == Role::HopByHop)
        .map(|f| String::from_utf8_lossy(f.name).to_lowercase())
        .collect();
    assert_eq!(hop, ["connection", "x-mine", "keep-alive", "proxy-connection", "te", "upgrade", "http2-settings"]);
    assert_eq!(head.upgrade(text), Some(&b"websocket"[..]));
    assert!(head.expects_continue() && head.te_trailers());
    let cookie = head.fields(text).last().unwrap();
    assert_eq!((cookie.name, cookie.value), (&b"Cookie"[..], &b"c"[..]));
    assert_eq!(&text[cookie.start..cookie.end], b"Cookie: c\r\n");
}

#[test]
fn an_upgrade_counts_only_with_its_connection_option_and_in_1_1() {
    for (text, upgrade) in [
        ("GET / HTTP/1.1\r\nHost: a\r\nUpgrade: x\r\n\r\n", None),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\n\r\n", None),
        ("GET / HTTP/1.0\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", None),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\nUpgrade: y\r\n\r\n", None),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: close, UPGRADE\r\nUpgrade: x\r\n\r\n", Some(&b"x"[..])),
    ] {
        let (_, head) = request(text.as_bytes()).unwrap().unwrap();
        assert_eq!(head.upgrade(text.as_bytes()), upgrade, "{text}");
    }
}

#[test]
fn answers_end_where_status_method_and_fields_say() {
    use Method::{Connect, Get, Head};
    for (text, method, status, body, keep_alive) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", Get, 200, Body::Length(5), true),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", Head, 200, Body::Empty, true),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", Get, 200, Body::Chunked, true),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", Head, 200, Body::Empty, true),
        ("HTTP/1.1 200 \r\n\r\n", Get, 200, Body::UntilClose, true),
        ("HTTP/1.1 200\r\n\r\n", Get, 200, Body::UntilClose, true),
        ("HTTP/1.0 200 a b\tc\u{e9}\r\n\r\n", Get, 200, Body::UntilClose, false),
        ("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\n", Get, 200, Body::Length(1), true),
        ("HTTP/1.1 100 Continue\r\n\r\n", Get, 100, Body::Empty, true),
        ("HTTP/1.1 101 X\r\nUpgrade: y\r\nConnection: upgrade\r\n\r\n", Get, 101, Body::Empty, true),
        ("HTTP/1.1 204 No Content\r\n\r\n", Get, 204, Body::Empty, true),
        ("HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", Get, 304, Body::Empty, true),
        ("HTTP/1.1 200 OK\r\n\r\n", Connect, 200, Body::Empty, true),
        ("HTTP/1.1 999 What\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", Get, 999, Body::Length(0), false),
    ] {
        let (length, head) = response(text.as_bytes(), method).unwrap_or_else(|e| panic!("{e:?}: {text}")).expect(text);
        assert_eq!(
            (length, head.status(), head.body(), head.keep_alive()),
            (text.len(), status, body, keep_alive),
            "{text}"
        );
    }
    let timed = b"HTTP/1.1 200 OK\r\nKeep-Alive: max=9, timeout=5\r\n\r\n";
    assert_eq!(response(timed, Get).unwrap().unwrap().1.keep_alive_timeout(), Some(5));
}

#[test]
fn bad_answers_are_refused() {
    for bad in [
        "HTTP/2 200 OK\r\n\r\n",
        "HTTP/1.2 200 OK\r\n\r\n",
        "HTTP/1.1  200 OK\r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.1 099 OK\r\n\r\n",
        "HTTP/1.1 2x0 OK\r\n\r\n",
        "http/1.1 200 OK\r\n\r\n",
        "ICY 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\n\n",
        "HTTP/1.1 200 O\0K\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
        "\r\nHTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX : a\r\n\r\n",
        "HTTP/1.1 204 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 100 X\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
    ] {
        assert!(response(bad.as_bytes(), Method::Get).is_err(), "{bad:?}");
    }
    let coding = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n";
    assert_eq!(response(coding, Method::Get).err(), Some(ErrorKind::NotImplemented));
}

/// Content, trailers, and how many bytes were the body's.
type Decoded = (Vec<u8>, Vec<(Vec<u8>, Vec<u8>)>, usize);

/// Decodes in pieces of so many bytes.
fn decode(body: Body, bytes: &[u8], piece: usize) -> Result<Decoded, ErrorKind> {
    let mut decoder = BodyDecoder::new(body, &LIMITS);
    let (mut content, mut at, mut end) = (Vec::new(), 0, piece.min(bytes.len()));
    while !decoder.is_done() {
        let step = decoder.decode(&bytes[at..end]).map_err(Error::kind)?;
        if let Piece::Data(range) = &step.piece {
            content.extend_from_slice(&bytes[at..end][range.clone()]);
        }
        assert!(step.consumed > 0 || at == end, "no progress at {at}");
        at += step.consumed;
        if at == end && !decoder.is_done() {
            if end == bytes.len() {
                return decoder.at_eof().map(|()| (content, Vec::new(), at)).map_err(Error::kind);
            }
            end = (end + piece).min(bytes.len());
        }
    }
    let trailers = decoder.trailers().map(|f| (f.name.to_vec(), f.value.to_vec())).collect();
    Ok((content, trailers, at))
}

#[test]
fn bodies_decode_the_same_however_they_are_split() {
    let chunked =
        b"5;a=b;c=\"d\\\"e\";f\r\nhello\r\n00000000000000A\r\n, world!!!\r\n0\r\nX-A: 1\r\nx-b:2 \r\n\r\nGET /next";
    for piece in 1..=chunked.len() {
        let (content, trailers, used) = decode(Body::Chunked, chunked, piece).unwrap();
        assert_eq!(content, b"hello, world!!!");
        assert_eq!(trailers, [(b"X-A".to_vec(), b"1".to_vec()), (b"x-b".to_vec(), b"2".to_vec())]);
        assert_eq!(&chunked[used..], b"GET /next");
        let (content, _, used) = decode(Body::Length(7), b"7 bytesrest", piece.min(11)).unwrap();
        assert_eq!((content.as_slice(), used), (&b"7 bytes"[..], 7));
        assert_eq!(decode(Body::UntilClose, b"all of it", piece.min(9)).unwrap().0, b"all of it");
    }
    assert_eq!(decode(Body::Empty, b"x", 1).unwrap().2, 0);
    assert_eq!(decode(Body::Length(3), b"ab", 2).err(), Some(ErrorKind::Truncated));
    assert_eq!(decode(Body::Chunked, b"3\r\nab", 2).err(), Some(ErrorKind::Truncated));
}

#[test]
fn malformed_chunks_are_refused_however_they_are_split() {
    let flood = format!("1;{}\r\nx\r\n", "a".repeat(20_000));
    let trailers = format!("0\r\n{}", "X: y\r\n".repeat(30));
    let long_trailer = format!("0\r\nX: {}", "y".repeat(5000));
    for bad in [
        "\r\n",
        ";\r\n",
        "g\r\n",
        "-1\r\n",
        "+1\r\n",
        "0x1\r\nx\r\n",
        " 1\r\nx",
        "1 \r\nx",
        "1\t\r\n",
        "1\nx",
        "1\rx",
        "1\r\nxy",
        "1\r\nx\n",
        "1\r\nx\rx",
        "10000000000000000\r\n",
        "8000000000000000\r\n",
        "00000000000000001\r\n",
        "1;\r\nx",
        "1;=b\r\nx",
        "1;a=\r\nx",
        "1;a=\"b\r\nx",
        "1;a\nx",
        "1;a b\r\n",
        "1;a=\"b\"c\r\n",
        "1;a\x01\r\n",
        "1,1\r\n",
        "0\r\nX: y\n\r\n",
        "0\r\nX\r\n\r\n",
        "0\r\n X: y\r\n\r\n",
        "0\r\nX: y\r\n z\r\n\r\n",
        "0\r\n\rX",
        "0\r\nContent-Length: 1\r\n\r\n",
        "0\r\nTransfer-Encoding: chunked\r\n\r\n",
        "0\r\nHost: a\r\n\r\n",
        "0\r\ntransfer_encoding: chunked\r\n\r\n",
        "0\r\nX-Forwarded-For: 1.1.1.1\r\n\r\n",
        "0\r\nx_forwarded_for: 1.1.1.1\r\n\r\n",
        "0\r\nCookie: a\r\n\r\n",
        "0\r\nAuthorization: a\r\n\r\n",
        &flood,
        &trailers,
        &long_trailer,
    ] {
        for piece in [1, 2, 3, 7, bad.len()] {
            let kind = decode(Body::Chunked, bad.as_bytes(), piece).err();
            assert!(
                kind.is_some_and(|kind| kind != ErrorKind::Truncated),
                "{:?} by {piece}: {kind:?}",
                &bad[..bad.len().min(60)]
            );
        }
    }
}

#[test]
fn what_is_encoded_decodes() {
    let mut out = Vec::new();
    for chunk in [&b"a"[..], &[b'x'; 300], &[b'y'; 70_000]] {
        h1::encode::chunk_header(&mut out, chunk.len());
        out.extend_from_slice(chunk);
        out.extend_from_slice(b"\r\n");
    }
    h1::encode::last_chunk(&mut out, [(&b"x"[..], &b"y"[..])].into_iter());
    let (content, trailers, used) = decode(Body::Chunked, &out, 4096).unwrap();
    assert_eq!((content.len(), trailers.len(), used), (70_301, 1, out.len()));
    let mut line = Vec::new();
    h1::encode::status_line(&mut line, 404, None);
    h1::encode::status_line(&mut line, 200, Some(b"Fi\r\nne"));
    assert_eq!(line, b"HTTP/1.1 404 Not Found\r\nHTTP/1.1 200 Fine\r\n");
}

/// Pieces that heads are made of, good and bad, so that random heads come close to real ones.
fn soup() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        8 => prop::sample::select(vec![
            "GET ", "POST ", "/", "/a?b", "http://a", " HTTP/1.1\r\n", " HTTP/1.0\r\n", "Host: a\r\n", "Host:b\r\n", "Content-Length: 5\r\n",
            "Transfer-Encoding: chunked\r\n", "Connection: close\r\n", "Connection: x-a\r\n", "X-A: b\r\n", "X-A:\tb \r\n", "\r\n", "\n", "\r", " ", "\t", ":", "Expect: 100-continue\r\n",
            "Upgrade: x\r\n", "5\r\nhello\r\n0\r\n\r\n", "hello",
        ]).prop_map(|s| s.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 1..3),
    ];
    prop_oneof![
        prop::collection::vec(piece.clone(), 1..12).prop_map(|pieces| pieces.concat()),
        prop::collection::vec(piece, 0..6).prop_map(|pieces| [
            b"POST / HTTP/1.1\r\nHost: a\r\n".to_vec(),
            pieces.concat(),
            b"\r\n".to_vec()
        ]
        .concat()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn a_head_that_comes_in_pieces_is_the_same_head(bytes in soup(), split in 1usize..40) {
        let whole = request(&bytes).map(|head| head.map(|(n, head)| (n, head.fields(&bytes).count(), head.body())));
        let mut head = RequestHead::new();
        let mut pieces = Ok(None);
        let mut end = 0;
        while end < bytes.len() && matches!(pieces, Ok(None)) {
            end = (end + split).min(bytes.len());
            pieces = head.parse(&bytes[..end], &LIMITS).map_err(Error::kind);
        }
        let pieces = pieces.map(|n| n.map(|n| (n, head.fields(&bytes).count(), head.body())));
        prop_assert_eq!(whole, pieces);
    }

    #[test]
    fn whatever_is_accepted_httparse_reads_alike(bytes in soup()) {
        if let Ok(Some((length, head))) = request(&bytes) {
            let mut fields = [httparse::EMPTY_HEADER; 64];
            let mut other = httparse::Request::new(&mut fields);
            let status = other.parse(&bytes).expect("h1 accepts what httparse refuses");
            prop_assert_eq!(status, httparse::Status::Complete(length));
            prop_assert_eq!(other.method, Some(head.method_str(&bytes)));
            prop_assert_eq!(other.path, Some(head.target(&bytes)));
            prop_assert_eq!(other.version, Some(u8::from(head.version() == Version::Http11)));
            let ours: Vec<_> = head.fields(&bytes).map(|f| (f.name.to_vec(), f.value.to_vec())).collect();
            let theirs: Vec<_> = other.headers.iter().map(|h| (h.name.as_bytes().to_vec(), h.value.to_vec())).collect();
            prop_assert_eq!(ours, theirs);
        }
    }

    #[test]
    fn random_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..200), piece in 1usize..50) {
        let _ = request(&bytes);
        let _ = response(&bytes, Method::Get);
        let whole = decode(Body::Chunked, &bytes, bytes.len().max(1));
        prop_assert_eq!(whole, decode(Body::Chunked, &bytes, piece));
    }
}

/// What hyper's server makes of the bytes: each request's target and body, in order.
fn hyper_reads(bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
    use http_body_util::BodyExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let (mut ours, theirs) = tokio::io::duplex(1 << 20);
        ours.write_all(bytes).await.unwrap();
        ours.shutdown().await.unwrap();
        let seen = std::cell::RefCell::new(Vec::new());
        let service = hyper::service::service_fn(|request: hyper::Request<hyper::body::Incoming>| async {
            let target = request.uri().to_string();
            if let Ok(body) = request.into_body().collect().await {
                seen.borrow_mut().push((target, body.to_bytes().to_vec()));
            }
            Ok::<_, std::convert::Infallible>(hyper::Response::new(http_body_util::Empty::<bytes::Bytes>::new()))
        });
        let serve = hyper::server::conn::http1::Builder::new()
            .half_close(true)
            .serve_connection(hyper_util::rt::TokioIo::new(theirs), service);
        let mut answers = Vec::new();
        let _ = tokio::join!(serve, ours.read_to_end(&mut answers));
        seen.into_inner()
    })
}

/// What we make of them.
fn we_read(mut bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut seen = Vec::new();
    while let Ok(Some((length, head))) = request(bytes) {
        let target = head.target(bytes).to_string();
        let Ok((body, _, used)) = decode(head.body(), &bytes[length..], bytes.len()) else { break };
        let on = head.keep_alive();
        seen.push((target, body));
        bytes = &bytes[length + used..];
        if !on {
            break;
        }
    }
    seen
}

#[test]
fn pipelined_requests_part_where_hyper_parts_them() {
    for text in [
        "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET /2 HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST /1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x\r\nabc\r\n0\r\nX: y\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\nPOST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nConnection: close\r\n\r\nxGET /3 HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /1 HTTP/1.0\r\n\r\nGET /2 HTTP/1.0\r\n\r\n",
        "PUT /1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n2\r\nbc\r\n0\r\n\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        assert_eq!(we_read(text.as_bytes()), hyper_reads(text.as_bytes()), "{text}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// hyper is more lenient; what we accept it must read as we do, as far as we read.
    #[test]
    fn whatever_we_read_hyper_reads_alike(first in soup(), second in soup()) {
        let bytes = [first, second].concat();
        let ours = we_read(&bytes);
        let theirs = hyper_reads(&bytes);
        let common = ours.len().min(theirs.len());
        prop_assert_eq!(&ours[..common], &theirs[..common]);
        prop_assert!(theirs.len() >= ours.len(), "hyper refuses what we accept: {:?}", ours.last());
    }
}
