//! Untrusted bytes within a line.

/// Appends bytes as the inside of a JSON string (RFC 8259, 7): quotes, backslashes and controls escaped, what is not UTF-8
/// replaced, and the separators some readers take for line ends escaped too.
pub(super) fn json(out: &mut Vec<u8>, bytes: &[u8]) {
    if is_plain(bytes) {
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

/// Whether all are printable ASCII other than quotes and backslashes, as those of most texts: eight at once, fewer by table.
fn is_plain(bytes: &[u8]) -> bool {
    static PLAIN: [bool; 256] = {
        let mut plain = [false; 256];
        let mut b = 0x20;
        while b < 0x7f {
            plain[b] = b != b'"' as usize && b != b'\\' as usize;
            b += 1;
        }
        plain
    };
    const LOW: u64 = u64::from_ne_bytes([0x01; 8]);
    const HIGH: u64 = LOW << 7;
    // Not zero where one of the eight is below the limit.
    let below = |word: u64, limit: u64| word.wrapping_sub(LOW * limit) & !word & HIGH;
    let equal = |word: u64, byte: u8| below(word ^ (LOW * u64::from(byte)), 1);
    // Some are looked at twice, rather than one by one.
    let Some(last) = bytes.last_chunk::<8>() else { return bytes.iter().all(|&b| PLAIN[usize::from(b)]) };
    let words = bytes.as_chunks::<8>().0.iter().chain([last]).map(|word| u64::from_ne_bytes(*word));
    words.fold(0, |found, word| {
        found | below(word, 0x20) | equal(word, 0x7f) | equal(word, b'"') | equal(word, b'\\') | word & HIGH
    }) == 0
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Any byte, at any place of a word and beyond, among neighbours that borrow and carry.
    #[test]
    fn words_and_bytes_agree_on_what_is_plain() {
        for neighbour in [b'a', b' ', b'!', b'#', b'[', b']', b'~'] {
            for byte in 0..=255 {
                for length in [1, 7, 8, 9, 16, 23] {
                    for place in 0..length {
                        let mut bytes = vec![neighbour; length];
                        bytes[place] = byte;
                        let expected = (0x20..0x7f).contains(&byte) && !matches!(byte, b'"' | b'\\');
                        assert_eq!(is_plain(&bytes), expected, "{bytes:x?}");
                    }
                }
            }
        }
    }
}
