//! A ClientHello read without answering it (RFC 8446, 4.1.2): whom the caller asks for, and what it wants to speak.

/// What is known of a caller's first bytes of TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hello {
    /// More bytes are needed.
    Incomplete,
    /// No ClientHello, or none that can be read.
    Unreadable,
    /// A ClientHello.
    Whole(ClientHello),
}

/// What a ClientHello asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientHello {
    /// The host (RFC 6066, 3) in lower case: letters, digits, hyphens, underscores and dots.
    pub server_name: Option<String>,
    /// Protocols, the most wanted first (RFC 7301); at most 16.
    pub alpn: Vec<Vec<u8>>,
}

/// Bytes of a ClientHello at most; a post-quantum one has about 1,700.
const LONGEST: usize = 64 * 1024;
const PROTOCOLS: usize = 16;

/// Reads a ClientHello from the bytes of a connection's beginning. It may span records and segments.
pub fn client_hello(bytes: &[u8]) -> Hello {
    let message = match handshake_message(bytes) {
        Ok(Some(message)) => message,
        Ok(None) => return Hello::Incomplete,
        Err(Malformed) => return Hello::Unreadable,
    };
    match read(&message) {
        Ok(hello) => Hello::Whole(hello),
        Err(Malformed) => Hello::Unreadable,
    }
}

struct Malformed;

/// The body of the first handshake message, put together from its records; none until it is whole.
fn handshake_message(mut bytes: &[u8]) -> Result<Option<Vec<u8>>, Malformed> {
    const CLIENT_HELLO: u8 = 1;
    let mut message = Vec::new();
    loop {
        if let [kind, a, b, c, body @ ..] = &message[..] {
            let length = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
            if *kind != CLIENT_HELLO || length > LONGEST {
                return Err(Malformed);
            }
            if let Some(whole) = body.get(..length) {
                return Ok(Some(whole.to_vec()));
            }
        }
        match bytes {
            [0x16, 3, _, a, b, rest @ ..] => {
                let length = usize::from(*a) << 8 | usize::from(*b);
                if length == 0 || length > 1 << 14 {
                    return Err(Malformed);
                }
                let fragment = &rest[..length.min(rest.len())];
                message.extend_from_slice(fragment);
                bytes = &rest[fragment.len()..];
                if fragment.len() < length && bytes.is_empty() {
                    return if message.first().is_none_or(|kind| *kind == CLIENT_HELLO) {
                        Ok(None)
                    } else {
                        Err(Malformed)
                    };
                }
            }
            [] | [0x16] | [0x16, 3] | [0x16, 3, _] | [0x16, 3, _, _] => return Ok(None),
            _ => return Err(Malformed),
        }
    }
}

/// Reads the message's body.
fn read(body: &[u8]) -> Result<ClientHello, Malformed> {
    let mut rest = Reader(body);
    rest.take(2 + 32)?;
    rest.vector(1)?;
    rest.vector(2)?;
    rest.vector(1)?;
    let mut hello = ClientHello::default();
    if rest.0.is_empty() {
        // TLS 1.2 allows a hello without extensions.
        return Ok(hello);
    }
    let mut extensions = Reader(rest.vector(2)?);
    if !rest.0.is_empty() {
        return Err(Malformed);
    }
    let mut seen = (false, false);
    while !extensions.0.is_empty() {
        let kind = extensions.number()?;
        let data = extensions.vector(2)?;
        match kind {
            0 if !std::mem::replace(&mut seen.0, true) => hello.server_name = server_name(data)?,
            16 if !std::mem::replace(&mut seen.1, true) => hello.alpn = protocols(data)?,
            // Twice is not allowed, and would be read one way here and another there.
            0 | 16 => return Err(Malformed),
            _ => {}
        }
    }
    Ok(hello)
}

fn server_name(data: &[u8]) -> Result<Option<String>, Malformed> {
    let mut names = Reader(Reader(data).whole_vector()?);
    let kind = names.take(1)?[0];
    let name = names.vector(2)?;
    let legal = |b: &u8| b.is_ascii_alphanumeric() || b"-_.".contains(b);
    if kind != 0 || !names.0.is_empty() || name.is_empty() || name.len() > 253 || !name.iter().all(legal) {
        return Err(Malformed);
    }
    Ok(std::str::from_utf8(name).ok().map(str::to_ascii_lowercase))
}

