//! Which protocol a connection begins with, from bytes read and replayed, never peeked.

/// HTTP/2's connection preface (RFC 9113, 3.4).
pub const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What the first bytes of a connection are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detected {
    /// HTTP/2 by prior knowledge.
    Http2,
    /// Anything else: HTTP/1, or nothing its parser will accept.
    Http1,
}

/// Tells HTTP/2 from HTTP/1; `None` while the bytes so far could be either.
pub fn detect(bytes: &[u8]) -> Option<Detected> {
    if bytes.len() >= HTTP2_PREFACE.len() {
        return Some(if bytes.starts_with(HTTP2_PREFACE) { Detected::Http2 } else { Detected::Http1 });
    }
    if HTTP2_PREFACE.starts_with(bytes) { None } else { Some(Detected::Http1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_preface_is_known_at_its_last_byte_and_a_difference_at_once() {
        for n in 0..HTTP2_PREFACE.len() {
            assert_eq!(detect(&HTTP2_PREFACE[..n]), None);
            let mut other = HTTP2_PREFACE[..n].to_vec();
            other.push(b'!');
            assert_eq!(detect(&other), Some(Detected::Http1));
        }
        assert_eq!(detect(HTTP2_PREFACE), Some(Detected::Http2));
        assert_eq!(detect(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x12\x04"), Some(Detected::Http2));
        assert_eq!(detect(b"G"), Some(Detected::Http1));
        assert_eq!(detect(b"P"), None);
        assert_eq!(detect(b"PO"), Some(Detected::Http1));
    }
}
