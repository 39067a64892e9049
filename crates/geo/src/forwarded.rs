//! `Forwarded` (RFC 7239): a list to which each proxy appends an element saying whom it got the request from, and how.

use std::borrow::Cow;

use model::Scheme;

use crate::node::{self, Ipv6Form, Malformed, Node};

/// One element: what one hop says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Element {
    /// Its `for`; [`Node::Hidden`] where it has none.
    pub client: Node,
    /// Its `proto`, where that is `http` or `https`.
    pub proto: Option<Scheme>,
}

/// The elements of all lines taken as one list, nearest hop first: that is, from right to left. Empty elements are skipped.
///
/// The list is taken apart from its right end, so that whatever a caller wrote, an open quote for instance, can't change how
/// the elements that proxies appended are read. For a line that follows the grammar this comes to the same as reading from
/// the left: inside a quoted string every quote is escaped, outside of one there is none. Beyond the grammar, spaces and tabs
/// around `;` are let pass; many proxies write them.
pub fn forwarded<'a>(lines: &'a [&'a [u8]]) -> impl Iterator<Item = Result<Element, Malformed>> + 'a {
    Texts { lines: lines.iter(), rest: &[] }.map(node::trim).filter(|text| !text.is_empty()).map(element)
}

/// The texts of the elements, from right to left.
struct Texts<'a> {
    lines: std::slice::Iter<'a, &'a [u8]>,
    rest: &'a [u8],
}

impl<'a> Iterator for Texts<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        while self.rest.is_empty() {
            self.rest = self.lines.next_back()?;
        }
        let (rest, last) = split_last(self.rest);
        self.rest = rest;
        Some(last)
    }
}

/// Splits at the last comma outside quotes; without one, everything is the last element.
fn split_last(line: &[u8]) -> (&[u8], &[u8]) {
    let mut end = line.len();
    while let Some(at) = line[..end].iter().rposition(|b| matches!(b, b',' | b'"')) {
        if line[at] == b',' {
            return (&line[..at], &line[at + 1..]);
        }
        match opening_quote(&line[..at]) {
            Some(opening) => end = opening,
            None => break,
        }
    }
    (&[], line)
}

/// Where the quoted string that ends after `text` begins: at its last quote that is not escaped.
fn opening_quote(text: &[u8]) -> Option<usize> {
    let mut end = text.len();
    while let Some(at) = text[..end].iter().rposition(|&b| b == b'"') {
        let escapes = text[..at].iter().rev().take_while(|&&b| b == b'\\').count();
        if escapes % 2 == 0 {
            return Some(at);
        }
        end = at - escapes;
    }
    None
}

/// Reads `forwarded-element` (RFC 7239, 4) from the left. No parameter may occur twice.
fn element(text: &[u8]) -> Result<Element, Malformed> {
    const NAMES: [&[u8]; 4] = [b"for", b"proto", b"by", b"host"];
    let mut values: [Option<Cow<'_, [u8]>>; NAMES.len()] = [const { None }; NAMES.len()];
    let mut rest = text;
    loop {
        rest = node::trim(rest);
        if !matches!(rest.first(), None | Some(b';')) {
            let ((name, value), after) = pair(rest)?;
            if let Some(known) = NAMES.iter().position(|known| name.eq_ignore_ascii_case(known))
                && values[known].replace(value).is_some()
            {
                return Err(Malformed);
            }
            rest = node::trim(after);
        }
        match rest {
            [] => break,
            [b';', after @ ..] => rest = after,
            _ => return Err(Malformed),
        }
    }
    let [client, proto, ..] = values;
    Ok(Element {
        client: client.map_or(Ok(Node::Hidden), |text| node::parse(&text, Ipv6Form::Bracketed))?,
        proto: proto.and_then(|text| match &text.to_ascii_lowercase()[..] {
            b"http" => Some(Scheme::Http),
            b"https" => Some(Scheme::Https),
            _ => None,
        }),
    })
}

/// What was read, and what comes after it.
type Split<'a, T> = Result<(T, &'a [u8]), Malformed>;