fn protocols(data: &[u8]) -> Result<Vec<Vec<u8>>, Malformed> {
    let mut list = Reader(Reader(data).whole_vector()?);
    let mut protocols = Vec::new();
    while !list.0.is_empty() {
        let protocol = list.vector(1)?;
        if protocol.is_empty() || protocols.len() == PROTOCOLS {
            return Err(Malformed);
        }
        protocols.push(protocol.to_vec());
    }
    Ok(protocols)
}

/// Bytes read from the front, never beyond their end.
struct Reader<'b>(&'b [u8]);

impl<'b> Reader<'b> {
    fn take(&mut self, n: usize) -> Result<&'b [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(n).ok_or(Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn number(&mut self) -> Result<u16, Malformed> {
        let bytes = self.take(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    /// A vector whose length has so many bytes, one or two.
    fn vector(&mut self, length_bytes: usize) -> Result<&'b [u8], Malformed> {
        let length = self.take(length_bytes)?.iter().fold(0, |n, b| n << 8 | usize::from(*b));
        self.take(length)
    }

    /// A vector that is all there is.
    fn whole_vector(&mut self) -> Result<&'b [u8], Malformed> {
        let vector = self.vector(2)?;
        if self.0.is_empty() { Ok(vector) } else { Err(Malformed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A hello as rustls makes it.
    fn hello(name: &str, alpn: &[&str]) -> Vec<u8> {
        let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|p| p.as_bytes().to_vec()).collect();
        let name = rustls::pki_types::ServerName::try_from(name.to_owned()).unwrap();
        let mut client = rustls::ClientConnection::new(config.into(), name).unwrap();
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        bytes
    }

    fn whole(name: Option<&str>, alpn: &[&str]) -> Hello {
        let alpn = alpn.iter().map(|p| p.as_bytes().to_vec()).collect();
        Hello::Whole(ClientHello { server_name: name.map(Into::into), alpn })
    }

    /// The same message in records of one byte each.
    fn in_pieces(bytes: &[u8]) -> Vec<u8> {
        let mut pieces = Vec::new();
        let mut rest = bytes;
        while let [kind, major, minor, a, b, body @ ..] = rest {
            let length = usize::from(*a) << 8 | usize::from(*b);
            body[..length].iter().for_each(|byte| pieces.extend([*kind, *major, *minor, 0, 1, *byte]));
            rest = &body[length..];
        }
        pieces
    }

    #[test]
    fn hellos_are_read_however_they_are_cut() {
        for (name, told, alpn) in [
            ("Shop.Example", Some("shop.example"), &["h2", "http/1.1"][..]),
            ("db", Some("db"), &[]),
            ("192.0.2.1", None, &["outrigger-tcp/1"]),
        ] {
            let bytes = hello(name, alpn);
            for bytes in [bytes.clone(), in_pieces(&bytes)] {
                for n in 0..bytes.len() {
                    assert_eq!(client_hello(&bytes[..n]), Hello::Incomplete, "{name} after {n} bytes");
                }
                assert_eq!(client_hello(&bytes), whole(told, alpn));
                let more = [&bytes[..], b"\x17\x03\x03\x00\x01x"].concat();
                assert_eq!(client_hello(&more), whole(told, alpn));
            }
        }
    }

    #[test]
    fn a_byte_changed_anywhere_is_never_a_panic() {
        let bytes = hello("shop.example", &["h2"]);
        for i in 0..bytes.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut changed = bytes.clone();
                changed[i] = value;
                let _ = client_hello(&changed);
            }
        }
    }

    #[test]
    fn what_is_no_hello_is_unreadable() {
        for bytes in [
            &b"\x15\x03\x01\x00\x02\x01\x00"[..],
            b"\x16\x02\x01\x00\x05",
            b"\x16\x03\x01\x00\x00",
            b"\x16\x03\x01\x00\x04\x02\x00\x00\x00",
            b"\x16\x03\x01\x00\x05\x01\x02\x00\x00\x00",
            b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03",
            b"GET / HTTP/1.1\r\n",
        ] {
            assert_eq!(client_hello(bytes), Hello::Unreadable, "{bytes:x?}");
        }
    }
}
