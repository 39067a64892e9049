//! `X-Forwarded-For`: no standard, a list of addresses to which each proxy appends whom it got the request from.

use crate::node::{self, Ipv6Form, Malformed, Node};

/// The entries of all lines taken as one list, nearest hop first: that is, from right to left.
///
/// An entry is `IPv4`, `IPv4:port`, `IPv6`, `[IPv6]` or `[IPv6]:port`, an IPv6 address perhaps with a zone, the whole perhaps
/// in double quotes; or `unknown` or `_obfuscated` as in RFC 7239. Empty entries are skipped (RFC 9110, 5.6.1.2). Nothing to
/// the left of an entry has a say in how it is read.
pub fn x_forwarded_for<'a>(lines: &'a [&'a [u8]]) -> impl Iterator<Item = Result<Node, Malformed>> + 'a {
    lines.iter().rev().flat_map(|line| line.rsplit(|&b| b == b',')).map(node::trim).filter(|e| !e.is_empty()).map(entry)
}

fn entry(text: &[u8]) -> Result<Node, Malformed> {
    match text {
        [b'"', inner @ .., b'"'] => node::parse(inner, Ipv6Form::Any),
        bare => node::parse(bare, Ipv6Form::Any),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(lines: &[&[u8]]) -> Vec<String> {
        x_forwarded_for(lines)
            .map(|entry| match entry {
                Ok(Node::Address(ip, port)) => format!("{ip} {port:?}"),
                Ok(Node::Hidden) => "hidden".into(),
                Err(Malformed) => "malformed".into(),
            })
            .collect()
    }

    #[test]
    fn several_lines_are_one_list_read_from_the_right() {
        let lines: [&[u8]; 3] = [b"192.0.2.1,\t192.0.2.2:80 ", b"", b" \"[2001:db8::1]:443\" , unknown,2001:db8::2"];
        assert_eq!(
            addresses(&lines),
            ["2001:db8::2 None", "hidden", "2001:db8::1 Some(443)", "192.0.2.2 Some(80)", "192.0.2.1 None"]
        );
    }

    #[test]
    fn empty_entries_are_skipped() {
        assert_eq!(addresses(&[b",, ,192.0.2.1,,\t,", b" ", b","]), ["192.0.2.1 None"]);
        assert!(addresses(&[b"", b",,,"]).is_empty());
    }

    #[test]
    fn quotes_do_not_reach_across_a_comma() {
        assert_eq!(addresses(&[b"\"192.0.2.1, 192.0.2.2"]), ["192.0.2.2 None", "malformed"]);
        assert_eq!(addresses(&[b"\"192.0.2.1\"x"]), ["malformed"]);
        assert_eq!(addresses(&[b"\""]), ["malformed"]);
        assert_eq!(addresses(&[b"\"\""]), ["malformed"]);
    }
}
