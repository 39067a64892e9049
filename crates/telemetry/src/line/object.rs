//! A JSON object written key by key.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use model::Code;

use super::escape;

/// A member's name with all that stands before its value and that value's quote, put together when the program is built: see [`key!`].
#[derive(Clone, Copy)]
pub(super) struct Key(pub(super) &'static str);

macro_rules! key {
    ($name:literal) => {
        $crate::line::object::Key(concat!(",\"", $name, "\":\""))
    };
}
pub(super) use key;

/// Appends `{"key":value,...}`; absent values leave no key.
pub(super) struct Object<'o> {
    out: &'o mut Vec<u8>,
}

impl<'o> Object<'o> {
    /// Begins with the one member every line has.
    pub(super) fn begin(out: &'o mut Vec<u8>, key: &'static str, write: impl FnOnce(&mut Vec<u8>)) -> Self {
        out.extend_from_slice(b"{\"");
        out.extend_from_slice(key.as_bytes());
        out.extend_from_slice(b"\":\"");
        write(out);
        out.push(b'"');
        Self { out }
    }

    /// Before a value in quotes.
    fn quoted(&mut self, key: Key) {
        self.out.extend_from_slice(key.0.as_bytes());
    }

    /// Before a value without.
    fn bare(&mut self, key: Key) {
        self.out.extend_from_slice(&key.0.as_bytes()[..key.0.len() - 1]);
    }

    /// One of the program's own words, which needs no escapes; none where it is empty.
    pub(super) fn word(&mut self, key: Key, word: &'static str) {
        if !word.is_empty() {
            self.quoted(key);
            self.out.extend_from_slice(word.as_bytes());
            self.out.push(b'"');
        }
    }

    /// A country's code: two letters.
    pub(super) fn code(&mut self, key: Key, code: Option<Code>) {
        if let Some(code) = code {
            self.quoted(key);
            self.out.extend_from_slice(code.as_str().as_bytes());
            self.out.push(b'"');
        }
    }

    /// A text; none where it is empty.
    pub(super) fn text(&mut self, key: Key, value: &[u8]) {
        if !value.is_empty() {
            self.quoted(key);
            escape::json(self.out, value);
            self.out.push(b'"');
        }
    }

    /// An address.
    pub(super) fn address(&mut self, key: Key, ip: Option<IpAddr>) {
        if let Some(ip) = ip {
            self.quoted(key);
            model::write_ip(self.out, ip);
            self.out.push(b'"');
        }
    }

    /// An address and its port.
    pub(super) fn socket_address(&mut self, key: Key, addr: Option<SocketAddr>) {
        if let Some(addr) = addr {
            self.quoted(key);
            model::write_socket_addr(self.out, addr);
            self.out.push(b'"');
        }
    }

    /// A whole number.
    pub(super) fn number(&mut self, key: Key, value: Option<u64>) {
        if let Some(value) = value {
            self.bare(key);
            self.out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
        }
    }

    /// A duration in seconds, to the microsecond.
    pub(super) fn seconds(&mut self, key: Key, value: Option<Duration>) {
        if let Some(value) = value {
            self.bare(key);
            seconds(self.out, value);
        }
    }

    /// Bytes in lower-case hexadecimal.
    pub(super) fn hex(&mut self, key: Key, value: Option<&[u8]>) {
        if let Some(value) = value {
            self.quoted(key);
            let digit = |n: u8| b"0123456789abcdef"[usize::from(n)];
            self.out.extend(value.iter().flat_map(|b| [digit(b >> 4), digit(b & 0xf)]));
            self.out.push(b'"');
        }
    }

    pub(super) fn end(self) {
        self.out.push(b'}');
    }
}

/// Seconds with six decimals.
pub(super) fn seconds(out: &mut Vec<u8>, value: Duration) {
    let mut digits = itoa::Buffer::new();
    out.extend_from_slice(digits.format(value.as_secs()).as_bytes());
    out.push(b'.');
    let micros = digits.format(1_000_000 + value.subsec_micros());
    out.extend_from_slice(&micros.as_bytes()[1..]);
}
