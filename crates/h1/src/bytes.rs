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

/// Without the spaces and tabs at both ends (RFC 9110, 5.6.3).
#[inline]
pub(crate) fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = value {
        value = rest;
    }
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
