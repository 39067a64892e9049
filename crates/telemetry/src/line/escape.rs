//! Untrusted bytes within a line.

/// Appends bytes as the inside of a JSON string (RFC 8259, 7): quotes, backslashes and controls escaped, what is not UTF-8
/// replaced, and the separators some readers take for line ends escaped too.
pub(super) fn json(out: &mut Vec<u8>, bytes: &[u8]) {
    // Most texts need nothing. All bytes are looked at whatever the first says: so it is done many at once.
    let special = |b: u8| !(0x20..0x7f).contains(&b) | (b == b'"') | (b == b'\\');
    if !bytes.iter().fold(false, |found, &b| found | special(b)) {
        return out.extend_from_slice(bytes);
    }
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' => out.extend_from_slice(b"\\\""),
                '\\' => out.extend_from_slice(b"\\\\"),
                '\0'..='\x1f' | '\x7f'..='\u{9f}' | '\u{2028}' | '\u{2029}' => {
                    let code = c as u32;
                    out.extend_from_slice(b"\\u");
                    out.extend((0..4).rev().map(|n| b"0123456789abcdef"[(code >> (4 * n) & 0xf) as usize]));
                }
                _ => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
}

/// Appends bytes as nginx and Apache write them within quotes: what is not printable ASCII, quotes and backslashes as
/// `\xHH`.
pub(super) fn text(out: &mut Vec<u8>, bytes: &[u8]) {
    for &b in bytes {
        if (0x20..0x7f).contains(&b) && b != b'"' && b != b'\\' {
            out.push(b);
        } else {
            out.extend_from_slice(b"\\x");
            out.extend([b >> 4, b & 0xf].map(|n| b"0123456789ABCDEF"[usize::from(n)]));
        }
    }
}
