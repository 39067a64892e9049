//! Which bytes may stand where, by table.

const TOKEN: u8 = 1;
const VALUE: u8 = 2;
const TARGET: u8 = 4;
const HOST: u8 = 8;

static CLASSES: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut table = [0; 256];
    let mut b = 0;
    while b < 256 {
        let c = b as u8;
        let alnum = c.is_ascii_alphanumeric();
        let mut class = 0;
        // RFC 9110, 5.6.2.
        if alnum
            || matches!(
                c,
                b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
            )
        {
            class |= TOKEN;
        }
        // RFC 9110, 5.5: visible, space, tab, and the high half that is nobody's (obs-text).
        if c >= 0x80 || c == b'\t' || (c >= 0x20 && c != 0x7f) {
            class |= VALUE;
        }
        // RFC 3986 would percent-encode some of these; browsers send them as they are, and they part nothing.
        if c > 0x20 && c < 0x7f && c != b'#' {
            class |= TARGET;
        }
        // RFC 3986, 3.2.2 reg-name: unreserved, sub-delims without those that part lists, percent-encoding.
        if alnum
            || matches!(
                c,
                b'-' | b'.' | b'_' | b'~' | b'%' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b'='
            )
        {
            class |= HOST;
        }
        table[b] = class;
        b += 1;
    }
    table
}

#[inline]
fn is(b: u8, class: u8) -> bool {
    CLASSES[usize::from(b)] & class != 0
}

/// A byte of a token: method, field name, connection option.
#[inline]
pub(crate) fn is_token(b: u8) -> bool {
    is(b, TOKEN)
}

/// A byte of a field value.
#[inline]
pub(crate) fn is_value(b: u8) -> bool {
    is(b, VALUE)
}

/// A byte of a request target.
#[inline]
pub(crate) fn is_target(b: u8) -> bool {
    is(b, TARGET)
}

/// A byte of a registered name.
#[inline]
pub(crate) fn is_host(b: u8) -> bool {
    is(b, HOST)
}

/// How many bytes from the start are of the kind.
#[inline]
pub(crate) fn run(bytes: &[u8], of: impl Fn(u8) -> bool) -> usize {
    bytes.iter().position(|&b| !of(b)).unwrap_or(bytes.len())
}

/// How many bytes from the start may stand in a field value.
#[inline]
pub(crate) fn run_of_value(bytes: &[u8]) -> usize {
    run_by_words(bytes, |word| below(word, 0x20) | equal(word, 0x7f), is_value)
}

/// How many bytes from the start may stand in a request target.
#[inline]
pub(crate) fn run_of_target(bytes: &[u8]) -> usize {
    run_by_words(bytes, |word| below(word, 0x21) | equal(word, b'#') | equal(word, 0x7f) | (word & HIGH), is_target)
}

/// How many bytes from the start may stand in a token.
#[inline]
pub(crate) fn run_of_token(bytes: &[u8]) -> usize {
    run_by_words(bytes, |word| !(letters(word) | !not_zero(word ^ (LOW * u64::from(b'-')))) & HIGH, is_token)
}

/// Passes over eight bytes at once where `suspect` marks none of them. The first that it marks is looked at, and where that is of the
/// kind all the same, each of the eight.
#[inline(always)]
fn run_by_words(bytes: &[u8], suspect: impl Fn(u64) -> u64, of: impl Fn(u8) -> bool) -> usize {
    let (words, rest) = bytes.as_chunks::<8>();
    let mut at = 0;
    for word in words {
        let marks = suspect(u64::from_le_bytes(*word));
        if marks != 0 {
            let first = marks.trailing_zeros() as usize / 8;
            if !of(word[first]) {
                return at + first;
            }
            let good = run(word, &of);
            if good < word.len() {
                return at + good;
            }
        }
        at += word.len();
    }
    at + run(rest, of)
}

const LOW: u64 = u64::from_ne_bytes([0x01; 8]);
const HIGH: u64 = LOW << 7;

