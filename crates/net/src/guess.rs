//! What a connection carries of which nothing is declared, from the bytes of whoever speaks first: read and replayed, never
//! peeked, and told at the earliest byte that settles it.

use crate::detect::HTTP2_PREFACE;

/// What a connection carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Guess {
    /// HTTP/1: a request line, or the beginning of one up to its target.
    Http1,
    /// HTTP/2 by prior knowledge (RFC 9113, 3.3).
    Http2,
    /// TLS: a handshake record (RFC 8446, 5.1).
    Tls,
    /// Anything else.
    Opaque,
}

/// The longest method taken for one; IANA's longest has 17.
const METHOD: usize = 32;

/// Tells what these first bytes are; `None` while they could be several things.
pub fn guess(bytes: &[u8]) -> Option<Guess> {
    match bytes {
        [] => None,
        [0x16, rest @ ..] => tls(rest),
        _ if bytes.starts_with(HTTP2_PREFACE) => Some(Guess::Http2),
        _ if HTTP2_PREFACE.starts_with(bytes) => None,
        _ => Some(if http1(bytes)? { Guess::Http1 } else { Guess::Opaque }),
    }
}

/// The same towards an app, where bytes that any server might read as HTTP must not pass for something else: then rules about
/// requests would be gone around. Leading white space, methods of any characters and length, and tabs are taken for HTTP,
/// which whoever parses it refuses. `None` while it could be either.
pub fn guess_towards_app(bytes: &[u8]) -> Option<Guess> {
    match guess(bytes) {
        Some(Guess::Opaque) => Some(if might_be_http1(bytes)? { Guess::Http1 } else { Guess::Opaque }),
        settled => settled,
    }
}

/// Whether a lenient server might read a request here; `None` while that is open.
fn might_be_http1(bytes: &[u8]) -> Option<bool> {
    let start = bytes.iter().position(|b| !b"\r\n\t ".contains(b))?;
    let line = &bytes[start..];
    let method = line.iter().take_while(|b| is_tchar(**b)).count();
    if method == line.len() {
        // A word without an end: nobody's protocol but that of whoever wants to be taken for another.
        return if method > LONGEST_WORD { Some(true) } else { None };
    }
    let blank = |b: &u8| *b == b' ' || *b == b'\t';
    if !blank(&line[method]) {
        return Some(false);
    }
    let rest = &line[method..];
    let Some(target) = rest.iter().position(|b| !blank(b)) else {
        return if rest.len() > LONGEST_WORD { Some(true) } else { None };
    };
    let rest = &rest[target..];
    if rest[0] == b'/' || rest[0] == b'*' || rest[..rest.len().min(4)].eq_ignore_ascii_case(b"http") {
        return Some(true);
    }
    // `GET x HTTP/1.1`: the version tells; without one, at the end of its line, it is no request.
    match rest.iter().position(|b| *b == b'\n') {
        Some(end) => {
            let last = rest[..end].trim_ascii_end().rsplit(blank).next().unwrap_or_default();
            Some(last.len() >= 5 && last[..5].eq_ignore_ascii_case(b"http/"))
        }
        None if rest.len() > LONGEST_LINE => Some(true),
        None => None,
    }
}

/// Bytes of a first word after which it is taken for a method.
const LONGEST_WORD: usize = 256;
/// Bytes of a first line after which it is taken for a request's.
const LONGEST_LINE: usize = 8 * 1024;

/// What follows a handshake record's type: a version of 3.0 to 3.4, then a length.
fn tls(rest: &[u8]) -> Option<Guess> {
    match rest {
        [] | [3] => None,
        [3, 0..=4, ..] => Some(Guess::Tls),
        _ => Some(Guess::Opaque),
    }
}

