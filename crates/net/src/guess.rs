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

    proptest! {
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