/// Reads `token "=" ( token / quoted-string )`.
fn pair(text: &[u8]) -> Split<'_, (&[u8], Cow<'_, [u8]>)> {
    let (name, rest) = token(text)?;
    match rest {
        [b'=', b'"', rest @ ..] => quoted(rest).map(|(value, after)| ((name, value), after)),
        [b'=', rest @ ..] => token(rest).map(|(value, after)| ((name, Cow::Borrowed(value)), after)),
        _ => Err(Malformed),
    }
}

/// Reads the rest of a quoted string (RFC 9110, 5.6.4) and its closing quote; gives what it stands for.
fn quoted(text: &[u8]) -> Split<'_, Cow<'_, [u8]>> {
    let mut value = Cow::Borrowed(&text[..0]);
    let mut at = 0;
    loop {
        match text[at..] {
            [b'"', ref after @ ..] => return Ok((value, after)),
            [b'\\', b @ (b'\t' | b' '..=b'~' | 0x80..), ..] => {
                value.to_mut().push(b);
                at += 2;
            }
            [b'\t' | b' '..=b'[' | b']'..=b'~' | 0x80.., ..] => {
                at += 1;
                match &mut value {
                    Cow::Borrowed(plain) => *plain = &text[..at],
                    Cow::Owned(unescaped) => unescaped.push(text[at - 1]),
                }
            }
            _ => return Err(Malformed),
        }
    }
}

