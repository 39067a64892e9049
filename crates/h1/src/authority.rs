//! Request targets and hosts (RFC 9112, 3.2; RFC 3986, 3.2).

use std::net::Ipv6Addr;

use crate::bytes::{is_host, run_of_target};

/// Whether this is a host with an optional port, and nothing else: no user, no list, no zone, not empty.
pub fn is_authority(authority: &str) -> bool {
    is_authority_of_bytes(authority.as_bytes())
}

/// The same of bytes that may be no text.
pub(crate) fn is_authority_of_bytes(bytes: &[u8]) -> bool {
    let port = match bytes.first() {
        None => return false,
        Some(b'[') => {
            let Some(end) = memchr::memchr(b']', bytes) else { return false };
            if !std::str::from_utf8(&bytes[1..end]).is_ok_and(|ip| ip.parse::<Ipv6Addr>().is_ok()) {
                return false;
            }
            &bytes[end + 1..]
        }
        Some(_) => {
            let end = memchr::memchr(b':', bytes).unwrap_or(bytes.len());
            if end == 0 || !bytes[..end].iter().all(|&b| is_host(b)) || !percent_encoded(&bytes[..end]) {
                return false;
            }
            &bytes[end..]
        }
    };
    match port {
        [] => true,
        [b':', digits @ ..] => is_port(digits),
        _ => false,
    }
}

/// Decimal, in range, and not longer than the range needs.
fn is_port(digits: &[u8]) -> bool {
    digits.len() <= 5 && crate::bytes::decimal(digits).is_some_and(|port| port <= 65_535)
}

/// Every `%` is followed by two hexadecimal digits.
fn percent_encoded(name: &[u8]) -> bool {
    memchr::memchr_iter(b'%', name).all(|i| name.get(i + 1..i + 3).is_some_and(|d| d.iter().all(u8::is_ascii_hexdigit)))
}

/// Whether this is a path with an optional query, as a request line or `:path` may carry it. Percent-encoding is not
/// looked at: what it means is for whoever routes by it.
pub fn is_origin_form(target: &str) -> bool {
    target.starts_with('/') && run_of_target(target.as_bytes()) == target.len()
}

/// The parts of a target in absolute-form: authority, and where path and query begin. `None` for any other form.
pub(crate) fn split_absolute(target: &str) -> Option<(&str, usize, &'static str)> {
    let (scheme_end, default_port) = match target.as_bytes() {
        [h, t1, t2, p, b':', b'/', b'/', ..] if [*h, *t1, *t2, *p].eq_ignore_ascii_case(b"http") => (7, ":80"),
        [h, t1, t2, p, s, b':', b'/', b'/', ..] if [*h, *t1, *t2, *p, *s].eq_ignore_ascii_case(b"https") => (8, ":443"),
        _ => return None,
    };
    let rest = &target[scheme_end..];
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    Some((&rest[..end], scheme_end + end, default_port))
}

/// Whether two authorities are the same host and port, the scheme's default port left out or not.
pub(crate) fn same_authority(a: &str, b: &str, default_port: &str) -> bool {
    let bare = |s: &'_ str| -> usize { s.strip_suffix(default_port).map_or(s.len(), str::len) };
    a[..bare(a)].eq_ignore_ascii_case(&b[..bare(b)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_is_a_host_with_an_optional_port() {
        for good in [
            "a",
            "shop.example",
            "shop.example:8080",
            "127.0.0.1",
            "[::1]",
            "[2001:db8::1]:443",
            "a_b-c~d",
            "x%20y",
            "A.B",
            "a:0",
        ] {
            assert!(is_authority(good), "{good}");
        }
        for bad in [
            "",
            ":",
            ":80",
            "a:",
            "a:b",
            "a:65536",
            "a:000080",
            "a:+1",
            "u@a",
            "a/b",
            "a?b",
            "a#b",
            "a,b",
            "a b",
            "a;b",
            "[::1",
            "[::1]x",
            "[fe80::1%eth0]",
            "[::g]",
            "::1",
            "a%",
            "a%g0",
            "a\\b",
            "\u{e9}",
            "a:80:80",
            "[]",
            "<a>",
            "a\"",
        ] {
            assert!(!is_authority(bad), "{bad}");
        }
    }

    #[test]
    fn absolute_form_comes_apart() {
        assert_eq!(split_absolute("http://a/b?c"), Some(("a", 8, ":80")));
        assert_eq!(split_absolute("HTTPS://a:1?c"), Some(("a:1", 11, ":443")));
        assert_eq!(split_absolute("http://a"), Some(("a", 8, ":80")));
        assert_eq!(split_absolute("ftp://a/"), None);
        assert_eq!(split_absolute("/http://a"), None);
    }

    #[test]
    fn default_ports_may_be_left_out() {
        assert!(same_authority("A:80", "a", ":80") && same_authority("a", "a:80", ":80"));
        assert!(!same_authority("a:81", "a", ":80") && !same_authority("a", "b", ":80"));
    }
}
