//! Paths in one canonical form, so that a rule sees what the app will see.

use std::borrow::Cow;

/// Why a path has no canonical form: apps read it in more than one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ambiguous(pub &'static str);

/// The form that rules match: percent-escapes decoded, path parameters (`;...`) cut off, empty and `.` segments dropped, `..`
/// resolved, no `/` at the end (RFC 3986, 6.2.2). Letter case stays. `*` is itself.
///
/// # Errors
/// For what servers are known to read differently: an escape that is none, an escaped `/`, `\`, `%` or control character, a
/// backslash, `..` above the root or next to a path parameter, and bytes beyond ASCII that are not UTF-8.
pub fn canonical_path(path: &str) -> Result<Cow<'_, str>, Ambiguous> {
    if path == "*" || path == "/" || is_canonical(path) {
        return Ok(Cow::Borrowed(path));
    }
    let mut segments: Vec<Vec<u8>> = Vec::new();
    for raw in path.split('/').skip(1) {
        let (name, parameters) = match raw.split_once(';') {
            Some((name, _)) => (name, true),
            None => (raw, false),
        };
        let name = decode(name)?;
        match name.as_slice() {
            b"." | b".." if parameters => return Err(Ambiguous("a dot segment with a path parameter")),
            b"" | b"." => {}
            b".." => drop(segments.pop().ok_or(Ambiguous("a path above its root"))?),
            _ => segments.push(name),
        }
    }
    if segments.is_empty() {
        return Ok(Cow::Borrowed("/"));
    }
    let mut canonical = Vec::with_capacity(path.len());
    for segment in segments {
        canonical.push(b'/');
        canonical.extend_from_slice(&segment);
    }
    String::from_utf8(canonical).map(Cow::Owned).map_err(|_| Ambiguous("a path that is not UTF-8"))
}

/// Whether the path is in canonical form as it stands, as nearly all are.
fn is_canonical(path: &str) -> bool {
    let bytes = path.as_bytes();
    bytes.first() == Some(&b'/')
        && bytes.last() != Some(&b'/')
        && !bytes.windows(2).any(|pair| pair == b"//" || pair == b"/.")
        && !bytes.iter().any(|b| matches!(b, b'%' | b';' | b'\\') || b.is_ascii_control())
}

fn decode(segment: &str) -> Result<Vec<u8>, Ambiguous> {
    let mut decoded = Vec::with_capacity(segment.len());
    let mut bytes = segment.bytes();
    while let Some(byte) = bytes.next() {
        let byte = match byte {
            b'%' => match (bytes.next().and_then(digit), bytes.next().and_then(digit)) {
                (Some(high), Some(low)) => escaped(high << 4 | low)?,
                _ => return Err(Ambiguous("a percent sign that begins no escape")),
            },
            b'\\' => return Err(Ambiguous("a backslash")),
            byte if byte.is_ascii_control() => return Err(Ambiguous("a control character")),
            byte => byte,
        };
        decoded.push(byte);
    }
    Ok(decoded)
}

fn escaped(byte: u8) -> Result<u8, Ambiguous> {
    match byte {
        b'/' | b'\\' => Err(Ambiguous("an escaped slash")),
        b'%' => Err(Ambiguous("an escaped percent sign")),
        b';' => Err(Ambiguous("an escaped semicolon")),
        byte if byte.is_ascii_control() => Err(Ambiguous("an escaped control character")),
        byte => Ok(byte),
    }
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// Paths by pattern: one, such as `/login`, or with `/*` at the end that path and all below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathPattern {
    path: Box<str>,
    below: bool,
}