// What follows marks bytes of a word by their highest bits, the first byte's being the lowest.

/// Marks bytes below `limit`, at most 0x80: the first such byte, and not all those marked above it are.
#[inline]
fn below(word: u64, limit: u8) -> u64 {
    word.wrapping_sub(LOW * u64::from(limit)) & !word & HIGH
}

/// Marks bytes that are this one, as [`below`] does.
#[inline]
fn equal(word: u64, byte: u8) -> u64 {
    below(word ^ (LOW * u64::from(byte)), 1)
}

/// Marks bytes that are not zero, those and no others.
#[inline]
fn not_zero(word: u64) -> u64 {
    (((word & !HIGH) + !HIGH) | word) & HIGH
}

/// Marks bytes that are ASCII letters, those and no others.
#[inline]
fn letters(word: u64) -> u64 {
    let low = (word | (LOW * 0x20)) & !HIGH;
    let from_a = low + LOW * u64::from(0x80 - b'a');
    let beyond_z = low + LOW * u64::from(0x7f - b'z');
    from_a & !beyond_z & !word & HIGH
}

/// Without the spaces and tabs at both ends (RFC 9110, 5.6.3).
#[inline]
pub(crate) fn trim(value: &[u8]) -> &[u8] {
    trim_end(trim_start(value))
}

/// Without those at the start.
#[inline]
pub(crate) fn trim_start(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = value {
        value = rest;
    }
    value
}

/// Without those at the end.
#[inline]
pub(crate) fn trim_end(mut value: &[u8]) -> &[u8] {
    while let [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// The elements of a comma-separated list, trimmed, empty ones skipped (RFC 9110, 5.6.1).
pub(crate) fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&b| b == b',').map(trim).filter(|element| !element.is_empty())
}

/// Decimal digits and nothing else, at most `i64::MAX` so that no recipient's number wraps; `None` otherwise.
pub(crate) fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 19 {
        return None;
    }
    let mut number = 0u64;
    for &b in digits {
        if !b.is_ascii_digit() {
            return None;
        }
        number = number * 10 + u64::from(b - b'0');
    }
    (number <= i64::MAX as u64).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where marks of one kind stand above those of another.
    #[test]
    fn words_and_bytes_agree_on_the_first_of_two() {
        for first in 0..=255 {
            for second in 0..=255 {
                let bytes = [b'a', b'-', first, b'z', second, b'A', b'Z', b'b'];
                assert_eq!(run_of_value(&bytes), run(&bytes, is_value), "{bytes:x?}");
                assert_eq!(run_of_target(&bytes), run(&bytes, is_target), "{bytes:x?}");
                assert_eq!(run_of_token(&bytes), run(&bytes, is_token), "{bytes:x?}");
                let together = [first, second, b'c', b'd', b'e', b'f', b'g', b'h'];
                assert_eq!(run_of_value(&together), run(&together, is_value), "{together:x?}");
                assert_eq!(run_of_token(&together), run(&together, is_token), "{together:x?}");
            }
        }
    }

    /// Any byte, at any place of a word and beyond, among neighbours that borrow and carry.
    #[test]
    fn words_and_bytes_agree() {
        for neighbour in [b'a', b'Z', b'-', b'!', 0x20, b'\t', 0x7e, 0x80, 0xff] {
            for byte in 0..=255 {
                for length in [1, 7, 8, 9, 16, 23] {
                    for place in 0..length {
                        let mut bytes = vec![neighbour; length];
                        bytes[place] = byte;
                        assert_eq!(run_of_value(&bytes), run(&bytes, is_value), "{bytes:x?}");
                        assert_eq!(run_of_target(&bytes), run(&bytes, is_target), "{bytes:x?}");
                        assert_eq!(run_of_token(&bytes), run(&bytes, is_token), "{bytes:x?}");
                    }
                }
            }
        }
    }
}