/// Splits a token (RFC 9110, 5.6.2) from the front.
fn token(text: &[u8]) -> Split<'_, &[u8]> {
    let tchar = |b: &u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b);
    let end = text.iter().position(|b| !tchar(b)).unwrap_or(text.len());
    if end == 0 { Err(Malformed) } else { Ok(text.split_at(end)) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(lines: &[&[u8]]) -> Vec<String> {
        forwarded(lines)
            .map(|element| match element {
                Ok(Element { client: Node::Address(ip, port), proto }) => {
                    format!("{ip} {} {}", port.unwrap_or(0), proto.map_or("-", Scheme::as_str))
                }
                Ok(Element { client: Node::Hidden, proto }) => format!("hidden {}", proto.map_or("-", Scheme::as_str)),
                Err(Malformed) => "malformed".into(),
            })
            .collect()
    }

    #[test]
    fn elements_are_read_as_the_standard_has_them() {
        for (line, expected) in [
            ("for=192.0.2.43", "192.0.2.43 0 -"),
            ("For=\"[2001:db8:cafe::17]:4711\"", "2001:db8:cafe::17 4711 -"),
            ("for=192.0.2.60;proto=http;by=203.0.113.43", "192.0.2.60 0 http"),
            ("FOR=192.0.2.60;PROTO=HTTPS;host=\"a,b;c\\\"d\"", "192.0.2.60 0 https"),
            ("by=_x;for=\"_gazonk\"", "hidden -"),
            ("for=unknown;proto=ws", "hidden -"),
            ("proto=https", "hidden https"),
            (";;for=192.0.2.1;", "192.0.2.1 0 -"),
            (";", "hidden -"),
            ("for=192.0.2.1 ;\tproto=http", "192.0.2.1 0 http"),
            ("for=192.0.2.1;extension=\"\u{e9}\"", "192.0.2.1 0 -"),
            ("for=\"192.0.2.43:47011\"", "192.0.2.43 47011 -"),
            ("for=\"\\[2001:db8::\\1]:\\80\"", "2001:db8::1 80 -"),
            ("for=\"[::ffff:192.0.2.7]\"", "192.0.2.7 0 -"),
            // A colon or bracket is no token character; it has to be quoted.
            ("for=192.0.2.43:47011", "malformed"),
            ("for=[2001:db8::1]", "malformed"),
            ("for=\"2001:db8::1\"", "malformed"),
            ("for=192.0.2.1;for=192.0.2.2", "malformed"),
            ("for=192.0.2.1;proto=http;Proto=https", "malformed"),
            ("for=192.0.2.1;by=_a;by=_b", "malformed"),
            ("for = 192.0.2.1", "malformed"),
            ("for=", "malformed"),
            ("for=\"\"", "malformed"),
            ("for", "malformed"),
            ("=192.0.2.1", "malformed"),
            ("for=192.0.2.1 proto=http", "malformed"),
            ("for=\"192.0.2.1\"x", "malformed"),
            ("for=\"192.0.2.1", "malformed"),
            ("for=\"192.0.2.1\\\"", "malformed"),
            ("for=192.0.2.1\"", "malformed"),
            ("for=192.0.2.1;x=\"\u{7f}\"", "malformed"),
        ] {
            assert_eq!(shown(&[line.as_bytes()]), [expected], "{line:?}");
        }
    }

    #[test]
    fn several_lines_are_one_list_read_from_the_right() {
        let lines: [&[u8]; 3] = [b"for=192.0.2.1, for=192.0.2.2;by=\"a,b\"", b"", b" ,for=\"_x\" ,, for=192.0.2.3,"];
        assert_eq!(shown(&lines), ["192.0.2.3 0 -", "hidden -", "192.0.2.2 0 -", "192.0.2.1 0 -"]);
    }

    #[test]
    fn an_open_quote_does_not_reach_into_what_was_appended() {
        assert_eq!(shown(&[b"for=\"192.0.2.9, for=192.0.2.1"]), ["192.0.2.1 0 -", "malformed"]);
        assert_eq!(shown(&[b"x=\", for=\"[2001:db8::1]\""]), ["2001:db8::1 0 -", "malformed"]);
        assert_eq!(shown(&[b"x=\"\\, for=\"[2001:db8::1]\""]), ["2001:db8::1 0 -", "malformed"]);
    }

    /// Elements of one line from the left, as a reader of the grammar would split them.
    fn split_from_left(line: &[u8]) -> Vec<&[u8]> {
        let (mut parts, mut start, mut in_quotes, mut escaped) = (Vec::new(), 0, false, false);
        for (at, &b) in line.iter().enumerate() {
            match b {
                _ if escaped => escaped = false,
                b'\\' if in_quotes => escaped = true,
                b'"' => in_quotes = !in_quotes,
                b',' if !in_quotes => {
                    parts.push(&line[start..at]);
                    start = at + 1;
                }
                _ => {}
            }
        }
        parts.push(&line[start..]);
        parts
    }

    proptest! {
        #[test]
        fn from_the_right_is_as_from_the_left_where_the_grammar_is_followed(
            line in r#"(for=("([a-z,;= ]|\\["\\,a])*"|[a-z0-9]+)(;x="([,;]|\\["\\])*")?[ ,]*){0,4}"#
        ) {
            let lines = [line.as_bytes()];
            let from_right: Vec<&[u8]> = Texts { lines: lines.iter(), rest: &[] }
                .filter(|text| !text.is_empty())
                .collect();
            let mut from_left = split_from_left(line.as_bytes());
            from_left.retain(|text| !text.is_empty());
            from_left.reverse();
            prop_assert_eq!(from_right, from_left);
        }

        #[test]
        fn what_was_appended_reads_the_same_whatever_stands_before(
            prefix in proptest::collection::vec(any::<u8>(), 0..64),
            appended in r#"for=("(\[2001:db8::[0-9]\](:[0-9]{1,4})?|_[a-z]{1,4})"|192\.0\.2\.[0-9])(;host="([a-z,;]|\\["\\])*")?"#
        ) {
            let line = [&prefix[..], b", ", appended.as_bytes()].concat();
            prop_assert_eq!(forwarded(&[&line]).next(), forwarded(&[appended.as_bytes()]).next());
            prop_assert!(forwarded(&[appended.as_bytes()]).next().unwrap().is_ok());
        }
    }
}