impl PathPattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// What a path in it would have to be.
    pub fn new(pattern: &str) -> Result<Self, &'static str> {
        let (path, below) = match pattern.strip_suffix("/*") {
            Some(path) => (path, true),
            None => (pattern, false),
        };
        let root = below && path.is_empty();
        if !root && (!path.starts_with('/') || path.contains(['*', '?', '#'])) && pattern != "*" {
            return Err("begins with / and has at most one *, as /* at the end");
        }
        match canonical_path(path) {
            Ok(canonical) if canonical == path || root => Ok(Self { path: path.into(), below }),
            _ => Err("is in canonical form: nothing escaped, no //, no dot segments, no ; and no / at the end"),
        }
    }

    /// Whether the pattern covers a canonical path; `folded` lets upper and lower case be the same (ASCII only).
    pub fn covers(&self, path: &str, folded: bool) -> bool {
        let same = |a: &[u8], b: &[u8]| if folded { a.eq_ignore_ascii_case(b) } else { a == b };
        let (path, pattern) = (path.as_bytes(), self.path.as_bytes());
        if !self.below {
            return same(path, pattern);
        }
        path.get(..pattern.len()).is_some_and(|start| same(start, pattern))
            && matches!(path.get(pattern.len()), None | Some(b'/'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_come_into_one_form() {
        for (path, canonical) in [
            ("/", "/"),
            ("*", "*"),
            ("/login", "/login"),
            ("/login/", "/login"),
            ("//login", "/login"),
            ("/a//b///c/", "/a/b/c"),
            ("/./a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/a/b/../../c", "/c"),
            ("/a/..", "/"),
            ("/%6cogin", "/login"),
            ("/%6Cogin", "/login"),
            ("/a/%2e%2e/b", "/b"),
            ("/a/%2E/b", "/a/b"),
            ("/a/.%2e/b", "/b"),
            ("/login;jsessionid=1", "/login"),
            ("/a;x/b;y=1;z/c", "/a/b/c"),
            ("/;x/a", "/a"),
            ("/a%20b", "/a b"),
            ("/%c3%a4", "/ä"),
            ("/.well-known/x", "/.well-known/x"),
            ("/a/...", "/a/..."),
            ("/Login", "/Login"),
            ("/a%3fb", "/a?b"),
        ] {
            assert_eq!(canonical_path(path).unwrap(), canonical, "{path}");
            // Once more changes nothing, except where what was decoded looks like an escape: that was refused.
            assert_eq!(canonical_path(canonical).unwrap(), canonical);
        }
    }

    #[test]
    fn what_apps_read_in_different_ways_has_no_form() {
        for path in [
            "/a%2fb",
            "/a%2Fb",
            "/a%5cb",
            "/a\\b",
            "/..",
            "/../a",
            "/a/../../b",
            "/%2e%2e/a",
            "/a/..;/b",
            "/a/.;x/b",
            "/a%",
            "/a%2",
            "/a%zz",
            "/%00",
            "/a%0a",
            "/%25%32%65",
            "/%252e",
            "/a%3bb",
            "/%ff",
            "/a/%2e%2e;/b",
            "/a/..%3b/b",
        ] {
            assert!(canonical_path(path).is_err(), "{path}");
        }
    }

    #[test]
    fn patterns_cover_a_path_or_all_from_it_on() {
        for (pattern, path, folded, covered) in [
            ("/login", "/login", false, true),
            ("/login", "/login/x", false, false),
            ("/login", "/Login", false, false),
            ("/login", "/Login", true, true),
            ("/api/*", "/api", false, true),
            ("/api/*", "/api/x/y", false, true),
            ("/api/*", "/apix", false, false),
            ("/api/*", "/API/x", true, true),
            ("/*", "/", false, true),
            ("/*", "/a/b", false, true),
            ("/*", "*", false, false),
            ("*", "*", false, true),
            ("/", "/", false, true),
            ("/", "/a", false, false),
        ] {
            assert_eq!(PathPattern::new(pattern).unwrap().covers(path, folded), covered, "{pattern} {path}");
        }
    }

    #[test]
    fn a_pattern_that_no_path_could_match_is_refused() {
        for bad in ["", "login", "/a*", "/a/*/b", "/a//b", "/a/", "/a/../b", "/%61", "/a;b", "/a?b", "**", "/**"] {
            assert!(PathPattern::new(bad).is_err(), "{bad}");
        }
    }
}