/// Whether this is a request line (RFC 9112, 3), after the empty line that RFC 9112, 2.2 has a server skip.
fn http1(bytes: &[u8]) -> Option<bool> {
    let line = match bytes {
        [b'\r'] => return None,
        [b'\r', b'\n', line @ ..] | [b'\n', line @ ..] | line => line,
    };
    let method = line.iter().take_while(|b| is_tchar(**b)).count();
    if method > METHOD || line.first().is_some_and(|b| !b.is_ascii_uppercase()) {
        return Some(false);
    }
    match line.get(method) {
        None => None,
        Some(b' ') => target(&line[..method], &line[method + 1..]),
        Some(_) => Some(false),
    }
}

/// Whether a target follows: a path, an asterisk, or an http URL; after `CONNECT`, a host and a port.
fn target(method: &[u8], rest: &[u8]) -> Option<bool> {
    if let Some(end) = rest.iter().position(|b| *b == b'\n') {
        return Some(ends_with_version(&rest[..end]));
    }
    if method == b"CONNECT" {
        let fits = |b: &u8| b.is_ascii_alphanumeric() || b"-._:[]% /\r".contains(b);
        return if rest.iter().all(fits) && rest.len() < 512 { None } else { Some(false) };
    }
    let begins = |scheme: &[u8]| {
        let n = scheme.len().min(rest.len());
        rest[..n].eq_ignore_ascii_case(&scheme[..n]).then_some(n == scheme.len())
    };
    match rest {
        [] | [b'*'] => None,
        [b'/', ..] | [b'*', b' ', ..] => Some(true),
        _ => match begins(b"http://").or_else(|| begins(b"https://")) {
            Some(true) => Some(true),
            // "http" begins both.
            Some(false) => None,
            None => Some(false),
        },
    }
}

/// Whether a line, without its end, closes with ` HTTP/` and a version.
fn ends_with_version(line: &[u8]) -> bool {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    line.len() > 9
        && matches!(&line[line.len() - 9..], [b' ', b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit())
}

/// A character of a token (RFC 9110, 5.6.2).
fn is_tchar(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn protocols_are_told_at_the_byte_that_settles_it() {
        for (bytes, settled, expected) in [
            (&b"GET / HTTP/1.1\r\n"[..], 5, Guess::Http1),
            (b"GET /", 5, Guess::Http1),
            (b"\r\nPOST /login HTTP/1.1\r\n", 8, Guess::Http1),
            (b"PROPFIND * HTTP/1.1\r\n", 11, Guess::Http1),
            (b"GET http://a/ HTTP/1.1\r\n", 11, Guess::Http1),
            (b"GET HTTPS://a/ HTTP/1.1\r\n", 12, Guess::Http1),
            (b"CONNECT a:443 HTTP/1.1\r\n", 24, Guess::Http1),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 24, Guess::Http2),
            (b"PRI /", 5, Guess::Http1),
            (b"\x16\x03\x01\x02\x00\x01", 3, Guess::Tls),
            (b"\x16\x03\x03", 3, Guess::Tls),
            (b"\x16\x02\x00", 2, Guess::Opaque),
            (b"\x16\x03\x07", 3, Guess::Opaque),
            // Redis, SMTP, memcached, RTSP, SIP, PostgreSQL, MySQL, NATS, an inline command, an empty line alone.
            (b"*1\r\n$4\r\nPING\r\n", 1, Guess::Opaque),
            (b"EHLO mail.example\r\n", 6, Guess::Opaque),
            (b"get x\r\n", 1, Guess::Opaque),
            (b"DESCRIBE rtsp://a/ RTSP/1.0\r\n", 10, Guess::Opaque),
            (b"INVITE sip:a SIP/2.0\r\n", 8, Guess::Opaque),
            (b"\x00\x00\x00\x08\x04\xd2\x16\x2f", 1, Guess::Opaque),
            (b"\x4a\x00\x00\x01", 2, Guess::Opaque),
            (b"CONNECT {\"verbose\":false}\r\n", 9, Guess::Opaque),
            (b"PING\r\n", 5, Guess::Opaque),
            (b"GET hkey\r\n", 6, Guess::Opaque),
            (b"\r\r", 2, Guess::Opaque),
        ] {
            let text = String::from_utf8_lossy(bytes);
            for n in 0..settled {
                assert_eq!(guess(&bytes[..n]), None, "{text:?} after {n} bytes");
            }
            for n in settled..=bytes.len() {
                assert_eq!(guess(&bytes[..n]), Some(expected), "{text:?} after {n} bytes");
            }
        }
    }

    #[test]
    fn a_whole_line_without_a_version_is_no_request() {
        for line in ["GET /\r\n", "GET / HTTP/1\r\n", "GET /x FTP/1.1\r\n", "HELP /\n"] {
            assert_eq!(guess(line.as_bytes()), Some(Guess::Opaque), "{line:?}");
        }
        assert_eq!(guess(b"GET / HTTP/9.9\n"), Some(Guess::Http1));
    }

    #[test]
    fn towards_an_app_whatever_a_server_might_take_for_a_request_is_one() {
        for bytes in [
            &b"\r\n\r\nGET /admin HTTP/1.1\r\n"[..],
            b"get /admin HTTP/1.1\r\n",
            b"GET\t/admin HTTP/1.1\r\n",
            b"  GET /admin HTTP/1.1\r\n",
            b"GET  /admin HTTP/1.1\r\n",
            b"GET /admin\n",
            b"G%T * HTTP/1.1\r\n",
            b"GET hTTp://a/ HTTP/1.1\r\n",
            b"GET admin HTTP/1.1\r\n",
            b"GET admin http/1.0 \n",
            &[b'A'; 300],
            &[&b"GET "[..], &[b'x'; 9000]].concat(),
        ] {
            let text = String::from_utf8_lossy(&bytes[..bytes.len().min(40)]).into_owned();
            assert_eq!(guess_towards_app(bytes), Some(Guess::Http1), "{text:?}");
        }
        for bytes in [
            &b"*1\r\n$4\r\nPING\r\n"[..],
            b"PING\r\n",
            b"get x\r\n",
            b"EHLO mail.example\r\n",
            b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n",
            b"CONNECT {\"verbose\":false,\"lang\":\"http/2\"}\r\n",
            b"{\"jsonrpc\": \"2.0\"}",
            b"\x00\x00\x00\x08\x04\xd2\x16\x2f",
            b"\x10\x0c\x00\x04MQTT",
            b"\r\n\x00",
        ] {
            assert_eq!(guess_towards_app(bytes), Some(Guess::Opaque), "{:?}", String::from_utf8_lossy(bytes));
        }
        for bytes in [&b"\r\n\r\n"[..], b"get", b"get ", b"get x", b"\t", b"POST", &[b'A'; 256]] {
            assert_eq!(guess_towards_app(bytes), None, "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    proptest! {
        /// Whatever is a request for sure is one towards the app, and nothing that the two take differently is let through.
        #[test]
        fn towards_an_app_more_is_http_never_less(bytes in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..64),
            "[\r\n\t ]{0,3}[A-Za-z]{0,8}[ \t]{0,2}[/*a-z:]{0,12}[ A-Z/0-9.]{0,10}\r?\n?[ -~]{0,8}".prop_map(String::into_bytes),
        ]) {
            let (usual, strict) = (guess(&bytes), guess_towards_app(&bytes));
            prop_assert!(strict == usual || (usual == Some(Guess::Opaque) && strict != Some(Guess::Tls) && strict != Some(Guess::Http2)));
        }

        /// More bytes never change a verdict, but for a line that turns out to be none.
        #[test]
        fn a_verdict_stands(bytes in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..64),
            "[A-Z]{1,8} [/*a-z:]{0,12}[ A-Z/0-9.]{0,10}\r?\n?[ -~]{0,8}".prop_map(String::into_bytes),
        ]) {
            let mut verdict = None;
            for n in 0..=bytes.len() {
                let now = guess(&bytes[..n]);
                let line_ended = verdict == Some(Guess::Http1) && bytes[..n].contains(&b'\n');
                prop_assert!(verdict.is_none() || now == verdict || line_ended);
                verdict = now.or(verdict);
            }
        }
    }
}
